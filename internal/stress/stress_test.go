package main

import (
	"bytes"
	"context"
	"errors"
	"flag"
	"io"
	"log/slog"
	"runtime"
	"testing"
	"testing/synctest"
	"time"
	"weak"

	"github.com/stretchr/testify/require"

	"github.com/gofanout/fanout"
)

func TestASmallRunBalances(t *testing.T) {
	var out bytes.Buffer
	err := run(t.Context(), []string{"-deliveries", "12000", "-queues", "24", "-publishers", "6", "-v"}, &out, io.Discard)
	require.NoError(t, err, out.String())
	require.Regexp(t, `seed 0x[0-9a-f]+`, out.String())
	require.Regexp(t, `ledger +balanced`, out.String())
}

// In virtual time the end of the bubble proves that no goroutine remains, and a
// Shutdown that has time enough that no consumer sleeps while there is something
// to do for it.
func TestAWorldBalancesInVirtualTime(t *testing.T) {
	for seed := range uint64(8) {
		synctest.Test(t, func(t *testing.T) {
			w, err := newWorld(config{seed: seed, queues: 16, publishers: 4}, 0, 3000, newSummary())
			require.NoError(t, err)
			require.NoError(t, w.play())
			require.Empty(t, w.prove())
			require.NotZero(t, w.deliveries.Load())
			for _, a := range w.arenas {
				var left *fanout.ShutdownError
				if a.patient && errors.As(a.endErr, &left) {
					require.NoError(t, left.Err, "topic %s: %v", a.name, left)
				}
			}
		})
	}
}

func TestASeedDeterminesTheInputs(t *testing.T) {
	draw := func(seed uint64) (specs []spec) {
		r := stream(mix(seed, 3), forSlot, 1, 7)
		tr := randomTraits(r)
		for range 50 {
			specs = append(specs, randomSpec(r, tr))
		}
		return specs
	}
	require.Equal(t, draw(1), draw(1))
	require.NotEqual(t, draw(1), draw(2))
	a, b := dice(mix(1, 2, 3)), dice(mix(1, 2, 3))
	for range 100 {
		n := a.roll(10)
		require.Equal(t, n, b.roll(10))
		require.Less(t, n, 10)
	}
}

func TestFlags(t *testing.T) {
	c, err := parse([]string{"-seed", "0xbeef", "-deliveries", "5"}, io.Discard)
	require.NoError(t, err)
	require.Equal(t, config{seed: 0xbeef, deliveries: 5, queues: 240, publishers: 16}, c)
	for _, bad := range [][]string{{"-seed", "x"}, {"-queues", "1"}, {"-publishers", "0"}, {"-deliveries", "0"}, {"more"}, {"-none"}} {
		var said bytes.Buffer
		_, err := parse(bad, &said)
		require.ErrorIs(t, err, errUsage, bad)
		require.NotEmpty(t, said.String())
	}
	var help bytes.Buffer
	_, err = parse([]string{"-h"}, &help)
	require.ErrorIs(t, err, flag.ErrHelp)
	for _, name := range []string{"-deliveries", "-seed", "-queues", "-publishers", "-v"} {
		require.Contains(t, help.String(), name)
	}
}

func TestAnInterruptEndsTheRunAfterItsRound(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	var out bytes.Buffer
	require.NoError(t, run(ctx, []string{"-seed", "1"}, &out, io.Discard))
	require.Regexp(t, `rounds +0`, out.String())
}

// arenaFor returns an arena that nobody uses.
func arenaFor(t *testing.T) *arena {
	w, err := newWorld(config{queues: 2, publishers: 1}, 0, 100, newSummary())
	require.NoError(t, err)
	return w.arenas[0]
}

func TestABookNotesADeliveryThatOwnsAnAcknowledgedMessage(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a := arenaFor(t)
		q, err := a.top.OpenQueue(t.Context(), "q")
		require.NoError(t, err)
		b := a.newBook("q", spec{keep: 1}, 1)
		require.NoError(t, a.top.Publish(t.Context(), 5))
		d, err := q.Receive(t.Context())
		require.NoError(t, err)
		b.got(256, &d, got)
		require.Len(t, b.events, 1)
		b.acked[0] = 1 << 5
		b.got(256, &d, got)
		require.Len(t, b.events, 3)
		require.Equal(t, gotAcked, b.events[2].deed)
		require.True(t, b.ack(256, &d))
		b.got(256, &d, got) // owns nothing any more: it came late
		require.Len(t, b.events, 5)
		b.mustNot(256, &d) // settled before, and not by a time-out
		require.Equal(t, wronglyDone, b.events[5].deed)
		require.NoError(t, a.top.Publish(t.Context(), 6))
		d, err = q.Receive(t.Context(), fanout.WithVisibilityTimeout(time.Second))
		require.NoError(t, err)
		time.Sleep(2 * time.Second)
		b.mustNot(256, &d)
		require.Equal(t, refusedAs, b.events[6].deed)
		require.NoError(t, a.top.Close())
	})
}

func TestMoreHandlersThanTheConcurrencyAreNoticed(t *testing.T) {
	a := arenaFor(t)
	c := &consumer{b: a.newBook("q", spec{}, 1), number: 3, limit: 2}
	first, leave := c.enter()
	second, _ := c.enter()
	require.Equal(t, []uint32{3 << 8, 3<<8 | 1}, []uint32{first, second})
	leave()
	_, _ = c.enter()
	require.Empty(t, a.w.problems)
	_, _ = c.enter()
	require.Equal(t, []string{"bounded"}, promises(a.w.problems))
}

func TestTheSamplerNoticesMoreThanTheCapacity(t *testing.T) {
	a := arenaFor(t)
	s := &sampler{w: a.w}
	s.bounded(fanout.Stats{Capacity: 2, Ready: 1, Parked: 1}, "t")
	require.Empty(t, a.w.problems)
	s.bounded(fanout.Stats{Capacity: 2, Ready: 1, Parked: 1, InFlight: 1}, "t")
	require.Equal(t, []string{"bounded"}, promises(a.w.problems))
}

// leave makes a topic with a message in flight, whose timer is armed for an
// hour, and lets go of it.
//
//go:noinline
func leave(t *testing.T, end bool) *remains {
	top, err := fanout.NewTopic[ticket]("left", fanout.WithLogger(slog.New(slog.DiscardHandler)))
	require.NoError(t, err)
	q, err := top.OpenQueue(t.Context(), "q", fanout.WithVisibilityTimeout(time.Hour))
	require.NoError(t, err)
	require.NoError(t, top.Publish(t.Context(), 1))
	_, err = q.Receive(t.Context())
	require.NoError(t, err)
	if end {
		require.NoError(t, top.Close())
	}
	return &remains{
		topics: []weak.Pointer[fanout.Topic[ticket]]{weak.Make(top)},
		queues: []weak.Pointer[fanout.Queue[ticket]]{weak.Make(q)},
	}
}

func TestAnArmedTimerIsNoticed(t *testing.T) {
	r := leave(t, false)
	found := r.proveNothingRemains(runtime.NumGoroutine(), 50*time.Millisecond)
	require.Equal(t, []string{"clean end"}, promises(found))
	require.Contains(t, found[0].what, "held after their end")
	require.NoError(t, r.topics[0].Value().Close()) // the timer holds it
	require.Empty(t, r.proveNothingRemains(runtime.NumGoroutine(), patience))
	require.Empty(t, leave(t, true).proveNothingRemains(runtime.NumGoroutine(), patience))
}

func TestAGoroutineIsNoticed(t *testing.T) {
	// Those of earlier tests may be on their way out; the runner's and this one stay.
	for end := time.Now().Add(patience); runtime.NumGoroutine() > 2 && time.Now().Before(end); {
		runtime.Gosched()
	}
	before := runtime.NumGoroutine()
	stop, over := make(chan struct{}), make(chan struct{})
	go func() { <-stop; close(over) }()
	found := (&remains{}).proveNothingRemains(before, 50*time.Millisecond)
	require.Equal(t, []string{"clean end"}, promises(found))
	require.Contains(t, found[0].ledger, "TestAGoroutineIsNoticed")
	close(stop)
	<-over
	require.Empty(t, (&remains{}).proveNothingRemains(before, patience))
}
