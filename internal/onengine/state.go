package onengine

import (
	"encoding/json"
	"errors"
	"time"

	"github.com/gofanout/fanout/engine"
	"github.com/gofanout/fanout/internal/message"
)

// A State is what is kept of a message beside the message itself: it goes
// to the engine with each retry, and to the dead-letter queue and back.
type State struct {
	Spent      int32     `json:"spent,omitempty"`
	Passes     uint16    `json:"passes,omitempty"`
	Dead       bool      `json:"dead,omitempty"`       // it is a letter, or is to be one
	Deliveries int       `json:"deliveries,omitempty"` // of the engine, that are accounted for
	Born       time.Time `json:"born,omitzero"`        // when the time to live began, if not at publication
	History    []attempt `json:"history,omitempty"`
}

type attempt struct {
	Number  int           `json:"n"`
	Cause   uint8         `json:"cause"`
	Queue   string        `json:"queue"`
	Start   time.Time     `json:"start"`
	Elapsed time.Duration `json:"elapsed,omitempty"`
	Err     string        `json:"err,omitempty"`
	Stack   string        `json:"stack,omitempty"`
	Letter  bool          `json:"letter,omitempty"` // a dead-letter queue made the delivery
	Cut     bool          `json:"cut,omitempty"`    // no more than this was kept of the history
}

// errCut is the error of an attempt that stands for a history that was left out.
var errCut = errors.New("fanout: the engine had no room for the history")

const (
	// MostAttempts is how many attempts of a history are written: an engine's messages are
	// limited.
	MostAttempts = 32
	mostText     = 2 << 10
	// MostState is how many bytes a state has, at most.
	MostState = 32 << 10
)

// encode returns s and h as bytes: no more than most, or than engine.MinState if that
// is more. What is too much is left out as bounded does: of many attempts those in the
// middle, of long texts the end, then the oldest texts, then attempts. In the end one
// attempt is left, the newest, which says that the others were left out.
func (s *State) encode(h *message.History, most int) []byte {
	as := h.Kept()
	for n, total := min(len(as), MostAttempts), most; ; {
		fit, texts := message.Bounded(as, n, min(mostText, total), total)
		s.History = nil
		for _, a := range fit {
			s.History = append(s.History, attempt{
				Number: a.Number, Cause: uint8(a.Cause), Queue: a.Queue, Start: a.Start, Elapsed: a.Elapsed, Err: a.Text, Stack: a.Stack, Letter: a.Letter,
			})
		}
		data, _ := json.Marshal(s) // it can't fail: these are strings, numbers and times
		switch {
		case len(data) <= most && (n > 0 || len(as) == 0):
			return data
		case n == 0 && len(as) > 0:
			a := as[len(as)-1]
			s.History = []attempt{{Number: a.Number, Cause: uint8(a.Cause), Start: a.Start, Elapsed: a.Elapsed, Letter: a.Letter, Cut: true}}
			data, _ = json.Marshal(s)
			return data
		case n == 0:
			return data
		case total > 0:
			// Each byte of a text is at least one here, most are no more.
			total = max(min(total, texts)-max(len(data)-most, 64), 0)
		default:
			n /= 2
		}
	}
}

// A Full is a state and its history, before they are encoded.
type Full struct {
	State
	Hist *message.History
}

func (s Full) Encode(most int) []byte { return s.State.encode(s.Hist, most) }

// Fit calls f with s encoded, shorter each time, until the engine has room for it.
func (s Full) Fit(f func(data []byte) error) error {
	for most := MostState; ; {
		data := s.Encode(most)
		err := f(data)
		if most == 0 || !errors.Is(err, engine.ErrTooLarge) {
			return err
		}
		if most = len(data) / 2; most < engine.MinState {
			most = 0
		}
	}
}

// Decode returns the state that data holds, and its history; an empty one if
// there is none, or if it is not ours.
func Decode(data []byte) (s State, h *message.History) {
	if len(data) == 0 || json.Unmarshal(data, &s) != nil {
		return State{}, nil
	}
	if len(s.History) == 0 {
		return s, nil
	}
	as := make([]message.Kept, 0, len(s.History))
	for _, r := range s.History {
		a := message.Kept{
			Attempt: message.Attempt{Number: r.Number, Cause: message.Cause(r.Cause), Queue: r.Queue, Start: r.Start, Elapsed: r.Elapsed, Stack: r.Stack},
			Text:    r.Err, Letter: r.Letter,
		}
		switch {
		case r.Cut:
			a.Text, a.Err = errCut.Error(), errCut
		case r.Err != "":
			a.Err = errors.New(r.Err)
		}
		as = append(as, a)
	}
	return s, message.Restored(as)
}

// mostRemembered is how many messages' states a queue remembers for an engine that
// does not keep them.
const mostRemembered = 10_000

// Memories are the states of messages that were given back to an engine which
// keeps none. When there are too many the oldest is forgotten: such a message's
// attempts are counted by the engine's deliveries.
type Memories struct {
	states map[string][]byte
	order  []string
}

func (m *Memories) Put(id string, state []byte) {
	if m.states == nil {
		m.states = make(map[string][]byte)
	}
	if _, known := m.states[id]; !known {
		m.order = append(m.order, id)
	}
	m.states[id] = state
	for len(m.states) > mostRemembered {
		delete(m.states, m.order[0])
		m.order = m.order[1:]
	}
	if len(m.order) > 2*mostRemembered { // of messages that are gone
		kept := m.order[:0]
		for _, id := range m.order {
			if _, ok := m.states[id]; ok {
				kept = append(kept, id)
			}
		}
		m.order = kept
	}
}

func (m *Memories) Take(id string) []byte {
	state := m.states[id]
	delete(m.states, id)
	return state
}
