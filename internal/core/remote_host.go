package core

import (
	"context"

	"github.com/gofanout/fanout/internal/handling"
	"github.com/gofanout/fanout/internal/message"
	"github.com/gofanout/fanout/internal/notice"
)

// What a topic does for its engine's side, see remoteHost.

func (t *Topic[T]) stamp(ctx context.Context, items []item[T]) error {
	t.mu.Lock()
	may := t.mayPublishLocked(nil)
	if t.state == topicClosing { // a handler may
		t.mu.Unlock()
		run := handling.RunOf(ctx) // asks the user's context: without a lock
		t.mu.Lock()
		may = t.mayPublishLocked(run)
	}
	defer t.mu.Unlock()
	if !may {
		return message.ErrClosed
	}
	at := t.timeOf(t.now())
	for k := range items {
		t.seq++
		items[k].Seq, items[k].At = t.seq, at
	}
	return nil
}

func (t *Topic[T]) mayOpen(name string) error {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.state != topicOpen {
		return message.ErrClosed
	}
	if t.queues[name] != nil {
		return nameExists(name)
	}
	return nil
}

func (t *Topic[T]) enter(q *Queue[T]) error {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.state != topicOpen { // closed meanwhile
		return message.ErrClosed
	}
	t.live.Add(2)
	t.queues[q.name] = q
	return nil
}

func (t *Topic[T]) leave(q *Queue[T], deleting bool) (p notice.Pending, left bool) {
	t.mu.Lock()
	if q.gone || t.state == topicClosed {
		t.mu.Unlock()
		return p, false
	}
	t.live.Add(1)
	q.gone = true
	delete(t.queues, q.name)
	q.closeNow(deleting)
	q.dead.closeNow(deleting)
	t.unlockTo(&p)
	return p, true
}

func (t *Topic[T]) queueState(name string) (open, over bool) {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.queues[name] != nil, t.state == topicClosed
}

func (t *Topic[T]) hasEnded(q *Queue[T]) bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	return q.gone
}
