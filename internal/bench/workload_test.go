package main

import (
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"regexp"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// few are systems that are quick to start and to stop.
func few() []system {
	return []system{channels, handWritten, find(ours, push), find(ours, pull), cskr, geth, asaskevichSync}
}

func metricsOf(vs []value) (names []string) {
	for _, v := range vs {
		names = append(names, v.metric)
	}
	return names
}

func TestLatencyIsMeasured(t *testing.T) {
	for _, sys := range few() {
		for _, busy := range []bool{false, true} {
			vs, err := latencies(sys, 3, busy, 150, time.Second)
			require.NoError(t, err, sys.name)
			require.Equal(t, []string{"p50", "p99"}, metricsOf(vs))
			require.Positive(t, vs[0].v, sys.name)
			require.GreaterOrEqual(t, vs[1].v, vs[0].v, sys.name)
		}
	}
}

func TestManyQueuesAreMeasured(t *testing.T) {
	for _, sys := range few() {
		vs, err := manyQueues(sys, 400, 3) // so many that what ends late elsewhere does not count
		require.NoError(t, err, sys.name)
		require.Equal(t, []string{"one", "burst", "dlv", "bytes", "goroutines", "bytes-used"}, metricsOf(vs))
		if sys.name == channels.name {
			require.InDelta(t, 1, vs[4].v, 0.2, "a goroutine for each subscriber")
			require.Greater(t, vs[3].v, 8.0*capacity, "a channel keeps its whole buffer")
		}
	}
}

func TestLivesAreMeasured(t *testing.T) {
	for _, sys := range few() {
		vs, err := lives(sys, time.Millisecond)
		require.NoError(t, err, sys.name)
		require.Equal(t, []string{"ns", "allocs", "left"}, metricsOf(vs))
	}
}

func TestWhatIsInFlightIsMeasured(t *testing.T) {
	for _, k := range keepers {
		t.Run(k.name, func(t *testing.T) {
			vs, err := keep(k, 1000)
			require.NoError(t, err)
			want := []string{"receive", "stored", "bytes", "held", "ack", "receive-cpu", "ack-cpu"}
			if !k.slow {
				want = append(want, "expire", "redeliver", "redeliver-cpu")
			}
			require.Equal(t, want, metricsOf(vs))
		})
	}
}

func TestAFloodIsMeasured(t *testing.T) {
	vs, err := flooded(find(ours, push64), 4, 100*chunk)
	require.NoError(t, err)
	require.Equal(t, []string{"ns", "growth", "peak", "heap"}, metricsOf(vs)[:4])
}

// A system that loses every hundredth message, in the other measurements.
func TestEveryMeasurementFindsALoss(t *testing.T) {
	leaky := faulty(func(k int, m *payload) []*payload {
		if k%100 == 99 {
			m = &payload{word: 1} // damaged, so that nothing has to be waited for
		}
		return []*payload{m}
	})
	_, err := latencies(leaky, 2, false, 120, time.Minute)
	require.ErrorIs(t, err, errLost)
	_, err = manyQueues(leaky, 2, 3)
	require.ErrorIs(t, err, errLost)
	damaged := faulty(func(int, *payload) []*payload { return []*payload{{word: 1}} })
	_, err = lives(damaged, time.Millisecond)
	require.ErrorIs(t, err, errLost)
	doubled := faulty(func(_ int, m *payload) []*payload { return []*payload{m, m} })
	_, err = lives(doubled, time.Millisecond)
	require.ErrorIs(t, err, errLost)
	h := &lossyHeld{held: &heapHeld{}}
	_, err = receiveAll(h, 10)
	require.ErrorIs(t, err, errLost)
}

type lossyHeld struct{ held }

func (lossyHeld) receive() (uint64, error) { return 1, nil }

func TestAScalerFindsHowMuchFitsIntoItsTime(t *testing.T) {
	s := scaler{span: 100 * time.Millisecond, least: chunk, most: 1 << 20}
	each := 10 * time.Microsecond
	measure := func(n int) (time.Duration, error) { return time.Duration(n) * each, nil }
	require.NoError(t, s.run(measure))
	require.InDelta(t, 10_000, s.n, chunk)
	each *= 2
	require.NoError(t, s.run(measure))
	require.InDelta(t, 5_000, s.n, chunk)
	each = 0
	require.NoError(t, s.run(measure))
	require.LessOrEqual(t, s.n, s.most)
	each = time.Second
	require.NoError(t, s.run(measure))
	require.Equal(t, s.least, s.n)
	broken := errors.New("broken")
	require.ErrorIs(t, s.run(func(int) (time.Duration, error) { return 0, broken }), broken)
}

func TestEachRoundMeasuresEachSystemOnce(t *testing.T) {
	var order []string
	c := func(name string, once, scales bool) cell {
		return cell{at: place{setting: "s", system: name}, once: once, scales: scales, measure: func() ([]value, error) {
			order = append(order, name)
			if name == "broken" {
				return nil, errLost
			}
			return []value{{"ns", "ns", float64(len(order))}}, nil
		}}
	}
	w := workload{key: "W", cells: func(options) []cell {
		return []cell{c("chan", false, true), c("x", false, true), c("plain", false, false), c("once", true, false), c("broken", false, false), c("unwanted", false, false),
			c("unwanted-again", false, false), c("plain-again", false, false)}
	}}
	all := regexp.MustCompile("")
	b := run([]workload{w}, options{rounds: 3, only: all, peers: regexp.MustCompile("x|plain|once|broken")}, io.Discard)
	require.Equal(t, strings.Fields("chan x  chan x plain once broken plain-again  chan x plain plain-again  chan x plain plain-again"), order)
	require.ErrorIs(t, b.failure(place{"W", "s", "broken", ""}), errLost)
	s, ok := b.value(place{"W", "s", "x", "ns"})
	require.True(t, ok)
	require.Equal(t, spread{median: 10, least: 4, greatest: 14}, s)
}

func TestTheCommandWritesTablesFiguresGoalsAndCharts(t *testing.T) {
	dir := t.TempDir()
	md := filepath.Join(dir, "tables.md")
	var out strings.Builder
	err := command([]string{"-quick", "-rounds", "1", "-only", "^W1 s(1|4)$", "-peers", "^(fanout-push64|hand-written|chan)$", "-svg", dir, "-md", md}, &out, io.Discard)
	require.NoError(t, err)
	found := map[string]figure{}
	for line := range strings.Lines(out.String()) {
		if strings.HasPrefix(line, "figure ") {
			f, err := parseFigure(line)
			require.NoError(t, err)
			found[f.name] = f
		}
	}
	require.Positive(t, found["w1.s4.fanout-push64.ns"].ratio)
	require.Equal(t, 1.0, found["w1.s1.chan.ns"].ratio)
	require.Contains(t, found, "goal.w1.s4.fanout-push64.ns.to.chan")
	require.NotContains(t, found, "w1.s16.chan.ns")
	require.Regexp(t, `W1 +handler, published in batches of 64, s4 +<= 0\.6x +\S+ +\S+ to \S+ +\S+ +\S+ to \S+ +(not )?met`, out.String())

	tables, err := os.ReadFile(md)
	require.NoError(t, err)
	require.Regexp(t, `(?m)^\| ns \| s1 \| s4 \|$`, string(tables))
	require.Regexp(t, `(?m)^\| W1 \| s4 \| chan \| processor time \| \S+ \| \S+ to \S+ \|$`, string(tables), "the noise")
	require.Regexp(t, `(?m)^\| W12 \| .* \| not measured \|$`, string(tables), "all goals")
	svg, err := os.ReadFile(filepath.Join(dir, "throughput.svg"))
	require.NoError(t, err)
	require.Contains(t, string(svg), "fanout, published by 64")
	require.NotContains(t, string(svg), "JetStream", "it was not measured")
	_, err = os.Stat(filepath.Join(dir, "flood.svg"))
	require.ErrorIs(t, err, os.ErrNotExist, "a chart without data is not drawn")
}

func TestAGoalIsMetOrNot(t *testing.T) {
	b := newBook("chan")
	for _, v := range []struct {
		system string
		ns     float64
	}{{"chan", 100}, {push64, 50}, {"hand-written", 500}, {"chan-again", 90}} {
		at := place{workload: "W1", setting: "s1", system: v.system}
		b.add(at, 1, value{"ns", "ns", v.ns})
		b.add(at, 1, value{"cpu", "ns", 2 * v.ns})
	}
	b.add(place{workload: "W1", setting: "s1", system: "chan-again"}, 2, value{"ns", "ns", 102})
	b.add(place{workload: "W1", setting: "s1", system: "chan"}, 2, value{"ns", "ns", 100})
	b.fail(place{workload: "W1", setting: "s1", system: "slow"}, fmt.Errorf("%w: 3 of 4", errNotFinished))
	b.fail(place{workload: "W1", setting: "s1", system: "broken"}, errLost)
	at := func(system string) place { return place{"W1", "s1", system, "ns"} }
	rows := goalRows(b, []goal{
		{what: "a", at: at(push64), to: "chan", limit: 0.5},
		{what: "b", at: at(push64), to: "chan", limit: 0.4},
		{what: "c", at: at("hand-written"), to: push64, limit: 8, atLeast: true},
		{what: "d", at: at("hand-written"), to: push64, limit: 10, atLeast: true},
		{what: "e", at: at(push64), limit: 49},
		{what: "f", at: at("chan"), to: "chan", limit: 0.99, noise: true},
		{what: "g", at: at("chan"), to: "chan", limit: 0.99},
		{what: "h", at: at("slow"), limit: 1},
		{what: "i", at: at("chan"), to: "broken", limit: 1},
		{what: "not measured", at: at("nobody"), limit: 1},
	}, false)
	require.Equal(t, [][]string{
		{"W1", "a", "<= 0.5x", "0.5", "0.5 to 0.5", "0.5", "0.9 to 1.02", "met"},
		{"W1", "b", "<= 0.4x", "0.5", "0.5 to 0.5", "0.5", "0.9 to 1.02", "not met"},
		{"W1", "c", ">= 8x", "10", "10 to 10", "10", "0.9 to 1.02", "met"},
		{"W1", "d", ">= 10x", "10", "10 to 10", "10", "0.9 to 1.02", "met"},
		{"W1", "e", "<= 49 ns", "50", "50 to 50", "-", "-", "not met"},
		{"W1", "f", "<= 0.99x", "1", "1 to 1", "1", "0.9 to 1.02", "met, within the noise"},
		{"W1", "g", "<= 0.99x", "1", "1 to 1", "1", "0.9 to 1.02", "not met"},
		{"W1", "h", "<= 1", "-", "-", "-", "-", "slow did not finish"},
		{"W1", "i", "<= 1x", "-", "-", "-", "0.9 to 1.02", "broken failed"},
	}, rows)
	require.Equal(t, notMeasured, plainGoal().verdict(b))
	ttl := goal{at: place{"W8", "s4", "ttl", "cpu"}, to: plain, limit: 1.5, plainToo: true}
	for round, chanNS := range []float64{80, 60, 50} { // plain is 0.5, 0.67 and 0.8 of it
		b := bookOf([]workload{features})
		for system, ns := range map[string]float64{"chan": chanNS, plain: 40, "ttl": 50} {
			b.add(place{workload: "W8", setting: "s4", system: system}, 1, value{"ns", "ns", ns})
			b.add(place{workload: "W8", setting: "s4", system: system}, 1, value{"cpu", "ns", ns})
		}
		require.Equal(t, []string{isMet, isMet, slowPlain}[round], ttl.verdict(b))
	}
	all := []goal{{at: at(push64), to: "chan", limit: 0.5}, {at: at(push64), to: "chan", limit: 0.4}, {at: at("slow"), limit: 1}, {at: at("nobody"), limit: 1}}
	require.Len(t, goalRows(b, all, true), 4)
	require.Len(t, goalRows(b, all, false), 3)
	require.Equal(t, "Of 4 goals: 1 met; 1 not met; 2 not measured.", tallyOf(b, all))
}

// A goal that names a place nobody measures would never be looked at.
func TestEveryGoalIsOfSomethingMeasured(t *testing.T) {
	all := regexp.MustCompile("")
	measured := map[place]bool{}
	for _, w := range workloads {
		for _, c := range w.cells(options{rounds: 1, only: all, peers: all, span: time.Second, old: "old"}) {
			c.at.workload = w.key
			measured[c.at] = true
		}
	}
	for _, g := range goals() {
		at := g.at
		at.metric = ""
		if strings.HasPrefix(at.setting, "busy") && runtime.GOMAXPROCS(0) == 1 {
			continue
		}
		require.True(t, measured[at], "%v", g.at)
		if g.to != "" {
			at.system = g.to
			require.True(t, measured[at], "%v to %s", g.at, g.to)
		}
	}
}
