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

// A Last is the last failure. The zero Last is none. Its methods may be called
// concurrently.
type Last struct {
	mu  sync.Mutex // guards the fields below
	at  time.Time
	err error
}

// Set notes a failure of now.
func (l *Last) Set(err error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.at, l.err = time.Now(), err
}

// Since returns the last failure if it was at t or later, and nil else. A nil Last has
// none.
func (l *Last) Since(t time.Time) error {
	if l == nil {
		return nil
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.err == nil || l.at.Before(t) {
		return nil
	}
	return l.err
}
