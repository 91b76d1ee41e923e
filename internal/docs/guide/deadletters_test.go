package guide_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/gofanout/fanout"
)

// ErrPostcode says that a postcode is not understood.
var ErrPostcode = errors.New("postcode not understood")

// ShowDeadLetters writes the dead letters of a queue, with all their attempts. They stay
// where they are.
func ShowDeadLetters[T any](ctx context.Context, w io.Writer, queue *fanout.Queue[T]) error {
	letters, err := queue.DeadLetters().Peek(ctx, 100)
	if err != nil {
		return err
	}
	for _, l := range letters {
		fmt.Fprintf(w, "%s: %v\n", l.ID(), l.Body)
		for _, attempt := range l.History() {
			fmt.Fprintf(w, "  %v\n", attempt)
		}
	}
	return nil
}

// RedriveCause sends those dead letters back to their queue whose last attempt ended so.
func RedriveCause[T any](ctx context.Context, queue *fanout.Queue[T], cause fanout.Cause, text string) (moved int, err error) {
	return queue.Redrive(ctx, fanout.RedriveIf(func(d fanout.Delivery[T]) bool {
		attempts := d.History()
		last := attempts[len(attempts)-1]
		return last.Cause == cause && strings.Contains(fmt.Sprint(last.Err), text)
	}))
}

func TestDeadLettersAreShownAndRedriven(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx := t.Context()
		orders, err := fanout.NewTopic[string]("orders")
		require.NoError(t, err)
		understood, shipped := false, []string(nil)
		shipping, err := orders.Subscribe(ctx, "shipping", func(_ context.Context, d fanout.Delivery[string]) error {
			switch {
			case d.Body == "to nobody":
				return fanout.Permanent(errors.New("no such address"))
			case !understood:
				return fanout.Permanent(ErrPostcode)
			}
			shipped = append(shipped, d.Body)
			return nil
		})
		require.NoError(t, err)
		for _, m := range []fanout.Message[string]{{ID: "o-17", Body: "to Ottawa"}, {ID: "o-18", Body: "to nobody"}} {
			require.NoError(t, orders.PublishMessages(ctx, m))
		}
		time.Sleep(time.Second)

		var page strings.Builder
		require.NoError(t, ShowDeadLetters(ctx, &page, shipping.Queue()))
		require.Equal(t, `o-17: to Ottawa
  attempt 1: permanent after 0s: postcode not understood
o-18: to nobody
  attempt 1: permanent after 0s: no such address
`, page.String())

		understood = true
		moved, err := RedriveCause(ctx, shipping.Queue(), fanout.PermanentlyFailed, ErrPostcode.Error())
		require.NoError(t, err)
		require.Equal(t, 1, moved)
		require.NoError(t, orders.Shutdown(ctx))
		require.Equal(t, []string{"to Ottawa"}, shipped)
		require.Equal(t, 1, shipping.Queue().Stats().Dead)
	})
}
