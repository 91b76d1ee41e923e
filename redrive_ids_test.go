package fanout

import (
	"context"
	"fmt"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/gofanout/fanout/internal/fakeengine"
)

// dieByID makes dead letters of messages with these IDs.
func dieByID(t *testing.T, top *Topic[string], q *Queue[string], ids ...string) {
	t.Helper()
	for _, id := range ids {
		publishAll(t, top, Message[string]{Body: id, ID: id})
		require.NoError(t, receive(t, q).Settle(t.Context(), Permanent(errBusy)))
	}
}

func TestRedriveNamesTheIDsThatItDoesNotKnow(t *testing.T) {
	engines := map[string]func() TopicOption{
		"in memory":    func() TopicOption { return TopicOptions() },
		"on an engine": func() TopicOption { return WithEngine(fakeengine.New(fakeengine.Config{})) },
	}
	for where, option := range engines {
		t.Run(where, func(t *testing.T) {
			bubble(t, func(t *testing.T, ctx context.Context) {
				top := newTopic[string](t, option())
				q := openQueue(t, top, "billing", WithMaxAttempts(1))

				moved, err := q.Redrive(ctx, RedriveIDs("a"))
				require.ErrorIs(t, err, ErrUnknownID, "there is no dead letter at all")
				require.ErrorIs(t, err, ErrInvalidOption)
				require.Zero(t, moved)
				moved, err = q.Redrive(ctx, RedriveIDs())
				require.NoError(t, err, "no ID is unknown")
				require.Zero(t, moved)

				dieByID(t, top, q, "a", "b", "c", "c", "d")
				moved, err = q.Redrive(ctx, RedriveIDs("z", "a", "c"), RedriveIDs("a", `"y"`))
				require.ErrorIs(t, err, ErrUnknownID)
				require.ErrorContains(t, err, `fanout: redrive of "billing": fanout: invalid option: unknown ID: RedriveIDs("\"y\"", "z"): want`)
				require.Equal(t, 3, moved, "those that are known, the ID that two have too")
				moved, err = q.Redrive(ctx, RedriveIDs("a", "b"))
				require.ErrorContains(t, err, `RedriveIDs("a"):`, "it is a dead letter no more")
				require.Equal(t, 1, moved)

				moved, err = q.Redrive(ctx, RedriveIDs("d"), RedriveIf(func(Delivery[string]) bool { return false }))
				require.NoError(t, err, "it is known, and was not wanted")
				require.Zero(t, moved)
				letter := receive(t, q.DeadLetters())
				moved, err = q.Redrive(ctx, RedriveIDs("d"))
				require.ErrorContains(t, err, `RedriveIDs("d"): want IDs of its dead letters that no consumer has in hand`)
				require.Zero(t, moved)
				require.NoError(t, letter.NackAfter(ctx, 0))
				synctest.Wait()
				moved, err = q.Redrive(ctx, RedriveIDs("d"))
				require.NoError(t, err)
				require.Equal(t, 1, moved)

				ids := make([]string, mostUnknown+7)
				for k := range ids {
					ids[k] = fmt.Sprintf("%03d", k)
				}
				_, err = q.Redrive(ctx, RedriveIDs(ids...))
				require.ErrorContains(t, err, `"099") and 7 more: want`)
				require.Equal(t, mostUnknown, strings.Count(err.Error(), `"`)/2-1, "and the queue's name")
				require.NoError(t, top.Close())
			})
		})
	}
}

func TestARedriveThatWaitsInVainNamesUnknownIDsToo(t *testing.T) {
	bubble(t, func(t *testing.T, ctx context.Context) {
		top := newTopic[string](t)
		q := openQueue(t, top, "q", WithMaxAttempts(1), WithCapacity(1))
		dieByID(t, top, q, "a", "b")
		soon, cancel := context.WithTimeout(ctx, time.Second)
		defer cancel()
		moved, err := q.Redrive(soon, RedriveIDs("a", "b", "c"))
		require.Equal(t, 1, moved)
		require.ErrorIs(t, err, context.DeadlineExceeded)
		require.ErrorIs(t, err, ErrUnknownID)
		require.ErrorContains(t, err, `RedriveIDs("c")`)
		require.Equal(t, []string{"a"}, bodies(t, q))
	})
}

// On an engine what was not seen is not called unknown.
func TestARedriveThatFailsOnAnEngineCallsNothingUnknown(t *testing.T) {
	bubble(t, func(t *testing.T, ctx context.Context) {
		e := fakeengine.New(fakeengine.Config{})
		top := newTopic[string](t, WithEngine(e))
		q := openQueue(t, top, "q", WithMaxAttempts(1))
		dieByID(t, top, q, "a")
		e.Inject(fakeengine.Fault{Op: fakeengine.Receive, Nth: 1, Err: errBusy})
		_, err := q.Redrive(ctx, RedriveIDs("a", "b"))
		require.ErrorIs(t, err, errBusy)
		require.NotErrorIs(t, err, ErrUnknownID)
		require.NoError(t, top.Close())
	})
}
