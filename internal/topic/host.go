package topic

import (
	"github.com/gofanout/fanout/internal/lifecycle"
	"github.com/gofanout/fanout/internal/message"
	"github.com/gofanout/fanout/internal/notice"
	"github.com/gofanout/fanout/internal/queue"
)

// What a topic does for its engine's side, see enginequeue.Host.

func (t *Topic[T]) MayOpen(name string) error {
	t.In.Mu.Lock()
	defer t.In.Mu.Unlock()
	if !t.In.IsOpenLocked() {
		return message.ErrClosed
	}
	if t.queues[name] != nil {
		return nameExists(name)
	}
	return nil
}

func (t *Topic[T]) Enter(q *queue.Queue[T]) error {
	t.In.Mu.Lock()
	defer t.In.Mu.Unlock()
	if !t.In.IsOpenLocked() { // closed meanwhile
		return message.ErrClosed
	}
	t.In.Live.Add(2)
	t.queues[q.Name()] = q
	return nil
}

func (t *Topic[T]) Leave(q *queue.Queue[T], deleting bool) (p notice.Pending, left bool) {
	t.In.Mu.Lock()
	if q.Closing || t.In.IsClosedLocked() {
		t.In.Mu.Unlock()
		return p, false
	}
	t.In.Live.Add(1)
	q.Closing = true
	delete(t.queues, q.Name())
	lifecycle.CloseNow(q, deleting)
	lifecycle.CloseNow(q.Dead, deleting)
	t.In.UnlockTo(&p)
	return p, true
}

func (t *Topic[T]) QueueState(name string) (open, over bool) {
	t.In.Mu.Lock()
	defer t.In.Mu.Unlock()
	return t.queues[name] != nil, t.In.IsClosedLocked()
}

func (t *Topic[T]) HasEnded(q *queue.Queue[T]) bool {
	t.In.Mu.Lock()
	defer t.In.Mu.Unlock()
	return q.Closing
}
