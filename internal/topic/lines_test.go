package topic

import (
	"context"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/gofanout/fanout/internal/lifecycle"
	"github.com/gofanout/fanout/internal/message"
	"github.com/gofanout/fanout/internal/queue"
	"github.com/gofanout/fanout/internal/settings"
)

// Redrives wait behind a publish that wants their queue, and publishes behind a
// redrive, but not where the queue drops. When the first gives up, all who waited for
// it alone go on at once, and in the order of their arrival.
func TestWhoWaitedOnlyForTheOneThatGaveUpGoesOn(t *testing.T) {
	type scene struct {
		ctx                context.Context
		top                *Topic[int]
		full, open, drop   *queue.Queue[int] // without a filter; drop drops
		evens, odds, tenth *queue.Queue[int] // with one
	}
	publishing := func(body int) func(s *scene) error {
		return func(s *scene) error { return s.top.In.Publish(s.ctx, body) }
	}
	redriving := func(of func(s *scene) *queue.Queue[int]) func(s *scene) error {
		return func(s *scene) error {
			_, err := redriveTo(of(s), s.ctx)
			return err
		}
	}
	for _, row := range []struct {
		name   string
		first  func(s *scene, ctx context.Context) error
		behind []func(s *scene) error
		still  int // of behind wait on
	}{
		{"redrives of every queue behind a publish", func(s *scene, ctx context.Context) error {
			return s.top.PublishMessages(ctx, message.Published[int]{Body: 2}, message.Published[int]{Body: 4})
		}, []func(s *scene) error{
			redriving(func(s *scene) *queue.Queue[int] { return s.open }),
			redriving(func(s *scene) *queue.Queue[int] { return s.drop }),
			redriving(func(s *scene) *queue.Queue[int] { return s.evens }),
			redriving(func(s *scene) *queue.Queue[int] { return s.open }),
		}, 0},
		{"redrives, a publish and redrives behind that", func(s *scene, ctx context.Context) error {
			return s.top.PublishMessages(ctx, message.Published[int]{Body: 1}, message.Published[int]{Body: 3})
		}, []func(s *scene) error{
			redriving(func(s *scene) *queue.Queue[int] { return s.open }),
			publishing(5),
			redriving(func(s *scene) *queue.Queue[int] { return s.drop }),
		}, 0},
		{"a publish that waits for another queue", func(s *scene, ctx context.Context) error {
			return s.top.PublishMessages(ctx, message.Published[int]{Body: 1}, message.Published[int]{Body: 3})
		}, []func(s *scene) error{
			publishing(10), // tenth is full
			redriving(func(s *scene) *queue.Queue[int] { return s.open }),
		}, 2},
	} {
		t.Run(row.name, func(t *testing.T) {
			bubble(t, func(t *testing.T, ctx context.Context) {
				top := newTopic[int](t)
				s := &scene{ctx: ctx, top: top}
				s.full = openQueue(t, top, "full", WithCapacity(2))
				s.open = openQueue(t, top, "open")
				s.drop = openQueue(t, top, "drop", WithOverflow(settings.DropOldest))
				s.evens = openQueue(t, top, "evens", WithFilter(func(n int) bool { return n%2 == 0 }))
				s.odds = openQueue(t, top, "odds", WithFilter(func(n int) bool { return n%2 == 1 }))
				s.tenth = openQueue(t, top, "tenth", WithFilter(func(n int) bool { return n%10 == 0 }), WithCapacity(1))
				publish(t, top, 10) // a letter of some, and all of tenth
				for _, q := range []*queue.Queue[int]{s.full, s.open, s.drop, s.evens} {
					require.NoError(t, receive(t, q).Settle(ctx, message.Permanent(errBusy)))
				}
				publish(t, top, 11) // one place is left in full
				short, cancel := context.WithTimeout(ctx, time.Second)
				defer cancel()
				gaveUp := make(chan error, 1)
				go func() { gaveUp <- row.first(s, short) }()
				synctest.Wait()
				went := make(chan int, len(row.behind))
				for k, f := range row.behind {
					go func() {
						if f(s) == nil {
							went <- k
						}
					}()
					synctest.Wait()
					check(t, top)
					require.NoError(t, top.In.CheckTurns())
				}
				require.Empty(t, went, "one overtook the batch")
				require.ErrorIs(t, <-gaveUp, context.DeadlineExceeded)
				synctest.Wait()
				require.Len(t, went, len(row.behind)-row.still)
				require.Equal(t, row.still, top.Stats().Waiting)
				check(t, top)
				require.NoError(t, top.In.CheckTurns())
				require.NoError(t, top.Close())
			})
		})
	}
}

// Who waits with a deduplication ID that another publishes has published it too, at
// once and wherever it stands in line.
func TestWhoWaitsWithAnIDThatAnotherPublishesWaitsNoLonger(t *testing.T) {
	bubble(t, func(t *testing.T, ctx context.Context) {
		top := newTopic[int](t, WithDeduplication(time.Minute, 100))
		a := openQueue(t, top, "a", WithCapacity(1), WithFilter(func(n int) bool { return n == 1 }))
		openQueue(t, top, "b", WithCapacity(1), WithFilter(func(n int) bool { return n == 2 }))
		openQueue(t, top, "c", WithFilter(func(n int) bool { return n == 3 }))
		publish(t, top, 1, 2)
		done := make(chan string, 3)
		for _, m := range []struct {
			name string
			ms   []message.Published[int]
		}{
			{"first", []message.Published[int]{{Body: 1, DeduplicationID: "y"}}},
			{"same", []message.Published[int]{{Body: 1, DeduplicationID: "x"}}},
			{"both", []message.Published[int]{{Body: 1, DeduplicationID: "x"}, {Body: 2}}},
		} {
			go func() {
				if top.PublishMessages(ctx, m.ms...) == nil {
					done <- m.name
				}
			}()
			synctest.Wait()
		}
		require.Equal(t, 3, top.Stats().Waiting)
		require.NoError(t, top.PublishMessages(ctx, message.Published[int]{Body: 3, DeduplicationID: "x"}))
		synctest.Wait()
		require.Len(t, done, 1)
		require.Equal(t, "same", <-done)
		require.Empty(t, done)
		require.Equal(t, 2, top.Stats().Waiting)
		check(t, top)
		require.NoError(t, top.In.CheckTurns())

		require.NoError(t, receive(t, a).Ack(ctx))
		synctest.Wait()
		require.Equal(t, "first", <-done)
		require.Equal(t, 1, top.Stats().Waiting, "b is full, and all that it waits for")
		require.NoError(t, lifecycle.Close(top.Queue("b")))
		synctest.Wait()
		require.Equal(t, "both", <-done)
		check(t, top)
		require.NoError(t, top.Close())
	})
}
