package admission

import (
	"context"
	"slices"

	"github.com/gofanout/fanout/internal/handling"
	"github.com/gofanout/fanout/internal/message"
	"github.com/gofanout/fanout/internal/offer"
	"github.com/gofanout/fanout/internal/routing"
)

// What a topic takes, by its state.

type topicState uint8

const (
	topicOpen    topicState = iota
	topicClosing            // Shutdown was called: new messages come from handlers only
	topicClosed
)

// IsOpenLocked reports whether the topic has not begun to end.
func (a *Admission[T]) IsOpenLocked() bool { return a.state == topicOpen }

// IsClosedLocked reports whether the topic is closed.
func (a *Admission[T]) IsClosedLocked() bool { return a.state == topicClosed }

// mayPublishLocked reports whether the topic's state lets a publish in, whose
// context comes from run r, nil if it comes from no handler.
func (a *Admission[T]) mayPublishLocked(r *handling.Run) bool {
	switch a.state {
	case topicOpen:
		return true
	case topicClosing:
		if r == nil {
			return false
		}
		in := r.Topic()
		return in != nil && slices.ContainsFunc(a.endsWith, func(with map[any]bool) bool { return with[in] })
	}
	return false
}

// takesLocked reports whether the topic's state lets an offer of run r in.
func (a *Admission[T]) takesLocked(o *offer.Offer[T], r *handling.Run) bool {
	return a.state == topicOpen || o.Redrive == nil && a.mayPublishLocked(r)
}

// BeginClosingLocked has publishes accepted from running handlers of the topics in with only,
// and no redrives. What it returns tells those who waited and are refused; no lock is held
// then. It changes nothing if the topic is closed.
func (a *Admission[T]) BeginClosingLocked(with map[any]bool) (tell func()) {
	if a.state == topicClosed {
		return func() {}
	}
	a.state = topicClosing
	a.endsWith = append(a.endsWith, with)
	return a.refuseWaitersLocked()
}

// CloseLocked has nothing accepted any more, and forgets all that it has. What it returns
// tells those who waited; no lock is held then. The queues are closed after it.
func (a *Admission[T]) CloseLocked() (tell func()) {
	a.state = topicClosed
	tell = a.refuseWaitersLocked()
	a.endsWith = nil
	a.lines.Forget()
	a.open, a.directs, a.short = routing.List[T]{}, 0, nil
	a.routes.Forget()
	a.stopDedupLocked()
	a.retained.ring, a.retained.next = nil, 0 // the size is read without the lock
	a.log.Forget()                            // nothing is appended any more
	return tell
}

// refuseWaitersLocked decides about the waiters whom the topic's state does not let
// in. What it returns tells them.
func (a *Admission[T]) refuseWaitersLocked() (tell func()) {
	var refused []*waiter[T]
	for w := range a.everyWaiter() {
		if !a.takesLocked(w.Offer, w.run) {
			w.err = message.ErrClosed
			refused = append(refused, w)
		}
	}
	for _, w := range refused {
		a.leaveLocked(w)
	}
	return func() {
		for _, w := range refused {
			close(w.decided)
		}
	}
}

// Stamp gives items that an engine is about to get numbers and times. It returns ErrClosed if
// the topic does not take them.
func (a *Admission[T]) Stamp(ctx context.Context, items []message.Item[T]) error {
	a.Mu.Lock()
	may := a.mayPublishLocked(nil)
	if a.state == topicClosing { // a handler may
		a.Mu.Unlock()
		run := handling.RunOf(ctx) // asks the user's context: without a lock
		a.Mu.Lock()
		may = a.mayPublishLocked(run)
	}
	defer a.Mu.Unlock()
	if !may {
		return message.ErrClosed
	}
	at := a.timeOf(a.Now())
	for k := range items {
		a.seq++
		items[k].Seq, items[k].At = a.seq, at
	}
	return nil
}
