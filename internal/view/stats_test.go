package view

import (
	"context"
	"errors"
	"fmt"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/gofanout/fanout/engine"
	"github.com/gofanout/fanout/internal/delivery"
	"github.com/gofanout/fanout/internal/filter"
	"github.com/gofanout/fanout/internal/message"
	"github.com/gofanout/fanout/internal/notice"
	"github.com/gofanout/fanout/internal/queue"
	"github.com/gofanout/fanout/internal/settings"
	"github.com/gofanout/fanout/internal/store"
	"github.com/gofanout/fanout/internal/workers"
)

var errBusy = errors.New("busy")

// Every number is that of what it counts.
func TestTheNumbersOfAQueue(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h, q := newQueue[string](t, func(l *settings.Limits) {
			l.Backoff, l.MaxAttempts, l.DeadCapacity, l.Capacity, l.Visibility = settings.Constant(time.Hour), 3, 1, 100, time.Minute
		})
		s := StatsOf(q)
		require.Equal(t, Stats{Topic: "payments", Queue: "q", Capacity: 100}, s)
		require.Zero(t, s.Unsettled())

		h.publish("dies", "parked", "failed", "nacked", "snoozed", "released", "late", "acked", "held")
		time.Sleep(time.Second)
		h.publish("ready", "ready")
		ds := take(t, q, 9)
		for k, err := range []error{message.Permanent(errBusy), message.Permanent(errBusy), errBusy} {
			require.NoError(t, ds[k].Settle(t.Context(), err))
		}
		require.NoError(t, ds[3].Nack(t.Context()))
		require.NoError(t, ds[4].Settle(t.Context(), message.Snooze(time.Hour)))
		require.NoError(t, ds[5].Release(t.Context()))
		require.NoError(t, ds[7].Ack(t.Context()))
		require.NoError(t, ds[8].Extend(t.Context(), 30*time.Minute))
		time.Sleep(time.Minute)
		synctest.Wait()
		require.Equal(t, Stats{
			Topic: "payments", Queue: "q", Capacity: 100,
			Ready: 4, Delayed: 1, Retrying: 2, InFlight: 1, Parked: 1, OldestAge: time.Minute + time.Second, Dead: 1,
			Published: 11, Delivered: 9, DeadLettered: 1, TimesParked: 1,
			Acked: 1, Failed: 1, TimedOut: 1, Nacked: 1, PermanentlyFailed: 2, Snoozed: 1, ReleasedCount: 1,
		}, StatsOf(q))
		require.Equal(t, 9, StatsOf(q).Unsettled())
		depth, err := DepthOf(t.Context(), q)
		require.NoError(t, err)
		require.Equal(t, Depth{Queue: "q", Ready: 4, Delayed: 1 + 2 + 1, InFlight: 1, Dead: 1, OldestAge: time.Minute + time.Second}, depth)
		q.Paused = true
		require.True(t, StatsOf(q).Paused)
		for _, d := range take(t, q.Dead, 1) {
			require.NoError(t, d.Ack(t.Context()))
		}
		require.Zero(t, StatsOf(q).OldestAge/time.Hour)
	})
}

// Panics, exits, times to live, and what stands behind another of its key.
func TestTheNumbersOfWhatEndsOtherwise(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h, q := newQueue[string](t, func(l *settings.Limits) {
			l.TTL, l.Backoff, l.Visibility = time.Hour, settings.Constant(10*time.Hour), 2*time.Hour
		})
		h.publish("expires", "panics", "exits", "head", "blocked", "released")
		ds := take(t, q, 3)
		settle := func(d *delivery.Delivery[string], c message.Cause) {
			require.NoError(t, delivery.Settle(t.Context(), q, d.Ref, message.Verdict{Cause: c, Wait: message.FromBackoff}))
		}
		settle(&ds[1], message.Panicked)
		settle(&ds[2], message.Exited)
		time.Sleep(time.Hour)
		settle(&ds[0], message.Failed)
		s := StatsOf(q)
		require.Equal(t, []uint64{1, 1, 1, 1}, []uint64{s.Panicked, s.Exited, s.Failed, s.Expired})
		require.Equal(t, 1, s.Dead)
	})
	synctest.Test(t, func(t *testing.T) {
		h, q := newQueue[string](t, func(*settings.Limits) {})
		x := &message.Extra{Key: "k"}
		h.Mu.Lock()
		for k := range 3 {
			h.log.Append(message.Item[string]{Seq: uint64(k + 1), At: h.Now(), Ext: x, Body: "m"})
		}
		h.log.Publish()
		h.Mu.Unlock()
		d := take(t, q, 1)[0]
		var next delivery.Delivery[string]
		ok, err := delivery.TryTake(t.Context(), q, &next, time.Minute)
		require.NoError(t, err)
		require.False(t, ok)
		s := StatsOf(q)
		require.Equal(t, []int{0, 1, 2, 3}, []int{s.Ready, s.InFlight, s.Blocked, s.Unsettled()})
		require.Equal(t, 2, DepthHere(q).Ready)
		require.Zero(t, s.OldestAge, "nothing is ready")
		q.Locked(func() { q.Store.Draining = true })
		require.NoError(t, d.Release(t.Context()))
		s = StatsOf(q)
		require.Equal(t, []int{1, 2, 3}, []int{s.Released, s.Blocked, s.Unsettled()})
		require.Equal(t, 3, DepthHere(q).Ready)
	})
	require.Equal(t, engine.Unknown, Stats{Ready: engine.Unknown, InFlight: 5}.Unsettled())
}

// What workers have done and what waits in their hands is counted, and who is stuck.
func TestTheNumbersOfWorkers(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h, q := newQueue[int](t, func(l *settings.Limits) { l.Visibility = time.Minute })
		set := settings.DefaultSubscriber()
		set.Concurrency = 1
		reached, goOn := make(chan struct{}), make(chan struct{})
		_, err := workers.Start(q, func(_ context.Context, d delivery.Delivery[int]) error {
			if d.Body == 20 && d.Attempt() == 1 {
				close(reached)
				<-goOn
			}
			return nil
		}, nil, set)
		require.NoError(t, err)
		views := Subscribers(q)
		require.Len(t, views, 1)
		require.Equal(t, set.SubscriberLimits, views[0].SubscriberLimits)
		require.Contains(t, views[0].Site, "stats_test.go")
		require.Equal(t, []any{1, 0, 0, false}, []any{views[0].Most, views[0].Workers, views[0].Stuck, views[0].Stopping})
		var all []int
		for k := range 40 {
			all = append(all, k)
		}
		h.publish(all...)
		h.WakeAll(&h.Idle)
		<-reached
		s := StatsOf(q)
		require.Equal(t, []int{19, 1, 20, 21}, []int{s.Ready, s.InFlight, int(s.Acked), int(s.Delivered)})
		require.Equal(t, []int{1, 0}, []int{s.Workers, s.Stuck})
		require.EqualValues(t, 1, s.WorkersStarted)
		time.Sleep(time.Minute + time.Millisecond) // what was prefetched times out a millisecond late at most
		synctest.Wait()
		s = StatsOf(q)
		require.Equal(t, []int{1, 1}, []int{s.Workers, s.Stuck})
		require.Equal(t, 1, Subscribers(q)[0].Stuck)
		require.Equal(t, 1, Subscribers(q)[0].Workers)
		close(goOn)
		time.Sleep(time.Second)
		synctest.Wait()
		require.Zero(t, StatsOf(q).Stuck)
		require.EqualValues(t, 40, StatsOf(q).Acked)
	})
}

// A publish that waits is told with the numbers of the queue that it waits for.
func TestAStallIsTold(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h, q := newQueue[int](t, func(*settings.Limits) {})
		var told []notice.Event
		var hooks [notice.Kinds]func(*notice.Event)
		hooks[notice.Stalled] = func(e *notice.Event) { told = append(told, *e) }
		defer h.To.Tap(hooks)()
		h.publish(1, 2, 3)
		take(t, q, 1)
		ReportStall(q, 10*time.Second)
		require.Len(t, told, 1)
		require.Equal(t, []any{10 * time.Second, 1, "q"}, []any{told[0].Elapsed, told[0].Count, told[0].Queue})
		require.Equal(t, 2, told[0].Stats.(*Stats).Ready)
		require.Equal(t, "[depth=3 ready=2 in_flight=1 workers=0 stuck=0]", fmt.Sprint(told[0].Logged))
	})
}

// The settings of a queue are those in force.
func TestTheSettingsInForce(t *testing.T) {
	_, q := newQueue[int](t, func(l *settings.Limits) { l.Capacity, l.DeadCapacity, l.DeadOverflow = 7, 5, settings.DropOldest })
	s := SettingsOf(q)
	require.Equal(t, []any{7, 5, settings.DropOldest, false, ""}, []any{s.Capacity, s.DeadCapacity, s.DeadOverflow, s.Filtered, s.Shared})
	q.Filters = filter.New([]filter.Filter[int]{{Body: func(int) bool { return true }}})
	require.True(t, SettingsOf(q).Filtered)
	dead := q.DeadLetters()
	require.Equal(t, []any{5, 0, settings.Overflow(0)}, []any{SettingsOf(dead).Capacity, SettingsOf(dead).DeadCapacity, SettingsOf(dead).DeadOverflow})
	dead.Store.Resize(9, settings.Block) // another queue's, which was adopted
	s = SettingsOf(q)
	require.Equal(t, []any{9, settings.Block, ""}, []any{s.DeadCapacity, s.DeadOverflow, s.Shared})
	q.Dead.Keeper = &keeper{capacity: 11}
	require.Equal(t, 11, SettingsOf(q).DeadCapacity)
	q.Keeper = &keeper{capacity: 13}
	require.Equal(t, 13, SettingsOf(q).Capacity)
	q.Keeper, q.Dead.Keeper = nil, nil
	shared := queue.NewDeadLetterQueue[int](q.Core, nil, "letters", settings.DefaultQueue().Limits)
	q.Dead = shared
	require.Equal(t, "letters", SettingsOf(q).Shared)
	q.Dead = dead
}

// A keeper keeps a queue's messages elsewhere, and says what they are.
type keeper struct {
	nothing
	capacity int
	err      error
	of       *queue.Queue[int]
	asked    []any
}

// nothing is all that a keeper does and these tests do not ask for.
type nothing interface {
	Settle(ctx context.Context, ref message.Ref, v message.Verdict) error
	Extend(ctx context.Context, ref message.Ref, by time.Duration) error
	Purge(ctx context.Context) (dropped int, err error)
	Close() error
	Delete(ctx context.Context) error
	AwaitEmpty(ctx context.Context) error
	AskLeft()
	Left() (ready, inFlight int)
	LetGo()
	WantLocked()
	ChangedLocked()
	EndLocked(i int32, v message.Verdict, now int64)
	DeadLetterLocked(i int32)
	ExtendLocked(i int32, by time.Duration)
	Failed(err error) bool
}

func (k *keeper) Capacity() int { return k.capacity }

func (k *keeper) Depth(context.Context) (Depth, error) {
	return Depth{Queue: "theirs", Ready: 3}, k.err
}
func (k *keeper) Hide(s *Stats) { s.Ready = engine.Unknown }
func (k *keeper) Peek(_ context.Context, most int) ([]delivery.Delivery[int], error) {
	k.asked = append(k.asked, most)
	return []delivery.Delivery[int]{{Body: 7, Receipt: delivery.Receipt[int]{Q: k.of}}}, k.err
}

func (k *keeper) Look(_ context.Context, after Seat, o PeekOptions) ([]Sight[int], bool, error) {
	k.asked = append(k.asked, after, o.Most)
	return []Sight[int]{{place: Seat{5, 6}, D: delivery.Delivery[int]{Body: 7, Receipt: delivery.Receipt[int]{Q: k.of}}, State: store.Due}}, k.err == nil, k.err
}

func TestAKeeperIsAskedWhatThereIs(t *testing.T) {
	_, q := newQueue[int](t, func(*settings.Limits) {})
	k := &keeper{of: q}
	q.Keeper = k
	defer func() { q.Keeper = nil }()
	d, err := DepthOf(t.Context(), q)
	require.NoError(t, err)
	require.Equal(t, Depth{Queue: "theirs", Ready: 3}, d)
	require.Equal(t, engine.Unknown, StatsOf(q).Ready)
	ds, err := Peek(t.Context(), q, 4)
	require.NoError(t, err)
	require.Equal(t, 7, ds[0].Body)
	page, next, err := PeekAt(t.Context(), q, PeekOptions{Most: 3, After: "1.2", Body: 10})
	require.NoError(t, err)
	require.Equal(t, "5.6", next)
	require.Equal(t, []string{"ready 7"}, bodies(page))
	require.Empty(t, page[0].Cursor, "an engine's have none")
	require.Equal(t, []any{4, Seat{1, 2}, 3}, k.asked)

	k.err = errBusy
	_, err = DepthOf(t.Context(), q)
	require.EqualError(t, err, `fanout: depth of "q": busy`)
	ds, err = Peek(t.Context(), q, 4)
	require.EqualError(t, err, `fanout: peek at "q": busy`)
	require.Len(t, ds, 1, "with what there was")
	page, next, err = PeekAt(t.Context(), q, PeekOptions{Most: 3})
	require.EqualError(t, err, `fanout: peek at "q": busy`)
	require.ErrorIs(t, err, errBusy)
	require.Len(t, page, 1)
	require.Empty(t, next)
}

// What is in flight, parked, or timed out with others is seen as what it is.
func TestWhatIsSeenOfEachState(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h, q := newQueue[string](t, func(l *settings.Limits) {
			l.Visibility, l.MaxAttempts, l.DeadCapacity, l.Backoff = time.Minute, 5, 1, settings.Constant(time.Hour)
		})
		h.publish("a", "b", "c", "d", "dead", "parked", "in flight", "snoozed", "log")
		ds := take(t, q, 8)
		require.NoError(t, ds[4].Settle(t.Context(), message.Permanent(errBusy)))
		require.NoError(t, ds[5].Settle(t.Context(), message.Permanent(errBusy)))
		require.NoError(t, ds[6].Extend(t.Context(), time.Hour))
		require.NoError(t, ds[7].Settle(t.Context(), message.Snooze(time.Hour)))
		time.Sleep(time.Minute)
		synctest.Wait()
		seen, err := Peek(t.Context(), q, 100)
		require.NoError(t, err)
		var got []string
		for _, d := range seen {
			got = append(got, d.Body)
		}
		require.Equal(t, []string{"a", "b", "c", "d", "snoozed", "log"}, got)
		page, next, err := PeekAt(t.Context(), q, PeekOptions{Most: 100, Body: 20})
		require.NoError(t, err)
		require.Empty(t, next)
		require.Equal(t, []string{"ready a", "ready b", "ready c", "ready d", "parked parked", "delayed snoozed", "ready log"}, bodies(page))
		require.Equal(t, 2, page[0].Attempt)
		require.True(t, time.Now().Add(time.Hour-time.Minute).Equal(page[5].DueAt))
		require.Zero(t, page[6].DueAt)
		require.Zero(t, page[0].DiedAt)

		page, _, err = PeekAt(t.Context(), q.Dead, PeekOptions{Most: 100, Body: 20})
		require.NoError(t, err)
		require.Equal(t, []string{"ready dead"}, bodies(page))
		require.Equal(t, "q", page[0].Source)
		require.True(t, time.Now().Add(-time.Minute).Equal(page[0].DiedAt))
		page, _, err = PeekAt(t.Context(), q, PeekOptions{Most: 1})
		require.NoError(t, err)
		require.Empty(t, page[0].Body, "no text was asked for")
	})
}

// What timed out together is seen one by one.
func TestWhatTimedOutTogetherIsSeen(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		for _, page := range []bool{false, true} {
			h, q := newQueue[string](t, func(l *settings.Limits) { l.Visibility = time.Minute })
			h.publish("a", "b", "c")
			take(t, q, 3)
			time.Sleep(time.Minute)
			synctest.Wait()
			require.Equal(t, 3, q.Store.Leases.TimedOut())
			require.Equal(t, []int{3, 0}, []int{StatsOf(q).Ready, StatsOf(q).InFlight})
			if page {
				seen, _, err := PeekAt(t.Context(), q, PeekOptions{Most: 10, Body: 5})
				require.NoError(t, err)
				require.Equal(t, []string{"ready a", "ready b", "ready c"}, bodies(seen))
				continue
			}
			seen, err := Peek(t.Context(), q, 10)
			require.NoError(t, err)
			require.Len(t, seen, 3)
		}
	})
}

// What waits in a worker's hands is seen as what waits in the queue.
func TestWhatIsPrefetchedIsSeen(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		for _, look := range []func(q *queue.Queue[int]) int{
			func(q *queue.Queue[int]) int {
				ds, err := Peek(t.Context(), q, 100)
				require.NoError(t, err)
				require.Equal(t, 21, ds[0].Body)
				return len(ds)
			},
			func(q *queue.Queue[int]) int {
				page, _, err := PeekAt(t.Context(), q, PeekOptions{Most: 100, Body: 5})
				require.NoError(t, err)
				require.Equal(t, "ready 21", bodies(page)[0])
				return len(page)
			},
		} {
			h, q := newQueue[int](t, func(*settings.Limits) {})
			reached, goOn := make(chan struct{}), make(chan struct{})
			_, err := workers.Start(q, func(_ context.Context, d delivery.Delivery[int]) error {
				if d.Body == 20 {
					close(reached)
					<-goOn
				}
				return nil
			}, nil, settings.DefaultSubscriber())
			require.NoError(t, err)
			var all []int
			for k := range 40 {
				all = append(all, k)
			}
			h.publish(all...)
			h.WakeAll(&h.Idle)
			<-reached
			require.Positive(t, q.Store.Leases.Waiting())
			require.Equal(t, 19, look(q))
			close(goOn)
			synctest.Wait()
			require.EqualValues(t, 40, StatsOf(q).Acked)
		}
	})
}

// A page of a large window is the first of all behind its cursor, each once.
func TestAPageOfALargeWindow(t *testing.T) {
	h, q := newQueue[int](t, func(l *settings.Limits) { l.Capacity = 10_000 })
	var all []int
	for k := range 3*LookLen + 7 {
		all = append(all, k)
	}
	h.publish(all...)
	q.Locked(func() { q.Store.Spill() })
	h.publish(all...)
	o, n := PeekOptions{Most: 700, Body: 10}, 0
	for {
		page, next, err := PeekAt(t.Context(), q, o)
		require.NoError(t, err)
		for k, m := range page {
			require.Equal(t, textOf((n+k)%len(all)), m.Body)
		}
		if n += len(page); next == "" {
			break
		}
		require.Len(t, page, 700)
		o.After = next
	}
	require.Equal(t, 2*len(all), n)
	exact, next, err := PeekAt(t.Context(), q, PeekOptions{Most: 2 * len(all)})
	require.NoError(t, err)
	require.Len(t, exact, 2*len(all))
	require.Empty(t, next, "there are no more")
	part, next, err := PeekAt(t.Context(), q, PeekOptions{Most: 2*len(all) - 1})
	require.NoError(t, err)
	require.Len(t, part, 2*len(all)-1)
	require.NotEmpty(t, next)
}

// A context that ends under way ends the look.
func TestALookEndsWithItsContext(t *testing.T) {
	h, q := newQueue[int](t, func(l *settings.Limits) { l.Capacity = 10_000 })
	h.publish(make([]int, 3*LookLen)...)
	ctx := &late{Context: t.Context()}
	page, next, err := PeekAt(ctx, q, PeekOptions{Most: 5 * LookLen})
	require.ErrorIs(t, err, context.Canceled)
	require.Empty(t, page)
	require.Empty(t, next)
}

// A late context ends at its third look.
type late struct {
	context.Context
	n int
}

func (c *late) Err() error {
	if c.n++; c.n > 2 {
		return context.Canceled
	}
	return nil
}

// Letters are looked at where they stand, and those that a handler has are in flight.
func TestLettersAreSeenAndCounted(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h, q := newQueue[string](t, func(*settings.Limits) {})
		h.publish("a", "b")
		for _, d := range take(t, q, 2) {
			require.NoError(t, d.Settle(t.Context(), message.Permanent(errBusy)))
		}
		seen, err := Peek(t.Context(), q.Dead, 10)
		require.NoError(t, err)
		require.Len(t, seen, 2)
		goOn := make(chan struct{})
		_, err = workers.Start(q.Dead, func(context.Context, delivery.Delivery[string]) error { <-goOn; return nil }, nil, settings.DefaultSubscriber())
		require.NoError(t, err)
		synctest.Wait()
		require.Equal(t, []int{1, 1}, []int{StatsOf(q.Dead).InFlight, StatsOf(q.Dead).Ready})
		close(goOn)
		synctest.Wait()
	})
}

// A moving context does something at one of the looks at it.
type moving struct {
	context.Context
	n    int
	at   int
	does func()
}

func (c *moving) Err() error {
	if c.n++; c.n == c.at {
		c.does()
	}
	return nil
}

// What moves from the log to the window while it is looked at is seen once.
func TestWhatMovesMeanwhileIsSeenOnce(t *testing.T) {
	h, q := newQueue[int](t, func(l *settings.Limits) { l.Capacity = 10_000 })
	var all []int
	for k := range 50 {
		all = append(all, k)
	}
	h.publish(all...)
	for at := 1; at <= 5; at++ {
		ctx := &moving{Context: t.Context(), at: at, does: func() { q.Locked(func() { q.Store.Spill() }) }}
		page, next, err := PeekAt(ctx, q, PeekOptions{Most: 100, Body: 5})
		require.NoError(t, err)
		require.Empty(t, next)
		require.Len(t, page, 50)
		for k, m := range page {
			require.Equal(t, textOf(k), m.Body)
		}
	}
}

// A page that ended in the log goes on behind it, though that is in the window by then.
func TestAPageGoesOnBehindWhatHasMoved(t *testing.T) {
	h, q := newQueue[int](t, func(*settings.Limits) {})
	h.publish(1, 2, 3)
	page, next, err := PeekAt(t.Context(), q, PeekOptions{Most: 1, Body: 5})
	require.NoError(t, err)
	require.Equal(t, []string{"ready 1"}, bodies(page))
	q.Locked(func() { q.Store.Spill() })
	page, _, err = PeekAt(t.Context(), q, PeekOptions{Most: 5, Body: 5, After: next})
	require.NoError(t, err)
	require.Equal(t, []string{"ready 2", "ready 3"}, bodies(page))
}

// A long log is looked at in parts, between which others may go on.
func TestALongLogIsLookedAtInParts(t *testing.T) {
	h, q := newQueue[int](t, func(l *settings.Limits) { l.Capacity = 10_000 })
	h.publish(make([]int, 5*LookLen)...)
	ctx := &moving{Context: t.Context()}
	page, _, err := PeekAt(ctx, q, PeekOptions{Most: 10 * LookLen})
	require.NoError(t, err)
	require.Len(t, page, 5*LookLen)
	require.GreaterOrEqual(t, ctx.n, 7)
}

type body string

func (b body) Encoded() []byte { return []byte(b) }

// Bytes are text as they are, and what an engine carried is what it carried.
func TestBytesAreText(t *testing.T) {
	_, q := newQueue[any](t, func(*settings.Limits) {})
	textIn := func(b any, x *message.Extra, most int) string {
		return text(&delivery.Delivery[any]{Body: b, Receipt: delivery.Receipt[any]{Q: q, Ext: x}}, most)
	}
	for n := range 6 {
		require.Equal(t, "abcdef"[:n], textIn([]byte("abcdef"[:n]), nil, 100))
	}
	require.Equal(t, `{"a":1}`, textIn(7, &message.Extra{Receipt: body(`{"a":1}`)}, 100))
}
