package ending

import (
	"errors"
	"testing"

	"github.com/stretchr/testify/require"
)

func TestWhatIsLeftIsSaidInOneLine(t *testing.T) {
	all := Left{Queue: "q", Ready: 1, Retrying: 2, Delayed: 4, InFlight: 8, Parked: 16, Released: 32, Blocked: 64, Running: 3}
	for want, l := range map[string]Left{
		`queue "q": 1 ready, 2 retrying, 4 delayed, 8 in flight, 16 parked, 32 released, 64 blocked, 3 handlers running`: all,
		`queue "a": 1 delayed`:                      {Queue: "a", Delayed: 1},
		`queue "a": 1 in flight, 1 handler running`: {Queue: "a", InFlight: 1, Running: 1},
		`queue "a": 1 handler running`:              {Queue: "a", Running: 1},
		`queue "a":`:                                {Queue: "a"},
	} {
		require.Equal(t, want, l.String())
	}
	require.Equal(t, 127, all.Messages(), "handlers are none")
	for k, l := range []Left{{Ready: 5}, {Retrying: 5}, {Delayed: 5}, {InFlight: 5}, {Parked: 5}, {Released: 5}, {Blocked: 5}} {
		require.Equal(t, 5, l.Messages(), "the one with index %d", k)
	}
}

func TestAShutdownErrorSaysWhatWasLeftAndWhy(t *testing.T) {
	busy := errors.New("busy")
	e := &ShutdownError{Topic: "payments", Queues: []Left{{Queue: "a", Ready: 1}, {Queue: "b", Parked: 2}}, Err: busy}
	require.EqualError(t, e, `fanout: shutdown of topic "payments" left queue "a": 1 ready; queue "b": 2 parked: busy`)
	require.ErrorIs(t, e, busy)
	e.Err = nil
	require.EqualError(t, e, `fanout: shutdown of topic "payments" left queue "a": 1 ready; queue "b": 2 parked`)
	require.NoError(t, e.Unwrap())
}
