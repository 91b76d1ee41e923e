package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/gofanout/fanout"
)

func TestEveryFeatureDeliversEverythingOnce(t *testing.T) {
	for _, f := range allFeatures {
		t.Run(f.name, func(t *testing.T) {
			t.Parallel()
			_, _, err := flow(f.system(), shape{queues: 2, workers: max(f.workers, 1), publishers: 1, capacity: capacity}, 64*chunk, testPatience)
			require.NoError(t, err)
			require.NotEmpty(t, f.says)
			require.True(t, f.name == plain || f.why != "", "the table says what costs")
		})
	}
}

// What a feature sets is really set: a hook that isn't called costs nothing.
func TestFeaturesAreSet(t *testing.T) {
	for name, look := range map[string]func(d fanout.Delivery[*payload]) bool{
		"own-id":       func(d fanout.Delivery[*payload]) bool { return d.ID() == manyIDs[0] },
		"attribute":    func(d fanout.Delivery[*payload]) bool { v, _ := d.Attribute(kindAttribute); return v == ring[0].kind },
		"ordering-key": func(d fanout.Delivery[*payload]) bool { return d.OrderingKey() == someKeys[0] },
		plain:          func(d fanout.Delivery[*payload]) bool { return d.OrderingKey() == "" && len(d.Attributes()) == 0 },
	} {
		b, err := openFanout(shape{queues: 1, publishers: 1, capacity: capacity}, featureNamed(name).way)
		require.NoError(t, err)
		require.NoError(t, b.publish(0, ring[:1]))
		d, err := b.queues[0].Receive(context.Background())
		require.NoError(t, err)
		require.True(t, look(d), name)
		require.NoError(t, b.stop())
	}
	for name, look := range map[string]func(s fanout.QueueSettings) bool{
		"ttl":    func(s fanout.QueueSettings) bool { return s.TimeToLive == longEnough },
		"filter": func(s fanout.QueueSettings) bool { return s.Filtered },
	} {
		b, err := openFanout(shape{queues: 1, publishers: 1, capacity: capacity}, featureNamed(name).way)
		require.NoError(t, err)
		require.True(t, look(b.queues[0].View().Settings()), name)
		require.NoError(t, b.stop())
	}
	for name, look := range map[string]func(s fanout.SubscriberView) bool{
		"rate":            func(s fanout.SubscriberView) bool { return s.RateLimit == 1e9 },
		"handler-timeout": func(s fanout.SubscriberView) bool { return s.HandlerTimeout == longEnough },
	} {
		s := shape{queues: 1, workers: 1, publishers: 1, capacity: capacity}
		s.tally = newAccount(s, 0, 1, false).tally
		y := featureNamed(name).way
		y.consume = subscribePush
		b, err := openFanout(s, y)
		require.NoError(t, err)
		require.True(t, look(b.queues[0].View().Subscribers()[0]), name)
		require.NoError(t, b.stop())
	}
	for _, name := range []string{"all", "all-handler"} {
		f := featureNamed(name)
		require.Len(t, f.worker, 2, "an interceptor and a rate limit")
		require.NotEmpty(t, f.topic)
		require.NotNil(t, f.queue)
	}
}

func TestFiltersGiveEachQueueItsMessages(t *testing.T) {
	for _, of := range []struct {
		queues  int
		takes   choice
		systems []system
	}{
		{classes, ofClass, append(classSystems(), filteringChannels("chan", ofClass, nil))},
		{kinds, ofKind, append(kindSystems(), filteringChannels("chan", ofKind, nil))},
	} {
		for _, sys := range of.systems {
			t.Run(sys.name, func(t *testing.T) {
				t.Parallel()
				_, _, err := flow(sys, shape{queues: of.queues, workers: 1, publishers: 1, capacity: capacity, takes: of.takes}, 32*chunk, testPatience)
				require.NoError(t, err)
			})
		}
	}
}

// A filter that accepts what belongs to another queue, or not all that belongs to
// its own.
func TestAWrongFilterIsFound(t *testing.T) {
	s := shape{queues: classes, workers: 1, publishers: 1, capacity: capacity, takes: ofClass}
	for name, takes := range map[string]choice{
		"too much": func(queue int, m *payload) bool { return ofClass(queue, m) || queue == 3 && m.class == 4 },
		"another":  func(queue int, m *payload) bool { return m.class == uint32(queue+1)%classes },
		"too little": func(queue int, m *payload) bool {
			return ofClass(queue, m) && m != ring[0]
		},
	} {
		_, _, err := flow(filteringChannels("chan", takes, nil), s, 8*chunk, time.Second/4)
		require.Error(t, err, name)
		require.True(t, errors.Is(err, errLost) || errors.Is(err, errNotFinished), name)
	}
}

func TestAChoiceCountsWhatAQueueGets(t *testing.T) {
	for _, n := range []int{0, 1, chunk, ringSize, ringSize + 70, 3 * ringSize} {
		all, sums := 0, uint64(0)
		for q := range classes {
			want, wantSum := 0, uint64(0)
			for k := range n {
				if m := ring[k%ringSize]; ofClass(q, m) {
					want++
					wantSum += m.word
				}
			}
			got, sum := choice(ofClass).chosen(q, n)
			require.Equal(t, want, got, n)
			require.Equal(t, wantSum, sum, n)
			all, sums = all+got, sums+sum
		}
		require.Equal(t, n, all, "each message is of one class")
		require.Equal(t, sumOf(n), sums)
		got, sum := choice(nil).chosen(5, n)
		require.Equal(t, n, got)
		require.Equal(t, sumOf(n), sum)
	}
}

func TestEachHandlerWorksOnce(t *testing.T) {
	for _, sys := range []system{channels, handWritten, find(ours, push)} {
		for _, workers := range []int{1, 3} {
			done := make(chan struct{}, 10*chunk)
			_, _, err := flow(sys, shape{queues: 1, workers: workers, publishers: 1, capacity: capacity, work: func() { done <- struct{}{} }}, 8*chunk, testPatience)
			require.NoError(t, err, sys.name)
			require.Len(t, done, 8*chunk, sys.name)
		}
	}
}

func TestFailuresAreThoseThatWereMeant(t *testing.T) {
	s := shape{queues: 2, workers: 1, publishers: 1, capacity: capacity}
	for _, sys := range []system{failingSystem("f", false), failingSystem("f64", true), handFailing} {
		_, _, err := flow(sys, s, 64*chunk, testPatience)
		require.NoError(t, err, sys.name)
	}
	die, twice := dying(ringSize)
	require.InDelta(t, 0.001*ringSize, die, 1)
	require.InDelta(t, 0.01*ringSize, twice, 1)

	// None dies, though some had to.
	healthy := way{name: "healthy", batches: true, consume: subscribePush, check: checkDead}.system()
	_, _, err := flow(healthy, s, 64*chunk, testPatience)
	require.ErrorIs(t, err, errLost)
}

func TestResidentMemoryIsMeasured(t *testing.T) {
	const n, many = 16 * 1024, 256 * 1024 // so many that what ends late elsewhere does not count
	vs, err := backlog(channels, shape{queues: 2, publishers: 1, capacity: many}, many)
	require.NoError(t, err)
	require.Equal(t, []string{"bytes-message", "bytes"}, metricsOf(vs))
	require.InDelta(t, 16, vs[0].v, 1, "a pointer in each of two channels")
	require.InDelta(t, 8, vs[1].v, 0.5)
	for _, sys := range []system{find(ours, push64), find(classSystems(), "fanout-filter64"), gocloud} {
		s := shape{queues: classes, publishers: 1, capacity: n}
		if sys.name == "fanout-filter64" {
			s.takes = ofClass
		}
		vs, err := backlog(sys, s, n)
		require.NoError(t, err, sys.name)
		require.Positive(t, vs[1].v, sys.name)
	}
	vs, err = kept(func(int) [64]byte { return [64]byte{} }, n)
	require.NoError(t, err)
	require.Equal(t, []string{"bytes"}, metricsOf(vs))
	require.Greater(t, vs[0].v, 64.0, "the body is kept")
	vs, err = besidePaused(n)
	require.NoError(t, err)
	require.Equal(t, []string{"left"}, metricsOf(vs))
}

func TestWhatWasNotFinishedIsNotLost(t *testing.T) {
	s := newSteps(1, 1)
	defer s.patience(time.Millisecond)()
	s.begin()
	err := s.wait()
	require.ErrorIs(t, err, errNotFinished)
	require.NotErrorIs(t, err, errLost)

	b := newBook("chan")
	at := place{workload: "W1", setting: "s1", system: "slow", metric: "ns"}
	late := fmt.Errorf("%w after 17s", errNotFinished)
	b.fail(at, late)
	require.Equal(t, "NOT FINISHED", b.entry(at))
	b.add(place{workload: "W1", setting: "s1", system: "chan"}, 2, value{"ns", "ns", 10})
	b.add(place{workload: "W1", setting: "s1", system: "slow"}, 2, value{"ns", "ns", 50})
	require.NoError(t, b.failure(at), "another round shows what it can do")
	require.Equal(t, "50 (5x, 5-5, once not finished)", b.entry(at))
	b.fail(at, late)
	require.ErrorIs(t, b.failure(at), errNotFinished)
	require.Equal(t, "NOT FINISHED", b.entry(at))
}

// With one processor, others run only if the publisher yields: many times while it
// waits for its next message, not just when it blocks.
func TestAPublisherThatYieldsLetsOthersRun(t *testing.T) {
	defer runtime.GOMAXPROCS(runtime.GOMAXPROCS(1))
	const messages = 120
	var turns, stop atomic.Int64
	var wg sync.WaitGroup
	wg.Go(func() {
		for stop.Load() == 0 {
			turns.Add(1)
			runtime.Gosched()
		}
	})
	_, err := latencies(channels, 1, false, messages, time.Second)
	stop.Store(1)
	wg.Wait()
	require.NoError(t, err)
	require.Greater(t, turns.Load(), int64(5*messages))
}

func TestTheNoiseIsWhatWasMeasuredTwice(t *testing.T) {
	b := bookOf([]workload{features})
	for round, v := range []float64{10, 20, 40} {
		for system, times := range map[string]float64{"plain": 1, "plain-again": 1 + float64(round)/10, "all": 9} {
			b.add(place{workload: "W8", setting: "s4", system: system}, round, value{"cpu", "ns", v * times})
		}
	}
	require.Equal(t, [][]string{{"W8", "s4", "plain", "processor time", "1.1", "1 to 1.2"}}, b.noise())
	require.Equal(t, "180 (9x, 9-9)", b.entry(place{"W8", "s4", "all", "cpu"}), "its own yardstick")
}

func TestARunIsReadAsItWasSaved(t *testing.T) {
	b := bookOf(workloads)
	for round, v := range []float64{10, 20, 15} {
		b.add(place{workload: "W1", setting: "s1", system: "chan"}, round, value{"ns", "ns", v})
		b.add(place{workload: "W8", setting: "s4", system: plain}, round, value{"cpu", "ns", 3 * v})
		b.add(place{workload: "W7", setting: "flood", system: push64}, round, value{"heap", seriesUnit, v})
	}
	b.fail(place{workload: "W1", setting: "s1", system: "slow"}, fmt.Errorf("%w after 17s", errNotFinished))
	b.fail(place{workload: "W1", setting: "s1", system: "slower"}, fmt.Errorf("%w after 17s", errNotFinished))
	b.fail(place{workload: "W1", setting: "s1", system: "slower"}, fmt.Errorf("%w after 18s", errNotFinished))
	b.fail(place{workload: "W1", setting: "s1", system: "leaky"}, fmt.Errorf("%w: 2 of 3", errLost))
	b.fail(place{workload: "W1", setting: "s1", system: "broken"}, errors.New("it did not start"))
	file := filepath.Join(t.TempDir(), "run.json")
	require.NoError(t, b.save(file, "a machine"))
	got, machine, err := load([]string{file}, workloads)
	require.NoError(t, err)
	require.Equal(t, "a machine", machine)
	require.Equal(t, b.order, got.order)
	require.Equal(t, b.values, got.values)
	require.Equal(t, b.units, got.units)
	require.Equal(t, b.series, got.series)
	require.Equal(t, b.baselines, got.baselines)
	require.NoError(t, got.failure(place{workload: "W1", setting: "s1", system: "slow"}))
	require.True(t, got.once(place{workload: "W1", setting: "s1", system: "slow"}))
	for system, want := range map[string]string{"slower": "NOT FINISHED", "leaky": "LOST", "broken": "FAILED"} {
		at := place{workload: "W1", setting: "s1", system: system, metric: "ns"}
		require.Equal(t, want, got.entry(at))
		require.EqualError(t, got.failure(at), b.failure(at).Error())
	}

	other := bookOf(workloads)
	other.add(place{workload: "W2", setting: "8x4x4", system: "chan"}, 1, value{"ns", "ns", 7})
	second := filepath.Join(t.TempDir(), "second.json")
	require.NoError(t, other.save(second, "another machine"))
	both, machine, err := load([]string{file, second}, workloads)
	require.NoError(t, err)
	require.Equal(t, "a machine And: another machine", machine)
	require.Equal(t, "7", both.entry(place{"W2", "8x4x4", "chan", "ns"}))
	require.Equal(t, "15", both.entry(place{"W1", "s1", "chan", "ns"}))

	_, _, err = load([]string{filepath.Join(t.TempDir(), "none")}, workloads)
	require.ErrorIs(t, err, os.ErrNotExist)
	require.NoError(t, os.WriteFile(file, []byte("{"), 0o644))
	_, _, err = load([]string{second, file}, workloads)
	require.ErrorContains(t, err, file)
}

func TestFiguresAreFilledIntoTexts(t *testing.T) {
	blocks := map[string]string{"a": "1.5", "table": "\n| x |\n"}
	out, err := fill("It takes <!-- measured: a -->old<!-- end --> times.\n<!-- measured: table -->\n| old |\n<!-- end -->\nEnd.", blocks)
	require.NoError(t, err)
	require.Equal(t, "It takes <!-- measured: a -->1.5<!-- end --> times.\n<!-- measured: table -->\n| x |\n<!-- end -->\nEnd.", out)
	again, err := fill(out, blocks)
	require.NoError(t, err)
	require.Equal(t, out, again)

	_, err = fill("<!-- measured: b --><!-- end -->", blocks)
	require.ErrorContains(t, err, "b; there are a, table")
	_, err = fill("nothing", blocks)
	require.Error(t, err)
	file := filepath.Join(t.TempDir(), "text.md")
	require.NoError(t, os.WriteFile(file, []byte("nothing"), 0o644))
	require.ErrorContains(t, fillFiles([]string{file}, blocks), file)
	require.ErrorIs(t, fillFiles([]string{file + "x"}, blocks), os.ErrNotExist)
}

// The project's own texts name blocks that there are.
func TestTheTextsCanBeFilled(t *testing.T) {
	b := bookOf(workloads)
	for _, s := range []string{"s1", "s4", "s16", "s100"} {
		for system, v := range map[string]float64{"chan": 20, push: 10, push64: 5, "chan64": 2.5} {
			b.add(place{workload: "W1", setting: s, system: system}, 1, value{"ns", "ns", v})
		}
	}
	for _, f := range allFeatures {
		at := place{workload: features.key, setting: "s4", system: f.name}
		b.add(at, 1, value{"cpu", "ns", 40})
		b.add(at, 1, value{"allocs", "allocs", 0.009})
	}
	blocks := b.blocks("a machine")
	require.Equal(t, "0.50, 0.50, 0.50 and 0.50", blocks["one-by-one"])
	require.Equal(t, "2.0, 2.0, 2.0 and 2.0", blocks["slices"])
	require.Equal(t, "(not measured)", blocks["receive"])
	require.Contains(t, blocks["features"], "| hooks Published and Settled | 40 | 1 (1 to 1) | 0.01 |")
	require.Contains(t, blocks["goals"], "not measured")
	for _, file := range filled {
		text, err := os.ReadFile(file)
		require.NoError(t, err)
		out, err := fill(string(text), blocks)
		require.NoError(t, err, file)
		require.NotEqual(t, string(text), out, file)
	}
}

func TestFiguresOfAnOlderProgramAreRead(t *testing.T) {
	out := "go1.26\nfigure w5.n1000000.fanout-pull.ack-cpu 38 ns ratio -\nfigure w5.n1000000.fanout-pull.held 34 B ratio -\n" +
		"figure w5.n1000000.fanout-own.ack-cpu 319 ns ratio -\nfigure goal.w5.n1000000.fanout-pull.ack 0 met ratio 38\n"
	vs, err := valuesOf(out, "w5.n1000000.fanout-pull.")
	require.NoError(t, err)
	require.Equal(t, []value{{"ack-cpu", "ns", 38}, {"held", "B", 34}}, vs)
	_, err = valuesOf(out, "w5.n1000000.fanout-into64.")
	require.Error(t, err)
	_, err = valuesOf("figure broken", "w5.")
	require.Error(t, err)
	_, err = measureOld(filepath.Join(t.TempDir(), "none"), "W5", "n1000000", pull)
	require.ErrorIs(t, err, os.ErrNotExist)
}
