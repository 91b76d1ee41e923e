package admission

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
		h                  *home[int]
		full, open, drop   *queue.Queue[int] // without a filter; drop drops
		evens, odds, tenth *queue.Queue[int] // with one
	}
	publishing := func(body int) func(s *scene) error {
		return func(s *scene) error { return s.h.Publish(s.ctx, body) }
	}
	redriving := func(of func(s *scene) *queue.Queue[int]) func(s *scene) error {
		return func(s *scene) error {
			_, err := redrive(s.ctx, of(s))
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
			return s.h.PublishBatch(ctx, []message.Published[int]{{Body: 2}, {Body: 4}})
		}, []func(s *scene) error{
			redriving(func(s *scene) *queue.Queue[int] { return s.open }),
			redriving(func(s *scene) *queue.Queue[int] { return s.drop }),
			redriving(func(s *scene) *queue.Queue[int] { return s.evens }),
			redriving(func(s *scene) *queue.Queue[int] { return s.open }),
		}, 0},
		{"redrives, a publish and redrives behind that", func(s *scene, ctx context.Context) error {
			return s.h.PublishBatch(ctx, []message.Published[int]{{Body: 1}, {Body: 3}})
		}, []func(s *scene) error{
			redriving(func(s *scene) *queue.Queue[int] { return s.open }),
			publishing(5),
			redriving(func(s *scene) *queue.Queue[int] { return s.drop }),
		}, 0},
		{"a publish that waits for another queue", func(s *scene, ctx context.Context) error {
			return s.h.PublishBatch(ctx, []message.Published[int]{{Body: 1}, {Body: 3}})
		}, []func(s *scene) error{
			publishing(10), // tenth is full
			redriving(func(s *scene) *queue.Queue[int] { return s.open }),
		}, 2},
	} {
		t.Run(row.name, func(t *testing.T) {
			bubble(t, func(t *testing.T, ctx context.Context) {
				h := newHome[int](t)
				s := &scene{ctx: ctx, h: h}
				s.full = h.open("full", capacity(2))
				s.open = h.open("open")
				s.drop = h.open("drop", overflows(settings.DropOldest))
				s.evens = h.open("evens", accepting(func(n int) bool { return n%2 == 0 }))
				s.odds = h.open("odds", accepting(func(n int) bool { return n%2 == 1 }))
				s.tenth = h.open("tenth", accepting(func(n int) bool { return n%10 == 0 }), capacity(1))
				h.publish(t, 10) // a letter of some, and all of tenth
				for _, q := range []*queue.Queue[int]{s.full, s.open, s.drop, s.evens} {
					kill(t, q)
				}
				h.publish(t, 11) // one place is left in full
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
					h.check(t)
					require.NoError(t, h.CheckTurns())
				}
				require.Empty(t, went, "one overtook the batch")
				require.ErrorIs(t, <-gaveUp, context.DeadlineExceeded)
				synctest.Wait()
				require.Len(t, went, len(row.behind)-row.still)
				require.Equal(t, row.still, h.stats().Waiting)
				h.check(t)
				require.NoError(t, h.CheckTurns())
				h.end(t)
			})
		})
	}
}

// Who waits with a deduplication ID that another publishes has published it too, at
// once and wherever it stands in line.
func TestWhoWaitsWithAnIDThatAnotherPublishesWaitsNoLonger(t *testing.T) {
	bubble(t, func(t *testing.T, ctx context.Context) {
		h := newHome[int](t, deduplicating(time.Minute, 100))
		a := h.open("a", capacity(1), accepting(func(n int) bool { return n == 1 }))
		b := h.open("b", capacity(1), accepting(func(n int) bool { return n == 2 }))
		h.open("c", accepting(func(n int) bool { return n == 3 }))
		h.publish(t, 1, 2)
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
				if h.PublishBatch(ctx, m.ms) == nil {
					done <- m.name
				}
			}()
			synctest.Wait()
		}
		require.Equal(t, 3, h.stats().Waiting)
		require.NoError(t, h.PublishBatch(ctx, []message.Published[int]{{Body: 3, DeduplicationID: "x"}}))
		synctest.Wait()
		require.Len(t, done, 1)
		require.Equal(t, "same", <-done)
		require.Empty(t, done)
		require.Equal(t, 2, h.stats().Waiting)
		h.check(t)
		require.NoError(t, h.CheckTurns())

		require.NoError(t, receive(t, a).Ack(ctx))
		synctest.Wait()
		require.Equal(t, "first", <-done)
		require.Equal(t, 1, h.stats().Waiting, "b is full, and all that it waits for")
		require.NoError(t, lifecycle.Close(b))
		synctest.Wait()
		require.Equal(t, "both", <-done)
		h.check(t)
		h.end(t)
	})
}

// Who waits with a duplicate among others wants the queues of the others alone from then on.
func TestWhoWaitsForLessHoldsBackFewer(t *testing.T) {
	bubble(t, func(t *testing.T, ctx context.Context) {
		h := newHome[int](t, deduplicating(time.Minute, 100))
		is := func(k int) setting { return accepting(func(n int) bool { return n == k }) }
		a := h.open("a", capacity(1), is(1))
		b := h.open("b", capacity(1), is(2))
		h.open("c", is(3))
		h.publish(t, 1, 2)
		both := h.waiting(ctx, withID(1, "x"), message.Published[int]{Body: 2})
		same := h.waiting(ctx, withID(1, "x"))
		later := h.waiting(ctx, message.Published[int]{Body: 1})
		h.publishAll(t, withID(3, "x"))
		require.NoError(t, requireDecided(t, same))
		require.Equal(t, 1, h.stats().Duplicates)
		requireWaiting(t, both)
		requireWaiting(t, later)
		require.NoError(t, receive(t, a).Ack(ctx))
		require.NoError(t, requireDecided(t, later), "it stands behind one that wants b")
		requireWaiting(t, both)
		require.NoError(t, receive(t, b).Ack(ctx))
		require.NoError(t, requireDecided(t, both))
		require.Equal(t, 2, h.stats().Duplicates)
		require.Equal(t, [][]int{{1}, {2}}, [][]int{bodies(t, a), bodies(t, b)})
		h.check(t)
		require.NoError(t, h.CheckTurns())
		h.end(t)
	})
}
