package oteltest

import (
	"context"
	"fmt"
	"maps"
	"runtime"
	"slices"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	sdktrace "go.opentelemetry.io/otel/sdk/trace"
	"go.opentelemetry.io/otel/trace"

	"github.com/gofanout/fanout"
	"github.com/gofanout/fanout/plugin/fanoutotel"
)

func TestSpansOfPublishesAndHandlers(t *testing.T) {
	on(t, places, func(t *testing.T, ctx context.Context, p *place) {
		b := newBenchAt(t, p)
		top := b.topic("payments")
		var snoozed atomic.Bool
		_, err := top.Subscribe(ctx, "q", func(ctx context.Context, d fanout.Delivery[int]) error {
			switch d.Body {
			case 2:
				if d.Attempt() == 1 {
					return errBusy
				}
			case 3:
				panic("oh")
			case 4:
				runtime.Goexit()
			case 5:
				return fanout.Permanent(errBusy)
			case 6:
				if snoozed.CompareAndSwap(false, true) {
					return fanout.Snooze(p.unit)
				}
			case 7:
				return d.Nack(ctx)
			case 8:
				<-ctx.Done()
			}
			return nil
		}, fanout.WithBackoff(fanout.Constant(p.unit)), fanout.WithVisibilityTimeout(10*p.unit), fanout.WithMaxAttempts(2))
		require.NoError(t, err)
		for k, ends := range [][]string{
			1: {"1 cause=acked"},
			2: {"1 cause=failed type=failed", "2 cause=acked"},
			3: {"1 cause=panicked type=panicked", "2 cause=panicked type=panicked"},
			4: {"1 cause=exited type=exited", "2 cause=exited type=exited"},
			5: {"1 cause=permanent type=permanent"},
			6: {"1 cause=snoozed", "1 cause=acked"},
			8: {"1 cause=timed out type=timed_out", "2 cause=timed out type=timed_out"},
		} {
			if ends == nil {
				continue
			}
			require.NoError(t, top.PublishMessages(ctx, fanout.Message[int]{Body: k, ID: fmt.Sprint("m", k)}))
			lines := []string{fmt.Sprintf("0 producer publish payments id=m%d", k)}
			for n, end := range ends {
				lines = append(lines, fmt.Sprintf("%d consumer process payments name=q id=m%d attempt=%s parent 0 link 0", n+1, k, end))
			}
			b.want(lines...)
		}
		require.NoError(t, top.PublishMessages(ctx, fanout.Message[int]{Body: 7, ID: "m7"}))
		b.want("0 producer publish payments id=m7",
			"1 consumer process payments name=q id=m7 attempt=1 cause=acked parent 0 link 0",
			"2 client nack payments name=q id=m7 attempt=1 cause=nacked parent 1 link 0",
			"3 consumer process payments name=q id=m7 attempt=2 cause=acked parent 0 link 0",
			"4 client nack payments name=q id=m7 attempt=2 cause=nacked parent 3 link 0")

		require.ErrorIs(t, top.PublishMessages(ctx, fanout.Message[int]{Delay: -1}), fanout.ErrInvalidMessage)
		b.end(top)
		require.ErrorIs(t, top.Publish(ctx, 9), fanout.ErrClosed)
		closed := b.spans()
		require.Len(t, closed, 1, "the message that can't be has none")
		require.Equal(t, "closed", attributesOf(closed[0])["error.type"])
		b.checkMetrics()
	})
}

func TestMessagesAreCountedOnceSentAndOnceADelivery(t *testing.T) {
	on(t, places, func(t *testing.T, ctx context.Context, p *place) {
		b := newBenchAt(t, p)
		top := b.topic("payments")
		q, err := top.OpenQueue(ctx, "pulled")
		require.NoError(t, err)
		var handled atomic.Int64
		_, err = top.SubscribeBatch(ctx, "pushed", func(ctx context.Context, ds []fanout.Delivery[int]) error {
			handled.Add(int64(len(ds)))
			return nil
		})
		require.NoError(t, err)
		require.NoError(t, top.PublishMessages(ctx, fanout.Message[int]{}, fanout.Message[int]{}, fanout.Message[int]{}))
		for n := 0; n < 3; {
			ds, err := q.ReceiveBatch(ctx, 3)
			require.NoError(t, err)
			require.NoError(t, q.AckBatch(ctx, ds...))
			n += len(ds)
		}
		p.wait(t, func() bool { return handled.Load() == 3 })
		b.end(top)
		require.EqualValues(t, 3, b.sum("messaging.client.sent.messages"))
		require.EqualValues(t, 6, b.sum("messaging.client.consumed.messages"))
		b.spans()
		b.checkMetrics()
	})
}

// ready waits until a queue has n messages to receive.
func (p *place) ready(t *testing.T, q *fanout.Queue[int], n int) {
	t.Helper()
	p.wait(t, func() bool {
		d, err := q.Depth(t.Context())
		return err == nil && d.Ready == n
	})
}

// dead waits until a queue has n dead letters.
func (p *place) dead(t *testing.T, q *fanout.Queue[int], n int) {
	t.Helper()
	p.wait(t, func() bool {
		d, err := q.Depth(t.Context())
		return err == nil && d.Dead == n
	})
}

func TestSpansOfPullConsumers(t *testing.T) {
	on(t, places, func(t *testing.T, ctx context.Context, p *place) {
		b := newBenchAt(t, p)
		top := b.topic("payments")
		q, err := top.OpenQueue(ctx, "q", fanout.WithMaxAttempts(1))
		require.NoError(t, err)
		send := func(ids ...string) {
			for _, id := range ids {
				require.NoError(t, top.PublishMessages(ctx, fanout.Message[int]{ID: id}))
			}
		}
		send("a")
		d, err := q.Receive(ctx)
		require.NoError(t, err)
		require.NoError(t, d.Extend(ctx, time.Minute))
		require.NoError(t, d.Ack(ctx))
		require.ErrorIs(t, d.Ack(ctx), fanout.ErrSettled)
		_, ok, err := q.TryReceive(ctx)
		require.False(t, ok)
		require.NoError(t, err, "a look at an empty queue is no span")
		b.want("0 producer publish payments id=a", "1 client receive payments name=q id=a attempt=1 link 0", "2 client extend payments name=q id=a attempt=1 link 0",
			"3 client ack payments name=q id=a attempt=1 cause=acked link 0", "4 client ack payments name=q id=a attempt=1 cause=acked type=settled link 0")

		send("b")
		p.ready(t, q, 1)
		send("c")
		for d, err := range q.Deliveries(ctx) {
			require.NoError(t, err)
			require.NoError(t, d.Settle(ctx, errBusy))
			if d.ID() == "c" {
				break
			}
		}
		p.dead(t, q, 2)
		n, err := q.Redrive(ctx)
		require.NoError(t, err)
		require.Equal(t, 2, n)
		p.ready(t, q, 2)
		ds, err := q.ReceiveBatch(ctx, 5)
		require.NoError(t, err)
		require.Len(t, ds, 2)
		x, y := "id=b attempt=1", "id=c attempt=1"
		links := []string{"link 0", "link 1"}
		if ds[0].ID() == "c" {
			x, y = y, x
			slices.Reverse(links)
		}
		if p.virtual {
			time.Sleep(time.Millisecond) // for spans to have an order
		}
		require.NoError(t, ds[0].Release(ctx))
		if p.virtual {
			time.Sleep(time.Millisecond)
		}
		require.NoError(t, ds[1].Settle(ctx, fanout.Snooze(time.Minute)))
		b.want("0 producer publish payments id=b", "1 producer publish payments id=c",
			"2 client receive payments name=q id=b attempt=1 link 0", "3 client nack payments name=q id=b attempt=1 cause=failed link 0",
			"4 client receive payments name=q id=c attempt=1 link 1", "5 client nack payments name=q id=c attempt=1 cause=failed link 1",
			"6 internal redrive payments name=q message_count=2", "7 client receive payments name=q message_count=2 "+links[0]+" "+links[1],
			"8 client release payments name=q "+x+" cause=released "+links[0], "9 client snooze payments name=q "+y+" cause=snoozed "+links[1])
		soon, cancel := context.WithCancel(ctx)
		cancel()
		_, err = q.Receive(soon)
		require.Error(t, err)
		b.want("0 client receive payments name=q type=canceled")
		b.checkMetricsOf("messaging.client.operation.duration", "messaging.client.sent.messages", "messaging.client.consumed.messages")
		b.end(top)
	})
}

func TestABatchHasASpanForEachMessageAndLinks(t *testing.T) {
	for name, c := range map[string]struct {
		options []fanoutotel.Option
		want    []string
		links   [2]int // of the handler's span
	}{
		"with":    {nil, []string{"0 producer create payments id=a", "1 producer create payments id=b", "2 client publish payments message_count=2 link 0 link 1"}, [2]int{0, 1}},
		"without": {[]fanoutotel.Option{fanoutotel.WithoutCreateSpans()}, []string{"0 producer publish payments message_count=2"}, [2]int{0, 0}},
	} {
		t.Run(name, func(t *testing.T) {
			on(t, places, func(t *testing.T, ctx context.Context, p *place) {
				b := newBenchAt(t, p, c.options...)
				top := b.topic("payments")
				q, err := top.OpenQueue(ctx, "q")
				require.NoError(t, err)
				require.NoError(t, top.PublishMessages(ctx, fanout.Message[int]{ID: "a", Body: 0}, fanout.Message[int]{ID: "b", Body: 1}))
				sent := b.want(c.want...)
				p.ready(t, q, 2)
				_, err = q.SubscribeBatch(ctx, func(context.Context, []fanout.Delivery[int]) error { return nil })
				require.NoError(t, err)
				handled := b.want("0 consumer process payments name=q message_count=2 cause=acked link ? link ?")
				var want, got []trace.SpanID
				for k, l := range c.links {
					want = append(want, sent[l].SpanContext().SpanID())
					got = append(got, handled[0].Links()[k].SpanContext.SpanID())
				}
				require.ElementsMatch(t, want, got)
				b.end(top)
			})
		})
	}
}

func TestOneTraceFromThePublisherToTheHandlerOfWhatItsHandlerPublishes(t *testing.T) {
	on(t, places, func(t *testing.T, ctx context.Context, p *place) {
		b := newBenchAt(t, p)
		orders, parcels := b.topic("orders"), b.topic("parcels")
		_, err := orders.Subscribe(ctx, "ship", func(ctx context.Context, d fanout.Delivery[int]) error { return parcels.Publish(ctx, d.Body) })
		require.NoError(t, err)
		_, err = parcels.Subscribe(ctx, "carry", func(context.Context, fanout.Delivery[int]) error { return nil })
		require.NoError(t, err)
		request, root := b.tracers.Tracer("test").Start(ctx, "request")
		require.NoError(t, orders.Publish(request, 1))
		p.wait(t, func() bool { return len(b.recorder.Ended()) == 4 })
		parent := root.SpanContext().SpanID()
		byName := map[string]sdktrace.ReadOnlySpan{}
		for _, s := range b.spans() {
			byName[s.Name()] = s
		}
		for _, name := range []string{"publish orders", "process orders", "publish parcels", "process parcels"} {
			s := byName[name]
			require.NotNil(t, s, name)
			require.Equal(t, root.SpanContext().TraceID(), s.SpanContext().TraceID(), name)
			require.Equal(t, parent, s.Parent().SpanID(), name)
			parent = s.SpanContext().SpanID()
		}
		b.end(orders)
		b.end(parcels)
	})
}

func TestAFanOutToThreeQueuesIsOneTrace(t *testing.T) {
	on(t, places, func(t *testing.T, ctx context.Context, p *place) {
		b := newBenchAt(t, p)
		top := b.topic("payments")
		for _, name := range []string{"a", "b", "c"} {
			_, err := top.Subscribe(ctx, name, func(context.Context, fanout.Delivery[int]) error { return nil })
			require.NoError(t, err)
		}
		require.NoError(t, top.Publish(ctx, 1))
		p.wait(t, func() bool { return len(b.recorder.Ended()) == 4 })
		spans := b.spans()
		require.Len(t, spans, 4)
		sent := spans[slices.IndexFunc(spans, func(s sdktrace.ReadOnlySpan) bool { return s.SpanKind() == trace.SpanKindProducer })]
		queues := map[string]bool{}
		for _, s := range spans {
			if s.SpanKind() == trace.SpanKindConsumer {
				require.Equal(t, sent.SpanContext().SpanID(), s.Parent().SpanID())
				require.Equal(t, sent.SpanContext().TraceID(), s.SpanContext().TraceID())
				queues[attributesOf(s)["messaging.destination.subscription.name"]] = true
			}
		}
		require.Equal(t, []string{"a", "b", "c"}, slices.Sorted(maps.Keys(queues)))
		b.end(top)
	})
}

// TestARedriveAfterAnHourBeginsATraceOfItsOwnWithALink; where time is real, the age that
// makes the difference is moved instead.
func TestARedriveAfterAnHourBeginsATraceOfItsOwnWithALink(t *testing.T) {
	on(t, places, func(t *testing.T, ctx context.Context, p *place) {
		for _, child := range []bool{false, true} {
			after, age := time.Hour, 5*time.Minute
			switch {
			case p.virtual && child:
				after = time.Minute
			case !p.virtual && child:
				after, age = 0, time.Hour
			case !p.virtual:
				after, age = 0, time.Nanosecond
			}
			b := newBenchAt(t, p, fanoutotel.WithMaxParentAge(age))
			top := b.topic("payments")
			var mended atomic.Bool
			s, err := top.Subscribe(ctx, "q", func(context.Context, fanout.Delivery[int]) error {
				if !mended.Load() {
					return fanout.Permanent(errBusy)
				}
				return nil
			})
			require.NoError(t, err)
			require.NoError(t, top.Publish(ctx, 1))
			p.dead(t, s.Queue(), 1)
			time.Sleep(after) // virtual: 0 where time is real
			mended.Store(true)
			n, err := s.Queue().Redrive(ctx)
			require.NoError(t, err)
			require.Equal(t, 1, n)
			p.wait(t, func() bool { return len(b.recorder.Ended()) == 4 })
			spans := b.spans()
			require.Len(t, spans, 4)
			sent, last := spans[0].SpanContext(), spans[3]
			require.Equal(t, "process payments", last.Name())
			require.Equal(t, child, last.SpanContext().TraceID() == sent.TraceID(), after)
			require.Equal(t, sent.SpanID(), last.Links()[0].SpanContext.SpanID())
			require.Equal(t, "redrive payments", spans[2].Name())
			b.end(top)
		}
	})
}
