package overflow

import (
	"context"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/gofanout/fanout/internal/delivery"
	"github.com/gofanout/fanout/internal/lifecycle"
	"github.com/gofanout/fanout/internal/message"
	"github.com/gofanout/fanout/internal/notice"
	"github.com/gofanout/fanout/internal/ranges"
	"github.com/gofanout/fanout/internal/settings"
	"github.com/gofanout/fanout/internal/store"
	"github.com/gofanout/fanout/internal/workers"
)

func policy(o settings.Overflow, capacity int) setting {
	return limits(func(q *settings.Limits) { q.Overflow, q.Capacity = o, capacity })
}

func ttl(d time.Duration) setting { return limits(func(q *settings.Limits) { q.TTL = d }) }

// A drop is one message that was dropped, as a hook hears of it.
type drop struct {
	id     string
	reason notice.Reason
	count  int
}

func dropped(told *[]drop) setting {
	return hooked(notice.Dropped, func(e notice.Event) { *told = append(*told, drop{e.MessageID, e.Reason, e.Count}) })
}

// drops are what hooks hear if these are dropped.
func (h *home) drops(reason notice.Reason, its ...message.Item[int]) (ds []drop) {
	for _, it := range its {
		ds = append(ds, drop{h.IDOf(it.Seq, it.At, it.Ext), reason, 1})
	}
	return ds
}

// A queue that has a delay, or gets a message that has, adds to its window: what was
// published before comes first.
func TestWhatIsAddedComesBehindTheLog(t *testing.T) {
	bubble(t, func(t *testing.T, ctx context.Context) {
		h := newHome(t, policy(settings.Block, 10))
		h.publish(1, 2)
		is := h.number(3, 4, 5)
		is[1].Ext = &message.Extra{Delay: time.Minute}
		allow := h.q.Store.Allow.Load()
		h.add(is, nil)
		require.Equal(t, allow-3, h.q.Store.Allow.Load(), "each takes room")
		require.Zero(t, h.q.Store.InLog())
		require.Equal(t, counts{ready: 4, delayed: 1}, countsOf(h.q))
		require.EqualValues(t, 5, h.q.Store.Published(0))
		ds := take(t, h.q, 4)
		require.Equal(t, []int{1, 2, 3, 5}, []int{ds[0].Body, ds[1].Body, ds[2].Body, ds[3].Body})
		elapse(time.Minute - 1)
		require.Equal(t, 1, countsOf(h.q).delayed)
		elapse(1)
		require.Zero(t, countsOf(h.q).delayed)
		elapse(5 * time.Millisecond)
		require.True(t, resting(h.q), "the log was let go of")
		h.end(t)
	})
	bubble(t, func(t *testing.T, ctx context.Context) {
		h := newHome(t)
		h.publish(1)
		h.add(h.number(2), nil)
		elapse(5 * time.Millisecond)
		require.True(t, resting(h.q), "it is let go of though nothing is taken")
		h.end(t)
	})
	bubble(t, func(t *testing.T, ctx context.Context) {
		h := newHome(t)
		h.q.Store.Direct = true
		is := h.number(1)
		is[0].Ext = &message.Extra{Delay: time.Minute}
		began := time.Now()
		h.add(is, nil)
		ds, err := delivery.TakeBatch(ctx, h.q, 1, time.Minute)
		require.NoError(t, err)
		require.Len(t, ds, 1)
		require.Equal(t, time.Minute, time.Since(began))
		h.end(t)
	})
}

func TestOnlyWhatWasAcceptedIsAdded(t *testing.T) {
	bubble(t, func(t *testing.T, ctx context.Context) {
		h := newHome(t, policy(settings.Block, 10))
		h.add(h.number(0, 1, 2, 3, 4), []int{1, 4})
		require.EqualValues(t, 2, h.q.Store.Published(0))
		require.Equal(t, []int{1, 4}, bodiesOf(h.q))
		h.add(h.number(5), []int{})
		require.Equal(t, []int{1, 4}, bodiesOf(h.q))
		require.EqualValues(t, 2, h.q.Store.Published(0))
		h.end(t)
	})
}

// Whoever waits for a message gets what is added.
func TestWhatIsAddedWakesAReceiver(t *testing.T) {
	bubble(t, func(t *testing.T, ctx context.Context) {
		h := newHome(t)
		got := make(chan int, 1)
		go func() {
			if ds, err := delivery.TakeBatch(ctx, h.q, 1, time.Minute); err == nil {
				got <- ds[0].Body
			}
		}()
		synctest.Wait()
		h.add(h.number(7), nil)
		require.Equal(t, 7, <-got)
		h.end(t)
	})
}

// A full queue drops what its policy says, of what is added to its window.
func TestAFullQueueDropsOfWhatIsAdded(t *testing.T) {
	for name, row := range map[string]struct {
		policy settings.Overflow
		left   []int
		reason notice.Reason
	}{
		"the oldest": {settings.DropOldest, []int{2, 12, 13, 14}, notice.DroppedOldest},
		"the newest": {settings.DropNewest, []int{0, 1, 2, 12}, notice.DroppedNewest},
	} {
		t.Run(name, func(t *testing.T) {
			bubble(t, func(t *testing.T, ctx context.Context) {
				var told []drop
				h := newHome(t, policy(row.policy, 4), dropped(&told))
				before := h.number(0, 1, 2)
				h.publishItems(before)
				is := h.number(10, 11, 12, 13, 14)
				for k := range is {
					is[k].Ext = &message.Extra{Delay: time.Minute}
				}
				h.add(is, []int{2, 3, 4})
				require.Equal(t, row.left, bodiesOf(h.q))
				if row.reason == notice.DroppedOldest {
					require.Equal(t, h.drops(row.reason, before[0], before[1]), told)
				} else {
					require.Equal(t, h.drops(row.reason, is[3], is[4]), told)
				}
				require.Zero(t, h.q.Store.Room())
				require.EqualValues(t, 2, h.q.Store.Totals().Dropped)
				require.EqualValues(t, 6, h.q.Store.Published(0))
				h.end(t)
			})
		})
	}
}

// The same of what is appended to the log, which a queue without delays reads.
func TestAFullQueueDropsOfWhatIsPublished(t *testing.T) {
	for name, row := range map[string]struct {
		policy   settings.Overflow
		accepted []int
		left     []int
		told     []int // of before, or else of what is published
		reason   notice.Reason
	}{
		"the oldest":                  {settings.DropOldest, nil, []int{2, 10, 11, 12}, []int{0, 1}, notice.DroppedOldest},
		"the oldest, with a filter":   {settings.DropOldest, []int{0, 2}, []int{1, 2, 10, 12}, []int{0}, notice.DroppedOldest},
		"the newest":                  {settings.DropNewest, nil, []int{0, 1, 2, 10}, []int{1, 2}, notice.DroppedNewest},
		"the newest, with a filter":   {settings.DropNewest, []int{0, 2}, []int{0, 1, 2, 10}, []int{2}, notice.DroppedNewest},
		"the newest, of which it has": {settings.DropNewest, []int{1}, []int{0, 1, 2, 11}, nil, 0},
	} {
		t.Run(name, func(t *testing.T) {
			bubble(t, func(t *testing.T, ctx context.Context) {
				var told []drop
				h := newHome(t, policy(row.policy, 4), dropped(&told))
				before := h.number(0, 1, 2)
				h.publishItems(before)
				is := h.number(10, 11, 12)
				h.drop(is, row.accepted)
				require.Equal(t, row.left, bodiesOf(h.q))
				var want []message.Item[int]
				for _, k := range row.told {
					if row.reason == notice.DroppedOldest {
						want = append(want, before[k])
					} else {
						want = append(want, is[k])
					}
				}
				require.Equal(t, h.drops(row.reason, want...), told)
				require.Zero(t, h.q.Store.Room())
				require.EqualValues(t, len(row.told), h.q.Store.Totals().Dropped)
				elapse(5 * time.Millisecond)
				require.True(t, resting(h.q) || row.told == nil, "the log was let go of")
				require.Zero(t, checkAt(h.q))
				require.False(t, armed(h.q))
				require.NoError(t, take(t, h.q, 1)[0].Ack(ctx))
				require.EqualValues(t, 1, h.q.Store.Room())
				h.end(t)
			})
		})
	}
}

// A batch that is larger than the queue leaves as many as there is room for.
func TestABatchThatIsLargerThanTheQueue(t *testing.T) {
	for policyOf, left := range map[settings.Overflow][]int{settings.DropOldest: {13, 14}, settings.DropNewest: {10, 11}} {
		bubble(t, func(t *testing.T, ctx context.Context) {
			h := newHome(t, policy(policyOf, 2))
			h.drop(h.number(10, 11, 12, 13, 14), nil)
			require.Equal(t, left, bodiesOf(h.q))
			h.end(t)
		})
	}
}

// What is in flight is spared, and what is parked.
func TestWhatIsInFlightOrParkedIsSpared(t *testing.T) {
	bubble(t, func(t *testing.T, ctx context.Context) {
		h := newHome(t, policy(settings.DropOldest, 3), attempts(1), limits(func(q *settings.Limits) { q.DeadCapacity = 1 }))
		h.publish(0, 1, 2)
		ds := take(t, h.q, 3)
		require.NoError(t, ds[0].Settle(ctx, errBusy)) // a letter
		require.NoError(t, ds[1].Settle(ctx, errBusy)) // parked
		h.drop(h.number(3, 4, 5), nil)
		require.Equal(t, []int{1, 5}, bodiesOf(h.q))
		require.Equal(t, counts{ready: 1, inFlight: 1}, countsOf(h.q))
		require.Equal(t, 1, h.q.Store.In(store.Parked))
		h.add(h.number(6, 7), nil)
		require.Equal(t, []int{1, 7}, bodiesOf(h.q), "of what is added too")
		require.NoError(t, ds[2].Ack(ctx))
		h.end(t)
	})
}

// What a worker has done and not told of makes room first, and what waits in its hands can
// be dropped as what waits in the queue.
func TestWhatWaitsInAWorkersHandsIsDroppedInItsPlace(t *testing.T) {
	for name, more := range map[string]func(h *home, is []message.Item[int]){
		"of the log":    func(h *home, is []message.Item[int]) { h.drop(is, nil) },
		"of the window": func(h *home, is []message.Item[int]) { h.add(is, nil) },
	} {
		t.Run(name, func(t *testing.T) {
			bubble(t, func(t *testing.T, ctx context.Context) {
				var told []drop
				h := newHome(t, policy(settings.DropOldest, 100), dropped(&told))
				reached, goOn := make(chan struct{}), make(chan struct{})
				var handled []int
				_, err := workers.Start(h.q, func(_ context.Context, d delivery.Delivery[int]) error {
					if handled = append(handled, d.Body); d.Body == 50 {
						close(reached)
						<-goOn
					}
					return nil
				}, nil, settings.DefaultSubscriber())
				require.NoError(t, err)
				bodies := make([]int, 100)
				for k := range bodies {
					bodies[k] = k
				}
				first := h.number(bodies...)
				h.publishItems(first)
				<-reached
				more(h, h.number(bodies[:51]...)) // 50 are done: one too many
				require.Equal(t, h.drops(notice.DroppedOldest, first[51]), told)
				require.Zero(t, h.q.Store.Room())
				close(goOn)
				synctest.Wait()
				require.Len(t, handled, 100-1+51)
				require.Equal(t, 52, handled[51])
				h.end(t)
			})
		})
	}
}

// What has expired makes room before anything is dropped.
func TestWhatHasExpiredMakesRoomBeforeAnythingIsDropped(t *testing.T) {
	for name, more := range map[string]func(h *home, is []message.Item[int]){
		"of the log":    func(h *home, is []message.Item[int]) { h.drop(is, nil) },
		"of the window": func(h *home, is []message.Item[int]) { h.add(is, nil) },
	} {
		for _, policyOf := range []settings.Overflow{settings.DropOldest, settings.DropNewest} {
			t.Run(name+", "+policyOf.String(), func(t *testing.T) {
				bubble(t, func(t *testing.T, ctx context.Context) {
					var told []drop
					h := newHome(t, policy(policyOf, 3), dropped(&told), ttl(time.Minute))
					h.publish(0)
					elapse(30 * time.Second)
					second := h.number(1, 2)
					h.publishItems(second)
					elapse(30 * time.Second)
					more(h, h.number(3))
					require.Empty(t, told)
					require.Equal(t, []int{1, 2, 3}, bodiesOf(h.q))
					require.Equal(t, 1, countsOf(h.q.DeadNow()).ready)
					more(h, h.number(4))
					require.Len(t, told, 1, "nothing has expired now")
					require.EqualValues(t, 1, h.q.Store.Totals().Dropped)
					h.end(t)
				})
			})
		}
	}
}

// Nothing is done to what has expired while there is room enough.
func TestWhatHasExpiredStaysWhereThereIsRoom(t *testing.T) {
	for name, more := range map[string]func(h *home, is []message.Item[int]){
		"of the window": func(h *home, is []message.Item[int]) { h.add(is, nil) },
		"of the log": func(h *home, is []message.Item[int]) {
			h.Mu.Lock()
			h.log.Append(is[0])
			Drop(h.q, is, nil) // the room was made meanwhile
			h.log.Publish()
			h.Unlock()
		},
	} {
		for _, policyOf := range []settings.Overflow{settings.DropOldest, settings.DropNewest} {
			t.Run(name+", "+policyOf.String(), func(t *testing.T) {
				bubble(t, func(t *testing.T, ctx context.Context) {
					h := newHome(t, policy(policyOf, 3), ttl(time.Minute))
					h.publish(0)
					elapse(time.Minute)
					more(h, h.number(1))
					require.Nil(t, h.q.DeadNow(), "nobody wants its room")
					more(h, h.number(2)) // exactly the room that there is
					require.Nil(t, h.q.DeadNow())
					require.Equal(t, []int{0, 1, 2}, bodiesOf(h.q))
					require.Zero(t, h.q.Store.Totals().Dropped)
					h.end(t)
				})
			})
		}
	}
}

// What a loop has acknowledged makes room before anything is dropped, whether it has gone
// on to the next, which may be the last of its lease, or not.
func TestWhatALoopHasDoneMakesRoom(t *testing.T) {
	for k := range 80 {
		done, goesOn := 20+k/2, k%2 == 1
		bubble(t, func(t *testing.T, ctx context.Context) {
			h := newHome(t, policy(settings.DropOldest, 64))
			r := ranges.New(h.q, h.q.Visibility())
			ack := func(n int) {
				for range n {
					d, err := r.Next(ctx)
					require.NoError(t, err)
					require.NoError(t, d.Ack(ctx))
				}
			}
			for range 8 { // until many are prefetched at a time
				h.publish(make([]int, 64)...)
				ack(64)
			}
			h.publish(make([]int, 64)...)
			ack(done)
			rest := 64 - done + 20
			var current *delivery.Delivery[int]
			if goesOn {
				d, err := r.Next(ctx)
				require.NoError(t, err)
				current = d
				rest--
			}
			h.drop(h.number(make([]int, 20)...), nil)
			require.Zero(t, h.q.Store.Totals().Dropped, "%d are done", done)
			if goesOn {
				require.NoError(t, current.Ack(ctx))
			}
			ack(rest)
			r.Leave()
			h.end(t)
		})
	}
}

// A replay adds the newest of what is retained, as much as is wanted and has room.
func TestAReplayAddsTheNewest(t *testing.T) {
	for name, row := range map[string]struct {
		replay, capacity int
		want             []int
	}{
		"as many as are asked for":   {2, 10, []int{3, 4}},
		"as many as there are":       {9, 10, []int{1, 2, 3, 4}},
		"as many as there is room":   {9, 3, []int{2, 3, 4}},
		"none":                       {0, 3, nil},
		"all that it has room for, ": {4, 4, []int{1, 2, 3, 4}},
	} {
		t.Run(name, func(t *testing.T) {
			bubble(t, func(t *testing.T, ctx context.Context) {
				h := newHome(t, policy(settings.Block, row.capacity), ttl(time.Minute), limits(func(q *settings.Limits) { q.Replay, q.Delay = row.replay, time.Second }))
				h.q.Store.Direct = true
				its := h.number(0)
				elapse(time.Minute)
				its = append(its, h.number(1, 2, 3, 4)...)
				h.q.Locked(func() { ReplayLocked(h.q, its) })
				require.Equal(t, row.want, bodiesOf(h.q), "and nothing that has expired")
				require.EqualValues(t, len(row.want), h.q.Store.Published(0))
				require.EqualValues(t, row.capacity-len(row.want), h.q.Store.Room())
				require.Equal(t, counts{delayed: len(row.want)}, countsOf(h.q))
				elapse(time.Second)
				require.Equal(t, counts{ready: len(row.want)}, countsOf(h.q), "its delay is counted from its publication")
				h.end(t)
			})
		})
	}
}

func TestRoomIsThatOfWhatWasJustDone(t *testing.T) {
	bubble(t, func(t *testing.T, ctx context.Context) {
		h := newHome(t, policy(settings.Block, 100))
		reached, goOn := make(chan struct{}), make(chan struct{})
		_, err := workers.Start(h.q, func(_ context.Context, d delivery.Delivery[int]) error {
			if d.Body == 50 {
				close(reached)
				<-goOn
			}
			return nil
		}, nil, settings.DefaultSubscriber())
		require.NoError(t, err)
		bodies := make([]int, 100)
		for k := range bodies {
			bodies[k] = k
		}
		require.True(t, HasRoom(h.q, 100))
		require.False(t, HasRoom(h.q, 101))
		h.publish(bodies...)
		<-reached
		before := h.q.Store.Room()
		require.Less(t, before, int64(50))
		require.False(t, HasRoom(h.q, 51))
		require.True(t, HasRoom(h.q, 50))
		require.EqualValues(t, 50, h.q.Store.Room())
		h.Mu.Lock()
		require.True(t, FindRoom(h.q, 50))
		require.False(t, FindRoom(h.q, 51))
		h.Unlock()
		require.Zero(t, h.turns)
		close(goOn)
		h.end(t)
	})
	bubble(t, func(t *testing.T, ctx context.Context) {
		h := newHome(t, policy(settings.Block, 1))
		h.q.Store.Direct = true
		h.add(h.number(1), nil)
		require.False(t, HasRoom(h.q, 1))
		d := take(t, h.q, 1)[0]
		require.False(t, HasRoom(h.q, 1))
		require.NoError(t, d.Ack(ctx))
		require.True(t, HasRoom(h.q, 1))
		h.end(t)
	})
}

// Who wants room gets that of what has expired; if there is none the timer comes when the
// next message expires, if somebody waits for it.
func TestRoomIsFoundInWhatHasExpired(t *testing.T) {
	bubble(t, func(t *testing.T, ctx context.Context) {
		h := newHome(t, policy(settings.Block, 3), ttl(time.Minute))
		find := func(n int64) (found bool) {
			h.Mu.Lock()
			found = FindRoom(h.q, n)
			h.Unlock()
			return found
		}
		h.publish(1)
		elapse(30 * time.Second)
		h.publish(2, 3)
		require.False(t, find(1))
		require.Zero(t, h.turns, "nothing has expired")
		require.False(t, h.q.Inside().TimerArmed, "nobody waits")
		h.q.RoomWanted.Store(1 << 40) // somebody waits for more
		require.False(t, find(1))
		require.True(t, h.q.Inside().TimerArmed)
		h.q.RoomWanted.Store(0)
		elapse(30 * time.Second)
		require.True(t, find(1))
		require.Equal(t, 1, h.turns, "it may be more room than is wanted")
		require.Equal(t, 1, countsOf(h.q.DeadNow()).ready)
		require.False(t, find(2))
		require.Equal(t, 1, h.turns)
		elapse(30 * time.Second)
		require.True(t, find(3), "that of both")
		require.Equal(t, 2, h.turns)
		require.False(t, find(4), "no queue has more than its capacity")
		h.end(t)
	})
	bubble(t, func(t *testing.T, ctx context.Context) {
		h := newHome(t, policy(settings.Block, 1))
		h.publish(1)
		h.Mu.Lock()
		require.False(t, FindRoom(h.q, 1), "nothing of it expires")
		h.Unlock()
		h.end(t)
	})
}

// What has expired was the head of its key, or what a shutdown waits for: these go on.
func TestOthersGoOnWhenWhatHasExpiredGoes(t *testing.T) {
	bubble(t, func(t *testing.T, ctx context.Context) {
		h := newHome(t, policy(settings.Block, 3))
		h.Expiring.Store(100)
		is := h.number(1, 2)
		is[0].Ext, is[1].Ext = &message.Extra{Key: "k", TTL: time.Minute}, &message.Extra{Key: "k"}
		h.publishItems(is)
		require.NoError(t, take(t, h.q, 1)[0].NackAfter(ctx, time.Hour))
		requireNone(t, h.q) // it has the second stand in line
		got := make(chan int, 1)
		go func() {
			if ds, err := delivery.TakeBatch(ctx, h.q, 1, time.Hour); err == nil {
				got <- ds[0].Body
			}
		}()
		synctest.Wait()
		elapse(time.Minute)
		h.Mu.Lock()
		require.True(t, FindRoom(h.q, 2))
		h.Unlock()
		require.Equal(t, 2, <-got)
		h.end(t)
	})
	bubble(t, func(t *testing.T, ctx context.Context) {
		h := newHome(t, policy(settings.Block, 1), ttl(time.Minute))
		h.publish(1)
		drained := lifecycle.AwaitDrained(h.q)
		elapse(time.Minute)
		h.Mu.Lock()
		require.True(t, FindRoom(h.q, 1))
		h.Unlock()
		select {
		case <-drained:
		default:
			t.Fatal("nothing is left to wait for")
		}
		h.end(t)
	})
}

// One that waited for an instant leaves no timer.
func TestWhatExpiresWhileItWaitsLeavesNoTimer(t *testing.T) {
	bubble(t, func(t *testing.T, ctx context.Context) {
		h := newHome(t, policy(settings.Block, 1), ttl(time.Minute))
		h.publish(1)
		require.NoError(t, take(t, h.q, 1)[0].NackAfter(ctx, time.Hour))
		elapse(time.Minute)
		require.True(t, h.q.Inside().TimerArmed)
		h.Mu.Lock()
		require.True(t, FindRoom(h.q, 1))
		h.Unlock()
		require.False(t, h.q.Inside().TimerArmed)
		h.end(t)
	})
}

// A queue that is being opened adopts the letters that wait for it before its own die.
func TestAQueueThatIsBeingOpenedAdoptsItsLetters(t *testing.T) {
	bubble(t, func(t *testing.T, ctx context.Context) {
		h := newHome(t, policy(settings.Block, 1), ttl(time.Minute))
		orphan := h.q.DeadLetters()
		h.q.Dead, h.orphan = nil, orphan
		h.publish(1)
		elapse(time.Minute)
		h.q.Opening = true
		h.Mu.Lock()
		require.True(t, FindRoom(h.q, 1))
		h.Unlock()
		h.q.Locked(func() {
			h.q.Opening = false
			h.q.ArmLocked(h.Now())
		})
		require.Same(t, orphan, h.q.DeadNow())
		require.Equal(t, 1, countsOf(orphan).ready)
		h.end(t)
	})
}
