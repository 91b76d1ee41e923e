package model

import (
	"slices"
	"time"
)

type choice struct{ of, pick int }

// choose returns a number below n: any is right as far as the documentation
// says. 0 is the likeliest.
func (m *topic) choose(n int) int {
	if n < 2 {
		return 0
	}
	if m.asked == len(m.choices) {
		m.choices = append(m.choices, choice{of: n})
	}
	m.asked++
	return m.choices[m.asked-1].pick
}

// refuse says that the choices made so far can't explain what was seen.
func (m *topic) refuse(why string) {
	if m.wrong == "" {
		m.wrong = why
	}
}

// nextChoices returns other choices than those made, or nil if all were tried.
func nextChoices(cs []choice) []choice {
	for k := len(cs) - 1; k >= 0; k-- {
		if cs[k].pick+1 < cs[k].of {
			next := slices.Clone(cs[:k+1])
			next[k].pick++
			return next
		}
	}
	return nil
}

// A witness is what was seen in a step that tells which of several allowed
// things has happened. It resolves choices; it allows nothing.
type witness struct {
	// taker says which subscriber or caller got a copy. A copy is delivered at
	// most once in a step, since what is given back waits for a millisecond and
	// handlers end only in steps of their own.
	taker map[copyID]int
	// waits says how long copies wait that were given back in this step, for
	// backoffs that have a random part.
	waits map[copyID]time.Duration
	// finished says which waiting calls returned.
	finished map[int]bool
}
