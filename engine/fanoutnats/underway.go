package fanoutnats

import (
	"sync"
	"time"
)

// An underway counts what a topic's queues have under way, for the topic's Close to wait
// for: Receives and settlements that end, and requests that a server may still answer with
// messages. The zero underway has none.
type underway struct {
	mu   sync.Mutex // guards the fields below
	n    int
	idle chan struct{} // closed when n is 0; nil if nobody waits
}

func (u *underway) begin() {
	u.mu.Lock()
	defer u.mu.Unlock()
	u.n++
}

func (u *underway) end() {
	u.mu.Lock()
	defer u.mu.Unlock()
	if u.n--; u.n == 0 && u.idle != nil {
		close(u.idle)
		u.idle = nil
	}
}

// wait waits until nothing is under way, for d at most, and returns how much still is.
func (u *underway) wait(d time.Duration) (left int) {
	u.mu.Lock()
	if u.n == 0 {
		u.mu.Unlock()
		return 0
	}
	if u.idle == nil {
		u.idle = make(chan struct{})
	}
	idle := u.idle
	u.mu.Unlock()
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-idle:
	case <-timer.C:
	}
	u.mu.Lock()
	defer u.mu.Unlock()
	return u.n
}
