package main

import (
	"fmt"
	"strconv"
	"strings"
)

// A goal is a number to reach: of a value, or of its ratio to another system's of
// the same round.
type goal struct {
	what    string
	at      place
	to      string // the system that the ratio is to; "" for the value itself
	limit   float64
	atLeast bool // the limit is a floor
}

// measured is what was measured of it; ok is false if nothing was.
func (g goal) measured(b *book) (spread, bool) {
	if g.to == "" {
		return b.value(g.at)
	}
	return b.ratio(g.at, g.to)
}

func (g goal) met(s spread) bool {
	if g.atLeast {
		return s.median >= g.limit
	}
	return s.median <= g.limit
}

// aim is the goal in words.
func (g goal) aim(b *book) string {
	sign, unit := "<=", "x"
	if g.atLeast {
		sign = ">="
	}
	if g.to == "" {
		unit = " " + b.units[g.at]
	}
	return sign + " " + strconv.FormatFloat(g.limit, 'f', -1, 64) + unit
}

// The systems that goals speak of.
const (
	push   = "fanout-push"
	push64 = "fanout-push64"
	pull   = "fanout-pull"
	pull64 = "fanout-pull64"
	into64 = "fanout-into64"
	ranged = "fanout-range"
)

// goals lists what we want to reach.
func goals() (gs []goal) {
	for k, s := range []string{"s1", "s4", "s16", "s100"} {
		for _, of := range []struct {
			what, system string
			limits       [4]float64
		}{
			{"handler, published in batches of 64", push64, [4]float64{0.9, 0.6, 0.25, 0.3}},
			{"handler, published one by one", push, [4]float64{2, 0.9, 0.35, 0.3}},
			{"batch pull and settle", pull64, [4]float64{0.9, 0.6, 0.2, 0.25}},
			{"batch pull into one slice and settle", into64, [4]float64{0.9, 0.6, 0.2, 0.25}},
			{"pull one by one", pull, [4]float64{2, 1, 0.5, 0.6}},
			{"pull one by one, by a range", ranged, [4]float64{2, 1, 0.5, 0.6}},
		} {
			gs = append(gs, goal{what: of.what + ", " + s, at: place{"W1", s, of.system, "ns"}, to: channels.name, limit: of.limits[k]})
		}
		gs = append(gs,
			goal{what: "hand-written, to ours in batches of 64, " + s, at: place{"W1", s, handWritten.name, "ns"}, to: push64, limit: 8, atLeast: true},
			goal{what: "allocations per publish, " + s, at: place{"W1", s, push, "allocs-publish"}, limit: 1})
	}
	for _, peer := range []struct {
		name  string
		limit float64
	}{{"watermill", 75}, {"jetstream", 250}, {"nsqd", 200}, {"gocloud-mem", 250}} {
		gs = append(gs, goal{what: peer.name + ", to ours in batches of 64, s4", at: place{"W1", "s4", peer.name, "ns"}, to: push64, limit: peer.limit, atLeast: true})
	}
	gs = append(gs,
		goal{what: "allocations per delivery, s100", at: place{"W1", "s100", push, "allocs"}, limit: 0.01},
		goal{what: "8 publishers, 4 queues of 4 workers", at: place{"W2", "8x4x4", push64, "ns"}, to: channels.name, limit: 0.5})
	for _, l := range []struct {
		setting string
		limit   float64
	}{{"yield-s1", 2}, {"yield-s10", 1.7}, {"busy-s1", 1.2}, {"busy-s10", 1.2}} {
		gs = append(gs, goal{what: "median latency, " + l.setting, at: place{"W3", l.setting, push, "p50"}, to: channels.name, limit: l.limit})
	}
	gs = append(gs,
		goal{what: "one publish to 10,000 idle queues", at: place{"W4", "n10000", push, "one"}, to: channels.name, limit: 0.005},
		goal{what: "each publish of a burst to them", at: place{"W4", "n10000", push, "burst"}, to: channels.name, limit: 0.001},
		goal{what: "an idle queue with a subscriber", at: place{"W4", "n10000", push, "bytes"}, limit: 1024},
		goal{what: "goroutines of an idle subscriber", at: place{"W4", "n10000", push, "goroutines"}, limit: 0.001})
	for _, n := range []string{"n10000", "n100000", "n1000000"} { // the same limits at each: that is the growth asked for
		gs = append(gs,
			goal{what: "bookkeeping in flight, " + n, at: place{"W5", n, pull, "bytes"}, limit: 48},
			goal{what: "acknowledging in random order, " + n, at: place{"W5", n, pull, "ack"}, limit: 40},
			goal{what: "mass expiry, each, " + n, at: place{"W5", n, pull, "expire"}, limit: 50})
	}
	return append(gs,
		goal{what: "the life of a topic", at: place{"W6", "one", push, "ns"}, to: channels.name, limit: 3},
		goal{what: "goroutines left after it", at: place{"W6", "one", push, "left"}, limit: 0},
		goal{what: "growth of memory in a flood", at: place{"W7", "flood", push64, "growth"}, limit: 1.2})
}

// goalRows compares what was measured with the goals; those of which nothing was
// measured are left out.
func goalRows(b *book, gs []goal) (rows [][]string) {
	for _, g := range gs {
		s, ok := g.measured(b)
		if !ok {
			continue
		}
		verdict := "not met"
		if g.met(s) {
			verdict = "met"
		}
		rows = append(rows, []string{g.at.workload, g.what, g.aim(b), number(s.median), number(s.least) + " to " + number(s.greatest), verdict})
	}
	return rows
}

var goalHead = []string{"", "goal", "aim", "median", "least to greatest", ""}

// goalFigures writes each goal as a line for programs: 1 is met.
func goalFigures(b *book, gs []goal) (out []figure) {
	for _, g := range gs {
		s, ok := g.measured(b)
		if !ok {
			continue
		}
		met := 0.0
		if g.met(s) {
			met = 1
		}
		name := fmt.Sprintf("goal.%s.%s.%s.%s", g.at.workload, g.at.setting, g.at.system, g.at.metric)
		if g.to != "" {
			name += ".to." + g.to
		}
		out = append(out, figure{name: strings.ToLower(name), value: met, unit: "met", ratio: s.median, hasRatio: true})
	}
	return out
}
