package fanoutnats_test

import (
	"context"
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/gofanout/fanout"
	"github.com/gofanout/fanout/engine"
	"github.com/gofanout/fanout/engine/fanoutnats/embedded"
	"github.com/stretchr/testify/require"
)

// The largest message that is accepted can die, and go back: its history is shortened.
func TestTheLargestMessageCanDie(t *testing.T) {
	t.Parallel()
	for _, max := range []int{4 << 10, 64 << 10} {
		e := openEmbedded(t, t.TempDir(), embedded.WithMaxPayload(max))
		top, err := fanout.NewTopic[string]("payments", fanout.WithEngine(e, fanout.Without(engine.Bounded)))
		require.NoError(t, err)
		q, err := top.OpenQueue(soon(t), "q", fanout.WithMaxAttempts(3), fanout.WithBackoff(fanout.Constant(time.Millisecond)))
		require.NoError(t, err)
		body := strings.Repeat("b", max)
		for err = errors.New("too large"); err != nil; body = body[1:] {
			if err = top.Publish(soon(t), body[1:]); err != nil {
				require.ErrorIs(t, err, fanout.ErrInvalidMessage)
			}
		}
		_, err = q.Subscribe(soon(t), func(context.Context, fanout.Delivery[string]) error { return errors.New(strings.Repeat("e", 900)) })
		require.NoError(t, err)
		for round := 1; round <= 2; round++ {
			letter, err := q.DeadLetters().Receive(soon(t))
			require.NoError(t, err)
			require.Equal(t, body, letter.Body)
			h := letter.History()
			require.NotEmpty(t, h)
			require.Equal(t, []int{3, 7}[round-1], h[len(h)-1].Number, "the release of the letter counts")
			if round == 2 {
				require.NoError(t, letter.Ack(soon(t)))
				break
			}
			require.NoError(t, letter.Release(soon(t)))
			n, err := q.Redrive(soon(t))
			require.NoError(t, err)
			require.Equal(t, 1, n)
		}
		require.NoError(t, top.Shutdown(soon(t)))
		require.EqualValues(t, 2, q.Stats().DeadLettered)
		require.Zero(t, q.Stats().TimesParked)
	}
}
