// Package dedup remembers the deduplication IDs of what was published: each for a window
// of time, and at most so many of them. When there are more it forgets the oldest.
//
// It has no lock, clock, timer or goroutine. The topic owns its IDs, guards them by its
// lock, and passes the time. What is remembered costs nothing once it is forgotten.
package dedup

import "time"

// IDs are the IDs that are remembered.
//
// Invariant: until holds exactly the IDs in order[first:], which stand in the order they
// end.
type IDs struct {
	window time.Duration
	most   int

	until     map[string]int64
	order     []remembered
	first     int
	forgotten uint64
}

type remembered struct {
	id    string
	until int64
}

// New returns IDs that remembers each for window, and at most most of them.
func New(window time.Duration, most int) *IDs { return &IDs{window: window, most: most} }

// Until returns until when id is remembered, 0 if it is not.
func (d *IDs) Until(id string) int64 { return d.until[id] }

// Remember adds an ID that is not remembered.
func (d *IDs) Remember(id string, now int64) {
	d.Expire(now)
	if len(d.until) >= d.most {
		d.forgetFirst()
		d.forgotten++
	}
	if d.until == nil {
		d.until = make(map[string]int64)
	}
	until := now + int64(d.window)
	if until < now {
		until = 1<<63 - 1
	}
	d.until[id] = until
	d.order = append(d.order, remembered{id, until})
}

// Expire forgets what need not be remembered any longer.
func (d *IDs) Expire(now int64) {
	for d.first < len(d.order) && d.order[d.first].until <= now {
		d.forgetFirst()
	}
}

func (d *IDs) forgetFirst() {
	delete(d.until, d.order[d.first].id)
	d.order[d.first] = remembered{}
	d.first++
	switch {
	case d.first == len(d.order):
		d.Clear() // a map does not shrink
	case d.first >= 64 && d.first > len(d.order)/2:
		n := copy(d.order, d.order[d.first:])
		clear(d.order[n:])
		d.order, d.first = d.order[:n], 0
	}
}

// Clear forgets everything.
func (d *IDs) Clear() { d.until, d.order, d.first = nil, nil, 0 }

// Len returns how many IDs are remembered, those included that have ended since the last
// Expire.
func (d *IDs) Len() int { return len(d.until) }

// Forgotten counts the IDs that were forgotten before their time, for want of room.
func (d *IDs) Forgotten() uint64 { return d.forgotten }

// Wait returns how long it is worth to wait before Expire is called, so that memory is
// given back by at most 8 calls a window; false if nothing is remembered.
func (d *IDs) Wait(now int64) (wait time.Duration, ok bool) {
	if len(d.until) == 0 {
		return 0, false
	}
	return max(time.Duration(d.order[d.first].until-now), d.window/8), true
}
