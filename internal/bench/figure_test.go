package main

import (
	"testing"

	"github.com/stretchr/testify/require"
)

func TestAFigureIsReadAsItWasWritten(t *testing.T) {
	for _, f := range []figure{
		{name: "w1.s16.fanout-push.ns", value: 12.5, unit: "ns", ratio: 0.34, hasRatio: true},
		{name: "w5.n1000000.fanout.bytes", value: 41, unit: "B"},
		{name: "w4.n10000.fanout.burst", value: 0.00012, unit: "ns", ratio: 1e-7, hasRatio: true},
		{name: "w7.flood.fanout.peak", value: 123000000, unit: "B"},
		{name: "zero", unit: "B"},
	} {
		got, err := parseFigure(f.String())
		require.NoError(t, err)
		require.Equal(t, f, got)
	}
}

func TestWhatIsNoFigureIsRefused(t *testing.T) {
	for _, line := range []string{
		"", "figure", "figure a 1 ns", "figure a 1 ns ratio", "figure a one ns ratio 1", "figure a 1 ns ratio one",
		"figure a 1 ns times 1", "number a 1 ns ratio 1", "figure a 1 ns ratio 1 2",
	} {
		_, err := parseFigure(line)
		require.Error(t, err, line)
	}
}

func TestTheFiguresOfABook(t *testing.T) {
	b := newBook("chan")
	at := func(system string) place { return place{workload: "W1", setting: "s4", system: system} }
	for round, v := range []float64{10, 20, 40} {
		b.add(at("chan"), round, value{"ns", "ns", v})
	}
	// The ratios are 3, 1 and 2: their median is 2, whereas the medians' is 1.
	for round, v := range []float64{30, 20, 80} {
		b.add(at("x"), round, value{"ns", "ns", v})
	}
	var out []string
	for _, f := range b.figures() {
		out = append(out, f.String())
	}
	require.Equal(t, []string{"figure w1.s4.chan.ns 20 ns ratio 1", "figure w1.s4.x.ns 30 ns ratio 2"}, out)

	x := at("x")
	x.metric = "ns"
	r, ok := b.ratio(x, "chan")
	require.True(t, ok)
	require.Equal(t, spread{median: 2, least: 1, greatest: 3}, r)
}
