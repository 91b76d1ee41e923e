package message

import (
	"fmt"
	"slices"
	"strings"
	"time"
)

// An Attempt is how one delivery of a message ended.
type Attempt struct {
	Number  int // 1 for the first delivery; counts on through snoozes, releases and redrives
	Cause   Cause
	Queue   string // that made the delivery
	Start   time.Time
	Elapsed time.Duration
	Err     error
	Stack   string // where a panic came from
}

// String tells the attempt in one line, without the stack.
func (a Attempt) String() string {
	var b strings.Builder
	fmt.Fprintf(&b, "attempt %d: %v after %v", a.Number, a.Cause, a.Elapsed.Round(time.Microsecond))
	if a.Err != nil {
		fmt.Fprintf(&b, ": %v", a.Err)
	}
	return b.String()
}

// An Origin says where attempts were made. It is shared by all of a queue.
type Origin struct {
	Clock *Clock
	Queue string
	Keep  int // attempts to keep of a history, at least 2
}

// A Past is what a message has been through when it is taken once more.
type Past struct {
	Hist   *History // nil: nothing
	Spent  uint32   // attempts
	Passes uint16   // settlements that spent no attempt
}

// A History is what ended attempts left behind. It is never changed, so that a
// delivery can carry it: each attempt makes a new one, which shares what came
// before. A nil History is empty.
//
// One History may be that of many messages, which timed out together: it keeps
// their starts, and the attempts of each are made when somebody asks.
type History struct {
	attempts []Attempt
	group    *group // instead of attempts
}

// Attempts returns a copy of the attempts of the message with the given number.
func (h *History) Attempts(seq uint64) []Attempt {
	switch {
	case h == nil:
		return nil
	case h.group != nil:
		return h.group.attempts(seq)
	}
	return slices.Clone(h.attempts)
}

// Of is the history of the message with the given number as one of its own.
func (h *History) Of(seq uint64) *History {
	if h == nil || h.group == nil {
		return h
	}
	return &History{attempts: h.group.attempts(seq)}
}

// With returns h, which is of one message, and a behind it, numbered. Of more
// than keep attempts it keeps the first and the newer half.
func (h *History) With(a Attempt, keep int) *History {
	if h == nil || len(h.attempts) == 0 {
		a.Number = 1
		first := &struct { // most have one: in one piece
			History
			only [1]Attempt
		}{only: [1]Attempt{a}}
		first.attempts = first.only[:]
		return &first.History
	}
	old := h.attempts
	a.Number = old[len(old)-1].Number + 1
	if len(old) >= keep {
		kept := make([]Attempt, 0, len(old))
		kept = append(kept, old[0])
		old = append(kept, old[len(old)/2:]...)
	}
	return &History{attempts: append(old[:len(old):len(old)], a)}
}

// A Group is messages that timed out together, in no order that means anything.
// What is the same for all is given once.
type Group struct {
	At      int64      // when they timed out
	Start   int64      // when their deliveries began, if Starts is nil
	Starts  []int64    // when each began
	Seqs    []uint64   // their numbers; needed only with Starts or Befores
	Before  *History   // what all have been through before, if Befores is nil
	Befores []*History // what each has been through before
}

type group struct {
	*Origin
	Group
}

// Together is the history of messages after they timed out together. It keeps
// the group's slices.
func Together(o *Origin, g Group) *History { return &History{group: &group{o, g}} }

func (g *group) attempts(seq uint64) []Attempt {
	start, before := g.Start, g.Before
	if k := slices.Index(g.Seqs, seq); k >= 0 {
		if g.Starts != nil {
			start = g.Starts[k]
		}
		if g.Befores != nil {
			before = g.Befores[k]
		}
	}
	return before.Of(seq).With(TimeOut(g.Origin, start, g.At), g.Keep).attempts
}

// TimeOut is the attempt of a delivery from o that timed out.
func TimeOut(o *Origin, start, at int64) Attempt {
	return Attempt{Cause: TimedOut, Queue: o.Queue, Start: o.Clock.Time(start), Elapsed: time.Duration(at - start)}
}
