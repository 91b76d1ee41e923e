package queue

// A receiver waits in Receive. Its channel holds one token once it has been woken. It
// is made anew for each wait: a channel that was made in a bubble of
// testing/synctest can't be used outside of it. The rest is used again.
type receiver struct {
	woken          chan struct{}
	listed         bool
	before, behind *receiver
}

// receivers are a queue's receivers in the order of their arrival. Its Mu guards them.
type receivers struct {
	first, last *receiver
	spare       *receiver // to be used again, if there is one
	N           int32     // in the list
}

// make returns a receiver that is not listed.
func (l *receivers) make() *receiver {
	r := l.spare
	if r == nil {
		r = new(receiver)
	} else {
		l.spare = nil
	}
	r.woken = make(chan struct{}, 1)
	return r
}

// done says that r, which is not listed, is of no more use to who made it.
func (l *receivers) done(r *receiver) {
	r.woken = nil
	l.spare = r
}

// add puts r at the end.
func (l *receivers) add(r *receiver) {
	r.listed, r.before = true, l.last
	if l.last == nil {
		l.first = r
	} else {
		l.last.behind = r
	}
	l.last = r
	l.N++
}

// addFirst puts r at the front.
func (l *receivers) addFirst(r *receiver) {
	r.listed, r.behind = true, l.first
	if l.first == nil {
		l.last = r
	} else {
		l.first.before = r
	}
	l.first = r
	l.N++
}

// remove takes r out of the list, if it is there.
func (l *receivers) remove(r *receiver) {
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
func (l *receivers) Wake() bool {
	r := l.first
	if r == nil {
		return false
	}
	l.remove(r)
	r.woken <- struct{}{} // has room: a receiver is in the list without a token
	return true
}
