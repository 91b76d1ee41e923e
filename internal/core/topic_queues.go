package core

import (
	"context"
	"fmt"

	"github.com/gofanout/fanout/internal/callback"
	"github.com/gofanout/fanout/internal/notice"
)

// endQueue closes a queue in memory. If it is to be deleted nothing of it is left.
func (t *Topic[T]) endQueue(q *Queue[T], deleting bool) error {
	t.mu.Lock()
	if q.letters && !q.source.gone {
		t.mu.Unlock()
		return errOpenSource(q, deleting)
	}
	over := t.state == topicClosed // and q with it
	if !deleting && (over || q.gone) {
		t.mu.Unlock()
		return nil
	}
	if !over {
		t.live.Add(1) // a reporter may arm a timer until it is stopped
	}
	first := !over && !q.gone
	q.gone = true
	q.closeNow(deleting)
	ended := []*Queue[T]{q}
	if d := q.deadIfAny(); d != nil && d.source == q { // else it is another queue's now
		switch {
		case deleting:
			d.closeNow(true)
			t.forgetOrphanLocked(d)
			ended = append(ended, d)
		case first:
			t.keepOrphanLocked(d)
		}
	}
	if first {
		t.removeLocked(q)
		t.turnsWithoutLocked(q)
	}
	if !over {
		defer t.release()
	}
	defer callback.Each(len(ended), func(k int) { ended[k].report.Stop() })
	t.unlock()
	return nil
}

// removeLocked takes a queue that was closed out of the topic.
func (t *Topic[T]) removeLocked(q *Queue[T]) {
	if q.letters {
		t.forgetOrphanLocked(q)
		return
	}
	delete(t.queues, q.name)
	if q.filters != nil {
		t.removeFilteredLocked(q)
	} else {
		t.removeOpenLocked(q)
	}
}

// keepOrphanLocked keeps the dead-letter queue of a queue that was closed.
func (t *Topic[T]) keepOrphanLocked(d *Queue[T]) {
	if t.orphans == nil {
		t.orphans = make(map[string]*Queue[T])
	}
	t.orphans[d.name] = d
}

// takeOrphanLocked returns the orphan of that name, if there is one, which is then no
// orphan any more.
func (t *Topic[T]) takeOrphanLocked(name string) *Queue[T] {
	d := t.orphans[name]
	delete(t.orphans, name)
	return d
}

func (t *Topic[T]) forgetOrphanLocked(d *Queue[T]) {
	if t.orphans[d.name] == d {
		delete(t.orphans, d.name)
	}
}

// ListQueues returns what each of the topic's queues holds, in the order of their names. On
// an engine it asks the engine.
func (t *Topic[T]) ListQueues(ctx context.Context) ([]Depth, error) {
	var ds []Depth
	if t.remote == nil {
		for _, q := range t.Queues() {
			ds = append(ds, q.depth())
		}
		return ds, nil
	}
	infos, err := t.remote.list(ctx)
	if err != nil {
		return nil, fmt.Errorf("fanout: queues of topic %q: %w", t.name, err)
	}
	for _, i := range infos {
		ds = append(ds, remoteDepth(i))
	}
	return ds, nil
}

// Made reports whether NewTopic made the topic.
func (t *Topic[T]) Made() bool { return t.core != nil }

// Engine is the name of the topic's engine, empty in memory.
func (t *Topic[T]) Engine() string {
	if t.remote == nil {
		return ""
	}
	return t.remote.Engine.Name()
}

// Tap adds listeners to a topic that is in use, until stop is called.
func (t *Topic[T]) Tap(listeners [notice.Kinds]func(*notice.Event)) (stop func()) {
	return t.to.Tap(listeners)
}
