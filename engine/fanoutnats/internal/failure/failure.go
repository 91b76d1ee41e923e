// Package failure keeps what a server in this process has failed at, for calls that it
// does not answer therefore.
package failure

import (
	"sync"
	"time"
)

// A Source is the client of a server in this process. An engine that is made on it ends
// calls that are not answered with the server's failure.
type Source interface {
	Failures() *Last
}

// A Last is the last failure. It lasts until it is over. The zero Last is none. Its
// methods may be called concurrently.
type Last struct {
	// Look, if it is not nil, sees whether the server could write n bytes, and sets the
	// failure if it couldn't. It does not change.
	Look func(n int64)

	mu   sync.Mutex // guards the fields below
	err  error
	over time.Time // zero while it lasts
}

// Set notes a failure.
func (l *Last) Set(err error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.err, l.over = err, time.Time{}
}

// Last returns the last failure, nil if there was none.
func (l *Last) Last() error {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.err
}

// Over says that failure is over, unless there was another one since.
func (l *Last) Over(failure error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.err == failure {
		l.over = time.Now()
	}
}

// After returns the failure that lasts, for one who could not have n bytes written since t
// and was told nothing of a failure.
func (l *Last) After(t time.Time, n int64) error {
	if l != nil && l.Look != nil && l.Since(t) == nil {
		l.Look(n)
	}
	return l.Since(t)
}

// Lasting returns the failure that lasts, nil if none does. A nil Last has none.
func (l *Last) Lasting() error {
	if l == nil {
		return nil
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	if !l.over.IsZero() {
		return nil
	}
	return l.err
}

// Since returns the last failure if it lasts, or lasted at t or later, and nil else. A nil
// Last has none.
func (l *Last) Since(t time.Time) error {
	if l == nil {
		return nil
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.err == nil || !l.over.IsZero() && l.over.Before(t) {
		return nil
	}
	return l.err
}
