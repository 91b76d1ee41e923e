package fanout_test

import (
	"context"
	"errors"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/gofanout/fanout"
	"github.com/gofanout/fanout/internal/fakeengine"
)

// TestASlowEngineIsNotAnEmptyOne: an engine that takes its time to answer holds
// its dead letters all the same.
func TestASlowEngineIsNotAnEmptyOne(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		died := make(chan struct{})
		e := fakeengine.New(fakeengine.Config{})
		top, err := fanout.NewTopic[string]("t", fanout.WithEngine(e),
			fanout.WithHooks(fanout.Hooks{DeadLettered: func(fanout.Event) { close(died) }}))
		require.NoError(t, err)
		defer top.Close()
		s, err := top.Subscribe(t.Context(), "q", func(context.Context, fanout.Delivery[string]) error {
			return fanout.Permanent(errors.New("no"))
		})
		require.NoError(t, err)
		require.NoError(t, top.Publish(t.Context(), "a"))
		<-died
		require.NoError(t, s.Shutdown(t.Context()))
		e.Inject(fakeengine.Fault{Op: fakeengine.Receive, Latency: 2 * time.Second})
		q := s.Queue()
		n, err := q.DeadLetters().Depth(t.Context())
		require.NoError(t, err)
		require.Equal(t, 1, n)
		moved, err := q.Redrive(t.Context())
		require.NoError(t, err)
		require.Equal(t, 1, moved)
	})
}
