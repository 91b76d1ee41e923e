package admission

import (
	"context"
	"errors"
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

// until requires that f returns nil after exactly d.
func until(t *testing.T, d time.Duration, f func() error) {
	t.Helper()
	start := time.Now()
	require.NoError(t, f())
	require.Equal(t, d, time.Since(start))
}

// mortal is a message that lives for a second.
func mortal(body int) message.Published[int] {
	return message.Published[int]{Body: body, TimeToLive: time.Second}
}

// requireNoTimer requires that no queue of the topic waits for an instant.
func requireNoTimer(t *testing.T, qs ...*queue.Queue[int]) {
	t.Helper()
	elapse(2 * time.Millisecond) // what looks at the log comes within one
	for _, q := range qs {
		q.Locked(func() { require.False(t, q.Alarm.Armed, "queue %q has a timer", q.Name()) })
		require.Zero(t, q.RoomWanted.Load(), "somebody waits for room in %q", q.Name())
	}
}

// A publish that waits gets the room of what expires at that instant, wherever that
// stands and whatever kind of queue it is.
func TestAWaitingPublishGetsTheRoomOfWhatExpiresAtThatInstant(t *testing.T) {
	retryLater := func(t *testing.T, ctx context.Context, q *queue.Queue[int]) {
		require.NoError(t, receive(t, q).NackAfter(ctx, time.Hour))
	}
	for name, row := range map[string]struct {
		options  []setting
		messages []message.Published[int]
		before   func(t *testing.T, ctx context.Context, q *queue.Queue[int]) // at once
		left     []int
	}{
		"in the log":                      {[]setting{timeToLive(time.Second)}, []message.Published[int]{{Body: 1}, {Body: 2}}, nil, nil},
		"by the message's own":            {nil, []message.Published[int]{{Body: 1}, mortal(2)}, nil, []int{1}},
		"between others":                  {nil, []message.Published[int]{{Body: 1}, mortal(2), {Body: 3}}, nil, []int{1, 3}},
		"of a shorter one than the queue": {[]setting{timeToLive(time.Hour)}, []message.Published[int]{{Body: 1}, mortal(2)}, nil, []int{1}},
		"with a filter":                   {[]setting{accepting(all)}, []message.Published[int]{{Body: 1}, mortal(2)}, nil, []int{1}},
		"in a queue with a delay":         {[]setting{delayed(time.Minute)}, []message.Published[int]{{Body: 1}, mortal(2)}, nil, []int{1}},
		"delayed":                         {nil, []message.Published[int]{{Body: 1}, {Body: 2, Delay: time.Minute, TimeToLive: time.Second}}, nil, []int{1}},
		"that waits for a retry":          {nil, []message.Published[int]{mortal(1), {Body: 2}}, retryLater, []int{2}},
		"that was released": {nil, []message.Published[int]{mortal(1), {Body: 2}}, func(t *testing.T, ctx context.Context, q *queue.Queue[int]) {
			require.NoError(t, receive(t, q).Release(ctx))
		}, []int{2}},
		"that timed out": {[]setting{visibility(time.Millisecond)}, []message.Published[int]{mortal(1), {Body: 2}}, func(t *testing.T, ctx context.Context, q *queue.Queue[int]) {
			receive(t, q)
			elapse(time.Millisecond)
		}, []int{2}},
		"while paused": {nil, []message.Published[int]{{Body: 1}, mortal(2)}, func(t *testing.T, ctx context.Context, q *queue.Queue[int]) {
			require.NoError(t, lifecycle.Pause(ctx, q))
		}, []int{1}},
		"behind its ordering key": {nil, []message.Published[int]{{Body: 1, OrderingKey: "k"}, {Body: 2, OrderingKey: "k", TimeToLive: time.Second}}, func(t *testing.T, ctx context.Context, q *queue.Queue[int]) {
			retryLater(t, ctx, q)
			requireEmpty(t, q) // and 2 stands behind 1 now
		}, []int{1}},
	} {
		t.Run(name, func(t *testing.T) {
			bubble(t, func(t *testing.T, ctx context.Context) {
				h := newHome[int](t, ordering)
				q := h.open("audit", append(row.options, capacity(len(row.messages)), attempts(10))...)
				start := time.Now()
				ctx, cancel := context.WithTimeout(ctx, time.Hour)
				defer cancel()
				h.publishAll(t, row.messages...)
				if row.before != nil {
					row.before(t, ctx, q)
				}
				until(t, time.Until(start.Add(time.Second)), func() error { return h.Publish(ctx, 100) })
				require.Equal(t, append(row.left, 100), bodies(t, q))
				dead := len(row.messages) - len(row.left)
				require.EqualValues(t, dead, view.StatsOf(q).Expired)
				for _, d := range peek(t, q.DeadLetters()) {
					h := d.History()
					require.Equal(t, message.Expired, h[len(h)-1].Cause)
					require.Equal(t, time.Now(), h[len(h)-1].Start)
				}
				require.Len(t, bodies(t, q.DeadLetters()), dead)
				h.check(t)
				h.end(t)
			})
		})
	}
}

func peek(t *testing.T, q *queue.Queue[int]) []delivery.Delivery[int] {
	t.Helper()
	ds, err := view.Peek(t.Context(), q, message.Unlimited)
	require.NoError(t, err)
	return ds
}

// A redrive that waits gets that room too, from a queue of each policy.
func TestAWaitingRedriveGetsTheRoomOfWhatExpiresAtThatInstant(t *testing.T) {
	for _, o := range []settings.Overflow{settings.Block, settings.Reject, settings.DropOldest, settings.DropNewest} {
		t.Run(o.String(), func(t *testing.T) {
			bubble(t, func(t *testing.T, ctx context.Context) {
				h := newHome[int](t)
				q := h.open("audit", capacity(2), overflows(o))
				h.publish(t, 1)
				kill(t, q)
				h.publishAll(t, message.Published[int]{Body: 2}, mortal(3))
				ctx, cancel := context.WithTimeout(ctx, time.Hour)
				defer cancel()
				var moved int
				until(t, time.Second, func() (err error) {
					moved, err = redrive(ctx, q)
					return err
				})
				require.Equal(t, 1, moved)
				require.Equal(t, []int{1, 2}, bodies(t, q))
				require.Equal(t, []int{3}, bodies(t, q.DeadLetters()))
				require.Zero(t, view.StatsOf(q).Dropped)
				h.check(t)
				requireNoTimer(t, q)
				h.end(t)
			})
		})
	}
}

// What is published to a queue that drops, while a redrive waits for room there,
// makes room as it expires, too.
func TestARedriveWaitsForWhatIsPublishedMeanwhile(t *testing.T) {
	bubble(t, func(t *testing.T, ctx context.Context) {
		h := newHome[int](t)
		q := h.open("audit", capacity(2), overflows(settings.DropOldest))
		h.publish(t, 1)
		kill(t, q)
		h.publish(t, 2, 3)
		redriven := make(chan error, 1)
		go func() {
			_, err := redrive(ctx, q)
			redriven <- err
		}()
		synctest.Wait()
		const soon = 100 * time.Microsecond                                // before the timer comes for anything else
		h.publishAll(t, message.Published[int]{Body: 4, TimeToLive: soon}) // drops 2
		until(t, soon, func() error { return <-redriven })
		require.Equal(t, []int{1, 3}, bodies(t, q))
		require.EqualValues(t, 1, view.StatsOf(q).Dropped)
		h.check(t)
		h.end(t)
	})
}

// Who does not wait gets that room before anything is refused or dropped.
func TestWhatHasExpiredMakesRoomForWhoDoesNotWait(t *testing.T) {
	for _, o := range []settings.Overflow{settings.Block, settings.Reject, settings.DropOldest, settings.DropNewest} {
		for name, options := range map[string][]setting{
			"": nil, "with a filter": {accepting(func(int) bool { return true })}, "with a delay": {delayed(time.Minute)},
		} {
			t.Run(o.String()+" "+name, func(t *testing.T) {
				bubble(t, func(t *testing.T, ctx context.Context) {
					var expired []time.Time
					h := newHome[int](t, hooked(notice.DeadLettered, func(e notice.Event) { expired = append(expired, e.Time) }))
					q := h.open("audit", append(options, capacity(3), overflows(o))...)
					h.publishAll(t, mortal(1), message.Published[int]{Body: 2}, mortal(3))
					elapse(time.Minute)
					require.Empty(t, expired, "nobody wants room")
					require.NoError(t, h.TryPublishBatch(ctx, []message.Published[int]{{Body: 4}, {Body: 5}}))
					require.Equal(t, []time.Time{time.Now(), time.Now()}, expired)
					require.Equal(t, []int{2, 4, 5}, bodies(t, q))
					require.Zero(t, view.StatsOf(q).Dropped)
					require.Equal(t, []int{1, 3}, bodies(t, q.DeadLetters()))
					if err := h.TryPublish(ctx, 6); !o.Drops() {
						require.ErrorIs(t, err, message.ErrQueueFull)
					} else {
						require.NoError(t, err)
						require.EqualValues(t, 1, view.StatsOf(q).Dropped, "all of it is alive")
					}
					h.check(t)
					h.end(t)
				})
			})
		}
	}
}

// What has expired is dead though the publish fails in another queue, and though it
// waits behind another.
func TestWhatHasExpiredIsDeadThoughThePublishFails(t *testing.T) {
	bubble(t, func(t *testing.T, ctx context.Context) {
		told := 0
		h := newHome[int](t, hooked(notice.DeadLettered, func(notice.Event) { told++ }))
		first := h.open("first", capacity(1), overflows(settings.Reject), timeToLive(time.Second))
		second := h.open("second", capacity(1), overflows(settings.Reject))
		dropping := h.open("dropping", capacity(1), overflows(settings.DropOldest), timeToLive(time.Second))
		h.publish(t, 1)
		elapse(time.Second)
		err := h.Publish(ctx, 2)
		require.ErrorIs(t, err, message.ErrQueueFull)
		require.ErrorContains(t, err, "second")
		require.Equal(t, []int{1}, bodies(t, first.DeadLetters()))
		require.Equal(t, 1, told)
		require.Empty(t, bodies(t, first))
		require.Equal(t, []int{1}, bodies(t, second))
		require.Equal(t, []int{1}, bodies(t, dropping), "it was not asked for room")
		h.check(t)
		h.end(t)
	})
	bubble(t, func(t *testing.T, ctx context.Context) {
		h := newHome[int](t)
		blocking := h.open("blocking", capacity(1))
		rejecting := h.open("rejecting", capacity(1), overflows(settings.Reject), timeToLive(time.Second),
			accepting(func(n int) bool { return n != 2 }))
		h.publish(t, 1)
		short, cancel := context.WithTimeout(ctx, time.Hour)
		defer cancel()
		gaveUp := make(chan error, 2)
		go func() { gaveUp <- h.Publish(short, 2) }()
		elapse(time.Second)
		go func() { gaveUp <- h.Publish(short, 3) }() // behind 2; rejecting would refuse it
		synctest.Wait()
		require.Equal(t, 2, h.stats().Waiting)
		require.Equal(t, []int{1}, bodies(t, rejecting.DeadLetters()))
		elapse(time.Hour)
		require.ErrorIs(t, <-gaveUp, context.DeadlineExceeded)
		require.ErrorIs(t, <-gaveUp, context.DeadlineExceeded)
		requireNoTimer(t, blocking, rejecting)
		h.check(t)
		h.end(t)
	})
}

// What is in flight may succeed still, and what is parked is dead: neither makes room.
func TestWhatIsInFlightOrParkedMakesNoRoom(t *testing.T) {
	bubble(t, func(t *testing.T, ctx context.Context) {
		h := newHome[int](t)
		q := h.open("audit", capacity(1), timeToLive(time.Second))
		h.publish(t, 1)
		d := receive(t, q)
		elapse(time.Minute / 4)
		require.ErrorIs(t, h.TryPublish(ctx, 2), message.ErrQueueFull)
		published := make(chan error, 1)
		go func() { published <- h.Publish(ctx, 2) }()
		elapse(time.Second)
		require.Empty(t, published)
		require.NoError(t, d.Nack(ctx)) // it has failed after its time to live
		synctest.Wait()
		require.NoError(t, <-published)
		require.Equal(t, []int{1}, bodies(t, q.DeadLetters()))
		h.check(t)
		h.end(t)
	})
	bubble(t, func(t *testing.T, ctx context.Context) {
		h := newHome[int](t)
		q := h.open("audit", capacity(2), timeToLive(time.Second), deadCapacity(1))
		h.publish(t, 1)
		kill(t, q)
		h.publish(t, 2, 3)
		published := make(chan error, 1)
		go func() { published <- h.Publish(ctx, 4) }()
		elapse(time.Minute)
		require.Empty(t, published)
		require.ErrorIs(t, h.TryPublish(ctx, 5), message.ErrQueueFull)
		require.Equal(t, 2, view.StatsOf(q).Parked, "they are parked at the instant they expire")
		q.Locked(func() { require.False(t, q.Alarm.Armed) })
		require.NoError(t, receive(t, q.DeadLetters()).Ack(ctx))
		require.NoError(t, <-published)
		require.Equal(t, []int{2}, bodies(t, q.DeadLetters()))
		require.Equal(t, 1, view.StatsOf(q).Parked)
		h.check(t)
		h.end(t)
	})
}

// A redrive that waits changes places with what has expired and found no room among
// the dead.
func TestARedriveChangesPlacesWithWhatExpires(t *testing.T) {
	bubble(t, func(t *testing.T, ctx context.Context) {
		h := newHome[int](t)
		q := h.open("audit", capacity(1), deadCapacity(1))
		h.publish(t, 1)
		kill(t, q)
		h.publishAll(t, mortal(2))
		until(t, time.Second, func() error {
			_, err := redrive(ctx, q)
			return err
		})
		require.Equal(t, []int{1}, bodies(t, q))
		require.Equal(t, []int{2}, bodies(t, q.DeadLetters()))
		h.check(t)
		requireNoTimer(t, q)
		h.end(t)
	})
}

// When the head of an ordering key expires the next of its key is due, and whoever
// waits for a message gets it.
func TestTheNextOfAKeyGoesOnWhenItsHeadExpires(t *testing.T) {
	bubble(t, func(t *testing.T, ctx context.Context) {
		h := newHome[int](t, ordering)
		q := h.open("audit", capacity(2))
		h.publishAll(t, message.Published[int]{Body: 1, OrderingKey: "k", TimeToLive: time.Second}, message.Published[int]{Body: 2, OrderingKey: "k"})
		require.NoError(t, receive(t, q).NackAfter(ctx, time.Hour))
		requireEmpty(t, q)
		got := make(chan delivery.Delivery[int], 1)
		go func() {
			var d delivery.Delivery[int]
			if delivery.TakeOne(ctx, q, &d, q.Visibility()) == nil {
				got <- d
			}
		}()
		go func() { _ = h.Publish(ctx, 3) }()
		elapse(time.Second - 1)
		require.Empty(t, got)
		elapse(1)
		require.Equal(t, 2, (<-got).Body)
		require.Equal(t, []int{3}, bodies(t, q))
		h.check(t)
		h.end(t)
	})
}

// A publish for several full queues waits for one after the other. No queue that it
// does not wait for any more has a timer.
func TestAPublishWaitsForOneQueueAfterTheOther(t *testing.T) {
	bubble(t, func(t *testing.T, ctx context.Context) {
		h := newHome[int](t)
		first := h.open("first", capacity(2), timeToLive(time.Second))
		second := h.open("second", capacity(2), timeToLive(2*time.Second))
		third := h.open("third", capacity(2))
		h.publish(t, 1)
		elapse(time.Second / 2)
		h.publish(t, 2)
		for range 2 {
			require.NoError(t, receive(t, third).Ack(ctx))
		}
		until(t, 3*time.Second/2, func() error { return h.Publish(ctx, 3) })
		require.Equal(t, []int{2, 3}, bodies(t, second))
		require.Equal(t, []int{2, 3}, bodies(t, first), "only one that was wanted has been looked at")
		requireNoTimer(t, first, second, third)
		h.check(t)
		h.end(t)
	})
}

// Who gives up, in whatever way, leaves no timer: nothing comes by time while nobody
// waits.
func TestOneWhoGivesUpLeavesNoTimer(t *testing.T) {
	for name, end := range map[string]func(t *testing.T, h *home[int], cancel context.CancelFunc){
		"its context ends": func(t *testing.T, h *home[int], cancel context.CancelFunc) { cancel() },
		"the topic shuts down": func(t *testing.T, h *home[int], cancel context.CancelFunc) {
			h.shutdown()
			synctest.Wait()
		},
	} {
		for _, redrives := range []bool{false, true} {
			t.Run(name, func(t *testing.T) {
				bubble(t, func(t *testing.T, ctx context.Context) {
					h := newHome[int](t)
					q := h.open("audit", capacity(1), timeToLive(time.Hour))
					h.publish(t, 1)
					kill(t, q)
					h.publish(t, 2)
					waiting, cancel := context.WithCancel(ctx)
					defer cancel()
					gaveUp := make(chan error, 1)
					go func() {
						if redrives {
							_, err := redrive(waiting, q)
							gaveUp <- err
						} else {
							gaveUp <- h.Publish(waiting, 3)
						}
					}()
					elapse(time.Second)
					q.Locked(func() { require.True(t, q.Alarm.Armed) })
					end(t, h, cancel)
					require.Error(t, <-gaveUp)
					requireNoTimer(t, q)
					h.end(t)
				})
			})
		}
	}
}

// A publish in a handler that would wait for its own queue waits for what expires
// there, and is no deadlock.
func TestAHandlerMayWaitForWhatExpires(t *testing.T) {
	for name, own := range map[string]bool{"of the queue": false, "of the message": true} {
		t.Run(name, func(t *testing.T) {
			bubble(t, func(t *testing.T, ctx context.Context) {
				h := newHome[int](t)
				var options []setting
				waiting := mortal(2)
				if !own {
					options, waiting = []setting{timeToLive(time.Second)}, message.Published[int]{Body: 2}
				}
				q := h.open("audit", append(options, capacity(2))...)
				h.publishAll(t, message.Published[int]{Body: 1}, waiting)
				published := make(chan error, 1)
				handle(t, q, 1, func(ctx context.Context, d delivery.Delivery[int]) error {
					if d.Body == 1 {
						published <- h.Publish(ctx, 3)
					}
					return nil
				})
				until(t, time.Second, func() error { return <-published })
				elapse(0)
				require.Equal(t, []int{2}, bodies(t, q.DeadLetters()))
				h.check(t)
				h.end(t)
			})
		})
	}
}

// Several who wait for one queue get the room of what expires one after the other, in
// the order of their arrival; and one whose batch needs more waits for all of it.
func TestWhoWaitsGetsTheRoomOfWhatExpiresInTheOrderOfArrival(t *testing.T) {
	bubble(t, func(t *testing.T, ctx context.Context) {
		h := newHome[int](t)
		q := h.open("audit", capacity(3), timeToLive(4*time.Second))
		start := time.Now()
		for n := range 3 {
			h.publish(t, n)
			elapse(time.Second)
		}
		type end struct {
			body int
			at   time.Duration
		}
		ends := make(chan end, 3)
		go func() {
			_ = h.PublishBatch(ctx, []message.Published[int]{{Body: 10}, {Body: 11}})
			ends <- end{10, time.Since(start)}
		}()
		synctest.Wait()
		go func() {
			_ = h.Publish(ctx, 12)
			ends <- end{12, time.Since(start)}
		}()
		require.Equal(t, end{10, 5 * time.Second}, <-ends)
		require.Equal(t, end{12, 6 * time.Second}, <-ends)
		require.Equal(t, []int{10, 11, 12}, bodies(t, q))
		require.Equal(t, []int{0, 1, 2}, bodies(t, q.DeadLetters()))
		h.check(t)
		requireNoTimer(t, q)
		h.end(t)
	})
}

// A hook that is told of what expired may end the goroutine: the publish has no place
// in line then, and nothing was published.
func TestAHookThatHearsOfWhatExpiredMayEndThePublish(t *testing.T) {
	bubble(t, func(t *testing.T, ctx context.Context) {
		boom := errors.New("boom")
		h := newHome[int](t, hooked(notice.DeadLettered, func(notice.Event) { panic(boom) }))
		q := h.open("audit", capacity(2))
		h.publishAll(t, mortal(1), message.Published[int]{Body: 2})
		elapse(time.Second)
		require.NoError(t, h.Publish(ctx, 3), "a hook's panic is logged")
		require.Equal(t, []int{2, 3}, bodies(t, q))
		require.Equal(t, 0, h.stats().Waiting)
		h.check(t)
		h.end(t)
	})
}

// A redrive goes on waiting for the rest of its letters.
func TestARedriveGetsTheRoomOfWhatExpiresBitByBit(t *testing.T) {
	bubble(t, func(t *testing.T, ctx context.Context) {
		h := newHome[int](t)
		q := h.open("audit", capacity(2))
		h.publish(t, 1, 2)
		for range 2 {
			kill(t, q)
		}
		h.publishAll(t, mortal(3), message.Published[int]{Body: 4, TimeToLive: 2 * time.Second})
		ctx, cancel := context.WithTimeout(ctx, time.Hour)
		defer cancel()
		var moved int
		until(t, 2*time.Second, func() (err error) {
			moved, err = redrive(ctx, q)
			return err
		})
		require.Equal(t, 2, moved)
		require.Equal(t, []int{3, 4}, bodies(t, q.DeadLetters()))
		h.check(t)
		requireNoTimer(t, q)
		h.end(t)
	})
}

// The next of a key is given out though the publish that dead-lettered its head fails.
func TestTheNextOfAKeyGoesOnThoughThePublishFails(t *testing.T) {
	bubble(t, func(t *testing.T, ctx context.Context) {
		h := newHome[int](t, ordering)
		q := h.open("audit", capacity(2), overflows(settings.Reject))
		h.publishAll(t, message.Published[int]{Body: 1, OrderingKey: "k", TimeToLive: time.Hour}, message.Published[int]{Body: 2, OrderingKey: "k"})
		require.NoError(t, receive(t, q).NackAfter(ctx, 24*time.Hour))
		requireEmpty(t, q)
		got := make(chan delivery.Delivery[int], 1)
		go func() {
			var d delivery.Delivery[int]
			if delivery.TakeOne(ctx, q, &d, q.Visibility()) == nil {
				got <- d
			}
		}()
		elapse(time.Hour)
		require.ErrorIs(t, h.PublishBatch(ctx, []message.Published[int]{{Body: 3}, {Body: 4}}), message.ErrQueueFull)
		synctest.Wait()
		require.Len(t, got, 1)
		require.Equal(t, 2, (<-got).Body)
		h.check(t)
		h.end(t)
	})
}

// What expires while it is delayed leaves no timer behind.
func TestWhatExpiresWhileItIsDelayedLeavesNoTimer(t *testing.T) {
	for _, o := range []settings.Overflow{settings.Block, settings.Reject, settings.DropOldest, settings.DropNewest} {
		t.Run(o.String(), func(t *testing.T) {
			bubble(t, func(t *testing.T, ctx context.Context) {
				h := newHome[int](t)
				q := h.open("audit", capacity(1), overflows(o))
				h.publishAll(t, message.Published[int]{Body: 1, Delay: time.Hour, TimeToLive: time.Second})
				elapse(time.Minute)
				require.NoError(t, h.TryPublish(ctx, 2))
				require.Equal(t, []int{2}, bodies(t, q))
				requireNoTimer(t, q)
				h.check(t)
				h.end(t)
			})
		})
	}
}
