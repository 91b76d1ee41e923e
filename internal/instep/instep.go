// Package instep has the atomic number, 64 bits, that says where a consumer stands among the
// messages it has prefetched: which is the current one, how many wait behind it, and whether
// the current one is acknowledged or detached.
//
// It promises that each message has one owner: of all who acknowledge the current message,
// detach it, step on from it or take back what waits exactly one succeeds. Each of these is one
// compare-and-swap.
//
// A Word belongs to one consumer, who goes on in it without a lock (Step, Advance). Anyone may
// acknowledge its current message without one (AckCurrent). All else is done with the lock held
// that guards what the messages are in. So a message that is over does not change any more
// while that lock is held, and what waits becomes less or stays. Here is no lock, clock or
// goroutine.
package instep

import "sync/atomic"

// A Place is what a Word says. Zero: nobody is in step.
type Place = place[struct{}]

// A place is generic only so that the compiler inlines its methods in the programs of users:
// of a package that they don't import themselves it inlines nothing but what is generic. The
// same holds for a word.
type place[_ any] uint64

const (
	acked    = 1
	detached = 2
	over     = acked | detached
	waiter   = 4
	step     = 1024
)

// Stamp is that of the current message.
func (p place[_]) Stamp() uint64 { return uint64(p / step) }

// Waiting is how many messages wait behind the current one.
func (p place[_]) Waiting() int { return int(p % step / waiter) }

// Last is p as if nothing waited: there is no step from it.
func (p place[T]) Last() place[T] { return p - p%step + p&over }

// Over reports whether the current message is acknowledged or detached.
func (p place[_]) Over() bool { return p&over != 0 }

// Acked reports whether the current message is acknowledged.
func (p place[_]) Acked() bool { return p&over == acked }

// Detached reports whether the current message is taken out of step: who has it settles it in
// another way.
func (p place[_]) Detached() bool { return p&over == detached }

// A Word has the place of one consumer.
type Word = word[struct{}]

type word[T any] struct{ at atomic.Uint64 }

// Place reads the word. Anyone may call it.
func (w *word[T]) Place() place[T] { return place[T](w.at.Load()) }

func (w *word[T]) swap(from, to place[T]) bool {
	return w.at.CompareAndSwap(uint64(from), uint64(to))
}

// Step says that the current message is acknowledged and the next one begun: all
// that a worker's message costs. It fails if p is no longer the place, or
// nothing waits: the consumer then has to look, under the lock. Only the
// consumer calls it; it needs no lock.
func (w *word[T]) Step(p place[T]) (place[T], bool) {
	if p&over != 0 || p.Waiting() == 0 {
		return p, false
	}
	to := p + step - waiter
	return to, w.swap(p, to)
}

// AckCurrent acknowledges the current message, if it has the given stamp and
// something waits behind it, and reports whether it has. The last message is
// acknowledged by Ack: somebody may wait for its end. Anyone may
// call it without the lock, for a word that has long been given to another
// consumer too.
func (w *word[T]) AckCurrent(stamp uint64) bool {
	p := w.Place()
	return p.Stamp() == stamp && p&over == 0 && p.Waiting() > 0 && w.swap(p, p|acked)
}

// Advance begins the next message if the current one is acknowledged and
// something waits. Only the consumer calls it; it needs no lock.
func (w *word[T]) Advance() (place[T], bool) {
	p := w.Place()
	if p&over != acked || p.Waiting() == 0 {
		return p, false
	}
	to := p - acked - waiter + step
	return to, w.swap(p, to)
}

// The rest is called with the lock held. The consumer may step on meanwhile, and others
// acknowledge.

// Begin makes the message with the given stamp, which is not 0, the current one. At most 255
// wait behind it, whose stamps follow.
func (w *word[T]) Begin(stamp uint64, waiting int) {
	w.at.Store(uint64(place[T](stamp)*step + place[T](waiting)*waiter))
}

// Leave says that nobody is in step any more.
func (w *word[T]) Leave() { w.at.Store(0) }

// Ack acknowledges the message with the given stamp, and reports whether it was the current one
// and not over.
func (w *word[T]) Ack(stamp uint64) bool {
	for p := w.Place(); p.Stamp() == stamp && p&over == 0; p = w.Place() {
		if w.swap(p, p|acked) {
			return true
		}
	}
	return false
}

// DetachOf is Detach, if the current message is the one with the given stamp.
func (w *word[T]) DetachOf(stamp uint64) bool {
	for p := w.Place(); p.Stamp() == stamp && p&over == 0; p = w.Place() {
		if w.swap(p, p|detached) {
			return true
		}
	}
	return false
}

// Detach takes the current message out of step, unless it is over, and reports whether it has.
// It returns the place in which the message was found.
func (w *word[T]) Detach() (p place[T], ok bool) {
	for p = w.Place(); p != 0 && p&over == 0; p = w.Place() {
		if w.swap(p, p|detached) {
			return p, true
		}
	}
	return p, false
}

// Next begins the next message, if the current one is over and something waits, and reports
// whether it has: Advance for a consumer that holds the lock.
func (w *word[T]) Next() bool {
	p := w.Place()
	if p&over == 0 || p.Waiting() == 0 {
		return false
	}
	w.at.Store(uint64(p&^over - waiter + step)) // nobody else changes a word that is over, but for TakeBack
	return true
}

// TakeBack says that nothing waits any more, and returns the place in which something did: what
// waited there will not be begun.
func (w *word[T]) TakeBack() place[T] {
	p := w.Place()
	for p.Waiting() > 0 && !w.swap(p, p.Last()) {
		p = w.Place()
	}
	return p
}
