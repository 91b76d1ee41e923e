package deadletter

import (
	"context"
	"log/slog"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/uuid"
	"github.com/stretchr/testify/require"

	"github.com/gofanout/fanout/internal/delivery"
	"github.com/gofanout/fanout/internal/intercept"
	"github.com/gofanout/fanout/internal/lifecycle"
	"github.com/gofanout/fanout/internal/message"
	"github.com/gofanout/fanout/internal/notice"
	"github.com/gofanout/fanout/internal/queue"
	"github.com/gofanout/fanout/internal/settings"
	"github.com/gofanout/fanout/internal/store"
	"github.com/gofanout/fanout/internal/view"
)

func ids(list ...string) settings.Letters {
	m := map[string]bool{}
	for _, id := range list {
		m[id] = false
	}
	return settings.Letters{IDs: m}
}

// Both say which queue they were of, once.
func TestErrorsNameTheQueue(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newHome(t, 2, "a", "b", "c")
		_, err := Redrive(t.Context(), h.q, &Choice[string]{Letters: ids("nobody")})
		require.ErrorIs(t, err, message.ErrUnknownID)
		require.Contains(t, err.Error(), `fanout: redrive of "q": fanout: invalid option: unknown ID`)
		_, err = Delete(t.Context(), h.q, &Choice[string]{Letters: ids("nobody")})
		require.ErrorIs(t, err, message.ErrUnknownID)
		require.Contains(t, err.Error(), `fanout: delete letters of "q": fanout: invalid option: unknown ID`)

		ds, err := view.Peek(t.Context(), h.q.Dead, 3)
		require.NoError(t, err)
		moved, err := Redrive(t.Context(), h.q, &Choice[string]{Letters: ids("nobody", ds[1].ID())})
		require.Equal(t, 1, moved, "those that there are move")
		require.ErrorIs(t, err, message.ErrUnknownID)
		moved, err = Redrive(t.Context(), h.q, &Choice[string]{Letters: ids("nobody", ds[0].ID(), ds[2].ID())})
		require.Equal(t, 1, moved)
		require.ErrorIs(t, err, message.ErrUnknownID, "both are said")
		require.ErrorIs(t, err, errFull)
		deleted, err := Delete(t.Context(), h.q, &Choice[string]{Letters: ids("nobody", ds[2].ID())})
		require.Equal(t, 1, deleted)
		require.ErrorIs(t, err, message.ErrUnknownID)
		h.end()
		for _, call := range []func(context.Context, *queue.Queue[string], *Choice[string]) (int, error){Redrive[string], Delete[string]} {
			_, err := call(t.Context(), h.q, new(Choice[string]))
			require.ErrorIs(t, err, message.ErrClosed)
		}
	})
}

// Of a queue of which nothing has died an ID is unknown, and all are none.
func TestAQueueWithoutLetters(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newHome(t, 2)
		for _, call := range []func(context.Context, *queue.Queue[string], *Choice[string]) (int, error){Redrive[string], Delete[string]} {
			n, err := call(t.Context(), h.q, new(Choice[string]))
			require.NoError(t, err)
			require.Zero(t, n)
			_, err = call(t.Context(), h.q, &Choice[string]{Letters: ids("nobody")})
			require.ErrorIs(t, err, message.ErrUnknownID)
		}
		require.Nil(t, h.q.DeadNow())
		h.end()
	})
}

// What is deleted is counted and told, and whoever waits for the next goes on.
func TestADeletionIsCountedAndTold(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var told []notice.Event
		h := newHome(t, 10, "a", "b", "c")
		dead := h.q.Dead
		stop := h.To.Tap(tapDropped(&told))
		defer stop()
		drained := lifecycle.AwaitDrained(dead)
		require.Nil(t, drained, "letters are not waited for")
		require.Equal(t, []string{"a", "b", "c"}, seen(t, dead))
		first, err := view.Peek(t.Context(), dead, 1)
		require.NoError(t, err)
		n, err := Delete(t.Context(), h.q, chosen("a", "c"))
		require.NoError(t, err)
		require.Equal(t, 2, n)
		require.EqualValues(t, 2, dead.Store.Totals().Dropped)
		require.Len(t, told, 2)
		require.Equal(t, []any{notice.DroppedByDelete, 1, first[0].ID(), "q/dead"}, []any{told[0].Reason, told[0].Count, told[0].MessageID, told[0].Queue})
		ended, cancel := context.WithCancel(t.Context())
		cancel()
		n, err = Delete(ended, h.q, new(Choice[string]))
		require.Zero(t, n)
		require.ErrorIs(t, err, context.Canceled)
		require.Equal(t, []string{"b"}, seen(t, dead))
		require.NoError(t, dead.Check())
		h.end()
	})
}

func tapDropped(told *[]notice.Event) (hooks [notice.Kinds]func(*notice.Event)) {
	hooks[notice.Dropped] = func(e *notice.Event) { *told = append(*told, *e) }
	return hooks
}

// A letter that waited for an instant leaves no timer, and the next of its key goes on.
func TestADeletedLetterLeavesNoTimer(t *testing.T) {
	for name, take := range map[string]func(context.Context, *queue.Queue[string], *Choice[string]) (int, error){"deleted": Delete[string], "redriven": Redrive[string]} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				h := newHome(t, 10, "a")
				dead := h.q.Dead
				var d delivery.Delivery[string]
				ok, err := delivery.TryTake(t.Context(), dead, &d, time.Minute)
				require.True(t, ok)
				require.NoError(t, err)
				n, err := take(t.Context(), h.q, new(Choice[string]))
				require.NoError(t, err)
				require.Zero(t, n, "a consumer has it")
				require.NoError(t, d.NackAfter(t.Context(), time.Hour))
				time.Sleep(10 * time.Millisecond)
				synctest.Wait()
				require.True(t, dead.Alarm.Armed)
				n, err = take(t.Context(), h.q, new(Choice[string]))
				require.NoError(t, err)
				require.Equal(t, 1, n)
				time.Sleep(10 * time.Millisecond)
				synctest.Wait()
				require.False(t, dead.Alarm.Armed)
				h.end()
			})
		})
	}
}

// Whoever waits for a message gets what is redriven, and the letter of a key behind one that
// went is ready.
func TestConsumersAreWokenByARedrive(t *testing.T) {
	for name, take := range map[string]func(context.Context, *queue.Queue[string], *Choice[string]) (int, error){"deleted": Delete[string], "redriven": Redrive[string]} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				h := newHome(t, 10, "a", "b")
				dead := h.q.Dead
				wait := func(q *queue.Queue[string]) <-chan string {
					got := make(chan string, 1)
					go func() {
						ds, err := delivery.TakeBatch(t.Context(), q, 1, time.Hour)
						if err == nil {
							got <- ds[0].Body
						}
					}()
					return got
				}
				dead.Locked(func() { // both letters are of one key
					for _, i := range dead.Store.InOrder() {
						dead.Store.Win.At(i).Ext = &message.Extra{Key: "k"}
					}
				})
				var d delivery.Delivery[string]
				_, err := delivery.TryTake(t.Context(), dead, &d, time.Hour)
				require.NoError(t, err)
				require.NoError(t, d.NackAfter(t.Context(), time.Hour))
				letter, back := wait(dead), wait(h.q)
				synctest.Wait()
				require.Empty(t, letter, "it stands behind the first")
				n, err := take(t.Context(), h.q, chosen("a"))
				require.NoError(t, err)
				require.Equal(t, 1, n)
				began := time.Now()
				require.Equal(t, "b", <-letter)
				if name == "redriven" {
					require.Equal(t, "a", <-back)
				}
				require.Equal(t, began, time.Now(), "at once")
				require.NoError(t, h.q.Check())
				h.end()
			})
		})
	}
}

// A letter takes the place of a message that is parked, which takes the letter's.
func TestALetterChangesPlacesWithWhatIsParked(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newHome(t, 2, "a", "b")
		require.False(t, CanSwap(h.q))
		dead := h.q.Dead
		dead.Store.Set.Capacity = 2
		dead.Store.Allow.Store(0)
		h.Mu.Lock()
		h.q.Store.Log.Append(message.Item[string]{Seq: 3, At: h.Now(), Body: "c"})
		h.q.Store.Log.Append(message.Item[string]{Seq: 4, At: h.Now(), Body: "d"})
		h.q.Store.Log.Publish()
		h.Mu.Unlock()
		for range 2 {
			var d delivery.Delivery[string]
			_, err := delivery.TryTake(t.Context(), h.q, &d, time.Minute)
			require.NoError(t, err)
			require.NoError(t, d.Nack(t.Context()))
		}
		require.Equal(t, 2, h.q.Store.In(store.Parked))
		require.True(t, CanSwap(h.q))
		redriven := 0
		var hooks [notice.Kinds]func(*notice.Event)
		hooks[notice.Redriven] = func(*notice.Event) { redriven++ }
		defer h.To.Tap(hooks)()
		moved, err := Redrive(t.Context(), h.q, chosen("b"))
		require.NoError(t, err)
		require.Equal(t, 1, redriven, "it is told")
		require.Equal(t, 1, moved)
		require.Equal(t, []string{"b"}, seen(t, h.q))
		require.Equal(t, []string{"a", "c"}, seen(t, dead), "what was parked first is a letter")
		require.Equal(t, 1, h.q.Store.In(store.Parked))
		require.EqualValues(t, 1, dead.Store.Totals().Redriven)
		require.EqualValues(t, 1, h.q.Store.Totals().Redriven)
		require.NoError(t, h.q.Check())
		require.NoError(t, dead.Check())
		h.end()
	})
}

// A dead-letter queue that is shared has times and numbers of its own: a letter goes back to
// the queue that it came from, with those that it had there.
func TestALetterOfASharedQueueGoesBackAsItWas(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		set := settings.DefaultQueue()
		set.DeadCapacity, set.DeadOverflow = 7, settings.DropOldest
		shared, err := NewShared[string]("letters", settings.Topic{Logger: slog.New(slog.DiscardHandler)}, set)
		require.NoError(t, err)
		require.True(t, shared.IsShared())
		require.Equal(t, []any{"letters", 7, settings.DropOldest}, []any{shared.Name(), shared.Store.Set.Capacity, shared.Store.Set.Overflow})
		time.Sleep(time.Hour)
		h, other := newHome(t, 10), newHome(t, 10)
		for k, one := range []*home{other, h} {
			one.q.Dead, one.q.Store.Set.TTL, one.q.Store.Set.MaxAttempts = shared, 24*time.Hour, 1
			for n := range 2 {
				one.q.Store.Log.Append(message.Item[string]{Seq: uint64(n + 1), At: one.Now(), Body: []string{"x", "y", "a", "b"}[2*k+n]})
			}
			one.q.Store.Log.Publish()
			time.Sleep(time.Second)
			for range 2 {
				var d delivery.Delivery[string]
				_, err := delivery.TryTake(t.Context(), one.q, &d, time.Minute)
				require.NoError(t, err)
				require.NoError(t, d.Nack(t.Context()))
			}
		}
		require.ElementsMatch(t, []string{"a", "b", "x", "y"}, seen(t, shared))
		published := time.Now().Add(-time.Second)
		moved, err := Redrive(t.Context(), h.q, new(Choice[string]))
		require.NoError(t, err)
		require.Equal(t, 2, moved, "those of the other are not its own")
		require.ElementsMatch(t, []string{"x", "y"}, seen(t, shared))
		ds, err := view.Peek(t.Context(), h.q, 2)
		require.NoError(t, err)
		for k, d := range ds {
			require.Equal(t, uint64(k+1), d.Seq)
			require.True(t, published.Equal(d.PublishedAt()), "%v", d.PublishedAt())
			require.Equal(t, h.IDOf(d.Seq, d.At, nil), d.ID())
			require.Equal(t, message.Extra{ID: d.ID(), Born: h.Now()}, *d.Ext, "its time to live begins anew")
		}
		other.q.Dead, h.q.Dead = nil, nil
		h.end()
		other.end()
		require.NoError(t, lifecycle.Close(shared))
	})
}

// A time to live begins anew for a message that has none of its own, too.
func TestATimeToLiveBeginsAnewWithARedrive(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newHome(t, 10, "a", "b")
		h.q.Store.Set.TTL = time.Hour
		h.q.Dead.Locked(func() {
			h.q.Dead.Store.Win.At(h.q.Dead.Store.InOrder()[1]).Ext = &message.Extra{Key: "k", Born: 1, Seq: 7}
		})
		time.Sleep(time.Minute)
		_, err := Redrive(t.Context(), h.q, new(Choice[string]))
		require.NoError(t, err)
		ds, err := view.Peek(t.Context(), h.q, 2)
		require.NoError(t, err)
		require.Equal(t, message.Extra{Born: h.Now()}, *ds[0].Ext)
		require.Equal(t, message.Extra{Key: "k", Born: h.Now()}, *ds[1].Ext)
		h.end()
	})
	synctest.Test(t, func(t *testing.T) {
		h := newHome(t, 10, "a")
		h.q.Dead.Locked(func() { h.q.Dead.Store.Win.At(h.q.Dead.Store.InOrder()[0]).Ext = &message.Extra{TTL: time.Hour} })
		_, err := Redrive(t.Context(), h.q, new(Choice[string]))
		require.NoError(t, err)
		ds, err := view.Peek(t.Context(), h.q, 1)
		require.NoError(t, err)
		require.Equal(t, message.Extra{TTL: time.Hour, Born: h.Now()}, *ds[0].Ext, "and for one that has its own")
		h.end()
	})
}

// Only what is still there is deleted, and counted.
func TestALetterThatIsGoneIsNotDeleted(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newHome(t, 10, "a", "b", "c")
		letters, err := selectFrom(h.q, &Choice[string]{dead: h.q.Dead})
		require.NoError(t, err)
		_, err = Delete(t.Context(), h.q, chosen("a"))
		require.NoError(t, err)
		require.Equal(t, 2, drop(h.q.Dead, lettersOf(letters)))
		require.Zero(t, drop(h.q.Dead, lettersOf(letters)))
		require.Empty(t, seen(t, h.q.Dead))
		h.end()
	})
}

func TestASharedQueueNeedsAClock(t *testing.T) {
	uuid.SetRand(strings.NewReader(""))
	defer uuid.SetRand(nil)
	q, err := NewShared[string]("letters", settings.Topic{}, settings.DefaultQueue())
	require.Nil(t, q)
	require.EqualError(t, err, `fanout: dead-letter queue "letters": EOF`)
}

// Without a time to live and without anything of its own, a message goes back as plain as it
// came.
func TestAPlainLetterGoesBackPlain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newHome(t, 10, "a")
		_, err := Redrive(t.Context(), h.q, new(Choice[string]))
		require.NoError(t, err)
		ds, err := view.Peek(t.Context(), h.q, 1)
		require.NoError(t, err)
		require.Nil(t, ds[0].Ext)
		require.Len(t, ds[0].History(), 1)
		h.end()
	})
}

// Interceptors are called around a redrive, and see how many moved.
func TestInterceptorsAreCalledAroundARedrive(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newHome(t, 2, "a", "b", "c")
		var infos []intercept.Info
		var counts []int
		around := func(ctx context.Context, info intercept.Info, next func(context.Context) error) error {
			before := info.About.Count()
			err := next(ctx)
			counts = append(counts, before, info.About.Count())
			a := info.About
			require.Equal(t, []any{nil, "", 0, false}, []any{a.Body(0), a.ID(0), a.Attempt(0), a.Set(0, "a", "b")})
			require.Nil(t, a.Ext(0))
			require.Zero(t, a.PublishedAt(0))
			info.About = nil
			infos = append(infos, info)
			return err
		}
		h.Calls = []intercept.Interceptor{around}
		moved, err := Redrive(t.Context(), h.q, chosen("a"))
		require.NoError(t, err)
		require.Equal(t, 1, moved)
		require.Equal(t, []intercept.Info{{Operation: intercept.OpRedrive, Topic: "payments", Queue: "q"}}, infos)
		require.Equal(t, []int{0, 1}, counts)
		moved, err = Redrive(t.Context(), h.q, new(Choice[string]))
		require.ErrorIs(t, err, errFull)
		require.Equal(t, 1, moved)
		h.Calls = []intercept.Interceptor{func(ctx context.Context, _ intercept.Info, next func(context.Context) error) error {
			return next(nil) //nolint:staticcheck // on purpose
		}}
		_, err = Redrive(t.Context(), h.q, new(Choice[string]))
		require.ErrorIs(t, err, message.ErrNilContext)
		require.EqualError(t, err, "fanout: invalid option: Redrive: nil context")
		h.Calls = []intercept.Interceptor{func(ctx context.Context, _ intercept.Info, next func(context.Context) error) error {
			_, _ = next(ctx), next(ctx)
			return nil
		}}
		h.q.Store.Set.Capacity, h.q.Dead.Store.Set.Capacity = 10, 10
		h.q.Store.Allow.Add(8)
		moved, err = Redrive(t.Context(), h.q, new(Choice[string]))
		require.NoError(t, err)
		require.Equal(t, 1, moved, "both together")
		h.Calls = nil
		h.end()
	})
}

// What came after the redrive began, and what a consumer has, is not chosen.
func TestWhatIsNewOrTakenIsNotChosen(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newHome(t, 10, "a", "b")
		dead := h.q.Dead
		c := &Choice[string]{dead: dead, Keep: []func(*delivery.Delivery[string]) bool{func(d *delivery.Delivery[string]) bool {
			if d.Body == "a" { // another dies meanwhile
				dead.Locked(func() {
					dead.Store.Offered++
					dead.Store.Admit(store.Held[string]{Item: message.Item[string]{Seq: 9, Body: "late"}}, store.Backlogged)
				})
			}
			return true
		}}}
		letters, err := selectFrom(h.q, c)
		require.NoError(t, err)
		require.Len(t, letters, 2)
		require.Equal(t, []string{"a", "b"}, []string{letters[0].Body, letters[1].Body})
		h.end()
	})
	synctest.Test(t, func(t *testing.T) { // more than are looked at under one lock, and not in order
		h := newHome(t, 10, "a")
		dead := h.q.Dead
		dead.Locked(func() {
			for n := range 3 * view.LookLen {
				dead.Store.Offered++
				dead.Store.Admit(store.Held[string]{Item: message.Item[string]{Seq: uint64(10_000 - n), Body: "b"}}, store.Backlogged)
			}
		})
		late := false
		letters, err := selectFrom(h.q, &Choice[string]{dead: dead, Keep: []func(*delivery.Delivery[string]) bool{func(*delivery.Delivery[string]) bool {
			if !late {
				late = true
				dead.Locked(func() {
					dead.Store.Offered++
					dead.Store.Admit(store.Held[string]{Item: message.Item[string]{Seq: 20_000, Body: "late"}}, store.Backlogged)
				})
			}
			return true
		}}})
		require.NoError(t, err)
		require.Len(t, letters, 3*view.LookLen+1, "what came meanwhile is not among them")
		for k := range letters[1:] {
			require.Less(t, letters[k].Seq, letters[k+1].Seq, "in the order of publication")
		}
		h.end()
	})
}
