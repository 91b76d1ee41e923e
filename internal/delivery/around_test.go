package delivery

import (
	"context"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/gofanout/fanout/internal/intercept"
	"github.com/gofanout/fanout/internal/message"
	"github.com/gofanout/fanout/internal/queue"
)

type next = func(context.Context) error

// An Info that an interceptor got, without what it is about.
func bare(i intercept.Info) intercept.Info {
	i.About = nil
	return i
}

func TestInterceptorsSeeWhatACallerDoes(t *testing.T) {
	bubble(t, func(t *testing.T, ctx context.Context) {
		var seen []intercept.Info
		h := newHome(t, around(func(ctx context.Context, info intercept.Info, next next) error {
			seen = append(seen, info)
			return next(ctx)
		}))
		h.q.Local = false
		x := &message.Extra{ID: "order-1"}
		h.items(message.Item[int]{Body: 1, Ext: x}, message.Item[int]{Body: 2}, message.Item[int]{Body: 3}, message.Item[int]{Body: 4})
		last := func() intercept.Info { return seen[len(seen)-1] }
		received := func(most int) intercept.Info {
			return intercept.Info{Operation: intercept.OpReceive, Topic: "payments", Queue: "q", Messages: most}
		}
		ds, err := TakeBatch(ctx, h.q, 2, time.Minute)
		require.NoError(t, err)
		require.Equal(t, []int{1, 2}, bodiesOf(ds))
		require.Equal(t, received(2), bare(last()))
		about := last().About
		require.Equal(t, 2, about.Count())
		for k, d := range ds {
			require.Equal(t, []any{d.Body, d.ID(), d.Ext, 1}, []any{about.Body(k), about.ID(k), about.Ext(k), about.Attempt(k)})
			require.True(t, d.PublishedAt().Equal(about.PublishedAt(k)))
			require.False(t, about.Set(k, "a", "1"), "nothing can be set any more")
		}
		var d Delivery[int]
		ok, err := TryTake(ctx, h.q, &d, time.Minute)
		require.NoError(t, err)
		require.True(t, ok)
		require.Equal(t, 3, d.Body)
		require.Equal(t, received(1), bare(last()))
		require.True(t, time.Now().Add(time.Minute).Equal(d.Deadline()))
		more := make([]Delivery[int], 3)
		n, err := TakeInto(ctx, h.q, more, time.Hour)
		require.NoError(t, err)
		require.Equal(t, 1, n)
		require.Equal(t, 4, more[0].Body)
		require.True(t, time.Now().Add(time.Hour).Equal(more[0].Deadline()))
		require.Equal(t, received(3), bare(last()))
		ok, err = TryTake(ctx, h.q, &d, time.Minute)
		require.NoError(t, err)
		require.False(t, ok)

		d = ds[0]
		of := func(o intercept.Operation, cause message.Cause) intercept.Info {
			return intercept.Info{Operation: o, Topic: "payments", Queue: "q", Messages: 1, MessageID: "order-1", Attempt: 1, PublishedAt: d.PublishedAt(), Cause: cause}
		}
		require.NoError(t, d.Extend(ctx, time.Hour))
		require.Equal(t, of(intercept.OpExtend, 0), bare(last()))
		require.True(t, time.Now().Add(time.Hour).Equal(d.Deadline()))
		require.NoError(t, d.Nack(ctx))
		require.Equal(t, of(intercept.OpSettle, message.Nacked), bare(last()))
		require.Equal(t, 1, last().About.Body(0))
		require.NoError(t, ds[1].Ack(ctx))
		require.Equal(t, message.Acked, last().Cause)
		require.Equal(t, ds[1].ID(), last().MessageID)
		failed := AckAll(ctx, h.q, more[:1])
		require.Empty(t, failed)
		require.Equal(t, []any{message.Acked, 4}, []any{last().Cause, last().About.Body(0)})
		require.Len(t, seen, 8)
		require.Equal(t, counts{inFlight: 1, retrying: 1, acked: 2}, countsOf(h.q))
		h.end(t)
	})
}

// What was received for nobody is ready again, at its place.
func TestWhatAnInterceptorKeepsFromItsCallerIsReadyAgain(t *testing.T) {
	var f intercept.Interceptor
	var h *home
	start := func(t *testing.T) {
		h = newHome(t, around(func(ctx context.Context, info intercept.Info, next next) error {
			if info.Operation != intercept.OpReceive {
				return next(ctx)
			}
			return f(ctx, info, next)
		}))
		h.q.Local = false
		h.publish(1, 2, 3)
	}
	take := func(ctx context.Context) ([]Delivery[int], error) { return TakeBatch(ctx, h.q, 2, time.Minute) }
	for name, row := range map[string]struct {
		f    intercept.Interceptor
		says string
		is   error
	}{
		"it returns an error": {func(ctx context.Context, _ intercept.Info, next next) error { _ = next(ctx); return errBusy }, "busy", errBusy},
		"it does not call": {func(context.Context, intercept.Info, next) error { return nil },
			`fanout: receive from "q": fanout: unsupported: an interceptor neither received nor returned an error`, message.ErrUnsupported},
		"it gives no context": {func(_ context.Context, _ intercept.Info, next next) error { return next(nil) }, //nolint:staticcheck // on purpose
			"fanout: invalid option: nil context", message.ErrNilContext},
		"its context has ended": {func(ctx context.Context, _ intercept.Info, next next) error {
			ctx, cancel := context.WithCancel(ctx)
			cancel()
			return next(ctx)
		}, `fanout: receive from "q": context canceled`, context.Canceled},
	} {
		t.Run(name, func(t *testing.T) {
			bubble(t, func(t *testing.T, ctx context.Context) {
				start(t)
				f = row.f
				ds, err := take(ctx)
				require.Nil(t, ds)
				require.EqualError(t, err, row.says)
				require.ErrorIs(t, err, row.is)
				require.Equal(t, counts{ready: 3}, countsOf(h.q))
				var d Delivery[int]
				ok, err := TryTake(ctx, h.q, &d, time.Minute)
				require.False(t, ok)
				if row.is == message.ErrUnsupported {
					require.NoError(t, err, "a try may find nothing")
				} else {
					require.ErrorIs(t, err, row.is)
				}
				require.Equal(t, counts{ready: 3}, countsOf(h.q))
				f = func(ctx context.Context, _ intercept.Info, next next) error { return next(ctx) }
				ds, err = take(ctx)
				require.NoError(t, err)
				require.Equal(t, []int{1, 2}, bodiesOf(ds))
				h.end(t)
			})
		})
	}
	t.Run("it looks later", func(t *testing.T) {
		bubble(t, func(t *testing.T, ctx context.Context) {
			start(t)
			var about intercept.About
			f = func(ctx context.Context, info intercept.Info, next next) error {
				_, about = next(ctx), info.About
				return errBusy
			}
			n, err := TakeInto(ctx, h.q, make([]Delivery[int], 2), time.Minute)
			require.Zero(t, n)
			require.ErrorIs(t, err, errBusy)
			require.Zero(t, about.Count(), "they are nobody's any more")
			h.end(t)
		})
	})
	t.Run("it panics", func(t *testing.T) {
		bubble(t, func(t *testing.T, ctx context.Context) {
			start(t)
			f = func(ctx context.Context, _ intercept.Info, next next) error { _ = next(ctx); panic("boom") }
			require.PanicsWithValue(t, "boom", func() { _, _ = take(ctx) })
			require.Equal(t, counts{ready: 3}, countsOf(h.q))
			h.end(t)
		})
	})
	t.Run("it calls twice", func(t *testing.T) {
		bubble(t, func(t *testing.T, ctx context.Context) {
			start(t)
			f = func(ctx context.Context, _ intercept.Info, next next) error { _ = next(ctx); return next(ctx) }
			ds, err := take(ctx)
			require.NoError(t, err)
			require.Equal(t, []int{1, 2}, bodiesOf(ds), "the same again")
			require.Equal(t, 1, ds[0].Attempt())
			require.Equal(t, message.Released, ds[0].History()[0].Cause)
			require.Equal(t, counts{ready: 1, inFlight: 2}, countsOf(h.q))
			h.end(t)
		})
	})
}

// What the first of a handler's batch is called is kept, as it is asked for often.
func TestABatchOfAHandlerIsWhatItsFirstIs(t *testing.T) {
	bubble(t, func(t *testing.T, ctx context.Context) {
		h := newHome(t)
		h.publish(1, 2)
		b := Handed[int]{Q: h.q, Ds: batch(t, h.q, 2)}
		b.Chain, b.FirstID = new(intercept.Chain), "first"
		require.Equal(t, "first", b.ID(0))
		require.Equal(t, b.Ds[1].ID(), b.ID(1))
		info := b.info(intercept.OpHandle)
		require.Equal(t, intercept.Info{Operation: intercept.OpHandle, Topic: "payments", Queue: "q", Messages: 2, MessageID: "first", Attempt: 1,
			PublishedAt: b.Ds[0].PublishedAt(), About: &b}, info)
		none := Handed[int]{Q: h.q}
		require.Equal(t, intercept.Info{Operation: intercept.OpHandle, Topic: "payments", Queue: "q", About: &none}, none.info(intercept.OpHandle))
		h.end(t)
	})
}

// An engine keeps a queue's messages: it is asked for them, and told how they end.
type keeper struct {
	of       *queue.Queue[int]
	received []any
	told     []any
	err      error
}

func (k *keeper) Settle(_ context.Context, ref message.Ref, v message.Verdict) error {
	k.told = append(k.told, ref.Stamp, v.Cause)
	return k.err
}

func (k *keeper) Extend(_ context.Context, ref message.Ref, by time.Duration) error {
	k.told = append(k.told, ref.Stamp, by)
	return k.err
}
func (k *keeper) Purge(context.Context) (int, error)      { return 0, nil }
func (k *keeper) Close() error                            { return nil }
func (k *keeper) Delete(context.Context) error            { return nil }
func (k *keeper) AwaitEmpty(context.Context) error        { return nil }
func (k *keeper) AskLeft()                                {}
func (k *keeper) Left() (int, int)                        { return 0, 0 }
func (k *keeper) LetGo()                                  {}
func (k *keeper) WantLocked()                             {}
func (k *keeper) ChangedLocked()                          {}
func (k *keeper) EndLocked(int32, message.Verdict, int64) {}
func (k *keeper) DeadLetterLocked(int32)                  {}
func (k *keeper) ExtendLocked(int32, time.Duration)       {}
func (k *keeper) Failed(error) bool                       { return false }
func (k *keeper) Capacity() int                           { return 0 }

// One that gives messages to callers.
type giver struct{ keeper }

func (g *giver) Receive(_ context.Context, most int, vis time.Duration) ([]Delivery[int], error) {
	g.received = append(g.received, most, vis)
	if g.err != nil {
		return nil, g.err
	}
	return []Delivery[int]{{Body: 5, Receipt: Receipt[int]{Q: g.of, Ref: message.Ref{Stamp: 9}}}}, nil
}

func (g *giver) TryReceive(ctx context.Context, vis time.Duration) (d Delivery[int], ok bool, err error) {
	g.received = append(g.received, "try", vis)
	if g.err != nil {
		return d, false, g.err
	}
	ds, err := g.Receive(ctx, 1, vis)
	return ds[0], true, err
}

func TestAKeeperIsAskedAndTold(t *testing.T) {
	bubble(t, func(t *testing.T, ctx context.Context) {
		h := newHome(t)
		g := &giver{keeper{of: h.q}}
		h.q.Local, h.q.Keeper = false, g
		ds, err := TakeBatch(ctx, h.q, 3, time.Minute)
		require.NoError(t, err)
		require.Equal(t, []int{5}, bodiesOf(ds))
		var d Delivery[int]
		ok, err := TryTake(ctx, h.q, &d, time.Hour)
		require.NoError(t, err)
		require.True(t, ok)
		require.Equal(t, 5, d.Body)
		require.Equal(t, []any{3, time.Minute, "try", time.Hour, 1, time.Hour}, g.received)
		g.err = errBusy
		_, err = TakeBatch(ctx, h.q, 3, time.Minute)
		require.ErrorIs(t, err, errBusy)
		ok, err = TryTake(ctx, h.q, &d, time.Hour)
		require.False(t, ok)
		require.ErrorIs(t, err, errBusy)

		require.ErrorIs(t, ds[0].Nack(ctx), errBusy)
		require.ErrorIs(t, ds[0].Extend(ctx, time.Second), errBusy)
		g.err = nil
		require.NoError(t, ds[0].Ack(ctx))
		require.NoError(t, ds[0].Extend(ctx, time.Minute))
		require.Empty(t, AckAll(ctx, h.q, ds))
		require.Equal(t, []any{uint64(9), message.Nacked, uint64(9), time.Second, uint64(9), message.Acked, uint64(9), time.Minute, uint64(9), message.Acked}, g.told)
		h.q.Keeper = nil
		h.end(t)
	})
}

// One that gives callers nothing leaves them what is here.
func TestAKeeperThatReceivesNothingIsNotAsked(t *testing.T) {
	bubble(t, func(t *testing.T, ctx context.Context) {
		h := newHome(t)
		h.publish(1, 2)
		h.q.Local, h.q.Keeper = false, &keeper{of: h.q}
		ds, err := TakeBatch(ctx, h.q, 1, time.Minute)
		require.NoError(t, err)
		require.Equal(t, []int{1}, bodiesOf(ds))
		var d Delivery[int]
		ok, err := TryTake(ctx, h.q, &d, time.Hour)
		require.NoError(t, err)
		require.True(t, ok)
		require.Equal(t, 2, d.Body)
		h.q.Keeper = nil
		h.end(t)
	})
}
