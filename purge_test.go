package fanout

import (
	"context"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// Deduplication IDs are the topic's: what ends in a queue does not make it forget them.
func TestDeduplicationIDsOutliveWhatHappensToTheQueue(t *testing.T) {
	for name, lose := range map[string]func(ctx context.Context, q *Queue[int]) error{
		"purge":  func(ctx context.Context, q *Queue[int]) error { _, err := q.Purge(ctx); return err },
		"close":  func(_ context.Context, q *Queue[int]) error { return q.Close() },
		"delete": func(ctx context.Context, q *Queue[int]) error { return q.Delete(ctx) },
	} {
		t.Run(name, func(t *testing.T) {
			onBoth(t, func(t *testing.T, ctx context.Context, on func() TopicOption) {
				top := newTopic[int](t, on(), WithDeduplication(time.Minute, 100))
				q := openQueue(t, top, "q")
				m := Message[int]{Body: 1, DeduplicationID: "payment-1"}
				publishAll(t, top, m)
				require.NoError(t, lose(ctx, q))
				if name != "purge" {
					q = openQueue(t, top, "q")
				}
				time.Sleep(time.Minute - time.Nanosecond)
				before, err := q.Depth(ctx)
				require.NoError(t, err)
				publishAll(t, top, m)
				after, err := q.Depth(ctx)
				require.NoError(t, err)
				require.Equal(t, before.Unsettled(), after.Unsettled(), "it was published before")
				time.Sleep(time.Nanosecond)
				publishAll(t, top, m)
				after, err = q.Depth(ctx)
				require.NoError(t, err)
				require.Equal(t, before.Unsettled()+1, after.Unsettled())
				require.NoError(t, top.Close())
			})
		})
	}
}
