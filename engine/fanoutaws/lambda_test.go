package fanoutaws

import (
	"context"
	"encoding/json"
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
	"github.com/gofanout/fanout/engine"
)

// A paid is what the events of these tests carry.
type paid struct {
	Order int `json:"order"`
}

var errBusy = errors.New("the warehouse is busy")

// function makes a function of a handler as a user does: a topic on the engine
// that it is given, with one subscriber.
func function(f *sqsFake, handle fanout.Handler[paid], options ...fanout.SubscribeOption) func(context.Context, SQSEvent) (SQSResponse, error) {
	return functionOf(f, nil, handle, options...)
}

func functionOf[T any](f *sqsFake, on []fanout.TopicOption, handle fanout.Handler[T], options ...fanout.SubscribeOption) func(context.Context, SQSEvent) (SQSResponse, error) {
	_, queues := clientsOf("http://aws.invalid", &f.fake)
	return LambdaHandler(queues, func(ctx context.Context, e engine.Engine) (*fanout.Topic[T], error) {
		base := []fanout.TopicOption{fanout.WithEngine(e, fanout.Without(engine.Bounded, engine.AllOrNone)), fanout.WithLogger(slog.New(slog.DiscardHandler))}
		payments, err := fanout.NewTopic[T]("payments", append(base, on...)...)
		if err == nil {
			_, err = payments.Subscribe(ctx, "inventory", handle, options...)
		}
		return payments, err
	})
}

// paidOrders makes an event of n messages, id1 to idn, that are paid orders 1 to n.
func paidOrders(t testing.TB, file string, n int) SQSEvent {
	e := numbered(event(t, file), n)
	for k := range e.Records {
		e.Records[k].Body = fmt.Sprintf(`{"order":%d}`, k+1)
	}
	return e
}

// seen is what handlers were given, by any of them.
type seen struct {
	mu  sync.Mutex // guards the field below
	all []fanout.Delivery[paid]
}

func (s *seen) add(d fanout.Delivery[paid]) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.all = append(s.all, d)
}

func (s *seen) orders() (orders []int) {
	for _, d := range s.all {
		orders = append(orders, d.Body.Order)
	}
	return orders
}

// letters returns the packs of the dead letters that were sent.
func (f *sqsFake) letters(t testing.TB) (ps []pack) {
	t.Helper()
	f.fake.mu.Lock()
	defer f.fake.mu.Unlock()
	for k, op := range f.calls {
		if op != "SendMessageBatch" {
			continue
		}
		for _, e := range f.ins[k]["Entries"].([]any) {
			value := e.(map[string]any)["MessageAttributes"].(map[string]any)[packName].(map[string]any)["StringValue"].(string)
			var p pack
			require.NoError(t, json.Unmarshal([]byte(value), &p))
			ps = append(ps, p)
		}
	}
	return ps
}

// settled is what SQS was asked to do, but for looking the queues up, sorted.
func (f *sqsFake) settled() map[string][]string {
	f.fake.mu.Lock()
	defer f.fake.mu.Unlock()
	for _, what := range f.done {
		slices.Sort(what)
	}
	return f.done
}

func TestAFunctionHandlesAWholeEvent(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newSQSFake()
		var s seen
		var queue string
		handle := function(f, func(_ context.Context, d fanout.Delivery[paid]) error { queue = d.Queue(); s.add(d); return nil })
		for range 3 { // a function is kept for many events, and looks its queue up once
			r, err := handle(t.Context(), paidOrders(t, "standard.json", 10))
			require.NoError(t, err)
			b, err := json.Marshal(r)
			require.NoError(t, err)
			require.JSONEq(t, `{"batchItemFailures":[]}`, string(b))
		}
		orders := s.orders()
		slices.Sort(orders)
		require.Len(t, orders, 30)
		require.Equal(t, []int{1, 1, 1, 2, 2, 2, 3}, orders[:7])
		require.Equal(t, "inventory", queue)
		require.Equal(t, 1, s.all[0].Attempt())
		require.Empty(t, s.all[0].History())
		value, ok := s.all[0].Attribute("myAttribute")
		require.True(t, ok)
		require.Equal(t, "myValue", value)
		require.Equal(t, time.UnixMilli(1545082649183).UTC(), s.all[0].PublishedAt().UTC())
		require.Empty(t, f.settled(), "Lambda deletes")
		require.Equal(t, 2, f.count("GetQueueUrl"), "the queue's and its dead-letter queue's")

		r, err := handle(t.Context(), SQSEvent{})
		require.NoError(t, err)
		require.NotNil(t, r.BatchItemFailures, "null would fail the whole event")
		require.Empty(t, r.BatchItemFailures)
	})
}

// text is a codec for bodies that are text, as those of AWS's documentation.
type text struct{}

func (text) Encode(body any) ([]byte, error)    { return []byte(body.(string)), nil }
func (text) Decode(data []byte, body any) error { *body.(*string) = string(data); return nil }
func (text) ContentType() string                { return "text/plain" }

func TestAFunctionReadsTheDocumentedEvents(t *testing.T) {
	for file, ids := range map[string][]string{
		"standard.json": {"059f36b4-87a3-44ab-83d2-661975830a7d", "2e1424d4-f796-459a-8184-9c92662be6da"},
		"fifo.json":     {"11d6ee51-4cc7-4302-9e22-7cd8afdaadf5"},
	} {
		synctest.Test(t, func(t *testing.T) {
			f := newSQSFake()
			got := make(chan fanout.Delivery[string], 10)
			handle := functionOf(f, []fanout.TopicOption{fanout.WithCodec(text{})}, func(_ context.Context, d fanout.Delivery[string]) error {
				got <- d
				return errBusy
			}, fanout.WithBackoff(fanout.Constant(7*time.Second)))
			r, err := handle(t.Context(), event(t, file))
			require.NoError(t, err)
			require.Equal(t, ids, failures(r), file)
			close(got)
			var came []string
			for d := range got {
				require.Equal(t, "Test message.", d.Body)
				came = append(came, d.ID())
			}
			slices.Sort(came)
			require.Equal(t, ids, came)
			require.Len(t, f.settled()["ChangeMessageVisibilityBatch"], len(ids))
		})
	}
}

// TestEachOutcomeOfAHandler has one message of an event end in each way.
func TestEachOutcomeOfAHandler(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newSQSFake()
		handle := function(f, func(ctx context.Context, d fanout.Delivery[paid]) error {
			switch d.Body.Order {
			case 2:
				return errBusy
			case 3:
				return fanout.RetryAfter(errBusy, 90*time.Second)
			case 4:
				return fanout.Snooze(time.Hour)
			case 5:
				return fanout.Permanent(errors.New("no such product"))
			case 6:
				panic("out of order")
			case 7:
				return d.NackAfter(ctx, 3*time.Second)
			case 8:
				return d.Ack(ctx)
			case 9:
				return d.Settle(ctx, fanout.RetryAfter(errBusy, 11*time.Second))
			}
			return nil
		}, fanout.WithBackoff(fanout.Constant(40*time.Second)), fanout.WithConcurrency(3))
		e := paidOrders(t, "standard.json", 11)
		e.Records[10].Body = "this is no JSON"
		r, err := handle(t.Context(), e)
		require.NoError(t, err)
		require.Equal(t, []string{"id2", "id3", "id4", "id6", "id7", "id9"}, failures(r))
		require.Equal(t, map[string][]string{
			"ChangeMessageVisibilityBatch": {"handle2 40s", "handle3 90s", "handle4 3600s", "handle6 40s", "handle7 3s", "handle9 11s"},
			"SendMessageBatch":             {"http://aws.invalid/dead-my-queue", "http://aws.invalid/dead-my-queue"},
			"DeleteMessageBatch":           {"handle11", "handle5"},
		}, f.settled())
		letters := f.letters(t)
		slices.SortFunc(letters, func(a, b pack) int { return strings.Compare(a.ID, b.ID) })
		require.Equal(t, "id11", letters[0].ID)
		require.Contains(t, string(letters[0].State), "decode")
		require.Equal(t, "id5", letters[1].ID)
		require.Contains(t, string(letters[1].State), "no such product")
	})
}

func TestAFunctionCountsAttemptsByReceives(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newSQSFake()
		var s seen
		handle := function(f, func(_ context.Context, d fanout.Delivery[paid]) error { s.add(d); return errBusy },
			fanout.WithMaxAttempts(3), fanout.WithBackoff(fanout.Exponential(time.Minute, time.Hour)))
		e := paidOrders(t, "standard.json", 4)
		for k := range e.Records {
			e.Records[k].Attributes["ApproximateReceiveCount"] = fmt.Sprint(k + 1)
		}
		r, err := handle(t.Context(), e)
		require.NoError(t, err)
		require.Equal(t, []string{"id1", "id2"}, failures(r))
		attempts := map[int]int{}
		for _, d := range s.all {
			attempts[d.Body.Order] = d.Attempt()
		}
		require.Equal(t, map[int]int{1: 1, 2: 2, 3: 3, 4: 4}, attempts, "nobody knows what was done with the fourth")
		require.Equal(t, []string{"handle3", "handle4"}, f.settled()["DeleteMessageBatch"])
		require.Len(t, f.letters(t), 2)
		require.Contains(t, string(f.letters(t)[0].State), "history")
		// The backoff grows with the attempts that another invocation made. It varies
		// by up to a half.
		waits := map[string]int{}
		for _, what := range f.settled()["ChangeMessageVisibilityBatch"] {
			var handle string
			var seconds int
			_, err := fmt.Sscanf(what, "%s %ds", &handle, &seconds)
			require.NoError(t, err)
			waits[handle] = seconds
		}
		require.ElementsMatch(t, []string{"handle1", "handle2"}, slices.Collect(maps.Keys(waits)))
		require.InDelta(t, 60, waits["handle1"], 31)
		require.InDelta(t, 120, waits["handle2"], 61)
	})
}

func TestAFunctionWithoutADeadLetterQueueKeepsWhatIsDead(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newSQSFake()
		f.redrive = false
		handle := function(f, func(context.Context, fanout.Delivery[paid]) error { return fanout.Permanent(errBusy) })
		r, err := handle(t.Context(), paidOrders(t, "standard.json", 2))
		require.NoError(t, err)
		require.Equal(t, []string{"id1", "id2"}, failures(r), "lost otherwise")
		require.Empty(t, f.settled()["DeleteMessageBatch"])
	})
}

func TestAFunctionFiltersByTheBody(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newSQSFake()
		var s seen
		handle := function(f, func(_ context.Context, d fanout.Delivery[paid]) error { s.add(d); return nil },
			fanout.WithFilter(func(p paid) bool { return p.Order%2 == 0 }))
		r, err := handle(t.Context(), paidOrders(t, "standard.json", 5))
		require.NoError(t, err)
		require.Empty(t, failures(r), "what a filter rejects is done with")
		require.ElementsMatch(t, []int{2, 4}, s.orders())
	})
}

func TestAFunctionOfAFIFOQueueStopsAtItsFirstFailure(t *testing.T) {
	for _, c := range []struct {
		name    string
		failure error
		orders  []int
		failed  []string
		visible []string
	}{
		{"all is well", nil, []int{1, 2, 3, 4, 5}, nil, nil},
		{"failure", errBusy, []int{1, 2, 3}, []string{"id3", "id4", "id5"}, []string{"handle3 7s"}},
		{"snooze", fanout.Snooze(time.Minute), []int{1, 2, 3}, []string{"id3", "id4", "id5"}, []string{"handle3 60s"}},
		{"dead letter", fanout.Permanent(errBusy), []int{1, 2, 3, 4, 5}, nil, nil},
	} {
		t.Run(c.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				f := newSQSFake()
				var s seen
				handle := functionOf(f, []fanout.TopicOption{fanout.WithOrdering()}, func(_ context.Context, d fanout.Delivery[paid]) error {
					s.add(d)
					time.Sleep(time.Duration(10-d.Body.Order) * time.Second) // whatever overtakes would be seen
					if d.Body.Order == 3 {
						return c.failure
					}
					return nil
				}, fanout.WithConcurrency(10), fanout.WithBackoff(fanout.Constant(7*time.Second)))
				r, err := handle(t.Context(), paidOrders(t, "fifo.json", 5))
				require.NoError(t, err)
				require.Equal(t, c.orders, s.orders(), "in order, and no further")
				require.Equal(t, c.failed, failures(r))
				require.Equal(t, c.visible, f.settled()["ChangeMessageVisibilityBatch"])
			})
		})
	}
}

func TestAFunctionThatRunsOutOfTimeSaysWhatIsDone(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newSQSFake()
		ended := make(chan error, 10)
		handle := function(f, func(ctx context.Context, d fanout.Delivery[paid]) error {
			if d.Body.Order == 1 {
				return nil
			}
			<-ctx.Done()
			time.Sleep(time.Millisecond) // the answer is on its way
			ended <- context.Cause(ctx)
			return nil
		}, fanout.WithConcurrency(2))
		ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
		defer cancel()
		begun := time.Now()
		r, err := handle(ctx, paidOrders(t, "standard.json", 5))
		require.NoError(t, err)
		require.Equal(t, 19*time.Second, time.Since(begun))
		require.Equal(t, []string{"id2", "id3", "id4", "id5"}, failures(r))
		require.Error(t, <-ended, "the handlers were told")
		require.Error(t, <-ended)
		synctest.Wait()
		require.Empty(t, f.settled()["DeleteMessageBatch"], "Lambda has been told otherwise")
	})
}

func TestAnAcknowledgementAfterTheAnswerIsRefused(t *testing.T) {
	q := fakeQueueOf(t, &newSQSFake().fake)
	i := newInvocation(q, paidOrders(t, "standard.json", 1).Records)
	rs, err := i.Receive(t.Context(), 1, 0)
	require.NoError(t, err)
	require.Equal(t, []string{"id1"}, failures(i.end()))
	require.ErrorIs(t, i.Ack(t.Context(), rs[0].Receipt), engine.ErrClosed, "Lambda has been told otherwise")
}

func TestAFunctionsTopicOnlyReceives(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		_, queues := clientsOf("http://aws.invalid", &newSQSFake().fake)
		var published, second, bounded error
		handle := LambdaHandler(queues, func(ctx context.Context, e engine.Engine) (*fanout.Topic[paid], error) {
			_, bounded = fanout.NewTopic[paid]("payments", fanout.WithEngine(e))
			payments, err := fanout.NewTopic[paid]("payments", fanout.WithEngine(e, fanout.Without(engine.Bounded, engine.AllOrNone)))
			if err != nil {
				return nil, err
			}
			published = payments.Publish(ctx, paid{Order: 1})
			_, err = payments.Subscribe(ctx, "inventory", func(context.Context, fanout.Delivery[paid]) error { return nil })
			_, second = payments.OpenQueue(ctx, "shipping")
			return payments, err
		})
		r, err := handle(t.Context(), paidOrders(t, "standard.json", 2))
		require.NoError(t, err)
		require.Empty(t, failures(r))
		require.ErrorContains(t, published, "fanoutaws.New")
		require.ErrorContains(t, second, "one queue")
		require.ErrorIs(t, bounded, fanout.ErrUnsupported)
	})
}

// TestConcurrentEvents has one function called by many at once, as the
// documentation allows. Nothing of one event may be in the answer of another.
func TestConcurrentEvents(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newSQSFake()
		handle := function(f, func(_ context.Context, d fanout.Delivery[paid]) error {
			time.Sleep(time.Duration(d.Body.Order) * time.Second)
			if d.Body.Order%2 == 0 {
				return errBusy
			}
			return nil
		}, fanout.WithConcurrency(4))
		var wg sync.WaitGroup
		for k := range 8 {
			e := paidOrders(t, "standard.json", 4)
			for n := range e.Records {
				e.Records[n].MessageID = fmt.Sprintf("event%d-%d", k, n+1)
				e.Records[n].ReceiptHandle = "of " + e.Records[n].MessageID
			}
			wg.Go(func() {
				r, err := handle(t.Context(), e)
				if err != nil || !slices.Equal(failures(r), []string{fmt.Sprintf("event%d-2", k), fmt.Sprintf("event%d-4", k)}) {
					t.Errorf("event %d: failures %v, error %v", k, failures(r), err)
				}
			})
		}
		wg.Wait()
	})
}

func TestAFunctionFailsAsAWholeIfItCannotBegin(t *testing.T) {
	f := newSQSFake()
	_, queues := clientsOf("http://aws.invalid", &f.fake)
	e := event(t, "standard.json")
	_, err := LambdaHandler(queues, func(context.Context, engine.Engine) (*fanout.Topic[paid], error) { return nil, io.ErrUnexpectedEOF })(t.Context(), e)
	require.ErrorIs(t, err, io.ErrUnexpectedEOF)
	_, err = LambdaHandler(queues, func(context.Context, engine.Engine) (*fanout.Topic[paid], error) { return nil, nil })(t.Context(), e)
	require.ErrorContains(t, err, "no topic")
	f.fail = "GetQueueUrl"
	_, err = function(f, nil)(t.Context(), e)
	require.ErrorContains(t, err, "my-queue")
	require.ErrorContains(t, err, "not you")
}
