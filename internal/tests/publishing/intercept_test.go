// Interceptors stand around publishes, handlers and what callers do, the first outermost, and lose nothing.

package publishing_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"maps"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/gofanout/fanout"
	"github.com/gofanout/fanout/internal/tests/kit"
)

// line is all that an interceptor can read of message k.
func line(i fanout.Info, k int) string {
	m := i.Message(k)
	s := fmt.Sprintf("%s %v %q %d %v %v", m.ID(), m.Body(), m.OrderingKey(), m.Attempt(), m.PublishedAt().UnixMilli(), maps.Collect(m.Attributes()))
	return s
}

func TestInterceptorsSeeEachMessageOfABatch(t *testing.T) {
	kit.Bubble(t, func(t *testing.T, ctx context.Context) {
		var mu sync.Mutex
		seen := map[fanout.Operation][]string{}
		note := func(ctx context.Context, info fanout.Info, next func(context.Context) error) error {
			mu.Lock()
			require.Equal(t, info.Messages, info.Len())
			for k := range info.Len() {
				seen[info.Operation] = append(seen[info.Operation], line(info, k))
			}
			mu.Unlock()
			return next(ctx)
		}
		top := kit.NewTopic[int](t, fanout.WithOrdering(), fanout.WithPublishInterceptor(note), fanout.WithHandlerInterceptor(note))
		kit.SubscribeBatch(t, top, "q", func(ctx context.Context, ds []fanout.Delivery[int]) error {
			if ds[0].Attempt() == 1 {
				return kit.ErrBusy
			}
			return nil
		}, fanout.WithBackoff(fanout.Constant(time.Second)))
		kit.PublishAll(t, top,
			fanout.Message[int]{Body: 1, ID: "a", Attributes: map[string]string{"n": "1"}},
			fanout.Message[int]{Body: 2, ID: "b", Attributes: map[string]string{"n": "2"}},
			fanout.Message[int]{Body: 3, ID: "c", OrderingKey: "k"})
		synctest.Wait()
		at := time.Now().UnixMilli()
		require.Equal(t, []string{`a 1 "" 0 -62135596800000 map[n:1]`, `b 2 "" 0 -62135596800000 map[n:2]`, `c 3 "k" 0 -62135596800000 map[]`}, seen[fanout.OpPublish])
		first := []string{fmt.Sprintf(`a 1 "" 1 %d map[n:1]`, at), fmt.Sprintf(`b 2 "" 1 %d map[n:2]`, at), fmt.Sprintf(`c 3 "k" 1 %d map[]`, at)}
		require.Equal(t, first, seen[fanout.OpHandle])
		kit.Elapse(time.Second)
		for k := range first {
			first[k] = strings.Replace(first[k], `" 1 `, `" 2 `, 1)
		}
		require.ElementsMatch(t, first, seen[fanout.OpHandle][3:])
		kit.Check(t, top)
		require.NoError(t, top.Close())
	})
}

func TestIDsAreFixedBeforePublishInterceptorsRun(t *testing.T) {
	kit.Bubble(t, func(t *testing.T, ctx context.Context) {
		var ids, told []string
		again := false
		top := kit.NewTopic[int](t, fanout.WithHooks(fanout.Hooks{Published: func(e fanout.Event) { told = append(told, e.MessageID) }}),
			fanout.WithPublishInterceptor(func(ctx context.Context, info fanout.Info, next func(context.Context) error) error {
				require.Equal(t, info.Message(0).ID(), info.MessageID)
				for k := range info.Len() {
					ids = append(ids, info.Message(k).ID())
				}
				err := next(ctx)
				if again {
					info.SetAttribute("again", "yes")
					err = next(ctx)
				}
				return err
			}))
		q := kit.OpenQueue(t, top, "q")
		kit.Publish(t, top, 1)
		require.NoError(t, top.TryPublish(ctx, 2))
		kit.PublishAll(t, top, fanout.Message[int]{Body: 3}, fanout.Message[int]{Body: 4, ID: "mine"}, fanout.Message[int]{Body: 5, Delay: time.Hour})
		kit.Elapse(time.Hour)
		require.Equal(t, ids, told)
		require.Equal(t, "mine", ids[3])
		have := map[string]bool{}
		for _, id := range ids {
			d := kit.Receive(t, q)
			require.Contains(t, ids, d.ID())
			require.NotEmpty(t, id)
			require.NoError(t, d.Nack(ctx))
			have[d.ID()] = true
		}
		require.Len(t, have, 5)
		kit.Elapse(time.Minute)
		for range ids {
			d := kit.Receive(t, q)
			require.True(t, have[d.ID()])
			require.Equal(t, 2, d.Attempt())
			require.NoError(t, d.Ack(ctx))
		}

		ids, again = nil, true
		kit.Publish(t, top, 6)
		first, second := kit.Receive(t, q), kit.Receive(t, q)
		require.Equal(t, []string{first.ID(), first.ID()}, []string{ids[0], second.ID()}, "published again, it has the same ID")
		require.Nil(t, first.Attributes(), "what has been published does not change any more")
		require.Equal(t, map[string]string{"again": "yes"}, second.Attributes())
		kit.Check(t, top)
		require.NoError(t, top.Close())
	})
}

func TestAnInterceptorSetsAnAttributeOfOneMessageIfItHasNone(t *testing.T) {
	kit.Bubble(t, func(t *testing.T, ctx context.Context) {
		var set []bool
		top := kit.NewTopic[int](t, fanout.WithPublishInterceptor(func(ctx context.Context, info fanout.Info, next func(context.Context) error) error {
			for k := range info.Len() {
				set = append(set, info.Message(k).SetAttribute("traceparent", fmt.Sprint("own ", k)))
			}
			info.SetAttribute("region", "eu")
			return next(ctx)
		}), fanout.WithHandlerInterceptor(func(ctx context.Context, info fanout.Info, next func(context.Context) error) error {
			require.False(t, info.Message(0).SetAttribute("late", "1"))
			return next(ctx)
		}))
		q := kit.OpenQueue(t, top, "q")
		mine := map[string]string{"traceparent": "the user's"}
		kit.PublishAll(t, top, fanout.Message[int]{Attributes: mine}, fanout.Message[int]{}, fanout.Message[int]{ID: "c", Attributes: map[string]string{"region": "us"}})
		require.Equal(t, []bool{false, true, true}, set)
		for _, want := range []map[string]string{
			{"traceparent": "the user's", "region": "eu"}, {"traceparent": "own 1", "region": "eu"}, {"traceparent": "own 2", "region": "us"},
		} {
			require.Equal(t, want, kit.Receive(t, q).Attributes())
		}
		require.Len(t, mine, 1, "the publisher's map is its own")
		require.NoError(t, top.Close())
	})
}

func TestAnAttributeThatAnInterceptorCanNotSetIsAnInvalidMessage(t *testing.T) {
	for name, a := range map[string][2]string{"no name": {"", "1"}, "a name": {"\xff", "1"}, "a value": {"ok", "\xff"}} {
		t.Run(name, func(t *testing.T) {
			top := kit.NewTopic[int](t, fanout.WithPublishInterceptor(func(ctx context.Context, info fanout.Info, next func(context.Context) error) error {
				require.False(t, info.Message(1).SetAttribute(a[0], a[1]))
				return next(ctx)
			}))
			q := kit.OpenQueue(t, top, "q")
			err := top.PublishMessages(t.Context(), fanout.Message[int]{}, fanout.Message[int]{})
			require.ErrorIs(t, err, fanout.ErrInvalidMessage)
			require.ErrorContains(t, err, "message 1: an interceptor: ")
			kit.RequireEmpty(t, q)
			require.NoError(t, top.Close())
		})
	}
}

// calls is a queue interceptor that notes what it sees.
type calls struct {
	mu    sync.Mutex
	lines []string
}

func (c *calls) around(ctx context.Context, info fanout.Info, next func(context.Context) error) error {
	before := info.Len()
	err := next(ctx)
	c.mu.Lock()
	defer c.mu.Unlock()
	line := fmt.Sprintf("%v %s", info.Operation, info.Queue)
	if info.Operation == fanout.OpReceive {
		line += fmt.Sprintf(" %d:", info.Messages)
	}
	if info.Cause != 0 {
		line += " " + info.Cause.String()
	}
	for k := range info.Len() {
		line += strings.TrimRight(fmt.Sprintf(" %s/%d", info.Message(k).ID(), info.Message(k).Attempt()), "/0 ")
	}
	if before != info.Len() {
		line += fmt.Sprintf(" (%d before)", before)
	}
	if err != nil {
		line += " " + err.Error()
	}
	c.lines = append(c.lines, line)
	return err
}

func (c *calls) Read() []string {
	c.mu.Lock()
	defer c.mu.Unlock()
	lines := c.lines
	c.lines = nil
	return lines
}

func TestQueueInterceptorsStandAroundWhatCallersDo(t *testing.T) {
	kit.Bubble(t, func(t *testing.T, ctx context.Context) {
		c := new(calls)
		top := kit.NewTopic[int](t, fanout.WithQueueInterceptor(c.around))
		q := kit.OpenQueue(t, top, "q", fanout.WithMaxAttempts(2), fanout.WithBackoff(fanout.Constant(time.Second)))
		send := func(ids ...string) {
			for _, id := range ids {
				kit.PublishAll(t, top, fanout.Message[int]{ID: id})
			}
		}
		send("a", "b", "c", "d", "e", "f")
		a, err := q.Receive(ctx)
		require.NoError(t, err)
		b, ok, err := q.TryReceive(ctx)
		require.True(t, ok)
		require.NoError(t, err)
		cd, err := q.ReceiveBatch(ctx, 2)
		require.NoError(t, err)
		into := make([]fanout.Delivery[int], 1)
		n, err := q.ReceiveInto(ctx, into)
		require.Equal(t, 1, n)
		require.NoError(t, err)
		for f, err := range q.Deliveries(ctx) {
			require.NoError(t, err)
			require.NoError(t, f.Ack(ctx))
			break
		}
		_, ok, err = q.TryReceive(ctx)
		require.False(t, ok)
		require.NoError(t, err)
		soon, cancel := context.WithCancel(ctx)
		cancel()
		_, err = q.Receive(soon)
		require.ErrorIs(t, err, context.Canceled)
		require.Equal(t, []string{
			"receive q 1: a/1 (0 before)", "receive q 1: b/1 (0 before)", "receive q 2: c/1 d/1 (0 before)", "receive q 1: e/1 (0 before)",
			"receive q 1: f/1 (0 before)", "settle q acked f/1", "receive q 1:", `receive q 1: fanout: receive from "q": context canceled`,
		}, c.Read())

		require.NoError(t, a.Extend(ctx, time.Minute))
		require.NoError(t, a.Ack(ctx))
		require.ErrorIs(t, a.Ack(ctx), fanout.ErrSettled)
		require.NoError(t, b.Settle(ctx, fanout.Permanent(kit.ErrBusy)))
		require.NoError(t, cd[0].NackAfter(ctx, time.Hour))
		require.NoError(t, cd[1].Release(ctx))
		require.NoError(t, q.AckBatch(ctx, into...))
		require.Equal(t, []string{
			"extend q a/1", "settle q acked a/1", `settle q acked a/1 fanout: delivery already settled: queue "q"`, "settle q permanent b/1",
			"settle q nacked c/1", "settle q released d/1", "settle q acked e/1",
		}, c.Read())

		letter, err := q.DeadLetters().Receive(ctx)
		require.NoError(t, err)
		require.NoError(t, letter.Release(ctx))
		moved, err := q.Redrive(ctx)
		require.NoError(t, err)
		require.Equal(t, 1, moved)
		_, err = q.Redrive(ctx, fanout.RedriveIDs("none"))
		require.ErrorIs(t, err, fanout.ErrUnknownID)
		lines := c.Read()
		require.Equal(t, []string{"receive q/dead 1: b/1 (0 before)", "settle q/dead released b/1", "redrive q (0 before)"}, lines[:3])
		require.ErrorContains(t, err, strings.TrimPrefix(lines[3], "redrive q "))

		kit.Subscribe(t, top, "w", kit.HandleNothing)
		send("x")
		synctest.Wait()
		require.Empty(t, c.Read(), "workers prefetch, and settle by themselves")
		kit.Check(t, top)
		require.NoError(t, top.Close())
		_, err = q.Receive(ctx)
		require.ErrorIs(t, err, fanout.ErrClosed)
		for range q.Deliveries(ctx) {
			require.Fail(t, "a delivery of a closed queue")
		}
		require.Len(t, c.Read(), 2)
	})
}

func TestQueueInterceptorsStandAroundSharedDeadLetters(t *testing.T) {
	c := new(calls)
	d, err := fanout.NewDeadLetterQueue[int]("shared", fanout.WithQueueInterceptor(c.around))
	require.NoError(t, err)
	top := kit.NewTopic[int](t)
	q := kit.OpenQueue(t, top, "q", fanout.WithDeadLetterQueue(d))
	kit.PublishAll(t, top, fanout.Message[int]{ID: "a"})
	require.NoError(t, kit.Receive(t, q).Settle(t.Context(), fanout.Permanent(kit.ErrBusy)))
	require.NoError(t, kit.Receive(t, d).Ack(t.Context()))
	require.Equal(t, []string{"receive shared 1: a/1 (0 before)", "settle shared acked a/1"}, c.Read())
	require.NoError(t, top.Close())
	require.NoError(t, d.Close())
	_, err = fanout.NewTopic[int]("x", fanout.WithQueueInterceptor(c.around, nil))
	require.ErrorContains(t, err, "WithQueueInterceptor")
}

// What was received for nobody is given back.
func TestAQueueInterceptorThatFailsLosesNothing(t *testing.T) {
	kit.Bubble(t, func(t *testing.T, ctx context.Context) {
		var do func(ctx context.Context, info fanout.Info, next func(context.Context) error) error
		top := kit.NewTopic[int](t, fanout.WithQueueInterceptor(func(ctx context.Context, info fanout.Info, next func(context.Context) error) error {
			if info.Operation == fanout.OpReceive {
				return do(ctx, info, next)
			}
			return next(ctx)
		}))
		q := kit.OpenQueue(t, top, "q")
		kit.Publish(t, top, 1, 2)
		isBack := func() {
			t.Helper()
			require.Equal(t, []int{2, 0}, []int{q.Stats().Ready, q.Stats().InFlight})
		}
		do = func(ctx context.Context, info fanout.Info, next func(context.Context) error) error {
			require.NoError(t, next(ctx))
			require.Equal(t, 1, info.Len())
			return kit.ErrBusy
		}
		_, err := q.Receive(ctx)
		require.Equal(t, kit.ErrBusy, err)
		isBack()
		_, _, err = q.TryReceive(ctx)
		require.Equal(t, kit.ErrBusy, err)
		isBack()
		for _, err := range q.Deliveries(ctx) {
			require.Equal(t, kit.ErrBusy, err)
		}
		isBack()
		do = func(ctx context.Context, info fanout.Info, next func(context.Context) error) error {
			require.NoError(t, next(ctx))
			panic("oh")
		}
		require.Panics(t, func() { _, _ = q.Receive(ctx) })
		isBack()
		do = func(context.Context, fanout.Info, func(context.Context) error) error { return nil }
		_, err = q.Receive(ctx)
		require.ErrorIs(t, err, fanout.ErrUnsupported)
		_, ok, err := q.TryReceive(ctx)
		require.False(t, ok)
		require.NoError(t, err)
		do = func(_ context.Context, _ fanout.Info, next func(context.Context) error) error { return next(nil) }
		_, err = q.Receive(ctx)
		require.ErrorIs(t, err, fanout.ErrInvalidOption)
		do = func(ctx context.Context, info fanout.Info, next func(context.Context) error) error {
			require.NoError(t, next(ctx))
			return next(ctx)
		}
		d, err := q.Receive(ctx)
		require.NoError(t, err)
		require.Equal(t, 1, d.Body)
		require.Equal(t, 1, q.Stats().InFlight)
		require.Equal(t, 1, d.Attempt())
		kit.Check(t, top)
		require.NoError(t, top.Close())
	})
}

func TestReadingInfoAllocatesNothing(t *testing.T) {
	sum := 0
	read := func(info fanout.Info) {
		for k := range info.Len() {
			m := info.Message(k)
			v, _ := m.Attribute("a")
			sum += len(m.ID()) + len(v) + len(m.OrderingKey()) + m.Attempt() + m.PublishedAt().Nanosecond()
		}
	}
	var mu sync.Mutex // one measures at a time: a worker does, too
	reads := map[fanout.Operation]float64{}
	measure := func(ctx context.Context, info fanout.Info, next func(context.Context) error) error {
		err := next(ctx)
		mu.Lock()
		defer mu.Unlock()
		reads[info.Operation] = testing.AllocsPerRun(100, func() { read(info) })
		return err
	}
	top := kit.NewTopic[int](t, fanout.WithPublishInterceptor(measure), fanout.WithQueueInterceptor(measure), fanout.WithHandlerInterceptor(measure))
	q := kit.OpenQueue(t, top, "q")
	kit.Subscribe(t, top, "w", kit.HandleNothing)
	kit.PublishAll(t, top, fanout.Message[int]{Attributes: map[string]string{"a": "1"}}, fanout.Message[int]{})
	d := kit.Receive(t, q)
	require.NoError(t, d.Extend(t.Context(), time.Minute))
	require.NoError(t, d.Ack(t.Context()))
	require.NoError(t, kit.Receive(t, q).Ack(t.Context()))
	require.NoError(t, top.Shutdown(t.Context()))
	require.Equal(t, map[fanout.Operation]float64{fanout.OpPublish: 0, fanout.OpHandle: 0, fanout.OpReceive: 0, fanout.OpExtend: 0, fanout.OpSettle: 0}, reads)
	require.NotZero(t, sum)
}

func TestCauseOfIsWhatTheQueueCounts(t *testing.T) {
	for want, err := range map[fanout.Cause]error{
		fanout.Acked: nil, fanout.Failed: kit.ErrBusy, fanout.PermanentlyFailed: fanout.Permanent(kit.ErrBusy), fanout.Snoozed: fanout.Snooze(time.Second), fanout.Released: fmt.Errorf("%w", fanout.ErrClosed),
	} {
		require.Equal(t, want, fanout.CauseOf(err))
	}
	require.Equal(t, fanout.Failed, fanout.CauseOf(fanout.RetryAfter(kit.ErrBusy, time.Second)))
	require.Equal(t, fanout.Released, fanout.CauseOf(fanout.Release(kit.ErrBusy)))
}

// A contextHandler keeps the messages of the records that it is given.
type contextHandler struct {
	slog.Handler
	mu   sync.Mutex
	told []string
}

func (h *contextHandler) Handle(ctx context.Context, r slog.Record) error {
	h.mu.Lock()
	defer h.mu.Unlock()
	m, ok := fanout.MessageFromContext(ctx)
	h.told = append(h.told, fmt.Sprintf("%s: %t %s %d %v %v", strings.TrimPrefix(r.Message, "fanout: "), ok, m.ID(), m.Attempt(), m.Body(), maps.Collect(m.Attributes())))
	return nil
}

func TestLogLinesHaveTheirMessageInTheContext(t *testing.T) {
	kit.Bubble(t, func(t *testing.T, ctx context.Context) {
		h := &contextHandler{Handler: slog.NewTextHandler(io.Discard, nil)}
		top := kit.NewTopic[int](t, fanout.WithLogger(slog.New(h)))
		q := kit.OpenQueue(t, top, "q")
		kit.PublishAll(t, top, fanout.Message[int]{ID: "a", Attributes: map[string]string{"traceparent": "x"}})
		require.NoError(t, kit.Receive(t, q).Settle(ctx, fanout.Permanent(kit.ErrBusy)))
		kit.Publish(t, top, 1)
		_, err := q.Purge(ctx)
		require.NoError(t, err)
		kit.Elapse(time.Second)
		require.Equal(t, []string{"messages went to the dead-letter queue: true a 1 <nil> map[traceparent:x]", "messages dropped: false  0 <nil> map[]"}, h.told)
		require.NoError(t, top.Close())
	})
}

func TestInterceptorsStandAroundPublishesAndHandlersTheFirstOutermost(t *testing.T) {
	kit.Bubble(t, func(t *testing.T, ctx context.Context) {
		y := kit.NewDiary()
		around := func(name string) fanout.Interceptor {
			return func(ctx context.Context, info fanout.Info, next func(context.Context) error) error {
				y.Note("%s begins: %q %q %d %q %d", name, info.Topic, info.Queue, info.Messages, info.MessageID, info.Attempt)
				err := next(ctx)
				y.Note("%s ends: %v", name, err)
				return err
			}
		}
		top := kit.NewTopic[int](t, fanout.WithPublishInterceptor(around("p1"), around("p2")), fanout.WithPublishInterceptor(around("p3")),
			fanout.WithHandlerInterceptor(around("t1"), around("t2")))
		kit.Subscribe(t, top, "q", func(ctx context.Context, d fanout.Delivery[int]) error {
			y.Note("handler")
			return kit.ErrBusy
		}, fanout.WithHandlerInterceptor(around("s1")), fanout.WithHandlerInterceptor(around("s2")), fanout.WithMaxAttempts(1))
		kit.PublishAll(t, top, fanout.Message[int]{ID: "a"}, fanout.Message[int]{Delay: time.Hour})
		synctest.Wait()
		want := []string{
			`0s: p1 begins: "payments" "" 2 "a" 0`, `0s: p2 begins: "payments" "" 2 "a" 0`, `0s: p3 begins: "payments" "" 2 "a" 0`,
			`0s: p3 ends: <nil>`, `0s: p2 ends: <nil>`, `0s: p1 ends: <nil>`,
			`0s: t1 begins: "payments" "q" 1 "a" 1`, `0s: t2 begins: "payments" "q" 1 "a" 1`,
			`0s: s1 begins: "payments" "q" 1 "a" 1`, `0s: s2 begins: "payments" "q" 1 "a" 1`,
			`0s: handler`, `0s: s2 ends: busy`, `0s: s1 ends: busy`, `0s: t2 ends: busy`, `0s: t1 ends: busy`,
		}
		got := y.Read()
		require.ElementsMatch(t, want, got)
		for _, part := range [][]string{want[:6], want[6:]} { // handlers may begin before the publish returns
			var order []string
			for _, line := range got {
				if slices.Contains(part, line) {
					order = append(order, line)
				}
			}
			require.Equal(t, part, order)
		}
		for _, publish := range []func() error{
			func() error { return top.Publish(ctx, 1) },
			func() error { return top.TryPublish(ctx, 1) },
			func() error { return top.TryPublishMessages(ctx, fanout.Message[int]{}) },
		} {
			require.NoError(t, publish())
			synctest.Wait()
			require.Len(t, y.Read(), len(want))
		}
		kit.Check(t, top)
		top.Close()
	})
}

func TestAttributesThatAPublishInterceptorSetsReachFiltersAndHandlers(t *testing.T) {
	kit.Bubble(t, func(t *testing.T, ctx context.Context) {
		y := kit.NewDiary()
		top := kit.NewTopic[int](t,
			fanout.WithPublishInterceptor(func(ctx context.Context, info fanout.Info, next func(context.Context) error) error {
				region, ok := info.Attribute("region")
				y.Note("publish: %q %t", region, ok)
				info.SetAttribute("trace", "t-17")
				trace, _ := info.Attribute("trace")
				y.Note("set: %q", trace)
				return next(ctx)
			}),
			fanout.WithHandlerInterceptor(func(ctx context.Context, info fanout.Info, next func(context.Context) error) error {
				trace, _ := info.Attribute("trace")
				info.SetAttribute("trace", "changed") // does nothing here
				y.Note("handle: %q", trace)
				return next(ctx)
			}))
		kit.Subscribe(t, top, "q", func(ctx context.Context, d fanout.Delivery[int]) error {
			y.Note("handler: %v", d.Attributes())
			return nil
		}, fanout.WithFilterPolicy(`{"trace": ["t-17"]}`))
		kit.Publish(t, top, 1)
		synctest.Wait()
		require.Equal(t, []string{`0s: publish: "" false`, `0s: set: "t-17"`, `0s: handle: "t-17"`, `0s: handler: map[trace:t-17]`}, y.Read())
		mine := map[string]string{"region": "eu"}
		kit.PublishAll(t, top, fanout.Message[int]{Body: 2, Attributes: mine}, fanout.Message[int]{Body: 3, Attributes: mine})
		synctest.Wait()
		require.Equal(t, []string{
			`0s: publish: "eu" true`, `0s: set: "t-17"`,
			`0s: handle: "t-17"`, `0s: handler: map[region:eu trace:t-17]`,
			`0s: handle: "t-17"`, `0s: handler: map[region:eu trace:t-17]`,
		}, y.Read(), "on all messages of a call")
		require.Equal(t, map[string]string{"region": "eu"}, mine, "the publisher's map is its own")
		kit.Check(t, top)
		top.Close()
	})
}

func TestAnInterceptorCanRefuseAPublishOrSkipAHandler(t *testing.T) {
	kit.Bubble(t, func(t *testing.T, ctx context.Context) {
		var refuse, skip, twice error
		calls := 1
		told := 0
		top := kit.NewTopic[int](t, fanout.WithHooks(fanout.Hooks{Published: func(fanout.Event) { told++ }}),
			fanout.WithPublishInterceptor(func(ctx context.Context, _ fanout.Info, next func(context.Context) error) error {
				for range calls {
					if err := next(ctx); err != nil {
						return err
					}
				}
				return refuse
			}))
		ran := 0
		s := kit.Subscribe(t, top, "q", func(ctx context.Context, d fanout.Delivery[int]) error { ran++; return twice },
			fanout.WithMaxAttempts(1), fanout.WithHandlerInterceptor(func(ctx context.Context, info fanout.Info, next func(context.Context) error) error {
				switch {
				case skip != nil:
					return skip
				case info.MessageID == "skip":
					return nil
				}
				return errors.Join(next(ctx), nil)
			}))
		kit.Publish(t, top, 1)
		synctest.Wait()
		require.Equal(t, [2]int{1, 1}, [2]int{ran, told})

		calls, refuse = 0, kit.ErrBusy // an error, and next was not called
		require.ErrorIs(t, top.Publish(ctx, 2), kit.ErrBusy)
		refuse = nil // no error: it publishes nothing
		require.NoError(t, top.Publish(ctx, 3))
		synctest.Wait()
		require.Equal(t, [2]int{1, 1}, [2]int{ran, told})

		calls = 1
		kit.PublishAll(t, top, fanout.Message[int]{ID: "skip"}) // nil acknowledges
		synctest.Wait()
		require.Equal(t, 1, ran)
		require.Equal(t, uint64(2), s.Queue().Stats().Acked)
		skip = fanout.Permanent(kit.ErrBusy) // its error settles as the handler's would
		kit.Publish(t, top, 4)
		synctest.Wait()
		require.Equal(t, 1, ran)
		require.Equal(t, uint64(1), s.Queue().Stats().PermanentlyFailed)
		skip, twice = nil, fanout.Snooze(time.Hour) // and an outcome goes through it
		kit.Publish(t, top, 5)
		synctest.Wait()
		require.Equal(t, 2, ran)
		require.Equal(t, 1, s.Queue().Stats().Delayed)
		kit.Check(t, top)

		_, err := fanout.NewTopic[int]("x", fanout.WithPublishInterceptor(nil))
		require.ErrorIs(t, err, fanout.ErrInvalidOption)
		_, err = fanout.NewTopic[int]("x", fanout.WithHandlerInterceptor(nil))
		require.ErrorIs(t, err, fanout.ErrInvalidOption)
		top.Close()
	})
}

func TestAnInterceptorCanBeAskedAboutNoMessages(t *testing.T) {
	kit.Bubble(t, func(t *testing.T, ctx context.Context) {
		called := 0
		top := kit.NewTopic[int](t, fanout.WithPublishInterceptor(func(ctx context.Context, info fanout.Info, next func(context.Context) error) error {
			called++
			_, ok := info.Attribute("region")
			require.False(t, ok)
			require.Zero(t, info.Messages)
			require.Empty(t, info.MessageID)
			require.Nil(t, info.Body())
			info.SetAttribute("region", "eu")
			return next(ctx)
		}))
		require.NoError(t, top.PublishMessages(ctx))
		require.Equal(t, 1, called)
		_, ok := fanout.Info{}.Attribute("region")
		require.False(t, ok)
		fanout.Info{}.SetAttribute("region", "eu") // nothing to set
		require.Nil(t, fanout.Info{}.Body())
		top.Close()
	})
}
