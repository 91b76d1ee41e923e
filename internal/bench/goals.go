package main

import (
	"errors"
	"fmt"
	"slices"
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
	// noise says that the goal is met too if the median exceeds the limit by no
	// more than what was measured twice differed.
	noise bool
	// plainToo says that the goal is met only if plainGoal is: a ratio to a slow
	// plain says nothing.
	plainToo bool
}

// plainGoal is what our delivery without features has to reach beside channels.
func plainGoal() goal {
	return goal{what: "plain, to channels", at: place{features.key, "s4", plain, "ns"}, to: channels.name, limit: 0.67, noise: true}
}

// measured is what was measured of it; ok is false if nothing was.
func (g goal) measured(b *book) (spread, bool) {
	if g.to == "" {
		return b.value(g.at)
	}
	return b.ratio(g.at, g.to)
}

// cpu is the same ratio by processor time, where that is another.
func (g goal) cpu(b *book) (spread, bool) {
	if g.to == "" || g.at.metric != "ns" {
		return spread{}, false
	}
	g.at.metric = "cpu"
	return b.ratio(g.at, g.to)
}

// control is the ratio to itself of what the goal is compared with, measured a
// second time in the same rounds; of bare channels if not that.
func (g goal) control(b *book) (spread, bool) {
	if g.to == "" {
		return spread{}, false
	}
	for _, of := range []string{g.to, channels.name} {
		at := g.at
		at.system = of + again
		if s, ok := b.ratio(at, of); ok {
			return s, true
		}
	}
	return spread{}, false
}

func (g goal) met(s spread) bool {
	if g.atLeast {
		return s.median >= g.limit
	}
	return s.median <= g.limit
}

// The verdicts.
const (
	isMet       = "met"
	isNotMet    = "not met"
	withinNoise = "met, within the noise"
	slowPlain   = "not met: plain is slower"
	notMeasured = "not measured"
)

// verdict says whether the goal is met by what was measured.
func (g goal) verdict(b *book) string {
	s, ok := g.measured(b)
	if !ok {
		for _, system := range []string{g.at.system, g.to} {
			at := g.at
			at.system = system
			switch err := b.failure(at); {
			case errors.Is(err, errNotFinished), err == nil && b.once(at):
				return system + " did not finish"
			case err != nil:
				return system + " failed"
			}
		}
		return notMeasured
	}
	if g.met(s) {
		if g.plainToo && !slices.Contains([]string{isMet, withinNoise}, plainGoal().verdict(b)) {
			return slowPlain
		}
		return isMet
	}
	if c, ok := g.control(b); ok && g.noise && !g.atLeast && s.median <= g.limit*c.greatest {
		return withinNoise
	}
	return isNotMet
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
	return strings.TrimSpace(sign + " " + strconv.FormatFloat(g.limit, 'f', -1, 64) + unit)
}

// The systems that goals speak of.
const (
	push   = "fanout-push"
	push64 = "fanout-push64"
	pull   = "fanout-pull"
	pull64 = "fanout-pull64"
	into64 = "fanout-into64"
	ranged = "fanout-range"
	batch  = "fanout-batch"
	own    = "fanout-own"
)

// goals lists what we want to reach.
func goals() []goal {
	return slices.Concat(throughputGoals(), featureGoals(), filterGoals(), latencyGoals(), memoryGoals(), inFlightGoals(), otherGoals())
}

func throughputGoals() (gs []goal) {
	for k, s := range []string{"s1", "s4", "s16", "s100"} {
		for _, of := range []struct {
			what, system, to string
			limits           [4]float64
		}{
			{"handler, published in batches of 64", push64, channels.name, [4]float64{0.9, 0.6, 0.25, 0.3}},
			{"the same, to channels of slices of 64", push64, channelsBatched.name, [4]float64{1.5, 2, 3, 4}},
			{"handler, published one by one", push, channels.name, [4]float64{2, 0.67, 0.35, 0.3}},
			{"batch handler of 64", batch, channels.name, [4]float64{0.9, 0.7, 0.4, 0.4}},
			{"ReceiveBatch and AckBatch", pull64, channels.name, [4]float64{0.9, 0.7, 0.4, 0.4}},
			{"ReceiveInto and AckBatch", into64, channels.name, [4]float64{0.9, 0.6, 0.2, 0.25}},
			{"Receive and Ack", pull, channels.name, [4]float64{2, 1.2, 0.8, 1.2}},
			{"a range over Deliveries", ranged, channels.name, [4]float64{2, 1, 0.5, 0.6}},
		} {
			gs = append(gs, goal{what: of.what + ", " + s, at: place{"W1", s, of.system, "ns"}, to: of.to, limit: of.limits[k]})
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
	return append(gs,
		goal{what: "allocations per delivery, s100", at: place{"W1", "s100", push, "allocs"}, limit: 0.01},
		goal{what: "8 publishers, 4 queues of 4 workers, in batches of 64", at: place{"W2", "8x4x4", push64, "ns"}, to: channels.name, limit: 0.4})
}

func featureGoals() (gs []goal) {
	gs = append(gs, plainGoal())
	for _, f := range []struct {
		name  string
		limit float64
	}{
		{"hooks", 4}, {"interceptor", 3}, {"ttl", 1.5}, {"message-ttl", 3}, {"rate", 2}, {"handler-timeout", 4},
		{"asks-err", 1.5}, {"asks-value", 1.5}, {"asks-done", 3}, {"ordering-key", 5}, {"deduplication", 5}, {"filter", 2},
		{"own-id", 2}, {"attribute", 3}, {"all", 8}, {"all-handler", 8},
	} {
		gs = append(gs, goal{what: featureNamed(f.name).says + ", to plain", at: place{features.key, "s4", f.name, "cpu"}, to: plain, limit: f.limit, plainToo: true})
	}
	for _, f := range []struct {
		name  string
		limit float64
	}{{"interceptor", 0.05}, {"asks-err", 0.01}, {"asks-value", 0.01}, {"asks-done", 1.02}} { // the context itself: 0.01 in a flood
		gs = append(gs, goal{what: featureNamed(f.name).says + ", allocations a delivery", at: place{features.key, "s4", f.name, "allocs"}, limit: f.limit})
	}
	return gs
}

func filterGoals() []goal {
	of := func(what, setting, system string, limit float64) goal {
		return goal{what: what, at: place{filters.key, setting, system, "ns"}, to: filtering, limit: limit}
	}
	return []goal{
		of("16 queues by predicate, one by one", "class16", "fanout-filter", 2),
		of("the same in batches of 64", "class16", "fanout-filter64", 2),
		{what: "memory of a message in 16 queues by predicate", at: place{resident.key, "class16", "fanout-filter64", "bytes"}, limit: 60},
		of("100 queues by filter policy, one by one", "kind100", "fanout-policy", 0.5),
		of("the same in batches of 64", "kind100", "fanout-policy64", 0.5),
		of("100 queues by WithMessageFilter, one by one", "kind100", "fanout-message", 4),
		of("the same in batches of 64", "kind100", "fanout-message64", 4),
	}
}

func latencyGoals() (gs []goal) {
	for _, l := range []struct {
		setting, metric string
		limit           float64
	}{{"yield-s1", "p50", 1.5}, {"yield-s10", "p50", 1.5}, {"yield-s1", "p99", 3}, {"busy-s1", "p50", 1.2}, {"busy-s10", "p50", 1.2}} {
		gs = append(gs, goal{what: "idle latency, " + l.metric + ", " + l.setting, at: place{"W3", l.setting, push, l.metric}, to: channels.name, limit: l.limit})
	}
	return gs
}

func memoryGoals() []goal {
	return []goal{
		{what: "one publish to 10,000 idle queues", at: place{"W4", "n10000", push, "one"}, to: channels.name, limit: 0.005},
		{what: "each publish of a burst to them", at: place{"W4", "n10000", push, "burst"}, to: channels.name, limit: 0.001},
		{what: "an idle queue with a subscriber", at: place{"W4", "n10000", push, "bytes"}, limit: 1024},
		{what: "goroutines of an idle subscriber", at: place{"W4", "n10000", push, "goroutines"}, limit: 0.001},
		{what: "growth of memory in a flood", at: place{"W7", "flood", push64, "growth"}, limit: 1.2},
		{what: "left behind a paused queue by a flood to others: two segments of 8 KiB", at: place{resident.key, "paused", into64, "left"}, limit: 2 * 8 << 10},
	}
}

func inFlightGoals() (gs []goal) {
	for _, n := range []string{"n10000", "n100000", "n1000000"} { // the same limits at each: that is the growth asked for
		gs = append(gs,
			goal{what: "bookkeeping in flight, " + n, at: place{"W5", n, pull, "bytes"}, limit: 48},
			goal{what: "acknowledging in random order, " + n, at: place{"W5", n, pull, "ack"}, limit: 40},
			goal{what: "mass expiry, each, " + n, at: place{"W5", n, pull, "expire"}, limit: 50})
	}
	of := func(what, system, metric string, limit float64) goal {
		return goal{what: what, at: place{"W5", "n1000000", system, metric}, to: system + old, limit: limit}
	}
	return append(gs,
		goal{what: "a million in flight, bytes of each", at: place{"W5", "n1000000", pull, "held"}, limit: 42},
		of("a million in flight, acknowledging in random order, to before", pull, "ack-cpu", 0.8),
		of("expiry, to before", pull, "expire", 0.3),
		of("redelivery in batches, to before", into64, "redeliver-cpu", 0.3),
		of("receiving with a visibility timeout of its own, to before", own, "receive-cpu", 0.4),
		of("AckBatch of those, to before", own, "ack-cpu", 0.15))
}

func otherGoals() []goal {
	return []goal{
		{what: "handlers of 2 us, 4 workers, one by one, processor time", at: place{realWork.key, "compute-2us", push, "cpu"}, to: channels.name, limit: 1.02, noise: true},
		{what: "the same, published in batches of 64", at: place{realWork.key, "compute-2us", push64, "cpu"}, to: channels.name, limit: 1.02, noise: true},
		{what: "the life of a topic", at: place{"W6", "one", push, "ns"}, to: channels.name, limit: 3},
		{what: "goroutines left after it", at: place{"W6", "one", push, "left"}, limit: 0},
	}
}

// goalRows compares what was measured with the goals. Those of which nothing was
// measured are left out, unless all are wanted.
func goalRows(b *book, gs []goal, all bool) (rows [][]string) {
	text := func(s spread, ok bool) (median, range_ string) {
		if !ok {
			return "-", "-"
		}
		return number(s.median), number(s.least) + " to " + number(s.greatest)
	}
	for _, g := range gs {
		s, ok := g.measured(b)
		verdict := g.verdict(b)
		if !all && verdict == notMeasured {
			continue
		}
		median, between := text(s, ok)
		cpu, _ := text(g.cpu(b))
		_, noise := text(g.control(b))
		rows = append(rows, []string{g.at.workload, g.what, g.aim(b), median, between, cpu, noise, verdict})
	}
	return rows
}

var goalHead = []string{"", "goal", "aim", "median", "least to greatest", "by processor time", "noise", ""}

// goalFigures writes each goal as a line for programs: 1 is met.
func goalFigures(b *book, gs []goal) (out []figure) {
	for _, g := range gs {
		s, ok := g.measured(b)
		if !ok {
			continue
		}
		met := 0.0
		if slices.Contains([]string{isMet, withinNoise}, g.verdict(b)) {
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

// tallyOf counts the verdicts: "30 met, 2 not met".
func tallyOf(b *book, gs []goal) string {
	counts := map[string]int{}
	for _, g := range gs {
		v := g.verdict(b)
		switch v {
		case isMet, withinNoise, isNotMet:
		case slowPlain:
			v = isNotMet
		default:
			v = notMeasured
		}
		counts[v]++
	}
	var out []string
	for _, v := range []string{isMet, withinNoise, isNotMet, notMeasured} {
		if counts[v] > 0 {
			out = append(out, fmt.Sprintf("%d %s", counts[v], v))
		}
	}
	return fmt.Sprintf("Of %d goals: %s.", len(gs), strings.Join(out, "; "))
}
