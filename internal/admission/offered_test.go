package admission

import (
	"context"
	"slices"
	"strconv"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/gofanout/fanout/internal/intercept"
	"github.com/gofanout/fanout/internal/message"
)

func TestSettingAnAttributeAllocatesAtMostTheMap(t *testing.T) {
	one := func(x *message.Extra) *offered[int] { return &offered[int]{items: []message.Item[int]{{Ext: x}}} }
	const runs = 100
	var empty, full [runs + 1]*offered[int]
	for k := range empty {
		empty[k] = one(&message.Extra{ID: "a"})
		full[k] = one(&message.Extra{ID: "a", Attributes: map[string]string{"a": "1"}})
	}
	set := func(os []*offered[int]) float64 {
		n := 0
		return testing.AllocsPerRun(runs, func() {
			i := os[n].info("t").About
			if !i.Set(0, "traceparent", "x") || i.Set(0, "traceparent", "y") {
				panic("set wrongly")
			}
			n++
		})
	}
	var m map[string]string
	aMap := testing.AllocsPerRun(runs, func() { m = make(map[string]string); m["a"] = "1" })
	require.NotNil(t, m)
	require.Equal(t, aMap, set(empty[:]))
	require.Zero(t, set(full[:]))
}

// An interceptor is told what is published, and says what becomes of it.
func TestAnInterceptorSeesAndChangesWhatIsPublished(t *testing.T) {
	for n := 1; n <= 2; n++ {
		var seen []intercept.Info
		var ids []string
		see := func(ctx context.Context, info intercept.Info, next func(context.Context) error) error {
			about := info.About
			if len(seen)%n == 0 {
				for k := range about.Count() {
					require.Equal(t, k+1, about.Body(k))
					require.Zero(t, about.Attempt(k))
					require.Zero(t, about.PublishedAt(k))
					ids = append(ids, about.ID(k))
					require.Equal(t, about.ID(k), about.Ext(k).ID)
					ext := about.Ext(k)
					require.True(t, about.Set(k, "trace", "t"+strconv.Itoa(k)))
					require.False(t, about.Set(k, "trace", "another"))
					require.Same(t, ext, about.Ext(k), "it is nobody else's yet")
				}
			}
			info.About = nil
			seen = append(seen, info)
			return next(ctx)
		}
		h := newHome[int](t, intercepting(slices.Repeat([]intercept.Interceptor{see}, n)...))
		q := h.open("q")
		for range 20 { // they are used again
			seen, ids = nil, nil
			h.publishAll(t, message.Published[int]{Body: 1, ID: "order-1", Attributes: map[string]string{"a": "b"}}, message.Published[int]{Body: 2})
			h.publish(t, 1)
			h.publishAll(t)
			all := func(m int, id string) intercept.Info {
				return intercept.Info{Operation: intercept.OpPublish, Topic: "payments", Messages: m, MessageID: id}
			}
			require.Len(t, ids, 3)
			require.Equal(t, slices.Concat(slices.Repeat([]intercept.Info{all(2, "order-1")}, n), slices.Repeat([]intercept.Info{all(1, ids[2])}, n), slices.Repeat([]intercept.Info{all(0, "")}, n)), seen)
			require.NotEqual(t, ids[1], ids[2])
			for k, want := range []map[string]string{{"a": "b", "trace": "t0"}, {"trace": "t1"}, {"trace": "t0"}} {
				d := receive(t, q)
				require.Equal(t, ids[k], d.ID())
				require.Equal(t, want, d.Attributes())
				require.NoError(t, d.Ack(t.Context()))
			}
		}
		h.check(t)
		h.end(t)
	}
}

// An attribute that can't be fails the publish, and this alone.
func TestAnAttributeThatCannotBeFailsItsPublish(t *testing.T) {
	fails := false
	h := newHome[int](t, intercepting(func(ctx context.Context, info intercept.Info, next func(context.Context) error) error {
		if fails {
			require.False(t, info.About.Set(0, "", "first"))
			require.False(t, info.About.Set(0, "\xff", "second"))
		}
		return next(ctx)
	}))
	q := h.open("q")
	for range 20 { // they are used again
		fails = true
		err := h.Publish(t.Context(), 1)
		require.ErrorIs(t, err, message.ErrInvalidMessage)
		require.ErrorContains(t, err, `fanout: publish to "payments": `)
		require.ErrorContains(t, err, `message 0: an interceptor: an attribute without a name has the value "first"`)
		require.Empty(t, bodies(t, q))
		fails = false
		h.publish(t, 1)
		require.NoError(t, receive(t, q).Ack(t.Context()))
	}
	h.end(t)
}

// What an interceptor returns is the publish's error, whatever it has done.
func TestAnInterceptorMayKeepRepeatOrDelayAPublish(t *testing.T) {
	var do func(ctx context.Context, info intercept.Info, next func(context.Context) error) error
	h := newHome[int](t, intercepting(func(ctx context.Context, info intercept.Info, next func(context.Context) error) error {
		return do(ctx, info, next)
	}))
	q := h.open("q", capacity(10))
	do = func(context.Context, intercept.Info, func(context.Context) error) error { return errBusy }
	err := h.Publish(t.Context(), 1)
	require.EqualError(t, err, `fanout: publish to "payments": busy`)
	require.Empty(t, bodies(t, q))

	do = func(ctx context.Context, info intercept.Info, next func(context.Context) error) error {
		require.NoError(t, next(ctx))
		require.True(t, info.About.Set(0, "late", "1"))
		require.NoError(t, next(ctx))
		require.True(t, info.About.Set(0, "later", "2"))
		return nil
	}
	h.publish(t, 1)
	for _, want := range []map[string]string{nil, {"late": "1"}} {
		d := receive(t, q)
		require.Equal(t, 1, d.Body)
		require.Equal(t, want, d.Attributes(), "what is set once it is published is not in it")
		require.NoError(t, d.Ack(t.Context()))
	}

	var nexts []func(context.Context) error
	do = func(_ context.Context, _ intercept.Info, next func(context.Context) error) error {
		nexts = append(nexts, next)
		return nil
	}
	for body := range 10 {
		h.publish(t, body)
	}
	for _, next := range nexts {
		require.NoError(t, next(t.Context()))
	}
	require.Equal(t, []int{0, 1, 2, 3, 4, 5, 6, 7, 8, 9}, bodies(t, q), "another publish has taken its place")
	do = func(ctx context.Context, _ intercept.Info, next func(context.Context) error) error { return next(ctx) }
	require.ErrorIs(t, h.TryPublish(t.Context(), 10), message.ErrQueueFull)
	h.check(t)
	h.end(t)
}
