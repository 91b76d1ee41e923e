package topic

import (
	"errors"
	"fmt"
)

// Check returns an error if an invariant that stands above Topic, Queue or waitLines does not
// hold. It is for tests. Nothing else may run on the topic meanwhile but consumers.
func (t *Topic[T]) Check() error {
	t.Mu.Lock()
	defer t.Mu.Unlock()
	if head := t.log.Head(); head != t.log.Published() {
		return fmt.Errorf("the log has %d, %d are published", head, t.log.Published())
	}
	if t.Pending.Any() || t.RoomMade != nil {
		return errors.New("something was not told")
	}
	if err := t.checkWaitersLocked(); err != nil {
		return err
	}
	for _, q := range t.queues {
		if err := q.Check(); err != nil {
			return err
		}
		if q.Log == t.log && t.limit > q.Allow.Load() {
			return fmt.Errorf("queue %q allows %d, the topic's limit is %d", q.QueueName, q.Allow.Load(), t.limit)
		}
		if d := q.DeadNow(); d != nil {
			if err := d.Check(); err != nil {
				return err
			}
		}
	}
	return nil
}

// checkWaitersLocked checks the lines of those who wait for room.
func (t *Topic[T]) checkWaitersLocked() error {
	waiting, inHandlers := 0, 0
	for w := range t.everyWaiter() {
		waiting++
		if w.run != nil {
			inHandlers++
		}
		if len(w.places) == 0 {
			return errors.New("one who waits stands nowhere")
		}
		for k := range w.places {
			if err := w.checkPlace(&w.places[k]); err != nil {
				return err
			}
		}
	}
	if waiting != t.waiting || inHandlers != t.inHandlers {
		return fmt.Errorf("%d wait, %d in handlers; counted are %d and %d", waiting, inHandlers, t.waiting, t.inHandlers)
	}
	for id, l := range t.wanted {
		if l.first == nil {
			return fmt.Errorf("nobody wants ID %q any more", id)
		}
	}
	return nil
}

func (w *waiter[T]) checkPlace(p *standing[T]) error {
	switch {
	case p.w != w:
		return errors.New("a place is another's")
	case p.in == nil && p.q == nil:
		return errors.New("a line was left that is not that of a queue which is gone")
	case p.in == nil:
		return nil
	case p.before == nil && p.in.first != p, p.before != nil && p.before.behind != p, p.behind == nil && p.in.last != p:
		return errors.New("a line is broken")
	case p.before != nil && p.before.w.number >= w.number:
		return errors.New("a line is not in the order of arrival")
	}
	return nil
}
