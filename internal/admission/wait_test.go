package admission

import (
	"context"
	"runtime"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/gofanout/fanout/internal/delivery"
	"github.com/gofanout/fanout/internal/offer"
)

// Who finds no room says that it waits, and then looks once more. Here it
// can't look, because the test has the queue. So the room that is made meanwhile is
// seen by its look, and whoever makes some after that is told that it waits.
func TestNoPublishMissesTheRoomThatIsMadeAsItBeginsToWait(t *testing.T) {
	for _, before := range []bool{true, false} {
		bubble(t, func(t *testing.T, ctx context.Context) {
			h := newHome[int](t)
			q := h.open("q", capacity(1))
			h.publish(t, 1)
			d := receive(t, q)
			q.Mu.Lock()
			room := make(chan bool, 1)
			go func() {
				h.Mu.Lock()
				defer h.Mu.Unlock()
				room <- hasRoomOrWants(&offer.Offer[int]{MayWait: true}, q, 1)
			}()
			for n := 0; n < 10_000_000 && q.RoomWanted.Load() == 0; n++ {
				runtime.Gosched()
			}
			told := q.RoomWanted.Load() != 0
			if before { // as by one who saw that no room is wanted
				q.Store.Leases.Ack(d.Ref)
				delivery.AckedLocked(q)
			}
			q.Mu.Unlock()
			require.True(t, told, "it looks for room, and nobody would tell it of what is made then")
			require.Equal(t, before, <-room)
			if before {
				require.Zero(t, q.RoomWanted.Load(), "nobody waits")
			} else {
				require.NoError(t, d.Ack(ctx))
				require.Zero(t, q.RoomWanted.Load(), "who waits was not told")
			}
			h.check(t)
			h.end(t)
		})
	}
}

// The two things happen at one instant, in either order.
func TestAPublishThatIsAdmittedAsItIsReportedReturns(t *testing.T) {
	for range 200 {
		bubble(t, func(t *testing.T, ctx context.Context) {
			h := newHome[int](t)
			q := h.open("q", capacity(1))
			h.publish(t, 1)
			d := receive(t, q)
			go func() {
				time.Sleep(StallAfter)
				require.NoError(t, d.Ack(ctx))
			}()
			h.publish(t, 2)
			require.Equal(t, []int{2}, bodies(t, q))
			h.end(t)
		})
	}
}
