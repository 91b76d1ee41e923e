package fanoutweb

import (
	"slices"
	"time"

	"github.com/gofanout/fanout"
)

const (
	// mostPoints is how many points a chart has. When there are as many, every second one
	// goes, until they are longestStep apart: ten minutes then.
	mostPoints  = 150
	longestStep = 4 * time.Second
)

// A point is a queue's counters at an instant. Of those that only grow it has the lower
// bits: only differences between points that are seconds apart are looked at.
type point struct {
	at                             uint32 // milliseconds since the first look
	held, dead                     int32
	oldest                         float32 // seconds
	published, acked, failed, died uint32
}

// A series is the points of a queue, each behind the one before.
type series struct {
	points []point
	step   time.Duration
}

func (s *series) add(since, now time.Time, st *fanout.Stats) {
	if s.step == 0 {
		s.step = lookEvery
	}
	at := now.Sub(since)
	if n := len(s.points); n > 0 && at-s.points[n-1].time() < s.step-lookEvery/2 {
		return
	}
	if len(s.points) == mostPoints {
		s.thin()
	}
	if len(s.points) == cap(s.points) {
		s.points = slices.Grow(s.points, min(max(len(s.points), 16), mostPoints-len(s.points)))
	}
	s.points = append(s.points, point{
		at: uint32(at.Milliseconds()), held: int32(min(st.Unsettled(), 1<<31-1)), dead: int32(min(st.Dead, 1<<31-1)), oldest: float32(st.OldestAge.Seconds()),
		published: uint32(max(st.Published, 0)), acked: uint32(st.Acked), failed: uint32(failures(st)), died: uint32(st.DeadLettered),
	})
}

// thin makes room. The highest of what goes is kept by the point behind it.
func (s *series) thin() {
	if s.step >= longestStep {
		s.points = s.points[:copy(s.points, s.points[1:])]
		return
	}
	kept := s.points[:0]
	for k := 1; k < len(s.points); k += 2 {
		p, gone := s.points[k], s.points[k-1]
		p.held, p.dead, p.oldest = max(p.held, gone.held), max(p.dead, gone.dead), max(p.oldest, gone.oldest)
		kept = append(kept, p)
	}
	s.points, s.step = kept, s.step*2
}

func (p *point) time() time.Duration { return time.Duration(p.at) * time.Millisecond }

// failures counts the attempts that failed, of any cause that spends one.
func failures(s *fanout.Stats) uint64 {
	return s.Failed + s.Panicked + s.Exited + s.TimedOut + s.Nacked + s.PermanentlyFailed + s.Expired
}
