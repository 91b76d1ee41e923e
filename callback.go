package fanout

import "log/slog"

// A callEnd is how a call of the user's code ended. If it neither returned nor
// panicked, it ended its goroutine by runtime.Goexit.
type callEnd struct {
	returned bool
	panicked any
	stack    string
}

// cause is what the end of a call that did not return counts as.
func (e callEnd) cause() Cause {
	if e.panicked != nil {
		return Panicked
	}
	return Exited
}

// apart runs f in a goroutine of its own and waits for it, so that neither a panic
// nor runtime.Goexit in f reaches the caller, who has something to finish. No lock
// is held. It is for what is called seldom: it costs about a microsecond.
func apart(f func()) (e callEnd) {
	done := make(chan struct{})
	go e.run(f, done)
	<-done
	return e
}

// run calls f and closes done, however f ends. It is started by apart, which waits
// for done.
func (e *callEnd) run(f func(), done chan<- struct{}) {
	defer close(done)
	defer func() {
		if e.returned {
			return
		}
		if e.panicked = recover(); e.panicked != nil {
			e.stack = stack()
		}
	}()
	f()
	e.returned = true
}

// logApart logs, whatever the logger does.
func (c *core) logApart(line string, attrs ...slog.Attr) {
	apart(func() { c.log(line, attrs...) })
}

// each calls f for 0 to n-1. If a call ends the goroutine, by a hook or a logger of
// the user's, the others are made as it ends.
func each(n int, f func(k int)) { eachFrom(0, n, f) }

func eachFrom(k, n int, f func(k int)) {
	defer func() {
		if k < n {
			eachFrom(k, n, f)
		}
	}()
	for k < n {
		k++
		f(k - 1)
	}
}
