// A redrive by ID names the IDs that it does not know.

package delivery_test

import (
	"context"
	"fmt"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/gofanout/fanout"
	"github.com/gofanout/fanout/internal/fakeengine"
	"github.com/gofanout/fanout/internal/tests/kit"
)

// dieByID makes dead letters of messages with these IDs.
func dieByID(t *testing.T, top *fanout.Topic[int], q *fanout.Queue[int], ids ...string) {
	t.Helper()
	for _, id := range ids {
		kit.PublishAll(t, top, fanout.Message[int]{ID: id})
		require.NoError(t, kit.Receive(t, q).Settle(t.Context(), fanout.Permanent(kit.ErrBusy)))
	}
}

func TestRedriveNamesTheIDsThatItDoesNotKnow(t *testing.T) {
	engines := map[string]func() fanout.TopicOption{
		"in memory":    func() fanout.TopicOption { return fanout.TopicOptions() },
		"on an engine": func() fanout.TopicOption { return fanout.WithEngine(fakeengine.New(fakeengine.Config{})) },
	}
	for where, option := range engines {
		t.Run(where, func(t *testing.T) {
			kit.Bubble(t, func(t *testing.T, ctx context.Context) {
				top := kit.NewTopic[int](t, option())
				q := kit.OpenQueue(t, top, "billing", fanout.WithMaxAttempts(1))

				moved, err := q.Redrive(ctx, fanout.RedriveIDs("a"))
				require.ErrorIs(t, err, fanout.ErrUnknownID, "there is no dead letter at all")
				require.ErrorIs(t, err, fanout.ErrInvalidOption)
				require.Zero(t, moved)
				moved, err = q.Redrive(ctx, fanout.RedriveIDs())
				require.NoError(t, err, "no ID is unknown")
				require.Zero(t, moved)

				dieByID(t, top, q, "a", "b", "c", "c", "d")
				moved, err = q.Redrive(ctx, fanout.RedriveIDs("z", "a", "c"), fanout.RedriveIDs("a", `"y"`))
				require.ErrorIs(t, err, fanout.ErrUnknownID)
				require.ErrorContains(t, err, `fanout: redrive of "billing": fanout: invalid option: unknown ID: RedriveIDs("\"y\"", "z"): want`)
				require.Equal(t, 3, moved, "those that are known, the ID that two have too")
				moved, err = q.Redrive(ctx, fanout.RedriveIDs("a", "b"))
				require.ErrorContains(t, err, `RedriveIDs("a"):`, "it is a dead letter no more")
				require.Equal(t, 1, moved)

				moved, err = q.Redrive(ctx, fanout.RedriveIDs("d"), fanout.RedriveIf(func(fanout.Delivery[int]) bool { return false }))
				require.NoError(t, err, "it is known, and was not wanted")
				require.Zero(t, moved)
				letter := kit.Receive(t, q.DeadLetters())
				moved, err = q.Redrive(ctx, fanout.RedriveIDs("d"))
				require.ErrorContains(t, err, `RedriveIDs("d"): want IDs of its dead letters that no consumer has in hand`)
				require.Zero(t, moved)
				require.NoError(t, letter.NackAfter(ctx, 0))
				synctest.Wait()
				moved, err = q.Redrive(ctx, fanout.RedriveIDs("d"))
				require.NoError(t, err)
				require.Equal(t, 1, moved)

				const named = 100 // by one error
				ids := make([]string, named+7)
				for k := range ids {
					ids[k] = fmt.Sprintf("%03d", k)
				}
				_, err = q.Redrive(ctx, fanout.RedriveIDs(ids...))
				require.ErrorContains(t, err, `"099") and 7 more: want`)
				require.Equal(t, named, strings.Count(err.Error(), `"`)/2-1, "and the queue's name")
				require.NoError(t, top.Close())
			})
		})
	}
}

func TestARedriveThatWaitsInVainNamesUnknownIDsToo(t *testing.T) {
	kit.Bubble(t, func(t *testing.T, ctx context.Context) {
		top := kit.NewTopic[int](t)
		q := kit.OpenQueue(t, top, "q", fanout.WithMaxAttempts(1), fanout.WithCapacity(1))
		dieByID(t, top, q, "a", "b")
		soon, cancel := context.WithTimeout(ctx, time.Second)
		defer cancel()
		moved, err := q.Redrive(soon, fanout.RedriveIDs("a", "b", "c"))
		require.Equal(t, 1, moved)
		require.ErrorIs(t, err, context.DeadlineExceeded)
		require.ErrorIs(t, err, fanout.ErrUnknownID)
		require.ErrorContains(t, err, `RedriveIDs("c")`)
		ds, err := q.Peek(ctx, fanout.Unlimited)
		require.NoError(t, err)
		require.Len(t, ds, 1)
		require.Equal(t, "a", ds[0].ID())
	})
}

// On an engine what was not seen is not called unknown.
func TestARedriveThatFailsOnAnEngineCallsNothingUnknown(t *testing.T) {
	kit.Bubble(t, func(t *testing.T, ctx context.Context) {
		e := fakeengine.New(fakeengine.Config{})
		top := kit.NewTopic[int](t, fanout.WithEngine(e))
		q := kit.OpenQueue(t, top, "q", fanout.WithMaxAttempts(1))
		dieByID(t, top, q, "a")
		e.Inject(fakeengine.Fault{Op: fakeengine.Receive, Nth: 1, Err: kit.ErrBusy})
		_, err := q.Redrive(ctx, fanout.RedriveIDs("a", "b"))
		require.ErrorIs(t, err, kit.ErrBusy)
		require.NotErrorIs(t, err, fanout.ErrUnknownID)
		require.NoError(t, top.Close())
	})
}
