package message

import (
	"encoding/binary"
	"time"

	"github.com/google/uuid"
)

// A Clock is a topic's: it gives instants as nanoseconds, and makes IDs of them. It is not changed once it is made; all methods may
// be called concurrently.
type Clock struct {
	epoch  time.Time // the zero of all instants
	wall   int64     // epoch in Unix nanoseconds
	random uint64    // 36 bits that tell this topic's IDs from others'
}

// age is how long before its making a clock begins. In a bubble of testing/synctest it is
// the year 2000, and no instant may be negative or zero.
const age = 64 * 365 * 24 * time.Hour

// NewClock returns a clock. It returns the error of the system's
// random source.
func NewClock() (*Clock, error) {
	id, err := uuid.NewRandom()
	if err != nil {
		return nil, err
	}
	epoch := time.Now().Add(-age)
	return &Clock{epoch: epoch, wall: epoch.UnixNano(), random: binary.BigEndian.Uint64(id[8:]) & (1<<36 - 1)}, nil
}

// Now reads the clock.
func (c *Clock) Now() int64 { return int64(time.Since(c.epoch)) }

// Time is an instant of the clock as a time.Time.
func (c *Clock) Time(at int64) time.Time { return c.epoch.Add(time.Duration(at)) }

// At is the reverse of Time.
func (c *Clock) At(t time.Time) int64 { return int64(t.Sub(c.epoch)) }

// ID is a message's ID: the publisher's, or a UUID of version 7. That is made of
// the time of publication (48 bits of milliseconds, 12 bits of their fraction),
// the message's number (26 bits) and the topic's random bits (36), so that IDs
// sort in the order of publication and no message needs any memory for its ID.
func (c *Clock) ID(seq uint64, at int64, ext *Extra) string {
	if ext != nil && ext.ID != "" {
		return ext.ID
	}
	ns := uint64(c.wall + at)
	ms, frac := ns/1e6, (ns%1e6)<<12/1e6
	var u uuid.UUID
	binary.BigEndian.PutUint64(u[:8], ms<<16|7<<12|frac)
	binary.BigEndian.PutUint64(u[8:], 2<<62|seq&(1<<26-1)<<36|c.random)
	return u.String()
}

// After is the instant d after now, or the end of time.
func After(now int64, d time.Duration) int64 {
	if at := now + int64(d); at >= now {
		return at
	}
	return 1<<63 - 1
}
