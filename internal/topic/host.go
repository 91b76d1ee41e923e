package topic

import (
	"context"

	"github.com/gofanout/fanout/internal/handling"
	"github.com/gofanout/fanout/internal/message"
	"github.com/gofanout/fanout/internal/notice"
	"github.com/gofanout/fanout/internal/queue"
)

// What a topic does for its engine's side, see Host.

func (t *Topic[T]) Stamp(ctx context.Context, items []message.Item[T]) error {
	t.Mu.Lock()
	may := t.mayPublishLocked(nil)
	if t.state == topicClosing { // a handler may
		t.Mu.Unlock()
		run := handling.RunOf(ctx) // asks the user's context: without a lock
		t.Mu.Lock()
		may = t.mayPublishLocked(run)
	}
	defer t.Mu.Unlock()
	if !may {
		return message.ErrClosed
	}
	at := t.timeOf(t.Now())
	for k := range items {
		t.seq++
		items[k].Seq, items[k].At = t.seq, at
	}
	return nil
}

func (t *Topic[T]) MayOpen(name string) error {
	t.Mu.Lock()
	defer t.Mu.Unlock()
	if t.state != topicOpen {
		return message.ErrClosed
	}
	if t.queues[name] != nil {
		return nameExists(name)
	}
	return nil
}

func (t *Topic[T]) Enter(q *queue.Queue[T]) error {
	t.Mu.Lock()
	defer t.Mu.Unlock()
	if t.state != topicOpen { // closed meanwhile
		return message.ErrClosed
	}
	t.Live.Add(2)
	t.queues[q.QueueName] = q
	return nil
}

func (t *Topic[T]) Leave(q *queue.Queue[T], deleting bool) (p notice.Pending, left bool) {
	t.Mu.Lock()
	if q.Closing || t.state == topicClosed {
		t.Mu.Unlock()
		return p, false
	}
	t.Live.Add(1)
	q.Closing = true
	delete(t.queues, q.QueueName)
	q.CloseNow(deleting)
	q.Dead.CloseNow(deleting)
	t.UnlockTo(&p)
	return p, true
}

func (t *Topic[T]) QueueState(name string) (open, over bool) {
	t.Mu.Lock()
	defer t.Mu.Unlock()
	return t.queues[name] != nil, t.state == topicClosed
}

func (t *Topic[T]) HasEnded(q *queue.Queue[T]) bool {
	t.Mu.Lock()
	defer t.Mu.Unlock()
	return q.Closing
}
