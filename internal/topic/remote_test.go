// A queue on an engine forgets what has left it, and a redrive knows which letters are new.

package topic

import (
	"context"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/gofanout/fanout/internal/enginequeue"
	"github.com/gofanout/fanout/internal/fakeengine"
	"github.com/gofanout/fanout/internal/message"
)

// TestAQueueOnAnEngineForgetsWhatHasLeft, however it left.
func TestAQueueOnAnEngineForgetsWhatHasLeft(t *testing.T) {
	bubble(t, func(t *testing.T, ctx context.Context) {
		top := newTopic[string](t, WithEngine(fakeengine.New(fakeengine.Config{})))
		q := openQueue(t, top, "q", WithMaxAttempts(2), WithTimeToLive(time.Hour), WithFilter(func(body string) bool { return body != "unwanted" }))
		publish(t, top, "unwanted", "acked", "failed", "snoozed", "timed out", "expired")
		ds, err := receiveBatch(q, ctx, 6)
		require.NoError(t, err)
		require.Len(t, ds, 5, "one that nobody wants does not hide those behind it")
		require.Equal(t, 5, q.Stats().InFlight)
		for k, result := range []error{nil, errBusy, message.Snooze(time.Minute)} {
			require.NoError(t, ds[k].Settle(ctx, result))
		}
		time.Sleep(30 * time.Second)
		synctest.Wait()
		require.Zero(t, q.Win.Len())
		require.Zero(t, q.N)
		s := q.Stats()
		require.EqualValues(t, []uint64{5, 1, 1, 1, 2}, []uint64{s.Delivered, s.Acked, s.Failed, s.Snoozed, s.TimedOut})
		time.Sleep(time.Hour)
		_, ok, err := tryReceiveFrom(q, ctx)
		require.NoError(t, err)
		require.False(t, ok, "all are too old")
		require.Zero(t, q.Win.Len())
		require.Zero(t, q.N)
		require.EqualValues(t, 4, q.Stats().Expired)
		require.NoError(t, top.Close())
		<-top.Done()
	})
}

func TestWhichLettersARedriveTakesForNew(t *testing.T) {
	began := time.Unix(100, 0)
	died := func(at time.Duration) *message.History {
		return message.Restored([]message.Kept{{Attempt: message.Attempt{Start: began.Add(at - time.Second), Elapsed: time.Second}}})
	}
	for _, row := range []struct {
		hist  *message.History
		moved bool
		want  bool
	}{
		{died(-1), false, false}, {died(-1), true, false},
		{died(0), false, false}, {died(0), true, true}, // a clock that stands still
		{died(1), false, true}, {died(1), true, true},
		{nil, false, false}, {nil, true, true},
	} {
		require.Equal(t, row.want, enginequeue.DiedAfter(began, row.hist, row.moved), "%+v", row)
	}
}
