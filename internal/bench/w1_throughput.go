package main

import (
	"fmt"
	"sync"
	"time"
)

var throughput = workload{
	key: "W1", title: "Throughput by width: one publisher, S queues with one subscriber each",
	note: "ns per delivery: wall time / (messages x S); cpu: processor time of the whole process instead of wall time.",
	cells: func(o options) (cells []cell) {
		for _, s := range []int{1, 4, 16, 100} {
			for _, sys := range everySystem {
				if sys.widest > 0 && s > sys.widest {
					continue
				}
				cells = append(cells, flowCell(o, fmt.Sprintf("s%d", s), sys, shape{queues: s, workers: 1, publishers: 1, capacity: capacity}))
			}
		}
		return cells
	},
}

// flowCell measures how fast sys moves messages in a shape.
func flowCell(o options, setting string, sys system, s shape) cell {
	round := chunk * s.publishers
	fixed := sys.least / s.queues / max(1, int(s.works/(2*time.Microsecond))) // where handlers work, delays are less of it
	if o.quick {
		fixed /= 8
	}
	scale := scaler{span: o.span, least: max(4*round, fixed/round*round), most: 1 << 24}
	return cell{at: place{setting: setting, system: sys.name}, scales: true, measure: func() (vs []value, err error) {
		err = scale.run(func(n int) (took time.Duration, err error) {
			n = n / (chunk * s.publishers) * chunk * s.publishers
			vs, took, err = flow(sys, s, n, patience(o.span))
			return took, err
		})
		return vs, err
	}}
}

// patience is how long a measurement of span may take; after that the system is
// not finished.
func patience(span time.Duration) time.Duration { return 50*span + 10*time.Second }

// flow has the publishers send n messages through sys as fast as they go, and
// waits until all queues have got all of them.
func flow(sys system, s shape, n int, patience time.Duration) ([]value, time.Duration, error) {
	a := newAccount(s, n, s.publishers, !sys.drains || sys.throttled)
	s.tally = a.tally
	bus, err := sys.open(s)
	if err != nil {
		return nil, 0, err
	}
	before := used()
	err = publishAll(bus, sys, s, a, n, patience)
	stopped := false
	switch {
	case err != nil:
	case s.workers > 1 && sys.drains: // how it is known that all was handled
		stopped = true
		err = bus.stop()
	default:
		err = a.wait(patience)
	}
	wall, cpu, mallocs := before.since()
	if !stopped {
		if e := bus.stop(); err == nil {
			err = e
		}
	}
	if err == nil {
		err = a.check()
	}
	if err != nil {
		return nil, wall, err
	}
	deliveries := float64(a.deliveries)
	return []value{
		{"ns", "ns", float64(wall) / deliveries},
		{"cpu", "ns", float64(cpu) / deliveries},
		{"allocs", "allocs", float64(mallocs) / deliveries},
		{"allocs-publish", "allocs", float64(mallocs) / float64(n)},
	}, wall, nil
}

// publishAll has each publisher send its share of n messages.
func publishAll(bus bus, sys system, s shape, a *account, n int, patience time.Duration) error {
	if s.publishers == 1 {
		return publishSome(bus, sys, s, a, 0, 0, n, patience)
	}
	var wg sync.WaitGroup
	errs := make([]error, s.publishers)
	share := n / s.publishers
	for p := range s.publishers {
		wg.Go(func() { errs[p] = publishSome(bus, sys, s, a, p, p*share, (p+1)*share, patience) })
	}
	wg.Wait()
	for _, err := range errs {
		if err != nil {
			return err
		}
	}
	return nil
}

// publishSome sends messages [from, to), which are whole chunks.
func publishSome(bus bus, sys system, s shape, a *account, p, from, to int, patience time.Duration) error {
	for k := from; k < to; k += chunk {
		if sys.throttled {
			// The publisher has its share of the window.
			sent, share := uint64(k-from+chunk), uint64(window/s.publishers)
			err := a.await(p, patience, func() bool { return sent <= a.behind()/uint64(s.publishers)+share })
			if err != nil {
				return err
			}
		}
		if err := bus.publish(p, ring[k%ringSize:][:chunk]); err != nil {
			return err
		}
	}
	return nil
}
