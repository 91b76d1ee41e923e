// Package callback calls code of the user's for those who have something to finish, however
// that code ends: by returning, by a panic, or by runtime.Goexit, which cannot be stopped.
//
// It owns nothing and has no lock. The goroutine that Apart starts ends with the call. Error
// makes an error of what was panicked with.
package callback

import "runtime/debug"

// An End is how a call ended. If it neither returned nor panicked, it ended its goroutine
// by runtime.Goexit.
type End struct {
	Returned bool
	Panicked any
	Stack    string // of the panic
}

// Apart runs f in a goroutine of its own and waits for it, so that neither a panic nor
// runtime.Goexit in f reaches the caller. No lock is held. It is for what is called
// seldom: it costs about a microsecond.
func Apart(f func()) (e End) {
	done := make(chan struct{})
	go e.run(f, done)
	<-done
	return e
}

// run calls f and closes done, however f ends. It is started by Apart, which waits for done.
func (e *End) run(f func(), done chan<- struct{}) {
	defer close(done)
	defer func() {
		if e.Returned {
			return
		}
		if e.Panicked = recover(); e.Panicked != nil {
			e.Stack = string(debug.Stack())
		}
	}()
	f()
	e.Returned = true
}

// Each calls f for 0 to n-1. If a call ends the goroutine, the others are made as it ends.
func Each(n int, f func(k int)) { from(0, n, f) }

func from(k, n int, f func(k int)) {
	defer func() {
		if k < n {
			from(k, n, f)
		}
	}()
	for k < n {
		k++
		f(k - 1)
	}
}
