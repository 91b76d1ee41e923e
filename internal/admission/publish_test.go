package admission

import (
	"context"
	"strconv"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/gofanout/fanout/internal/delivery"
	"github.com/gofanout/fanout/internal/lifecycle"
	"github.com/gofanout/fanout/internal/message"
	"github.com/gofanout/fanout/internal/notice"
	"github.com/gofanout/fanout/internal/queue"
	"github.com/gofanout/fanout/internal/settings"
	"github.com/gofanout/fanout/internal/view"
)

func TestAPublishWakesOnlyTheQueuesThatGetIt(t *testing.T) {
	bubble(t, func(t *testing.T, ctx context.Context) {
		const n = 100
		h := newHome[int](t)
		handled := make([]int, n)
		for k := range n {
			handle(t, h.open(strconv.Itoa(k), accepting(func(body int) bool { return body == k })), 1, func(context.Context, delivery.Delivery[int]) error {
				handled[k]++
				return nil
			})
		}
		plain := h.open("plain")
		handle(t, plain, 1, func(context.Context, delivery.Delivery[int]) error { return nil })
		synctest.Wait()
		sleeping := func() (names []string) {
			for _, q := range h.queues {
				q.Idle.Mu.Lock()
				if q.IdleAt >= q.Idle.First {
					names = append(names, q.Name())
				}
				q.Idle.Mu.Unlock()
			}
			return names
		}
		require.Len(t, sleeping(), n+1)
		h.publish(t, 7)
		synctest.Wait()
		require.Equal(t, 1, handled[7])
		require.EqualValues(t, 1, view.StatsOf(plain).Acked)
		for k := range n {
			q := h.queues[k]
			q.Idle.Mu.Lock()
			if k == 7 {
				require.Positive(t, q.Idle.First, "it was woken")
			} else {
				require.Zero(t, q.Idle.First, "queue %d was not", k)
			}
			q.Idle.Mu.Unlock()
		}
		require.Len(t, sleeping(), n+1)
		h.check(t)
		h.end(t)
	})
}

// ways are all ways to publish a body, and whether one waits for room.
var ways = map[string]struct {
	publish func(ctx context.Context, h *home[int], body int) error
	waits   bool
}{
	"one":       {func(ctx context.Context, h *home[int], body int) error { return h.Publish(ctx, body) }, true},
	"try one":   {func(ctx context.Context, h *home[int], body int) error { return h.TryPublish(ctx, body) }, false},
	"batch":     {batchOf((*home[int]).PublishBatch, message.Published[int]{}), true},
	"try batch": {batchOf((*home[int]).TryPublishBatch, message.Published[int]{}), false},
	"attribute": {batchOf((*home[int]).PublishBatch, message.Published[int]{Attributes: map[string]string{"a": "b"}}), true},
	"delay":     {batchOf((*home[int]).TryPublishBatch, message.Published[int]{Delay: time.Second}), false},
}

func batchOf(f func(*home[int], context.Context, []message.Published[int]) error, m message.Published[int]) func(ctx context.Context, h *home[int], body int) error {
	return func(ctx context.Context, h *home[int], body int) error {
		m.Body = body
		return f(h, ctx, []message.Published[int]{m})
	}
}

// However a message is published, it reaches every queue that takes it, in its turn, is
// counted once, told once, and wakes who waits for it.
func TestAMessageReachesAllItsQueuesHoweverItIsPublished(t *testing.T) {
	for name, way := range ways {
		for beside, ss := range map[string][]setting{"alone": nil, "beside a filter": {accepting(func(n int) bool { return n%2 == 0 })}, "beside a delay": {delayed(time.Second)}} {
			for _, listens := range []bool{true, false} {
				t.Run(name+", "+beside, func(t *testing.T) {
					bubble(t, func(t *testing.T, ctx context.Context) {
						var told []notice.Event
						var topic []topicSetting
						if listens {
							topic = append(topic, hooked(notice.Published, func(e notice.Event) { told = append(told, e) }))
						}
						h := newHome[int](t, topic...)
						qs := []*queue.Queue[int]{h.open("q")}
						if ss != nil {
							qs = append(qs, h.open("other", ss...))
						}
						got := make([][]int, len(qs))
						for k, q := range qs {
							handle(t, q, 1, func(_ context.Context, d delivery.Delivery[int]) error {
								got[k] = append(got[k], d.Body)
								require.EqualValues(t, d.Body, d.Seq)
								return nil
							})
						}
						synctest.Wait()
						began := h.Now()
						const n = 4
						for body := 1; body <= n; body++ {
							elapse(time.Second)
							require.NoError(t, way.publish(ctx, h, body))
							synctest.Wait()
							h.check(t)
						}
						elapse(time.Second)
						require.Equal(t, []int{1, 2, 3, 4}, got[0])
						switch beside {
						case "beside a filter":
							require.Equal(t, []int{2, 4}, got[1])
						case "beside a delay":
							require.Equal(t, []int{1, 2, 3, 4}, got[1])
						}
						require.EqualValues(t, n, h.Published())
						require.Equal(t, Stats{Topic: "payments", Published: n}, h.stats())
						if listens {
							require.Len(t, told, n)
						}
						for k, e := range told {
							at := began + int64(k+1)*int64(time.Second)
							require.Equal(t, notice.Event{
								Topic: "payments", Seq: uint64(k + 1), Time: h.Time(at), PublishedAt: h.Time(at), Count: 1,
								MessageID: h.Clock.ID(uint64(k+1), at, nil),
							}, e)
						}
						h.end(t)
					})
				})
			}
		}
	}
}

// What no queue takes is counted, and stays nowhere.
func TestWhatNoQueueTakesIsUnrouted(t *testing.T) {
	for name, way := range ways {
		t.Run(name, func(t *testing.T) {
			bubble(t, func(t *testing.T, ctx context.Context) {
				h := newHome[int](t)
				publish := func(body, unrouted int) {
					t.Helper()
					before := h.stats()
					require.NoError(t, way.publish(ctx, h, body))
					require.Equal(t, before.Published+1, h.Published())
					require.Equal(t, before.Unrouted+unrouted, h.stats().Unrouted)
					h.check(t)
				}
				publish(1, 1)
				even := h.open("even", accepting(func(n int) bool { return n%2 == 0 }))
				publish(2, 0)
				publish(3, 1)
				require.NoError(t, h.PublishBatch(ctx, []message.Published[int]{{Body: 1}, {Body: 2}, {Body: 3}}))
				require.Equal(t, 4, h.stats().Unrouted)
				all := h.open("all")
				publish(5, 0)
				require.NoError(t, lifecycle.Close(all))
				publish(7, 1)
				elapse(time.Second)
				require.Equal(t, []int{2, 2}, bodies(t, even))
				require.NoError(t, lifecycle.Close(even))
				require.NoError(t, h.PublishBatch(ctx, []message.Published[int]{{Body: 1}, {Body: 2}, {Body: 3}}))
				require.Equal(t, 8, h.stats().Unrouted)
				require.LessOrEqual(t, h.log.Head(), int64(1), "nobody would read it")
				h.end(t)
			})
		})
	}
}

// A publish that fails names its topic and the reason, and has changed nothing.
func TestAPublishThatFailsSaysWhyAndChangesNothing(t *testing.T) {
	ended, cancel := context.WithCancelCause(context.Background())
	cancel(errBusy)
	for name, row := range map[string]struct {
		ctx   context.Context
		queue []setting
		close bool
		is    []error
		says  string
	}{
		"no context":   {nil, nil, false, []error{message.ErrInvalidOption, message.ErrNilContext}, "context"},
		"it has ended": {ended, nil, false, []error{context.Canceled, errBusy}, "busy"},
		"closed":       {t.Context(), nil, true, []error{message.ErrClosed}, "closed"},
		"full":         {t.Context(), []setting{capacity(1), overflows(settings.Reject)}, false, []error{message.ErrQueueFull}, `queue "q" holds 1`},
		"filtered":     {t.Context(), []setting{capacity(1), overflows(settings.Reject), accepting(all)}, false, []error{message.ErrQueueFull}, `queue "q" holds 1`},
		"a filter fails": {t.Context(), []setting{accepting(func(n int) bool {
			if n == 2 {
				panic(errBusy)
			}
			return true
		})}, false, []error{errBusy}, `filter of queue "q"`},
	} {
		for how, way := range ways {
			t.Run(name+", "+how, func(t *testing.T) {
				h := newHome[int](t)
				q := h.open("q", row.queue...)
				h.publish(t, 1)
				if row.close {
					h.Mu.Lock()
					h.CloseLocked()
					h.Unlock()
				}
				err := way.publish(row.ctx, h, 2)
				for _, is := range row.is {
					require.ErrorIs(t, err, is)
				}
				require.ErrorContains(t, err, `fanout: publish to "payments": `)
				require.ErrorContains(t, err, row.says)
				require.EqualValues(t, 1, h.Published())
				require.Equal(t, []int{1}, bodies(t, q))
				if !row.close {
					h.check(t)
				}
				h.end(t)
			})
		}
	}
}

// Hooks hear of what is published, and not of what is refused.
func TestARefusedPublishIsNotTold(t *testing.T) {
	for how, way := range ways {
		t.Run(how, func(t *testing.T) {
			told := 0
			h := newHome[int](t, hooked(notice.Published, func(notice.Event) { told++ }))
			h.open("q", capacity(1), overflows(settings.Reject))
			h.publish(t, 1)
			require.ErrorIs(t, way.publish(t.Context(), h, 2), message.ErrQueueFull)
			require.Equal(t, 1, told)
			h.end(t)
		})
	}
}

// A batch that no queue could ever hold is refused, but where the queue drops.
func TestABatchLargerThanAQueueIsRefused(t *testing.T) {
	for o, err := range map[settings.Overflow]error{settings.Block: message.ErrBatchTooLarge, settings.Reject: message.ErrBatchTooLarge, settings.DropOldest: nil, settings.DropNewest: nil} {
		t.Run(o.String(), func(t *testing.T) {
			bubble(t, func(t *testing.T, ctx context.Context) {
				h := newHome[int](t)
				q := h.open("q", capacity(2), overflows(o), accepting(func(n int) bool { return n > 0 }))
				h.publishAll(t, message.Published[int]{Body: -1}, message.Published[int]{Body: 1}, message.Published[int]{Body: 2})
				got := h.PublishBatch(ctx, []message.Published[int]{{Body: 1}, {Body: 2}, {Body: 3}})
				require.ErrorIs(t, got, err)
				if err != nil {
					require.EqualError(t, got, `fanout: publish to "payments": `+err.Error()+`: 3 messages for queue "q", which has a capacity of 2`)
				}
				require.Len(t, bodies(t, q), 2)
				h.check(t)
				h.end(t)
			})
		})
	}
	for _, f := range []func(h *home[int], ctx context.Context, ms []message.Published[int]) error{(*home[int]).PublishBatch, (*home[int]).TryPublishBatch} {
		h := newHome[int](t)
		err := f(h, t.Context(), []message.Published[int]{{Body: 1}, {Body: 2, Delay: -1}})
		require.ErrorIs(t, err, message.ErrInvalidMessage)
		require.ErrorContains(t, err, `fanout: publish to "payments": `)
		require.ErrorContains(t, err, "message 1")
		require.Zero(t, h.Published())
		h.end(t)
	}
}

// A publish that may not wait is refused by a full queue that blocks, and by those who wait
// there before it.
func TestWhoDoesNotWaitIsToldWhichQueueIsFull(t *testing.T) {
	for name, way := range ways {
		if way.waits {
			continue
		}
		for _, before := range []bool{true, false} {
			t.Run(name, func(t *testing.T) {
				bubble(t, func(t *testing.T, ctx context.Context) {
					h := newHome[int](t)
					h.open("roomy")
					q := h.open("small", capacity(2))
					h.publish(t, 1)
					var other <-chan error
					if before {
						other = h.waiting(ctx, message.Published[int]{Body: 2}, message.Published[int]{Body: 3})
					} else {
						h.publish(t, 2)
					}
					err := way.publish(ctx, h, 4)
					require.EqualError(t, err, `fanout: publish to "payments": `+message.ErrQueueFull.Error()+`: queue "small"`)
					require.Equal(t, before, q.RoomWanted.Load() != 0, "it does not wait")
					h.check(t)
					require.NoError(t, receive(t, q).Ack(ctx))
					if before {
						require.NoError(t, requireDecided(t, other))
					}
					h.end(t)
				})
			})
		}
	}
}

// Times of publication do not decrease, but for a clock that is another.
func TestTimesOfPublicationDoNotDecrease(t *testing.T) {
	h := newHome[int](t)
	minute := int64(time.Minute)
	for _, row := range []struct{ now, want int64 }{
		{5, 5}, {4, 5}, {6, 6}, {5 * minute, 5 * minute}, {4 * minute, 5 * minute}, {4*minute - 1, 4*minute - 1}, {4 * minute, 4 * minute},
	} {
		require.Equal(t, row.want, h.timeOf(row.now))
	}
	h.end(t)
}
