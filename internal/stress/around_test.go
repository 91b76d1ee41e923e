package main

import (
	"context"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/gofanout/fanout"
)

func TestInterceptorsThatAreLeftOutOrToldWrongAreNoticed(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a := arenaFor(t)
		a.traits.around = true
		b, ds := receivedFor(t, a, "q", 2)
		b.spec.around = true
		a.offered.Store(a.passed.Load()) // those of receivedFor
		c := &consumer{b: b, number: 1, limit: 1}
		info := fanout.Info{Topic: a.name, Queue: "q", Messages: 1, MessageID: "m0", Attempt: 1}
		a.checkAround()
		b.checkAround()
		require.Empty(t, a.w.problems)

		c.through(t.Context(), ds[0])
		require.Len(t, a.w.problems, 2, "through none")
		a.checkAround()
		b.checkAround()
		require.Len(t, a.w.problems, 4, "a run that no interceptor saw")
		require.NoError(t, c.around(t.Context(), info, func(context.Context) error { return nil }))
		require.Len(t, a.w.problems, 5, "the topic's is not around the subscriber's")
		require.NoError(t, a.aroundPublish(t.Context(), info, func(context.Context) error { return nil }))
		require.Len(t, a.w.problems, 6, "not of a publish")
		a.handled.Add(1)
		b.checkAround()
		require.Len(t, a.w.problems, 6)
		a.checkAround()
		require.Len(t, a.w.problems, 7, "a message that nobody offered")
		require.NoError(t, a.top.Close())
	})
}

func TestHandlersThatStartTooFastAreNoticed(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a := arenaFor(t)
		b, ds := receivedFor(t, a, "q", 3)
		b.spec.visibility, b.spec.rate = time.Second, 1000
		c := &consumer{b: b, number: 1, limit: 1}
		at := func(s ...start) []violation {
			a.w.problems, c.pace.starts = nil, s
			c.provePace()
			return a.w.problems
		}
		require.Empty(t, at(start{3e6, 2}, start{1e6, 2}, start{5e6, 1}))
		require.Len(t, at(start{1e6, 2}, start{3e6 - 1, 1}), 1)
		require.Len(t, at(start{1e6, 1}, start{1e6, 1}), 1)
		c.pace.starts = nil
		c.started(ds[0])
		require.Equal(t, []start{{time.Since(a.w.began), 1}}, c.pace.starts)
		time.Sleep(2 * time.Second)
		c.started(ds[1]) // its time is up
		require.Len(t, c.pace.starts, 1)
		require.NoError(t, a.top.Close())
	})
}
