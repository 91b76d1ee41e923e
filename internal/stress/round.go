package main

import (
	"fmt"
	"runtime"
	"time"
)

// deliveriesOfARound bounds what the ledger holds: about two entries of 24 bytes
// for each delivery, and twice as much again where the hooks are listened to.
const deliveriesOfARound = 400_000

// playRound plays round n, proves it, and returns what was wrong. goroutines is
// how many there were before the first.
func playRound(c config, n, goroutines int, sum *summary, p *progress) []violation {
	budget := max(min(c.deliveries-sum.deliveries.Load(), deliveriesOfARound), 1000)
	began := time.Now()
	found, r, what := inWorld(c, n, budget, sum, p)
	lived := time.Since(began)
	if len(found) == 0 {
		found = r.proveNothingRemains(goroutines, patience)
	}
	sum.rounds.Add(1)
	if c.verbose {
		p.line("round %d: %s, %v until proven, %v until collected", n, what,
			lived.Round(time.Millisecond), (time.Since(began) - lived).Round(time.Millisecond))
	}
	return found
}

// inWorld is the part of a round that has hold of its world. When it has
// returned nothing refers to that but what was left running.
//
//go:noinline
func inWorld(c config, n int, budget uint64, sum *summary, p *progress) (found []violation, r *remains, what string) {
	w, err := newWorld(c, n, budget, sum)
	if err != nil {
		return []violation{{promise: "errors", what: err.Error()}}, nil, ""
	}
	if err = p.during(w.play); err != nil {
		w.complain("clean end", "%v: %s", err, stacks())
		return w.problems, nil, ""
	}
	played := time.Since(w.began)
	found = w.prove()
	queues := 0
	for _, a := range w.arenas {
		queues += len(a.books)
	}
	what = fmt.Sprintf("%d deliveries, %d queues, %+v and %+v, %v until full, %v until over", w.deliveries.Load(), queues,
		w.arenas[0].traits, w.arenas[1].traits, time.Duration(w.filled).Round(time.Millisecond), played.Round(time.Millisecond))
	return found, w.remains(), what
}

// prove proves everything about the round.
func (w *world) prove() []violation {
	var scratch []tally
	for _, a := range w.arenas {
		a.messages = a.messages[:min(int(a.next.Load()), len(a.messages))]
		a.close()
		w.problems = append(w.problems, a.provePublication(&a.witness.record)...)
		for _, b := range a.books {
			if b.q == nil {
				continue
			}
			w.problems = append(w.problems, a.prove(&b.record, &scratch)...)
			w.sum.add(b.stats, b.letters)
		}
	}
	return w.problems
}

func stacks() string {
	b := make([]byte, 1<<20)
	return string(b[:runtime.Stack(b, true)])
}
