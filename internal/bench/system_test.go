package main

import (
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

const testPatience = 20 * time.Second

func TestEverySystemDeliversEverythingOnce(t *testing.T) {
	for _, sys := range everySystem {
		t.Run(sys.name, func(t *testing.T) {
			t.Parallel()
			n := 64 * chunk // more than a queue holds, and not a whole number of rings after the first
			if sys.costly {
				n = 2 * chunk
			}
			vs, _, err := flow(sys, shape{queues: 3, workers: 1, publishers: 1, capacity: capacity}, n, testPatience)
			require.NoError(t, err)
			require.Equal(t, "ns", vs[0].metric)
			require.Positive(t, vs[0].v)
		})
	}
}

func TestCompetingWorkersShareEverything(t *testing.T) {
	for _, sys := range everySystem {
		if !sys.competes {
			continue
		}
		t.Run(sys.name, func(t *testing.T) {
			t.Parallel()
			n := 64 * chunk
			if sys.costly {
				n = 4 * chunk
			}
			_, _, err := flow(sys, shape{queues: 2, workers: 3, publishers: 4, capacity: capacity}, n, testPatience)
			require.NoError(t, err)
		})
	}
}

// faulty wraps channels: change may drop, double or exchange what is published.
func faulty(change func(k int, m *payload) []*payload) system {
	sys := channels
	sys.open = func(s shape) (bus, error) {
		b, err := channels.open(s)
		return &faultyBus{bus: b, change: change}, err
	}
	return sys
}

type faultyBus struct {
	bus
	change func(k int, m *payload) []*payload
	k      int
}

func (b *faultyBus) publish(p int, ms []*payload) error {
	for _, m := range ms {
		if err := b.bus.publish(p, b.change(b.k, m)); err != nil {
			return err
		}
		b.k++
	}
	return nil
}

func TestAFaultIsFound(t *testing.T) {
	const n = 8 * chunk
	for name, change := range map[string]func(k int, m *payload) []*payload{
		"the first is lost":    func(k int, m *payload) []*payload { return []*payload{m}[:min(k, 1)] },
		"one is lost":          func(k int, m *payload) []*payload { return []*payload{m}[:min(abs(k-100), 1)] },
		"the last is lost":     func(k int, m *payload) []*payload { return []*payload{m}[:min(n-1-k, 1)] },
		"one comes twice":      func(k int, m *payload) []*payload { return []*payload{m, m}[:2-min(abs(k-100), 1)] },
		"the last comes twice": func(k int, m *payload) []*payload { return []*payload{m, m}[:2-min(n-1-k, 1)] },
		"one comes for another": func(k int, m *payload) []*payload {
			if k == 100 {
				m = ring[99]
			}
			return []*payload{m}
		},
		"one is damaged": func(k int, m *payload) []*payload {
			if k == 100 {
				m = &payload{word: m.word + 1}
			}
			return []*payload{m}
		},
	} {
		for _, workers := range []int{1, 3} {
			t.Run(name, func(t *testing.T) {
				_, _, err := flow(faulty(change), shape{queues: 2, workers: workers, publishers: 1, capacity: capacity}, n, time.Second/4)
				if strings.Contains(name, "lost") && workers == 1 {
					require.ErrorIs(t, err, errNotFinished, "it might have come later")
					return
				}
				require.ErrorIs(t, err, errLost)
			})
		}
	}
}

func abs(n int) int { return max(n, -n) }

func TestNoFaultIsFoundWhereNoneIs(t *testing.T) {
	_, _, err := flow(faulty(func(_ int, m *payload) []*payload { return []*payload{m} }),
		shape{queues: 2, workers: 1, publishers: 1, capacity: capacity}, 8*chunk, testPatience)
	require.NoError(t, err)
}

func TestASystemThatLosesIsMarkedAndNotRanked(t *testing.T) {
	b := newBook("chan")
	at := place{workload: "W1", setting: "s1", system: "leaky", metric: "ns"}
	b.add(place{workload: "W1", setting: "s1", system: "chan"}, 1, value{"ns", "ns", 10})
	b.add(place{workload: "W1", setting: "s1", system: "leaky"}, 1, value{"ns", "ns", 5})
	require.Len(t, b.figures(), 2)
	b.fail(at, errors.Join(errLost))
	_, ok := b.value(at)
	require.False(t, ok)
	_, ok = b.ratio(at, "chan")
	require.False(t, ok)
	require.Len(t, b.figures(), 1, "a figure of a system that loses is no figure")
	require.Equal(t, "LOST", b.entry(at))
}

func TestASumIsThatOfTheMessagesPublished(t *testing.T) {
	for _, n := range []int{0, 1, chunk, ringSize - 1, ringSize, ringSize + 1, 3*ringSize + 5} {
		var want uint64
		for k := range n {
			want += ring[k%ringSize].word
		}
		require.Equal(t, want, sumOf(n), n)
	}
}

func TestAMessageAsBytesIsTheMessage(t *testing.T) {
	require.Equal(t, ring[5].word, wordOf(ring[5].raw))
	require.Zero(t, wordOf(ring[5].raw[:63]))
}
