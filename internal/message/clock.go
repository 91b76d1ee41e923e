package message

import (
	"encoding/binary"
	"time"
	"unsafe"

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
	id := make([]byte, idLen)
	c.put(id, seq, at)
	return unsafe.String(&id[0], idLen)
}

// idLen is the length of an ID that a clock makes.
const idLen = 36

// put writes the ID that the clock makes.
func (c *Clock) put(id []byte, seq uint64, at int64) {
	ns := uint64(c.wall + at)
	ms, frac := ns/1e6, (ns%1e6)<<12/1e6
	high, low := ms<<16|7<<12|frac, 2<<62|seq&(1<<26-1)<<36|c.random
	a, b, d, e := digits(high>>32), digits(high&(1<<32-1)), digits(low>>32), digits(low&(1<<32-1))
	id = id[:idLen]
	binary.BigEndian.PutUint64(id, a)
	id[8], id[13], id[18], id[23] = '-', '-', '-', '-'
	binary.BigEndian.PutUint32(id[9:], uint32(b>>32))
	binary.BigEndian.PutUint32(id[14:], uint32(b))
	binary.BigEndian.PutUint32(id[19:], uint32(d>>32))
	binary.BigEndian.PutUint32(id[24:], uint32(d))
	binary.BigEndian.PutUint64(id[28:], e)
}

// digits are the eight hexadecimal digits of 32 bits, the first in the highest byte.
func digits(x uint64) uint64 {
	x = x&0xffff0000<<16 | x&0xffff
	x = x&0x0000ff000000ff00<<8 | x&0x000000ff000000ff
	x = x&0x00f000f000f000f0<<4 | x&0x000f000f000f000f
	letters := (x + 0x0606060606060606) >> 4 & 0x0101010101010101
	return x + 0x3030303030303030 + letters*('a'-'0'-10)
}

// idsAtOnce is how many IDs are made in one piece of memory: a size class of 1,024 bytes.
const idsAtOnce = 28

// IDs makes the same IDs as a clock's ID, several in one piece of memory. It belongs to
// one goroutine at a time.
type IDs struct {
	room []byte // for IDs to come
	last string
	seq  uint64 // of last
}

// ID is a message's ID, see [Clock.ID].
func (s *IDs) ID(c *Clock, seq uint64, at int64, ext *Extra) string {
	if ext != nil && ext.ID != "" {
		return ext.ID
	}
	if s.seq == seq && s.last != "" {
		return s.last
	}
	if len(s.room) == 0 {
		s.room = make([]byte, idsAtOnce*idLen)
	}
	id := s.room[:idLen]
	c.put(id, seq, at)
	s.room = s.room[idLen:]
	s.seq, s.last = seq, unsafe.String(&id[0], idLen)
	return s.last
}

// After is the instant d after now, or the end of time.
func After(now int64, d time.Duration) int64 {
	if at := now + int64(d); at >= now {
		return at
	}
	return 1<<63 - 1
}
