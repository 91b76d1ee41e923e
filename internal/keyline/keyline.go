// Package keyline has the lines in which the messages of a queue that share an ordering key
// stand.
//
// It promises that a key has a line as long as one of its messages is held that the queue has
// reached, and that keys that have become idle leave no more behind than one empty line and a
// map that had 16 of them, until Rest.
//
// A Lines owns its lines, which belong to one queue. It has no lock, clock or goroutine: the
// queue's lock guards it. A line names messages by their entries in the queue's window, whose
// lists it heads.
package keyline

import (
	"iter"
	"maps"

	"github.com/gofanout/fanout/internal/window"
)

// A Line keeps the messages of one ordering key in order: one of them, the
// head, may be delivered, and the others that were reached stand in line. The
// head keeps its place through retries, snoozes and time-outs, until it is
// gone, dead or parked; then the first in line takes it.
type Line struct {
	Head    int32         // its entry; InFlight while it is in a lease
	Waiting window.List   // the others, in the order of publication
	Order   *window.Order // of Waiting, if older ones have come in before others
}

// InFlight is the head of a line while that is in flight.
const InFlight = int32(-1)

// Lines are the lines of a queue's keys. The zero Lines has none.
type Lines struct {
	lines map[string]*Line
	spare *Line // of a key that has become idle, to be used again
	most  int   // lines that there were at once, since lines was made
}

// fewLines is how many lines a map may have had that is kept when it is empty: the next
// message with a key comes in a moment, most often. A map doesn't shrink.
const fewLines = 16

// Len returns how many keys have a line.
func (s *Lines) Len() int { return len(s.lines) }

// Of returns a key's line, nil if it has none.
func (s *Lines) Of(key string) *Line { return s.lines[key] }

// All yields each key that has a line, with that.
func (s *Lines) All() iter.Seq2[string, *Line] { return maps.All(s.lines) }

// Begin gives a key that has none a line with the given head.
func (s *Lines) Begin(key string, head int32) {
	l := s.spare
	if l == nil {
		l = new(Line)
	}
	s.spare, l.Head = nil, head
	if s.lines == nil {
		s.lines = make(map[string]*Line)
	}
	s.lines[key] = l
	s.most = max(s.most, len(s.lines))
}

// End takes a key's line away, which has nobody waiting.
func (s *Lines) End(key string) {
	s.spare = s.lines[key]
	*s.spare = Line{} // its order may be long
	delete(s.lines, key)
	if s.most > fewLines {
		s.Rest()
	}
}

// Rest gives memory back, if no key has a line.
func (s *Lines) Rest() {
	if len(s.lines) == 0 {
		*s = Lines{}
	}
}

// Clear takes all lines away.
func (s *Lines) Clear() { *s = Lines{} }
