package topic

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
	all := func(int) bool { return true }
	retryLater := func(t *testing.T, ctx context.Context, q *queue.Queue[int]) {
		require.NoError(t, receive(t, q).NackAfter(ctx, time.Hour))
	}
	for name, row := range map[string]struct {
		options  []QueueOption
		messages []message.Published[int]
		before   func(t *testing.T, ctx context.Context, q *queue.Queue[int]) // at once
		left     []int
	}{
		"in the log":                      {[]QueueOption{WithTimeToLive(time.Second)}, []message.Published[int]{{Body: 1}, {Body: 2}}, nil, nil},
		"by the message's own":            {nil, []message.Published[int]{{Body: 1}, mortal(2)}, nil, []int{1}},
		"between others":                  {nil, []message.Published[int]{{Body: 1}, mortal(2), {Body: 3}}, nil, []int{1, 3}},
		"of a shorter one than the queue": {[]QueueOption{WithTimeToLive(time.Hour)}, []message.Published[int]{{Body: 1}, mortal(2)}, nil, []int{1}},
		"with a filter":                   {[]QueueOption{WithFilter(all)}, []message.Published[int]{{Body: 1}, mortal(2)}, nil, []int{1}},
		"in a queue with a delay":         {[]QueueOption{WithDelay(time.Minute)}, []message.Published[int]{{Body: 1}, mortal(2)}, nil, []int{1}},
		"delayed":                         {nil, []message.Published[int]{{Body: 1}, {Body: 2, Delay: time.Minute, TimeToLive: time.Second}}, nil, []int{1}},
		"that waits for a retry":          {nil, []message.Published[int]{mortal(1), {Body: 2}}, retryLater, []int{2}},
		"that was released": {nil, []message.Published[int]{mortal(1), {Body: 2}}, func(t *testing.T, ctx context.Context, q *queue.Queue[int]) {
			require.NoError(t, receive(t, q).Release(ctx))
		}, []int{2}},
		"that timed out": {[]QueueOption{WithVisibilityTimeout(time.Millisecond)}, []message.Published[int]{mortal(1), {Body: 2}}, func(t *testing.T, ctx context.Context, q *queue.Queue[int]) {
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
				top := newTopic[int](t, WithOrdering())
				q := openQueue(t, top, "audit", append(row.options, WithCapacity(len(row.messages)), WithMaxAttempts(10))...)
				start := time.Now()
				ctx, cancel := context.WithTimeout(ctx, time.Hour)
				defer cancel()
				publishAll(t, top, row.messages...)
				if row.before != nil {
					row.before(t, ctx, q)
				}
				until(t, time.Until(start.Add(time.Second)), func() error { return top.In.Publish(ctx, 100) })
				require.Equal(t, append(row.left, 100), bodies(t, q))
				dead := len(row.messages) - len(row.left)
				require.EqualValues(t, dead, view.StatsOf(q).Expired)
				for _, d := range peek(t, q.DeadLetters()) {
					h := d.History()
					require.Equal(t, message.Expired, h[len(h)-1].Cause)
					require.Equal(t, time.Now(), h[len(h)-1].Start)
				}
				require.Len(t, bodies(t, q.DeadLetters()), dead)
				check(t, top)
				require.NoError(t, top.Close())
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
				top := newTopic[int](t)
				q := openQueue(t, top, "audit", WithCapacity(2), WithOverflow(o))
				publish(t, top, 1)
				require.NoError(t, receive(t, q).Settle(ctx, message.Permanent(errBusy)))
				publishAll(t, top, message.Published[int]{Body: 2}, mortal(3))
				ctx, cancel := context.WithTimeout(ctx, time.Hour)
				defer cancel()
				var moved int
				until(t, time.Second, func() (err error) {
					moved, err = redriveTo(q, ctx)
					return err
				})
				require.Equal(t, 1, moved)
				require.Equal(t, []int{1, 2}, bodies(t, q))
				require.Equal(t, []int{3}, bodies(t, q.DeadLetters()))
				require.Zero(t, view.StatsOf(q).Dropped)
				check(t, top)
				requireNoTimer(t, q)
				require.NoError(t, top.Close())
			})
		})
	}
}

// What is published to a queue that drops, while a redrive waits for room there,
// makes room as it expires, too.
func TestARedriveWaitsForWhatIsPublishedMeanwhile(t *testing.T) {
	bubble(t, func(t *testing.T, ctx context.Context) {
		top := newTopic[int](t)
		q := openQueue(t, top, "audit", WithCapacity(2), WithOverflow(settings.DropOldest))
		publish(t, top, 1)
		require.NoError(t, receive(t, q).Settle(ctx, message.Permanent(errBusy)))
		publish(t, top, 2, 3)
		redriven := make(chan error, 1)
		go func() {
			_, err := redriveTo(q, ctx)
			redriven <- err
		}()
		synctest.Wait()
		const soon = 100 * time.Microsecond                                   // before the timer comes for anything else
		publishAll(t, top, message.Published[int]{Body: 4, TimeToLive: soon}) // drops 2
		until(t, soon, func() error { return <-redriven })
		require.Equal(t, []int{1, 3}, bodies(t, q))
		require.EqualValues(t, 1, view.StatsOf(q).Dropped)
		check(t, top)
		require.NoError(t, top.Close())
	})
}

// Who does not wait gets that room before anything is refused or dropped.
func TestWhatHasExpiredMakesRoomForWhoDoesNotWait(t *testing.T) {
	for _, o := range []settings.Overflow{settings.Block, settings.Reject, settings.DropOldest, settings.DropNewest} {
		for name, options := range map[string][]QueueOption{
			"": nil, "with a filter": {WithFilter(func(int) bool { return true })}, "with a delay": {WithDelay(time.Minute)},
		} {
			t.Run(o.String()+" "+name, func(t *testing.T) {
				bubble(t, func(t *testing.T, ctx context.Context) {
					var expired []time.Time
					top := newTopic[int](t, WithHooks(Hooks{DeadLettered: func(e Event) { expired = append(expired, e.Time) }}))
					q := openQueue(t, top, "audit", append(options, WithCapacity(3), WithOverflow(o))...)
					publishAll(t, top, mortal(1), message.Published[int]{Body: 2}, mortal(3))
					elapse(time.Minute)
					require.Empty(t, expired, "nobody wants room")
					require.NoError(t, top.TryPublishMessages(ctx, message.Published[int]{Body: 4}, message.Published[int]{Body: 5}))
					require.Equal(t, []time.Time{time.Now(), time.Now()}, expired)
					require.Equal(t, []int{2, 4, 5}, bodies(t, q))
					require.Zero(t, view.StatsOf(q).Dropped)
					require.Equal(t, []int{1, 3}, bodies(t, q.DeadLetters()))
					if err := top.In.TryPublish(ctx, 6); !o.Drops() {
						require.ErrorIs(t, err, message.ErrQueueFull)
					} else {
						require.NoError(t, err)
						require.EqualValues(t, 1, view.StatsOf(q).Dropped, "all of it is alive")
					}
					check(t, top)
					require.NoError(t, top.Close())
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
		top := newTopic[int](t, WithHooks(Hooks{DeadLettered: func(Event) { told++ }}))
		first := openQueue(t, top, "first", WithCapacity(1), WithOverflow(settings.Reject), WithTimeToLive(time.Second))
		second := openQueue(t, top, "second", WithCapacity(1), WithOverflow(settings.Reject))
		dropping := openQueue(t, top, "dropping", WithCapacity(1), WithOverflow(settings.DropOldest), WithTimeToLive(time.Second))
		publish(t, top, 1)
		elapse(time.Second)
		err := top.In.Publish(ctx, 2)
		require.ErrorIs(t, err, message.ErrQueueFull)
		require.ErrorContains(t, err, "second")
		require.Equal(t, []int{1}, bodies(t, first.DeadLetters()))
		require.Equal(t, 1, told)
		require.Empty(t, bodies(t, first))
		require.Equal(t, []int{1}, bodies(t, second))
		require.Equal(t, []int{1}, bodies(t, dropping), "it was not asked for room")
		check(t, top)
		require.NoError(t, top.Close())
	})
	bubble(t, func(t *testing.T, ctx context.Context) {
		top := newTopic[int](t)
		blocking := openQueue(t, top, "blocking", WithCapacity(1))
		rejecting := openQueue(t, top, "rejecting", WithCapacity(1), WithOverflow(settings.Reject), WithTimeToLive(time.Second),
			WithFilter(func(n int) bool { return n != 2 }))
		publish(t, top, 1)
		short, cancel := context.WithTimeout(ctx, time.Hour)
		defer cancel()
		gaveUp := make(chan error, 2)
		go func() { gaveUp <- top.In.Publish(short, 2) }()
		elapse(time.Second)
		go func() { gaveUp <- top.In.Publish(short, 3) }() // behind 2; rejecting would refuse it
		synctest.Wait()
		require.Equal(t, 2, top.Stats().Waiting)
		require.Equal(t, []int{1}, bodies(t, rejecting.DeadLetters()))
		elapse(time.Hour)
		require.ErrorIs(t, <-gaveUp, context.DeadlineExceeded)
		require.ErrorIs(t, <-gaveUp, context.DeadlineExceeded)
		requireNoTimer(t, blocking, rejecting)
		check(t, top)
		require.NoError(t, top.Close())
	})
}

// What is in flight may succeed still, and what is parked is dead: neither makes room.
func TestWhatIsInFlightOrParkedMakesNoRoom(t *testing.T) {
	bubble(t, func(t *testing.T, ctx context.Context) {
		top := newTopic[int](t)
		q := openQueue(t, top, "audit", WithCapacity(1), WithTimeToLive(time.Second))
		publish(t, top, 1)
		d := receive(t, q)
		elapse(time.Minute / 4)
		require.ErrorIs(t, top.In.TryPublish(ctx, 2), message.ErrQueueFull)
		published := make(chan error, 1)
		go func() { published <- top.In.Publish(ctx, 2) }()
		elapse(time.Second)
		require.Empty(t, published)
		require.NoError(t, d.Nack(ctx)) // it has failed after its time to live
		synctest.Wait()
		require.NoError(t, <-published)
		require.Equal(t, []int{1}, bodies(t, q.DeadLetters()))
		check(t, top)
		require.NoError(t, top.Close())
	})
	bubble(t, func(t *testing.T, ctx context.Context) {
		top := newTopic[int](t)
		q := openQueue(t, top, "audit", WithCapacity(2), WithTimeToLive(time.Second), WithDeadLetterCapacity(1))
		publish(t, top, 1)
		require.NoError(t, receive(t, q).Settle(ctx, message.Permanent(errBusy)))
		publish(t, top, 2, 3)
		published := make(chan error, 1)
		go func() { published <- top.In.Publish(ctx, 4) }()
		elapse(time.Minute)
		require.Empty(t, published)
		require.ErrorIs(t, top.In.TryPublish(ctx, 5), message.ErrQueueFull)
		require.Equal(t, 2, view.StatsOf(q).Parked, "they are parked at the instant they expire")
		q.Locked(func() { require.False(t, q.Alarm.Armed) })
		require.NoError(t, receive(t, q.DeadLetters()).Ack(ctx))
		require.NoError(t, <-published)
		require.Equal(t, []int{2}, bodies(t, q.DeadLetters()))
		require.Equal(t, 1, view.StatsOf(q).Parked)
		check(t, top)
		require.NoError(t, top.Close())
	})
}

// A redrive that waits changes places with what has expired and found no room among
// the dead.
func TestARedriveChangesPlacesWithWhatExpires(t *testing.T) {
	bubble(t, func(t *testing.T, ctx context.Context) {
		top := newTopic[int](t)
		q := openQueue(t, top, "audit", WithCapacity(1), WithDeadLetterCapacity(1))
		publish(t, top, 1)
		require.NoError(t, receive(t, q).Settle(ctx, message.Permanent(errBusy)))
		publishAll(t, top, mortal(2))
		until(t, time.Second, func() error {
			_, err := redriveTo(q, ctx)
			return err
		})
		require.Equal(t, []int{1}, bodies(t, q))
		require.Equal(t, []int{2}, bodies(t, q.DeadLetters()))
		check(t, top)
		requireNoTimer(t, q)
		require.NoError(t, top.Close())
	})
}

// When the head of an ordering key expires the next of its key is due, and whoever
// waits for a message gets it.
func TestTheNextOfAKeyGoesOnWhenItsHeadExpires(t *testing.T) {
	bubble(t, func(t *testing.T, ctx context.Context) {
		top := newTopic[int](t, WithOrdering())
		q := openQueue(t, top, "audit", WithCapacity(2))
		publishAll(t, top, message.Published[int]{Body: 1, OrderingKey: "k", TimeToLive: time.Second}, message.Published[int]{Body: 2, OrderingKey: "k"})
		require.NoError(t, receive(t, q).NackAfter(ctx, time.Hour))
		requireEmpty(t, q)
		got := make(chan delivery.Delivery[int], 1)
		go func() {
			d, err := receiveFrom(q, ctx)
			if err == nil {
				got <- d
			}
		}()
		go func() { _ = top.In.Publish(ctx, 3) }()
		elapse(time.Second - 1)
		require.Empty(t, got)
		elapse(1)
		require.Equal(t, 2, (<-got).Body)
		require.Equal(t, []int{3}, bodies(t, q))
		check(t, top)
		require.NoError(t, top.Close())
	})
}

// A publish for several full queues waits for one after the other. No queue that it
// does not wait for any more has a timer.
func TestAPublishWaitsForOneQueueAfterTheOther(t *testing.T) {
	bubble(t, func(t *testing.T, ctx context.Context) {
		top := newTopic[int](t)
		first := openQueue(t, top, "first", WithCapacity(2), WithTimeToLive(time.Second))
		second := openQueue(t, top, "second", WithCapacity(2), WithTimeToLive(2*time.Second))
		third := openQueue(t, top, "third", WithCapacity(2))
		publish(t, top, 1)
		elapse(time.Second / 2)
		publish(t, top, 2)
		for range 2 {
			require.NoError(t, receive(t, third).Ack(ctx))
		}
		until(t, 3*time.Second/2, func() error { return top.In.Publish(ctx, 3) })
		require.Equal(t, []int{2, 3}, bodies(t, second))
		require.Equal(t, []int{2, 3}, bodies(t, first), "only one that was wanted has been looked at")
		requireNoTimer(t, first, second, third)
		check(t, top)
		require.NoError(t, top.Close())
	})
}

// Who gives up, in whatever way, leaves no timer: nothing comes by time while nobody
// waits.
func TestOneWhoGivesUpLeavesNoTimer(t *testing.T) {
	for name, end := range map[string]func(t *testing.T, top *Topic[int], cancel context.CancelFunc){
		"its context ends": func(t *testing.T, top *Topic[int], cancel context.CancelFunc) { cancel() },
		"the topic shuts down": func(t *testing.T, top *Topic[int], cancel context.CancelFunc) {
			ended, end := context.WithCancel(context.Background())
			go func() { _ = top.Shutdown(ended) }()
			synctest.Wait()
			t.Cleanup(end)
		},
	} {
		for _, redrive := range []bool{false, true} {
			t.Run(name, func(t *testing.T) {
				bubble(t, func(t *testing.T, ctx context.Context) {
					top := newTopic[int](t)
					q := openQueue(t, top, "audit", WithCapacity(1), WithTimeToLive(time.Hour))
					publish(t, top, 1)
					require.NoError(t, receive(t, q).Settle(ctx, message.Permanent(errBusy)))
					publish(t, top, 2)
					waiting, cancel := context.WithCancel(ctx)
					defer cancel()
					gaveUp := make(chan error, 1)
					go func() {
						if redrive {
							_, err := redriveTo(q, waiting)
							gaveUp <- err
						} else {
							gaveUp <- top.In.Publish(waiting, 3)
						}
					}()
					elapse(time.Second)
					q.Locked(func() { require.True(t, q.Alarm.Armed) })
					end(t, top, cancel)
					require.Error(t, <-gaveUp)
					requireNoTimer(t, q)
					require.NoError(t, top.Close())
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
				top := newTopic[int](t)
				var options []QueueOption
				waiting := mortal(2)
				if !own {
					options, waiting = []QueueOption{WithTimeToLive(time.Second)}, message.Published[int]{Body: 2}
				}
				q := openQueue(t, top, "audit", append(options, WithCapacity(2))...)
				publishAll(t, top, message.Published[int]{Body: 1}, waiting)
				published := make(chan error, 1)
				_, err := subscribeTo(q, ctx, func(ctx context.Context, d delivery.Delivery[int]) error {
					if d.Body == 1 {
						published <- top.In.Publish(ctx, 3)
					}
					return nil
				})
				require.NoError(t, err)
				until(t, time.Second, func() error { return <-published })
				elapse(0)
				require.Equal(t, []int{2}, bodies(t, q.DeadLetters()))
				check(t, top)
				require.NoError(t, top.Close())
			})
		})
	}
}

// What expires in a queue while its filters are asked about what it replays goes to
// the dead-letter queue that one of its name has left, whether it is opened or not.
func TestWhatExpiresInAQueueThatIsBeingOpenedGoesToItsDeadLetters(t *testing.T) {
	for name, fails := range map[string]bool{"opened": false, "not opened": true} {
		t.Run(name, func(t *testing.T) {
			bubble(t, func(t *testing.T, ctx context.Context) {
				top := newTopic[int](t, WithRetention(1))
				old := openQueue(t, top, "audit")
				publish(t, top, 1)
				require.NoError(t, receive(t, old).Settle(ctx, message.Permanent(errBusy)))
				letters := old.DeadLetters()
				require.NoError(t, lifecycle.Close(old))
				asked, goOn := false, make(chan struct{})
				opened := make(chan error, 1)
				go func() {
					_, err := top.OpenQueue(ctx, "audit", WithReplay(1), WithCapacity(2), WithTimeToLive(time.Second), WithFilter(func(n int) bool {
						if n == 1 && !asked {
							asked = true
							<-goOn
							if fails {
								panic("a filter that fails")
							}
						}
						return n > 1
					}))
					opened <- err
				}()
				synctest.Wait()
				require.True(t, asked)
				publish(t, top, 2) // and one place is set aside for what is replayed
				elapse(time.Second)
				require.NoError(t, top.In.TryPublish(ctx, 3))
				require.Equal(t, []int{1, 2}, bodies(t, letters))
				close(goOn)
				err := <-opened
				if fails {
					require.ErrorContains(t, err, "a filter that fails")
					q := openQueue(t, top, "audit")
					require.Same(t, letters, q.DeadLetters())
				} else {
					require.NoError(t, err)
				}
				check(t, top)
				require.NoError(t, top.Close())
				<-top.Done()
			})
		})
	}
}

// Several who wait for one queue get the room of what expires one after the other, in
// the order of their arrival; and one whose batch needs more waits for all of it.
func TestWhoWaitsGetsTheRoomOfWhatExpiresInTheOrderOfArrival(t *testing.T) {
	bubble(t, func(t *testing.T, ctx context.Context) {
		top := newTopic[int](t)
		q := openQueue(t, top, "audit", WithCapacity(3), WithTimeToLive(4*time.Second))
		start := time.Now()
		for n := range 3 {
			publish(t, top, n)
			elapse(time.Second)
		}
		type end struct {
			body int
			at   time.Duration
		}
		ends := make(chan end, 3)
		go func() {
			_ = top.PublishMessages(ctx, message.Published[int]{Body: 10}, message.Published[int]{Body: 11})
			ends <- end{10, time.Since(start)}
		}()
		synctest.Wait()
		go func() {
			_ = top.In.Publish(ctx, 12)
			ends <- end{12, time.Since(start)}
		}()
		require.Equal(t, end{10, 5 * time.Second}, <-ends)
		require.Equal(t, end{12, 6 * time.Second}, <-ends)
		require.Equal(t, []int{10, 11, 12}, bodies(t, q))
		require.Equal(t, []int{0, 1, 2}, bodies(t, q.DeadLetters()))
		check(t, top)
		requireNoTimer(t, q)
		require.NoError(t, top.Close())
	})
}

// A hook that is told of what expired may end the goroutine: the publish has no place
// in line then, and nothing was published.
func TestAHookThatHearsOfWhatExpiredMayEndThePublish(t *testing.T) {
	bubble(t, func(t *testing.T, ctx context.Context) {
		boom := errors.New("boom")
		top := newTopic[int](t, WithHooks(Hooks{DeadLettered: func(Event) { panic(boom) }}))
		q := openQueue(t, top, "audit", WithCapacity(2))
		publishAll(t, top, mortal(1), message.Published[int]{Body: 2})
		elapse(time.Second)
		require.NoError(t, top.In.Publish(ctx, 3), "a hook's panic is logged")
		require.Equal(t, []int{2, 3}, bodies(t, q))
		require.Equal(t, 0, top.Stats().Waiting)
		check(t, top)
		require.NoError(t, top.Close())
	})
}

// A queue that what expired leaves empty is drained, though the publish that wanted
// room there fails for want of it in another queue.
func TestAQueueIsDrainedByWhatExpires(t *testing.T) {
	for name, waits := range map[string]bool{"a publish waits": true, "a publish does not wait": false} {
		t.Run(name, func(t *testing.T) {
			bubble(t, func(t *testing.T, ctx context.Context) {
				top := newTopic[int](t)
				is := func(want int) QueueOption { return WithFilter(func(n int) bool { return n == want || n == 9 }) }
				overflow := WithOverflow(settings.Reject)
				if waits {
					overflow = WithOverflow(settings.Block)
				}
				expiring := openQueue(t, top, "expiring", is(1), WithCapacity(1), overflow, WithTimeToLive(time.Minute))
				full := openQueue(t, top, "full", is(2), WithCapacity(1), overflow)
				handling := openQueue(t, top, "handling", is(3), WithVisibilityTimeout(time.Hour))
				publish(t, top, 1, 2, 3)
				failed := make(chan error, 1)
				_, err := subscribeTo(handling, ctx, func(ctx context.Context, d delivery.Delivery[int]) error {
					if waits {
						ctx, cancel := context.WithTimeout(ctx, 2*time.Minute)
						defer cancel()
						failed <- top.In.Publish(ctx, 9)
						return nil
					}
					time.Sleep(time.Minute)
					failed <- top.In.TryPublish(ctx, 9)
					return nil
				})
				require.NoError(t, err)
				ended := make(chan error, 1)
				go func() {
					ctx, cancel := context.WithTimeout(ctx, time.Hour)
					defer cancel()
					ended <- top.Shutdown(ctx)
				}()
				require.Error(t, <-failed)
				synctest.Wait()
				require.Empty(t, ended)
				require.Equal(t, []int{1}, bodies(t, expiring.DeadLetters()))
				require.NoError(t, receive(t, full).Ack(ctx))
				until(t, 0, func() error { return <-ended })
			})
		})
	}
}

// A redrive goes on waiting for the rest of its letters.
func TestARedriveGetsTheRoomOfWhatExpiresBitByBit(t *testing.T) {
	bubble(t, func(t *testing.T, ctx context.Context) {
		top := newTopic[int](t)
		q := openQueue(t, top, "audit", WithCapacity(2))
		publish(t, top, 1, 2)
		for range 2 {
			require.NoError(t, receive(t, q).Settle(ctx, message.Permanent(errBusy)))
		}
		publishAll(t, top, mortal(3), message.Published[int]{Body: 4, TimeToLive: 2 * time.Second})
		ctx, cancel := context.WithTimeout(ctx, time.Hour)
		defer cancel()
		var moved int
		until(t, 2*time.Second, func() (err error) {
			moved, err = redriveTo(q, ctx)
			return err
		})
		require.Equal(t, 2, moved)
		require.Equal(t, []int{3, 4}, bodies(t, q.DeadLetters()))
		check(t, top)
		requireNoTimer(t, q)
		require.NoError(t, top.Close())
	})
}

// The next of a key is given out though the publish that dead-lettered its head fails.
func TestTheNextOfAKeyGoesOnThoughThePublishFails(t *testing.T) {
	bubble(t, func(t *testing.T, ctx context.Context) {
		top := newTopic[int](t, WithOrdering())
		q := openQueue(t, top, "audit", WithCapacity(2), WithOverflow(settings.Reject))
		publishAll(t, top, message.Published[int]{Body: 1, OrderingKey: "k", TimeToLive: time.Hour}, message.Published[int]{Body: 2, OrderingKey: "k"})
		require.NoError(t, receive(t, q).NackAfter(ctx, 24*time.Hour))
		requireEmpty(t, q)
		got := make(chan delivery.Delivery[int], 1)
		go func() {
			if d, err := receiveFrom(q, ctx); err == nil {
				got <- d
			}
		}()
		elapse(time.Hour)
		require.ErrorIs(t, top.PublishMessages(ctx, message.Published[int]{Body: 3}, message.Published[int]{Body: 4}), message.ErrQueueFull)
		synctest.Wait()
		require.Len(t, got, 1)
		require.Equal(t, 2, (<-got).Body)
		check(t, top)
		require.NoError(t, top.Close())
	})
}

// What expires while it is delayed leaves no timer behind.
func TestWhatExpiresWhileItIsDelayedLeavesNoTimer(t *testing.T) {
	for _, o := range []settings.Overflow{settings.Block, settings.Reject, settings.DropOldest, settings.DropNewest} {
		t.Run(o.String(), func(t *testing.T) {
			bubble(t, func(t *testing.T, ctx context.Context) {
				top := newTopic[int](t)
				q := openQueue(t, top, "audit", WithCapacity(1), WithOverflow(o))
				publishAll(t, top, message.Published[int]{Body: 1, Delay: time.Hour, TimeToLive: time.Second})
				elapse(time.Minute)
				require.NoError(t, top.In.TryPublish(ctx, 2))
				require.Equal(t, []int{2}, bodies(t, q))
				requireNoTimer(t, q)
				check(t, top)
				require.NoError(t, top.Close())
			})
		})
	}
}
