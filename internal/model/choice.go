package model

import (
	"slices"
	"time"

	"github.com/gofanout/fanout"
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

// deviations returns prefixes of other choices than those made, which began
// with a prefix of n: each deviates in one choice more. Whoever goes on in this
// way from all of them meets every sequence of choices once.
func deviations(made []choice, n int) (ps [][]choice) {
	for k := n; k < len(made); k++ {
		for pick := range made[k].of {
			if pick == made[k].pick {
				continue
			}
			p := slices.Clone(made[:k+1])
			p[k].pick = pick
			ps = append(ps, p)
		}
	}
	return ps
}

// A waitID names a copy that was given back, in its queue or among the letters.
type waitID struct {
	copyID
	letters bool
}

// A witness is what was seen in a step that tells which of several allowed
// things has happened. It resolves choices; it allows nothing.
type witness struct {
	// taker says which subscriber or caller got a delivery, and order when the
	// handlers began and the ranges got theirs.
	taker map[deliveryID]int
	order map[deliveryID]int
	// before says of what a call got together which came just before which.
	before map[deliveryID]deliveryID
	// batches say what a batch handler got besides, by its first delivery.
	batches map[deliveryID][]deliveryID
	// waits says how long copies wait that were given back in this step, for
	// backoffs that have a random part: several under one name if a copy was given
	// back more than once, or copies of several queues were among shared letters.
	waits map[waitID][]time.Duration
	// finished says which waiting calls returned.
	finished map[int]bool
	// queues are the views of all queues after the step.
	queues []queueView
	// deadlines are those of the deliveries that were looked at.
	deadlines map[deliveryID]time.Duration
	// letters say which copies are seen in the dead-letter queues after the step;
	// nil if nobody looked.
	letters map[copyID]bool
}

// stats returns the counters of a queue after the step, or nil if they are not
// known.
func (w *witness) stats(r ref) *fanout.Stats {
	switch {
	case r.kind == sharedDead && len(w.queues) > 0:
		return &w.queues[len(w.queues)-1].Stats
	case r.queue >= len(w.queues):
	case r.kind == opened:
		return &w.queues[r.queue].Stats
	case len(w.queues[r.queue].Dead) > 0:
		return &w.queues[r.queue].Dead[0].Stats
	}
	return nil
}

// exceeds reports whether more has happened in the model than was seen, which
// the rest of the step can't mend.
func (m *topic) exceeds() bool {
	for q := range m.all {
		s, c := m.seen.stats(q.ref), &q.count
		if s != nil && (c.Delivered > s.Delivered || c.TimesParked > s.TimesParked || c.DeadLettered > s.DeadLettered ||
			c.Dropped > s.Dropped || c.Published > s.Published || c.Redriven > s.Redriven ||
			q.ended[fanout.TimedOut] > s.TimedOut || q.ended[fanout.Expired] > s.Expired) {
			return true
		}
	}
	return false
}

// parksMore reports whether more messages are parked in q than after the step.
func (m *topic) parksMore(q *queue) bool {
	s := m.seen.stats(q.ref)
	return s != nil && q.parkedNow() > s.Parked
}
