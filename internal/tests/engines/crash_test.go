// A message that kills its processes is dead after its attempts.

package engines_test

import (
	"context"
	"errors"
	"testing"
	"testing/synctest"

	"github.com/stretchr/testify/require"

	"github.com/gofanout/fanout"
	"github.com/gofanout/fanout/engine"
	"github.com/gofanout/fanout/internal/fakeengine"
)

// A process that dies of a message tells nobody: what its engine counts does, if it keeps
// state. Else the engine's own limit of deliveries is the net.
func TestAMessageThatKillsItsProcessesIsDeadAfterItsAttempts(t *testing.T) {
	for name, without := range map[string][]engine.Feature{"with state": nil, "without state": {engine.State}} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				process := fakeengine.New(fakeengine.Config{Without: without})
				open := func() (*fanout.Topic[string], *fanout.Queue[string]) {
					topic, err := fanout.NewTopic[string]("payments", fanout.WithEngine(process))
					require.NoError(t, err)
					q, err := topic.OpenQueue(t.Context(), "q", fanout.WithMaxAttempts(3))
					require.NoError(t, err)
					return topic, q
				}
				topic, q := open()
				require.NoError(t, topic.Publish(t.Context(), "poison"))
				for attempt := 1; attempt <= 3; attempt++ {
					d, err := q.Receive(t.Context())
					require.NoError(t, err)
					require.Equal(t, attempt, d.Attempt())
					require.Len(t, d.History(), attempt-1)
					process.Crash()
					require.NoError(t, topic.Close())
					process = process.Sibling()
					topic, q = open()
				}
				if without != nil {
					d, err := q.Receive(t.Context())
					require.NoError(t, err)
					require.Equal(t, 4, d.Attempt())
					require.NoError(t, d.Settle(t.Context(), errors.New("it lives, and fails")))
					letter, err := q.DeadLetters().Receive(t.Context())
					require.NoError(t, err)
					require.Len(t, letter.History(), 4)
					require.NoError(t, letter.Ack(t.Context()))
					require.NoError(t, topic.Shutdown(t.Context()))
					return
				}
				_, err := q.Subscribe(t.Context(), func(_ context.Context, d fanout.Delivery[string]) error {
					t.Errorf("attempt %d of 3", d.Attempt())
					return nil
				})
				require.NoError(t, err)
				letter, err := q.DeadLetters().Receive(t.Context())
				require.NoError(t, err)
				require.Len(t, letter.History(), 3)
				for _, a := range letter.History() {
					require.Equal(t, fanout.TimedOut, a.Cause)
					require.ErrorContains(t, a.Err, "without a word")
				}
				require.NoError(t, letter.Ack(t.Context()))
				require.NoError(t, topic.Shutdown(t.Context()))
			})
		})
	}
}
