package fanout

import (
	"context"
	"fmt"
	"io"
	"log/slog"
	"maps"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"
)

// line is all that an interceptor can read of message k.
func (i Info) line(k int) string {
	m := i.Message(k)
	s := fmt.Sprintf("%s %v %q %d %v %v", m.ID(), m.Body(), m.OrderingKey(), m.Attempt(), m.PublishedAt().UnixMilli(), maps.Collect(m.Attributes()))
	return s
}

func TestInterceptorsSeeEachMessageOfABatch(t *testing.T) {
	bubble(t, func(t *testing.T, ctx context.Context) {
		var mu sync.Mutex
		seen := map[Operation][]string{}
		note := func(ctx context.Context, info Info, next func(context.Context) error) error {
			mu.Lock()
			require.Equal(t, info.Messages, info.Len())
			for k := range info.Len() {
				seen[info.Operation] = append(seen[info.Operation], info.line(k))
			}
			mu.Unlock()
			return next(ctx)
		}
		top := newTopic[int](t, WithOrdering(), WithPublishInterceptor(note), WithHandlerInterceptor(note))
		subscribeBatch(t, top, "q", func(ctx context.Context, ds []Delivery[int]) error {
			if ds[0].Attempt() == 1 {
				return errBusy
			}
			return nil
		}, WithBackoff(Constant(time.Second)))
		publishAll(t, top,
			Message[int]{Body: 1, ID: "a", Attributes: map[string]string{"n": "1"}},
			Message[int]{Body: 2, ID: "b", Attributes: map[string]string{"n": "2"}},
			Message[int]{Body: 3, ID: "c", OrderingKey: "k"})
		synctest.Wait()
		at := time.Now().UnixMilli()
		require.Equal(t, []string{`a 1 "" 0 -62135596800000 map[n:1]`, `b 2 "" 0 -62135596800000 map[n:2]`, `c 3 "k" 0 -62135596800000 map[]`}, seen[OpPublish])
		first := []string{fmt.Sprintf(`a 1 "" 1 %d map[n:1]`, at), fmt.Sprintf(`b 2 "" 1 %d map[n:2]`, at), fmt.Sprintf(`c 3 "k" 1 %d map[]`, at)}
		require.Equal(t, first, seen[OpHandle])
		elapse(time.Second)
		for k := range first {
			first[k] = strings.Replace(first[k], `" 1 `, `" 2 `, 1)
		}
		require.ElementsMatch(t, first, seen[OpHandle][3:])
		check(t, top)
		require.NoError(t, top.Close())
	})
}

func TestIDsAreFixedBeforePublishInterceptorsRun(t *testing.T) {
	bubble(t, func(t *testing.T, ctx context.Context) {
		var ids, told []string
		again := false
		top := newTopic[int](t, WithHooks(Hooks{Published: func(e Event) { told = append(told, e.MessageID) }}),
			WithPublishInterceptor(func(ctx context.Context, info Info, next func(context.Context) error) error {
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
		q := openQueue(t, top, "q")
		publish(t, top, 1)
		require.NoError(t, top.TryPublish(ctx, 2))
		publishAll(t, top, Message[int]{Body: 3}, Message[int]{Body: 4, ID: "mine"}, Message[int]{Body: 5, Delay: time.Hour})
		elapse(time.Hour)
		require.Equal(t, ids, told)
		require.Equal(t, "mine", ids[3])
		have := map[string]bool{}
		for _, id := range ids {
			d := receive(t, q)
			require.Contains(t, ids, d.ID())
			require.NotEmpty(t, id)
			require.NoError(t, d.Nack(ctx))
			have[d.ID()] = true
		}
		require.Len(t, have, 5)
		elapse(time.Minute)
		for range ids {
			d := receive(t, q)
			require.True(t, have[d.ID()])
			require.Equal(t, 2, d.Attempt())
			require.NoError(t, d.Ack(ctx))
		}

		ids, again = nil, true
		publish(t, top, 6)
		first, second := receive(t, q), receive(t, q)
		require.Equal(t, []string{first.ID(), first.ID()}, []string{ids[0], second.ID()}, "published again, it has the same ID")
		require.Nil(t, first.Attributes(), "what has been published does not change any more")
		require.Equal(t, map[string]string{"again": "yes"}, second.Attributes())
		check(t, top)
		require.NoError(t, top.Close())
	})
}

func TestAnInterceptorSetsAnAttributeOfOneMessageIfItHasNone(t *testing.T) {
	bubble(t, func(t *testing.T, ctx context.Context) {
		var set []bool
		top := newTopic[int](t, WithPublishInterceptor(func(ctx context.Context, info Info, next func(context.Context) error) error {
			for k := range info.Len() {
				set = append(set, info.Message(k).SetAttribute("traceparent", fmt.Sprint("own ", k)))
			}
			info.SetAttribute("region", "eu")
			return next(ctx)
		}), WithHandlerInterceptor(func(ctx context.Context, info Info, next func(context.Context) error) error {
			require.False(t, info.Message(0).SetAttribute("late", "1"))
			return next(ctx)
		}))
		q := openQueue(t, top, "q")
		mine := map[string]string{"traceparent": "the user's"}
		publishAll(t, top, Message[int]{Attributes: mine}, Message[int]{}, Message[int]{ID: "c", Attributes: map[string]string{"region": "us"}})
		require.Equal(t, []bool{false, true, true}, set)
		for _, want := range []map[string]string{
			{"traceparent": "the user's", "region": "eu"}, {"traceparent": "own 1", "region": "eu"}, {"traceparent": "own 2", "region": "us"},
		} {
			require.Equal(t, want, receive(t, q).Attributes())
		}
		require.Len(t, mine, 1, "the publisher's map is its own")
		require.NoError(t, top.Close())
	})
}

func TestAnAttributeThatAnInterceptorCanNotSetIsAnInvalidMessage(t *testing.T) {
	for name, a := range map[string][2]string{"no name": {"", "1"}, "a name": {"\xff", "1"}, "a value": {"ok", "\xff"}} {
		t.Run(name, func(t *testing.T) {
			top := newTopic[int](t, WithPublishInterceptor(func(ctx context.Context, info Info, next func(context.Context) error) error {
				require.False(t, info.Message(1).SetAttribute(a[0], a[1]))
				return next(ctx)
			}))
			q := openQueue(t, top, "q")
			err := top.PublishMessages(t.Context(), Message[int]{}, Message[int]{})
			require.ErrorIs(t, err, ErrInvalidMessage)
			require.ErrorContains(t, err, "message 1: an interceptor: ")
			requireEmpty(t, q)
			require.NoError(t, top.Close())
		})
	}
}

func TestMessagesThatAreNotThereHaveNothing(t *testing.T) {
	for _, m := range []MessageInfo{{}, Info{}.Message(0), Info{Operation: OpRedrive, about: new(redrivenCount)}.Message(0), Info{}.Message(-1)} {
		require.Empty(t, m.ID())
		require.Nil(t, m.Body())
		require.Zero(t, m.Attempt())
		require.Empty(t, m.OrderingKey())
		require.True(t, m.PublishedAt().IsZero())
		require.False(t, m.SetAttribute("a", "1"))
		_, ok := m.Attribute("a")
		require.False(t, ok)
		require.Empty(t, maps.Collect(m.Attributes()))
	}
	require.Equal(t, "settle", OpSettle.String())
	require.Equal(t, "Operation(99)", Operation(99).String())
}

// calls is a queue interceptor that notes what it sees.
type calls struct {
	mu    sync.Mutex
	lines []string
}

func (c *calls) around(ctx context.Context, info Info, next func(context.Context) error) error {
	before := info.Len()
	err := next(ctx)
	c.mu.Lock()
	defer c.mu.Unlock()
	line := fmt.Sprintf("%v %s", info.Operation, info.Queue)
	if info.Operation == OpReceive {
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

func (c *calls) read() []string {
	c.mu.Lock()
	defer c.mu.Unlock()
	lines := c.lines
	c.lines = nil
	return lines
}

func TestQueueInterceptorsStandAroundWhatCallersDo(t *testing.T) {
	bubble(t, func(t *testing.T, ctx context.Context) {
		c := new(calls)
		top := newTopic[int](t, WithQueueInterceptor(c.around))
		q := openQueue(t, top, "q", WithMaxAttempts(2), WithBackoff(Constant(time.Second)))
		send := func(ids ...string) {
			for _, id := range ids {
				publishAll(t, top, Message[int]{ID: id})
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
		into := make([]Delivery[int], 1)
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
		}, c.read())

		require.NoError(t, a.Extend(ctx, time.Minute))
		require.NoError(t, a.Ack(ctx))
		require.ErrorIs(t, a.Ack(ctx), ErrSettled)
		require.NoError(t, b.Settle(ctx, Permanent(errBusy)))
		require.NoError(t, cd[0].NackAfter(ctx, time.Hour))
		require.NoError(t, cd[1].Release(ctx))
		require.NoError(t, q.AckBatch(ctx, into...))
		require.Equal(t, []string{
			"extend q a/1", "settle q acked a/1", `settle q acked a/1 fanout: delivery already settled: queue "q"`, "settle q permanent b/1",
			"settle q nacked c/1", "settle q released d/1", "settle q acked e/1",
		}, c.read())

		letter, err := q.DeadLetters().Receive(ctx)
		require.NoError(t, err)
		require.NoError(t, letter.Release(ctx))
		moved, err := q.Redrive(ctx)
		require.NoError(t, err)
		require.Equal(t, 1, moved)
		_, err = q.Redrive(ctx, RedriveIDs("none"))
		require.ErrorIs(t, err, ErrUnknownID)
		lines := c.read()
		require.Equal(t, []string{"receive q/dead 1: b/1 (0 before)", "settle q/dead released b/1", "redrive q (0 before)"}, lines[:3])
		require.ErrorContains(t, err, strings.TrimPrefix(lines[3], "redrive q "))

		subscribe(t, top, "w", handleNothing)
		send("x")
		synctest.Wait()
		require.Empty(t, c.read(), "workers prefetch, and settle by themselves")
		check(t, top)
		require.NoError(t, top.Close())
		_, err = q.Receive(ctx)
		require.ErrorIs(t, err, ErrClosed)
		for range q.Deliveries(ctx) {
			require.Fail(t, "a delivery of a closed queue")
		}
		require.Len(t, c.read(), 2)
	})
}

func TestQueueInterceptorsStandAroundSharedDeadLetters(t *testing.T) {
	c := new(calls)
	d, err := NewDeadLetterQueue[int]("shared", WithQueueInterceptor(c.around))
	require.NoError(t, err)
	top := newTopic[int](t)
	q := openQueue(t, top, "q", WithDeadLetterQueue(d))
	publishAll(t, top, Message[int]{ID: "a"})
	require.NoError(t, receive(t, q).Settle(t.Context(), Permanent(errBusy)))
	require.NoError(t, receive(t, d).Ack(t.Context()))
	require.Equal(t, []string{"receive shared 1: a/1 (0 before)", "settle shared acked a/1"}, c.read())
	require.NoError(t, top.Close())
	require.NoError(t, d.Close())
	_, err = NewTopic[int]("x", WithQueueInterceptor(c.around, nil))
	require.ErrorContains(t, err, "WithQueueInterceptor")
}

// What was received for nobody is given back.
func TestAQueueInterceptorThatFailsLosesNothing(t *testing.T) {
	bubble(t, func(t *testing.T, ctx context.Context) {
		var do func(ctx context.Context, info Info, next func(context.Context) error) error
		top := newTopic[int](t, WithQueueInterceptor(func(ctx context.Context, info Info, next func(context.Context) error) error {
			if info.Operation == OpReceive {
				return do(ctx, info, next)
			}
			return next(ctx)
		}))
		q := openQueue(t, top, "q")
		publish(t, top, 1, 2)
		isBack := func() {
			t.Helper()
			require.Equal(t, []int{2, 0}, []int{q.Stats().Ready, q.Stats().InFlight})
		}
		do = func(ctx context.Context, info Info, next func(context.Context) error) error {
			require.NoError(t, next(ctx))
			require.Equal(t, 1, info.Len())
			return errBusy
		}
		_, err := q.Receive(ctx)
		require.Equal(t, errBusy, err)
		isBack()
		_, _, err = q.TryReceive(ctx)
		require.Equal(t, errBusy, err)
		isBack()
		for _, err := range q.Deliveries(ctx) {
			require.Equal(t, errBusy, err)
		}
		isBack()
		do = func(ctx context.Context, info Info, next func(context.Context) error) error {
			require.NoError(t, next(ctx))
			panic("oh")
		}
		require.Panics(t, func() { _, _ = q.Receive(ctx) })
		isBack()
		do = func(context.Context, Info, func(context.Context) error) error { return nil }
		_, err = q.Receive(ctx)
		require.ErrorIs(t, err, ErrUnsupported)
		_, ok, err := q.TryReceive(ctx)
		require.False(t, ok)
		require.NoError(t, err)
		do = func(_ context.Context, _ Info, next func(context.Context) error) error { return next(nil) }
		_, err = q.Receive(ctx)
		require.ErrorIs(t, err, ErrInvalidOption)
		do = func(ctx context.Context, info Info, next func(context.Context) error) error {
			require.NoError(t, next(ctx))
			return next(ctx)
		}
		d, err := q.Receive(ctx)
		require.NoError(t, err)
		require.Equal(t, 1, d.Body)
		require.Equal(t, 1, q.Stats().InFlight)
		require.Equal(t, 1, d.Attempt())
		check(t, top)
		require.NoError(t, top.Close())
	})
}

func TestReadingInfoAllocatesNothing(t *testing.T) {
	sum := 0
	read := func(info Info) {
		for k := range info.Len() {
			m := info.Message(k)
			v, _ := m.Attribute("a")
			sum += len(m.ID()) + len(v) + len(m.OrderingKey()) + m.Attempt() + m.PublishedAt().Nanosecond()
		}
	}
	var mu sync.Mutex // one measures at a time: a worker does, too
	reads := map[Operation]float64{}
	measure := func(ctx context.Context, info Info, next func(context.Context) error) error {
		err := next(ctx)
		mu.Lock()
		defer mu.Unlock()
		reads[info.Operation] = testing.AllocsPerRun(100, func() { read(info) })
		return err
	}
	top := newTopic[int](t, WithPublishInterceptor(measure), WithQueueInterceptor(measure), WithHandlerInterceptor(measure))
	q := openQueue(t, top, "q")
	subscribe(t, top, "w", handleNothing)
	publishAll(t, top, Message[int]{Attributes: map[string]string{"a": "1"}}, Message[int]{})
	d := receive(t, q)
	require.NoError(t, d.Extend(t.Context(), time.Minute))
	require.NoError(t, d.Ack(t.Context()))
	require.NoError(t, receive(t, q).Ack(t.Context()))
	require.NoError(t, top.Shutdown(t.Context()))
	require.Equal(t, map[Operation]float64{OpPublish: 0, OpHandle: 0, OpReceive: 0, OpExtend: 0, OpSettle: 0}, reads)
	require.NotZero(t, sum)
}

func TestSettingAnAttributeAllocatesAtMostTheMap(t *testing.T) {
	top := newTopic[int](t)
	one := func(x *extra) *offered[int] { return &offered[int]{items: []item[int]{{ext: x}}} }
	const runs = 100
	var empty, full [runs + 1]*offered[int]
	for k := range empty {
		empty[k] = one(&extra{id: "a"})
		full[k] = one(&extra{id: "a", attributes: map[string]string{"a": "1"}})
	}
	set := func(os []*offered[int]) float64 {
		n := 0
		return testing.AllocsPerRun(runs, func() {
			i := os[n].info("t")
			if !i.Message(0).SetAttribute("traceparent", "x") || i.Message(0).SetAttribute("traceparent", "y") {
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
	require.NoError(t, top.Close())
}

func TestCauseOfIsWhatTheQueueCounts(t *testing.T) {
	for want, err := range map[Cause]error{
		Acked: nil, Failed: errBusy, PermanentlyFailed: Permanent(errBusy), Snoozed: Snooze(time.Second), Released: fmt.Errorf("%w", ErrClosed),
	} {
		require.Equal(t, want, CauseOf(err))
	}
	require.Equal(t, Failed, CauseOf(RetryAfter(errBusy, time.Second)))
	require.Equal(t, Released, CauseOf(Release(errBusy)))
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
	m, ok := MessageFromContext(ctx)
	h.told = append(h.told, fmt.Sprintf("%s: %t %s %d %v %v", strings.TrimPrefix(r.Message, "fanout: "), ok, m.ID(), m.Attempt(), m.Body(), maps.Collect(m.Attributes())))
	return nil
}

func TestLogLinesHaveTheirMessageInTheContext(t *testing.T) {
	bubble(t, func(t *testing.T, ctx context.Context) {
		h := &contextHandler{Handler: slog.NewTextHandler(io.Discard, nil)}
		top := newTopic[int](t, WithLogger(slog.New(h)))
		q := openQueue(t, top, "q")
		publishAll(t, top, Message[int]{ID: "a", Attributes: map[string]string{"traceparent": "x"}})
		require.NoError(t, receive(t, q).Settle(ctx, Permanent(errBusy)))
		publish(t, top, 1)
		_, err := q.Purge(ctx)
		require.NoError(t, err)
		elapse(time.Second)
		require.Equal(t, []string{"messages went to the dead-letter queue: true a 1 <nil> map[traceparent:x]", "messages dropped: false  0 <nil> map[]"}, h.told)
		require.NoError(t, top.Close())
	})
}
