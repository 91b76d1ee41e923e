package waitline

import (
	"errors"
	"fmt"
)

// Check returns an error if an invariant that stands above Lines does not hold, as far as it
// can be seen without the offers. It is for tests.
func (l *Lines) Check() error {
	waiting, inHandlers := 0, 0
	for w := range l.All() {
		waiting++
		if w.InHandler {
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
	if waiting != l.waiting || inHandlers != l.inHandlers {
		return fmt.Errorf("%d wait, %d in handlers; counted are %d and %d", waiting, inHandlers, l.waiting, l.inHandlers)
	}
	for id, in := range l.wanted {
		if in.first == nil {
			return fmt.Errorf("nobody wants ID %q any more", id)
		}
	}
	return nil
}

func (w *Waiter) checkPlace(p *place) error {
	switch {
	case p.w != w:
		return errors.New("a place is another's")
	case p.in == nil && p.q == nil:
		return errors.New("a line was left that is not that of a queue")
	case p.in == nil:
		return nil
	case p.before == nil && p.in.first != p, p.before != nil && p.before.behind != p, p.behind == nil && p.in.last != p:
		return errors.New("a line is broken")
	case p.before != nil && p.before.w.number >= w.number:
		return errors.New("a line is not in the order of arrival")
	}
	return nil
}
