package topic

import (
	"context"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/gofanout/fanout/internal/message"
	"github.com/gofanout/fanout/internal/settings"
	"github.com/gofanout/fanout/internal/view"
)

// Who gets which room: what counts as room, what is dropped for want of it, and
// who waits for it in vain.

func TestTheRoomThatAHandMakesIsSeenByWhoeverNeedsIt(t *testing.T) {
	for _, o := range []settings.Overflow{settings.Block, settings.Reject, settings.DropNewest, settings.DropOldest} {
		for _, row := range []struct {
			name    string
			message message.Published[int]
			beside  QueueOption // of another queue
		}{
			{"a message with a delay", message.Published[int]{Delay: time.Hour}, WithCapacity(20)},
			{"a message that goes to a queue with a filter too", message.Published[int]{}, WithFilter(func(int) bool { return true })},
		} {
			t.Run(o.String()+", "+row.name, func(t *testing.T) {
				for at := 8; at < 16; at++ { // at most of them something that was prefetched is done
					bubble(t, func(t *testing.T, ctx context.Context) {
						g := newGripAt(t, at, 20, WithCapacity(20), WithOverflow(o))
						openQueue(t, g.top, "beside", row.beside)
						ms := make([]message.Published[int], at)
						for k := range ms {
							ms[k] = row.message
						}
						require.NoError(t, g.top.TryPublishMessages(ctx, ms...)) // nobody has asked yet
						require.Equal(t, 20, view.StatsOf(g.q).Unsettled())
						require.Zero(t, view.StatsOf(g.q).Dropped)
						check(t, g.top)
						g.end()
					})
				}
			})
		}
	}
}

func TestMessagesWithADelayDropTheOldestThatWaitsInAHand(t *testing.T) {
	bubble(t, func(t *testing.T, ctx context.Context) {
		g := newGrip(t, 20, WithCapacity(20), WithOverflow(settings.DropOldest))
		ms := plainOnes(13)
		for k := range ms {
			ms[k].Body, ms[k].Delay = 20+k, time.Hour
		}
		require.NoError(t, g.top.PublishMessages(ctx, ms...)) // 10 find room, and 3 more
		require.EqualValues(t, 3, view.StatsOf(g.q).Dropped)
		require.Equal(t, to(14, 32), bodies(t, g.q))
		check(t, g.top)
		g.end()
	})
}
