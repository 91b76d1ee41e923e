package consumers

import (
	"context"
)

// A Receiver waits in Receive. Its channel holds one token once it has been woken. It
// is made anew for each wait: a channel that was made in a bubble of
// testing/synctest can't be used outside of it. The rest is used again.
type Receiver struct {
	woken          chan struct{}
	listed         bool
	before, behind *Receiver
}

// A Line is a queue's receivers in the order of their arrival. The queue's lock guards it.
type Line struct {
	first, last *Receiver
	spare       *Receiver // to be used again, if there is one
	N           int32     // in the list
}

// Make returns a receiver that is not listed.
func (l *Line) Make() *Receiver {
	r := l.spare
	if r == nil {
		r = new(Receiver)
	} else {
		l.spare = nil
	}
	r.woken = make(chan struct{}, 1)
	return r
}

// Done says that r, which is not listed, is of no more use to who made it.
func (l *Line) Done(r *Receiver) {
	r.woken = nil
	l.spare = r
}

// Add puts r at the end.
func (l *Line) Add(r *Receiver) {
	r.listed, r.before = true, l.last
	if l.last == nil {
		l.first = r
	} else {
		l.last.behind = r
	}
	l.last = r
	l.N++
}

// AddFirst puts r at the front.
func (l *Line) AddFirst(r *Receiver) {
	r.listed, r.behind = true, l.first
	if l.first == nil {
		l.last = r
	} else {
		l.first.before = r
	}
	l.first = r
	l.N++
}

// Remove takes r out of the list, if it is there.
func (l *Line) Remove(r *Receiver) {
	if !r.listed {
		return
	}
	if r.before == nil {
		l.first = r.behind
	} else {
		r.before.behind = r.behind
	}
	if r.behind == nil {
		l.last = r.before
	} else {
		r.behind.before = r.before
	}
	r.listed, r.before, r.behind = false, nil, nil
	l.N--
}

// Wake wakes the first, and reports whether there was one.
func (l *Line) Wake() bool {
	r := l.first
	if r == nil {
		return false
	}
	l.Remove(r)
	r.woken <- struct{}{} // has room: a receiver is in the list without a token
	return true
}

// Wait waits until r has been woken or ctx has ended.
func (r *Receiver) Wait(ctx context.Context) {
	done := ctx.Done()
	if done == nil { // a select costs several times as much
		<-r.woken
		return
	}
	select {
	case <-r.woken:
	case <-done:
	}
}
