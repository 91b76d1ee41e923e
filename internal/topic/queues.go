package topic

import (
	"context"
	"fmt"

	"github.com/gofanout/fanout/internal/callback"
	"github.com/gofanout/fanout/internal/enginequeue"
	"github.com/gofanout/fanout/internal/lifecycle"
	"github.com/gofanout/fanout/internal/notice"
	"github.com/gofanout/fanout/internal/queue"
	"github.com/gofanout/fanout/internal/view"
)

// EndQueue closes a queue in memory. If it is to be deleted nothing of it is left.
func (t *Topic[T]) EndQueue(q *queue.Queue[T], deleting bool) error {
	t.In.Mu.Lock()
	if q.Store.Letters && !q.Source.Closing {
		t.In.Mu.Unlock()
		return lifecycle.SourceIsOpen(q, deleting)
	}
	over := t.In.IsClosedLocked() // and q with it
	if !deleting && (over || q.Closing) {
		t.In.Mu.Unlock()
		return nil
	}
	if !over {
		t.In.Live.Add(1) // a reporter may arm a timer until it is stopped
	}
	first := !over && !q.Closing
	q.Closing = true
	lifecycle.CloseNow(q, deleting)
	ended := []*queue.Queue[T]{q}
	if d := lifecycle.DeadIfAny(q); d != nil && d.Source == q { // else it is another queue's now
		switch {
		case deleting:
			lifecycle.CloseNow(d, true)
			t.forgetOrphanLocked(d)
			ended = append(ended, d)
		case first:
			t.keepOrphanLocked(d)
		}
	}
	if first {
		t.removeLocked(q)
		t.In.TurnsWithoutLocked(q)
	}
	if !over {
		defer t.In.Release()
	}
	defer callback.Each(len(ended), func(k int) { ended[k].Report.Stop() })
	t.In.Unlock()
	return nil
}

// removeLocked takes a queue that was closed out of the topic.
func (t *Topic[T]) removeLocked(q *queue.Queue[T]) {
	if q.Store.Letters {
		t.forgetOrphanLocked(q)
		return
	}
	delete(t.queues, q.Name())
	t.In.RemoveLocked(q)
}

// keepOrphanLocked keeps the dead-letter queue of a queue that was closed.
func (t *Topic[T]) keepOrphanLocked(d *queue.Queue[T]) {
	if t.orphans == nil {
		t.orphans = make(map[string]*queue.Queue[T])
	}
	t.orphans[d.Name()] = d
}

// TakeOrphanLocked returns the orphan of that name, if there is one, which is then no
// orphan any more.
func (t *Topic[T]) TakeOrphanLocked(name string) *queue.Queue[T] {
	d := t.orphans[name]
	delete(t.orphans, name)
	return d
}

func (t *Topic[T]) forgetOrphanLocked(d *queue.Queue[T]) {
	if t.orphans[d.Name()] == d {
		delete(t.orphans, d.Name())
	}
}

// ListQueues returns what each of the topic's queues holds, in the order of their names. On
// an engine it asks the engine.
func (t *Topic[T]) ListQueues(ctx context.Context) ([]view.Depth, error) {
	var ds []view.Depth
	if t.remote == nil {
		for _, q := range t.Queues() {
			ds = append(ds, view.DepthHere(q))
		}
		return ds, nil
	}
	infos, err := t.remote.List(ctx)
	if err != nil {
		return nil, fmt.Errorf("fanout: queues of topic %q: %w", t.In.TopicName, err)
	}
	for _, i := range infos {
		ds = append(ds, enginequeue.DepthOf(i))
	}
	return ds, nil
}

// Made reports whether NewTopic made the topic.
func (t *Topic[T]) Made() bool { return t.In.Core != nil }

// Engine is the name of the topic's engine, empty in memory.
func (t *Topic[T]) Engine() string {
	if t.remote == nil {
		return ""
	}
	return t.remote.Engine.Name()
}

// Tap adds listeners to a topic that is in use, until stop is called.
func (t *Topic[T]) Tap(listeners [notice.Kinds]func(*notice.Event)) (stop func()) {
	return t.In.To.Tap(listeners)
}
