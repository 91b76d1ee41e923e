package fanout

import (
	"encoding/json"
	"errors"
	"time"
)

// A remoteState is what is kept of a message beside the message itself: it goes
// to the engine with each retry, and to the dead-letter queue and back.
type remoteState struct {
	Spent      int32           `json:"spent,omitempty"`
	Passes     uint16          `json:"passes,omitempty"`
	Deliveries int             `json:"deliveries,omitempty"` // of the engine, that are accounted for
	Born       time.Time       `json:"born,omitzero"`        // when the time to live began, if not at publication
	History    []remoteAttempt `json:"history,omitempty"`
}

type remoteAttempt struct {
	Number  int           `json:"n"`
	Cause   Cause         `json:"cause"`
	Queue   string        `json:"queue"`
	Start   time.Time     `json:"start"`
	Elapsed time.Duration `json:"elapsed,omitempty"`
	Err     string        `json:"err,omitempty"`
	Stack   string        `json:"stack,omitempty"`
}

const (
	// An engine's messages are limited: what is written of a history is, too.
	maxStateAttempts = 32
	maxStateErr      = 1 << 10
	maxStateStack    = 2 << 10
	maxState         = 32 << 10
)

// encode returns s as bytes, with the first attempt and the last ones if there
// are many, and without stacks if it would be long.
func (s *remoteState) encode(h *history) []byte {
	s.History = nil
	if h != nil {
		as := h.attempts
		if len(as) > maxStateAttempts {
			as = append(as[:1:1], as[len(as)-maxStateAttempts+1:]...)
		}
		for _, a := range as {
			r := remoteAttempt{Number: a.Number, Cause: a.Cause, Queue: a.Queue, Start: a.Start, Elapsed: a.Elapsed, Stack: a.Stack[:min(len(a.Stack), maxStateStack)]}
			if a.Err != nil {
				text := a.Err.Error()
				r.Err = text[:min(len(text), maxStateErr)]
			}
			s.History = append(s.History, r)
		}
	}
	data, _ := json.Marshal(s) // it can't fail: these are strings, numbers and times
	for k := 0; len(data) > maxState && k < len(s.History); k++ {
		s.History[k].Stack = ""
		data, _ = json.Marshal(s)
	}
	return data
}

// decodeState returns the state that data holds, and its history; an empty one if
// there is none, or if it is not ours.
func decodeState(data []byte) (s remoteState, h *history) {
	if len(data) == 0 || json.Unmarshal(data, &s) != nil {
		return remoteState{}, nil
	}
	if len(s.History) == 0 {
		return s, nil
	}
	h = &history{}
	for _, r := range s.History {
		a := Attempt{Number: r.Number, Cause: r.Cause, Queue: r.Queue, Start: r.Start, Elapsed: r.Elapsed, Stack: r.Stack}
		if r.Err != "" {
			a.Err = errors.New(r.Err)
		}
		h.attempts = append(h.attempts, a)
	}
	return s, h
}

// maxRemembered is how many messages' states a queue remembers for an engine that
// does not keep them.
const maxRemembered = 10_000

// memories are the states of messages that were given back to an engine which
// keeps none. When there are too many the oldest is forgotten: such a message's
// attempts are counted by the engine's deliveries.
type memories struct {
	states map[string][]byte
	order  []string
}

func (m *memories) put(id string, state []byte) {
	if m.states == nil {
		m.states = make(map[string][]byte)
	}
	if _, known := m.states[id]; !known {
		m.order = append(m.order, id)
	}
	m.states[id] = state
	for len(m.states) > maxRemembered {
		delete(m.states, m.order[0])
		m.order = m.order[1:]
	}
	if len(m.order) > 2*maxRemembered { // of messages that are gone
		kept := m.order[:0]
		for _, id := range m.order {
			if _, ok := m.states[id]; ok {
				kept = append(kept, id)
			}
		}
		m.order = kept
	}
}

func (m *memories) take(id string) []byte {
	state := m.states[id]
	delete(m.states, id)
	return state
}
