// Room that a range over Deliveries makes is told whenever somebody looks at its messages.

package delivery_test

import (
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/gofanout/fanout"
)

func TestLookingAtARangesMessageTellsOfTheRoomThatItMade(t *testing.T) {
	for name, look := range map[string]func(t *testing.T, q *fanout.Queue[int], d fanout.Delivery[int]){
		"extend": func(t *testing.T, _ *fanout.Queue[int], d fanout.Delivery[int]) {
			require.NoError(t, d.Extend(t.Context(), time.Hour))
		},
		"deadline": func(t *testing.T, _ *fanout.Queue[int], d fanout.Delivery[int]) {
			require.False(t, d.Deadline().IsZero())
		},
		"stats": func(t *testing.T, q *fanout.Queue[int], _ fanout.Delivery[int]) {
			require.Equal(t, 1, q.Stats().InFlight)
		},
		"pause": func(t *testing.T, q *fanout.Queue[int], _ fanout.Delivery[int]) {
			require.NoError(t, q.Pause(t.Context()))
		},
		"peek": func(t *testing.T, q *fanout.Queue[int], _ fanout.Delivery[int]) {
			_, err := q.Peek(t.Context(), 1)
			require.NoError(t, err)
		},
		"a page": func(t *testing.T, q *fanout.Queue[int], _ fanout.Delivery[int]) {
			_, _, err := q.View().Peek(t.Context(), fanout.PeekOptions{Most: 1})
			require.NoError(t, err)
		},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				const capacity = 64
				top, err := fanout.NewTopic[int]("orders")
				require.NoError(t, err)
				q, err := top.OpenQueue(t.Context(), "billing", fanout.WithCapacity(capacity))
				require.NoError(t, err)
				for k := range capacity {
					require.NoError(t, top.Publish(t.Context(), k))
				}
				published := make(chan error, 1)
				got := 0
				for d, err := range q.Deliveries(t.Context()) {
					require.NoError(t, err)
					switch got++; got {
					case 20:
						for err = nil; err == nil; {
							err = top.TryPublish(t.Context(), 0)
						}
						require.ErrorIs(t, err, fanout.ErrQueueFull)
						go func() { published <- top.Publish(t.Context(), 0) }()
						synctest.Wait()
						require.Empty(t, published)
					case 21:
						look(t, q, d)
						synctest.Wait()
						require.Len(t, published, 1, "the 20th was acknowledged")
						require.NoError(t, <-published)
					}
					require.NoError(t, d.Ack(t.Context()))
					if got == 21 {
						break
					}
				}
				require.NoError(t, top.Close())
			})
		})
	}
}
