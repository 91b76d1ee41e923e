package fakeaws_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"runtime"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/aws/aws-lambda-go/events"
	"github.com/aws/aws-lambda-go/lambda/messages"
	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/sqs"
	"github.com/stretchr/testify/require"

	"github.com/gofanout/fanout/fanouttest/fakeaws"
)

// Subject: Lambda: a batch whose run failed comes again when its visibility
// timeout ends, and goes to the dead letters in the end.
func TestABatchWhoseRunFailedComesAgain(t *testing.T) {
	for name, c := range map[string]struct {
		handler any
		cause   string
	}{
		"error":         {func() error { return errors.New("no stock") }, "errorString: no stock"},
		"panic":         {func() { panic(fmt.Errorf("no stock")) }, "errorString: no stock"},
		"panic of text": {func() { panic("no stock") }, "string: no stock"},
		"exit":          {func() { runtime.Goexit() }, "Runtime.ExitError: RequestId: "},
		"own error":     {func() error { return messages.InvokeResponse_Error{Type: "NoStock", Message: "none"} }, "NoStock: none"},
		"no event":      {func(int) {}, "UnmarshalTypeError: json: cannot unmarshal"},
		"no JSON":       {func() (any, error) { return make(chan int), nil }, "UnsupportedTypeError: json: unsupported type"},
		"too long":      {func() (string, error) { return strings.Repeat("x", 6<<20), nil }, "Function.ResponseSizeTooLarge: Response payload size (6291458 bytes)"},
		"no answer":     {rawHandler("{"), "Runtime.MarshalError: the function returned no JSON"},
		"too slow":      {func() { time.Sleep(time.Minute) }, "Sandbox.Timedout: RequestId: "},
		"exactly":       {func() { time.Sleep(3 * time.Second) }, "Sandbox.Timedout: RequestId: "},
		"in time, late": {func(ctx context.Context) error { <-ctx.Done(); return nil }, "Sandbox.Timedout: RequestId: "},
	} {
		t.Run(name, func(t *testing.T) {
			loggedBubble(t, func(t *testing.T, a *fakeaws.AWS, l *logged) {
				began := time.Now()
				newQueue(t, a, "dead")
				queue := newQueue(t, a, "orders", append(visible(40), "RedrivePolicy", redrive(a.Queue("dead"), 3))...)
				f := a.Lambda("handle", c.handler)
				mapped(t, a.Queue("orders"), f)
				sendAll(t, a, queue, "o-1", "o-2")
				require.NoError(t, a.WaitQuiet(t.Context()))
				require.Equal(t, []string{"0s o-1 o-2", "40s o-1 o-2", "1m20s o-1 o-2"}, runs(f, began))
				require.Equal(t, 2*time.Minute, time.Since(began))
				require.Equal(t, 3, a.Queue("dead").Messages()[0].Receives)
				require.Contains(t, f.Invocations()[0].Error, c.cause)
				require.Contains(t, l.log(), "fakeaws: function handle failed (request "+f.Invocations()[0].RequestID+"): "+c.cause)
				require.Contains(t, l.log(), "fakeaws: queue orders: function handle failed")
			})
		})
	}
}

// rawHandler is a lambda.Handler that answers what it is.
type rawHandler string

func (h rawHandler) Invoke(context.Context, []byte) ([]byte, error) { return []byte(h), nil }

// What a run does after its time is up counts for nothing, and its room is free.
func TestARunIsOverWhenItsTimeIsUp(t *testing.T) {
	bubble(t, func(t *testing.T, a *fakeaws.AWS) {
		began := time.Now()
		queue := newQueue(t, a, "orders", visible(5)...)
		ended := make(chan time.Duration, 1)
		f := a.Lambda("handle", func(e events.SQSEvent) error {
			if e.Records[0].Attributes["ApproximateReceiveCount"] == "1" {
				time.Sleep(time.Minute)
				ended <- time.Since(began)
			}
			return nil
		}, fakeaws.WithTimeout(4*time.Second), fakeaws.WithReservedConcurrency(1))
		mapped(t, a.Queue("orders"), f)
		send(t, a, queue, "o-1")
		require.NoError(t, a.WaitQuiet(t.Context()))
		require.Equal(t, 5*time.Second, time.Since(began), "the second run handled it")
		is := f.Invocations()
		require.Equal(t, []string{"0s o-1", "5s o-1"}, runs(f, began))
		require.Equal(t, 4*time.Second, is[0].Ended.Sub(began))
		require.Equal(t, "Sandbox.Timedout: RequestId: "+is[0].RequestID+" Error: Task timed out after 4.00 seconds", is[0].Error)
		time.Sleep(time.Hour)
		require.Equal(t, time.Minute, <-ended)
		require.Equal(t, is, f.Invocations())
	})
}

// Subject: Lambda: partial batch response.
func TestTheAnswerSaysWhichMessagesComeAgain(t *testing.T) {
	const all = "o-1 o-2 o-3"
	for _, c := range []struct {
		answer string // $1 stands for the ID of the first message
		again  string
		log    string
	}{
		{`null`, "", ""},
		{`""`, "", ""},
		{`{}`, "", ""},
		{`{"statusCode":200}`, "", ""},
		{`{"batchItemFailures":null}`, "", ""},
		{`{"batchItemFailures":[]}`, "", ""},
		{`{"batchItemFailures":[{"itemIdentifier":"$2"}]}`, "o-2", ""},
		{`{"batchItemFailures":[{"itemIdentifier":"$1"},{"itemIdentifier":"$3"},{"itemIdentifier":"$1"}]}`, "o-1 o-3", ""},
		{`{"BatchItemFailures":[{"itemIdentifier":"$2"}]}`, "", ""}, // the name counts as it is written
		{`{"batchItemFailures":[{"itemIdentifier":""}]}`, all, "has no itemIdentifier"},
		{`{"batchItemFailures":[{"itemIdentifier":null}]}`, all, "has no itemIdentifier"},
		{`{"batchItemFailures":[{"itemIdentifier":17}]}`, all, "has no itemIdentifier"},
		{`{"batchItemFailures":[{"ItemIdentifier":"$2"}]}`, all, "has no itemIdentifier"},
		{`{"batchItemFailures":[null]}`, all, "has no itemIdentifier"},
		{`{"batchItemFailures":["$2"]}`, all, "no list of objects"},
		{`{"batchItemFailures":{}}`, all, "no list of objects"},
		{`{"batchItemFailures":[{"itemIdentifier":"$1"},{"itemIdentifier":"none"}]}`, all, `names "none", which is not in the batch`},
		{`"done"`, all, `no JSON object: "done"`},
		{`[]`, all, "no JSON object"},
		{`{`, all, "failed"},
	} {
		loggedBubble(t, func(t *testing.T, a *fakeaws.AWS, l *logged) {
			queue := newQueue(t, a, "orders")
			f := a.Lambda("handle", answering(c.answer))
			mapped(t, a.Queue("orders"), f, fakeaws.WithReportBatchItemFailures())
			sendAll(t, a, queue, "o-1", "o-2", "o-3")
			synctest.Wait()
			var again []string
			for _, m := range a.Queue("orders").Messages() {
				require.Equal(t, fakeaws.InFlight, m.State)
				require.Equal(t, 30*time.Second, time.Until(m.Due), "they come again after the visibility timeout")
				again = append(again, m.Body)
			}
			require.Equal(t, c.again, strings.Join(again, " "), c.answer)
			if c.log != "" {
				require.Contains(t, l.log(), c.log)
			} else {
				require.NotContains(t, l.log(), "queue orders: function", c.answer)
			}
		})
	}
}

// answering is a handler that gives an answer with the IDs of its messages.
type answering string

func (h answering) Invoke(_ context.Context, payload []byte) ([]byte, error) {
	var e events.SQSEvent
	if err := json.Unmarshal(payload, &e); err != nil {
		return nil, err
	}
	out := string(h)
	for k, r := range e.Records {
		out = strings.ReplaceAll(out, fmt.Sprintf("$%d", k+1), r.MessageId)
	}
	return []byte(out), nil
}

// Without ReportBatchItemFailures the answer is ignored, which shows.
func TestAnAnswerThatIsIgnoredShows(t *testing.T) {
	loggedBubble(t, func(t *testing.T, a *fakeaws.AWS, l *logged) {
		queue := newQueue(t, a, "orders")
		f := a.Lambda("handle", func(e events.SQSEvent) (events.SQSEventResponse, error) {
			return events.SQSEventResponse{BatchItemFailures: []events.SQSBatchItemFailure{{ItemIdentifier: e.Records[0].MessageId}}}, nil
		})
		mapped(t, a.Queue("orders"), f)
		send(t, a, queue, "o-1")
		require.NoError(t, a.WaitQuiet(t.Context()))
		require.Contains(t, l.log(), "function handle answered with 1 batchItemFailures, which are ignored and deleted without WithReportBatchItemFailures")
	})
}

// Subject: Lambda: batch size. One batch has up to ten messages unless another
// size is set, and what comes at once goes at once.
func TestBatchSizes(t *testing.T) {
	bubble(t, func(t *testing.T, a *fakeaws.AWS) {
		began := time.Now()
		for _, size := range []int{0, 1, 4} {
			name := fmt.Sprint("size-", size)
			queue := newQueue(t, a, name)
			f := a.Lambda(name, func() { time.Sleep(time.Second) })
			var options []fakeaws.MappingOption
			if size > 0 {
				options = append(options, fakeaws.WithBatchSize(size))
			}
			m := mapped(t, a.Queue(name), f, options...)
			sendAll(t, a, queue, "1", "2", "3", "4", "5")
			require.NoError(t, a.WaitQuiet(t.Context()))
			at := time.Since(began) - time.Second
			var want []string
			switch size {
			case 0:
				want = []string{fmt.Sprint(at, " 1 2 3 4 5")}
			case 1:
				for k := range 5 {
					want = append(want, fmt.Sprint(at, " ", k+1))
				}
			case 4:
				want = []string{fmt.Sprint(at, " 1 2 3 4"), fmt.Sprint(at, " 5")}
			}
			got := runs(f, began)
			slices.Sort(got)
			require.Equal(t, want, got)
			m.Delete()
		}
	})
}

// Subject: Lambda: batching window. A batch waits from its first message on,
// until it is full.
func TestABatchingWindow(t *testing.T) {
	bubble(t, func(t *testing.T, a *fakeaws.AWS) {
		began := time.Now()
		queue := newQueue(t, a, "orders", visible(600)...)
		f := a.Lambda("handle", func() {})
		mapped(t, a.Queue("orders"), f, fakeaws.WithBatchingWindow(time.Minute), fakeaws.WithBatchSize(12))
		time.Sleep(5 * time.Second)
		sendAll(t, a, queue, "a", "b")
		time.Sleep(30 * time.Second)
		sendAll(t, a, queue, "c")
		require.Equal(t, fakeaws.InFlight, a.Queue("orders").Messages()[0].State, "the batch has it")
		require.NoError(t, a.WaitQuiet(t.Context()))
		require.Equal(t, 65*time.Second, time.Since(began))

		sendAll(t, a, queue, "d")
		time.Sleep(10 * time.Second)
		sendAll(t, a, queue, "1", "2", "3", "4", "5", "6", "7", "8", "9", "10")
		time.Sleep(time.Second)
		sendAll(t, a, queue, "11", "12") // the first of them makes the batch full
		require.NoError(t, a.WaitQuiet(t.Context()))
		require.Equal(t, []string{"1m5s a b c", "1m16s d 1 2 3 4 5 6 7 8 9 10 11", "2m16s 12"}, runs(f, began))
	})
}

// A batch as large as a window lets it be.
func TestALargeBatch(t *testing.T) {
	bubble(t, func(t *testing.T, a *fakeaws.AWS) {
		queue := newQueue(t, a, "orders", visible(600)...)
		f := a.Lambda("handle", func() {})
		for range 100 {
			sendAll(t, a, queue, "1", "2", "3", "4", "5", "6", "7", "8", "9", "10")
		}
		mapped(t, a.Queue("orders"), f, fakeaws.WithBatchSize(900), fakeaws.WithBatchingWindow(2*time.Second))
		require.NoError(t, a.WaitQuiet(t.Context()))
		var sizes []int
		for _, i := range f.Invocations() {
			var e events.SQSEvent
			require.NoError(t, json.Unmarshal(i.Payload, &e))
			sizes = append(sizes, len(e.Records))
		}
		require.Equal(t, []int{900, 100}, sizes)
	})
}

// A batch whose messages become visible before it is full has them anew, each
// once.
func TestAWindowLongerThanTheVisibilityTimeout(t *testing.T) {
	bubble(t, func(t *testing.T, a *fakeaws.AWS) {
		began := time.Now()
		queue := newQueue(t, a, "orders", visible(40)...)
		f := a.Lambda("handle", func() {})
		mapped(t, a.Queue("orders"), f, fakeaws.WithBatchingWindow(time.Minute))
		sendAll(t, a, queue, "a")
		time.Sleep(30 * time.Second)
		sendAll(t, a, queue, "b")
		require.NoError(t, a.WaitQuiet(t.Context()))
		require.Equal(t, []string{"1m0s b a"}, runs(f, began))
		require.Contains(t, string(f.Invocations()[0].Payload), `"ApproximateReceiveCount":"2"`)
	})
}

// What another consumer has received meanwhile is not in the batch.
func TestABatchLosesAMessageToALongPoll(t *testing.T) {
	bubble(t, func(t *testing.T, a *fakeaws.AWS) {
		began := time.Now()
		queue := newQueue(t, a, "orders", visible(40)...)
		f := a.Lambda("handle", func() {})
		mapped(t, a.Queue("orders"), f, fakeaws.WithBatchingWindow(time.Minute))
		sendAll(t, a, queue, "a")
		time.Sleep(30 * time.Second)
		sendAll(t, a, queue, "b")
		require.Equal(t, []string{"a"}, bodies(receive(t, a, queue, wait(20), hide(600))))
		require.Equal(t, 40*time.Second, time.Since(began))
		time.Sleep(time.Minute)
		require.Equal(t, []string{"1m0s b"}, runs(f, began))
	})
}

// A batch that the next message would make too long does not wait for its window.
func TestABatchThatIsFullBeforeItsWindowEnds(t *testing.T) {
	bubble(t, func(t *testing.T, a *fakeaws.AWS) {
		began := time.Now()
		queue := newQueue(t, a, "orders", visible(600)...)
		var at []string
		f := a.Lambda("handle", func(e events.SQSEvent) { at = append(at, fmt.Sprint(len(e.Records), " at ", time.Since(began))) })
		mapped(t, a.Queue("orders"), f, fakeaws.WithBatchingWindow(time.Minute))
		for range 7 {
			send(t, a, queue, strings.Repeat("x", 1_000_000))
		}
		require.NoError(t, a.WaitQuiet(t.Context()))
		require.Equal(t, []string{"6 at 0s", "1 at 1m0s"}, at)
	})
}

// Room that comes when the batch's messages become visible comes too late.
func TestRoomThatComesTooLate(t *testing.T) {
	bubble(t, func(t *testing.T, a *fakeaws.AWS) {
		began := time.Now()
		queue := newQueue(t, a, "orders", visible(40)...)
		f := a.Lambda("handle", func(e events.SQSEvent) {
			if e.Records[0].Attributes["ApproximateReceiveCount"] == "1" {
				time.Sleep(time.Minute)
			}
		}, fakeaws.WithTimeout(40*time.Second), fakeaws.WithReservedConcurrency(1))
		mapped(t, a.Queue("orders"), f, fakeaws.WithBatchSize(1))
		sendAll(t, a, queue, "1", "2")
		require.NoError(t, a.WaitQuiet(t.Context()))
		require.Equal(t, []string{"0s 1", "40s 1", "40s 2"}, sorted(runs(f, began)))
		for _, i := range f.Invocations()[1:] {
			require.Contains(t, string(i.Payload), `"ApproximateReceiveCount":"2"`)
		}
	})
}

// Subject: Lambda: concurrency. Lambda begins with five batches at once; a
// maximum can be set.
func TestMaximumConcurrency(t *testing.T) {
	for most, want := range map[int][]string{
		0: {"0s 1", "0s 2", "0s 3", "0s 4", "0s 5", "1s 6", "1s 7"},
		3: {"0s 1", "0s 2", "0s 3", "1s 4", "1s 5", "1s 6", "2s 7"},
	} {
		bubble(t, func(t *testing.T, a *fakeaws.AWS) {
			began := time.Now()
			queue := newQueue(t, a, "orders")
			f := a.Lambda("handle", func() { time.Sleep(time.Second) })
			options := []fakeaws.MappingOption{fakeaws.WithBatchSize(1)}
			if most > 0 {
				options = append(options, fakeaws.WithMaximumConcurrency(most))
			}
			mapped(t, a.Queue("orders"), f, options...)
			sendAll(t, a, queue, "1", "2", "3", "4", "5", "6", "7")
			require.Equal(t, 7, a.Queue("orders").Len())
			require.NoError(t, a.WaitQuiet(t.Context()))
			got := runs(f, began)
			slices.Sort(got)
			require.Equal(t, want, got)
			for _, i := range f.Invocations() {
				require.Contains(t, string(i.Payload), `"ApproximateReceiveCount":"1"`, "none was received before its turn")
			}
		})
	}
}

// Subject: Lambda: throttled functions give messages back. A batch waits for
// room until its visibility timeout ends.
func TestAThrottledBatchWaitsAndThenComesAgain(t *testing.T) {
	loggedBubble(t, func(t *testing.T, a *fakeaws.AWS, l *logged) {
		began := time.Now()
		queue := newQueue(t, a, "orders", visible(40)...)
		f := a.Lambda("handle", func() { time.Sleep(15 * time.Second) }, fakeaws.WithTimeout(20*time.Second), fakeaws.WithReservedConcurrency(1))
		mapped(t, a.Queue("orders"), f, fakeaws.WithBatchSize(1))
		sendAll(t, a, queue, "1", "2", "3", "4")
		require.NoError(t, a.WaitQuiet(t.Context()))
		// All were received at once. At 40 s the fourth one, which had no room, comes
		// again, and so does the third one, whose run began late and goes on.
		require.Equal(t, []string{"0s 1", "15s 2", "30s 3", "45s 3", "1m0s 4"}, runs(f, began))
		require.Contains(t, string(f.Invocations()[4].Payload), `"ApproximateReceiveCount":"2"`)
		require.Equal(t, 5, f.Throttled())
		require.Contains(t, l.log(), "fakeaws: queue orders: function handle was throttled")
	})
	bubble(t, func(t *testing.T, a *fakeaws.AWS) {
		began := time.Now()
		newQueue(t, a, "dead")
		queue := newQueue(t, a, "orders", "RedrivePolicy", redrive(a.Queue("dead"), 2))
		f := a.Lambda("handle", func() {}, fakeaws.WithReservedConcurrency(0))
		mapped(t, a.Queue("orders"), f)
		send(t, a, queue, "1")
		require.NoError(t, a.WaitQuiet(t.Context()))
		require.Equal(t, time.Minute, time.Since(began))
		require.Empty(t, f.Invocations())
		require.Equal(t, 1, a.Queue("dead").Len())
	})
}

// A function's room is one for all who invoke it.
func TestTopicsAndQueuesShareAFunctionsRoom(t *testing.T) {
	bubble(t, func(t *testing.T, a *fakeaws.AWS) {
		topic := newTopic(t, a, "topic")
		queue := newQueue(t, a, "orders")
		running := 0
		f := a.Lambda("handle", func() {
			running++
			require.Equal(t, 1, running)
			time.Sleep(2 * time.Second)
			running--
		}, fakeaws.WithReservedConcurrency(1))
		mapped(t, a.Queue("orders"), f, fakeaws.WithBatchSize(1))
		subscribeFunction(t, a, topic, f.ARN())
		publish(t, a, topic, "event")
		sendAll(t, a, queue, "1", "2")
		publish(t, a, topic, "event")
		require.NoError(t, a.WaitQuiet(t.Context()))
		require.Len(t, f.Invocations(), 4)
	})
}

// Subject: Lambda: FIFO: a group is in order, and one batch of it is under way;
// groups run side by side.
func TestAFunctionOfAFIFOQueue(t *testing.T) {
	bubble(t, func(t *testing.T, a *fakeaws.AWS) {
		began := time.Now()
		queue := newQueue(t, a, "orders.fifo", "FifoQueue", "true")
		f := a.Lambda("handle", func() { time.Sleep(time.Second) })
		mapped(t, a.Queue("orders.fifo"), f, fakeaws.WithBatchSize(2))
		for _, m := range []string{"a1", "a2", "b1", "a3", "a4", "a5", "b2"} {
			send(t, a, queue, m, group(m[:1], m))
		}
		require.NoError(t, a.WaitQuiet(t.Context()))
		require.Equal(t, []string{"0s a1", "0s b1", "1s a2 a3", "1s b2", "2s a4 a5"}, sorted(runs(f, began)))
		var e events.SQSEvent
		require.NoError(t, json.Unmarshal(f.Invocations()[0].Payload, &e))
		require.Equal(t, e.Records[0].Body[:1], e.Records[0].Attributes["MessageGroupId"])
		require.Equal(t, e.Records[0].Body, e.Records[0].Attributes["MessageDeduplicationId"])
		require.NotEmpty(t, e.Records[0].Attributes["SequenceNumber"])
	})
}

func sorted(lines []string) []string {
	slices.Sort(lines)
	return lines
}

// Subject: Lambda: FIFO: the function stops at the first failure of a group and
// reports it and what is behind it: the order stays. If it does not report those
// behind it, they are gone, and the log says that the order is lost.
func TestAFunctionOfAFIFOQueueStopsAtTheFirstFailure(t *testing.T) {
	for _, stops := range []bool{true, false} {
		loggedBubble(t, func(t *testing.T, a *fakeaws.AWS, l *logged) {
			began := time.Now()
			queue := newQueue(t, a, "orders.fifo", append(visible(20), "FifoQueue", "true")...)
			for _, m := range []string{"a1", "a2", "a3", "b1"} {
				send(t, a, queue, m, group(m[:1], m))
			}
			f := a.Lambda("handle", func(e events.SQSEvent) (out events.SQSEventResponse, err error) {
				failed := map[string]bool{}
				for _, r := range e.Records {
					g := r.Attributes["MessageGroupId"]
					if r.Body == "a2" && r.Attributes["ApproximateReceiveCount"] == "1" || failed[g] && stops {
						failed[g] = true
						out.BatchItemFailures = append(out.BatchItemFailures, events.SQSBatchItemFailure{ItemIdentifier: r.MessageId})
					}
				}
				return out, nil
			})
			mapped(t, a.Queue("orders.fifo"), f, fakeaws.WithReportBatchItemFailures())
			send(t, a, queue, "a4", group("a", "a4"))
			require.NoError(t, a.WaitQuiet(t.Context()))
			again := "20s a2 a3 a4"
			if !stops {
				again = "20s a2 a4"
				require.Contains(t, l.log(), "of group a after message")
			} else {
				require.NotContains(t, l.log(), "the order is lost")
			}
			require.Equal(t, []string{"0s a1 a2 a3 b1", again}, runs(f, began))
		})
	}
}

// A run that ends after the visibility timeout deletes nothing in a FIFO queue.
func TestAHandledMessageThatComesAgainShows(t *testing.T) {
	loggedBubble(t, func(t *testing.T, a *fakeaws.AWS, l *logged) {
		queue := newQueue(t, a, "orders.fifo", append(visible(20), "FifoQueue", "true")...)
		var n atomic.Int32 // a run whose messages came again is still at it
		f := a.Lambda("handle", func() {
			if n.Add(1) <= 2 {
				time.Sleep(8 * time.Second)
			}
		}, fakeaws.WithTimeout(20*time.Second))
		mapped(t, a.Queue("orders.fifo"), f)
		require.NoError(t, set(a, "orders.fifo", "VisibilityTimeout", "5"))
		send(t, a, queue, "a1", group("a", "a1"))
		require.NoError(t, a.WaitQuiet(t.Context()))
		require.EqualValues(t, 3, n.Load())
		require.Contains(t, l.log(), "was handled, and comes again: InvalidParameterValue: Value AQEB")
	})
}

// Subject: 6 MB: a batch's payload is not longer, in standard and FIFO queues.
func TestABatchIsNotLongerThanSixMegabytes(t *testing.T) {
	for _, attributes := range [][]string{nil, {"FifoQueue", "true"}} {
		bubble(t, func(t *testing.T, a *fakeaws.AWS) {
			name, of := "orders", func(string) func(*sqs.SendMessageInput) { return func(*sqs.SendMessageInput) {} }
			if attributes != nil {
				name, of = "orders.fifo", func(id string) func(*sqs.SendMessageInput) { return group("g", id) }
			}
			queue := newQueue(t, a, name, attributes...)
			var want []string
			for k := range 10 {
				body := fmt.Sprint(k, strings.Repeat("x", 1_000_000))
				want = append(want, body)
				send(t, a, queue, body, of(fmt.Sprint(k)))
			}
			quotes := strings.Repeat(`"`, 1_000_000) // twice as long in JSON
			for k := range 2 {
				want = append(want, quotes)
				send(t, a, queue, quotes, of(fmt.Sprint("quotes", k)))
			}
			var got []string
			var sizes []int
			f := a.Lambda("handle", func(e events.SQSEvent) error {
				sizes = append(sizes, len(e.Records))
				for _, r := range e.Records {
					got = append(got, r.Body)
				}
				return nil
			}, fakeaws.WithReservedConcurrency(1))
			mapped(t, a.Queue(name), f)
			require.NoError(t, a.WaitQuiet(t.Context()))
			require.Equal(t, []int{6, 5, 1}, sizes)
			require.True(t, slices.Equal(want, got))
			for _, i := range f.Invocations() {
				require.LessOrEqual(t, len(i.Payload), 6<<20)
			}
		})
	}
}

// Subject: Lambda: visibility. What Lambda refuses, and what it advises.
func TestMappingsThatAreRefused(t *testing.T) {
	loggedBubble(t, func(t *testing.T, a *fakeaws.AWS, l *logged) {
		newQueue(t, a, "orders", visible(30)...)
		newQueue(t, a, "orders.fifo", append(visible(30), "FifoQueue", "true")...)
		newQueue(t, a.In("eu-west-1"), "far")
		newQueue(t, a, "taken")
		f := a.Lambda("handle", func() {}, fakeaws.WithTimeout(30*time.Second))
		slow := a.Lambda("slow", func() {}, fakeaws.WithTimeout(31*time.Second))
		first := mapped(t, a.Queue("taken"), f)
		type options = []fakeaws.MappingOption
		for _, c := range []struct {
			queue   *fakeaws.Queue
			f       *fakeaws.Function
			options options
			code    string
			message string
		}{
			{a.Queue("none"), f, nil, "InvalidParameterValueException", "AWS.SimpleQueueService.NonExistentQueue"},
			{a.In("eu-west-1").Queue("far"), f, nil, "InvalidParameterValueException", "another region"},
			{a.Queue("orders"), slow, nil, "InvalidParameterValueException", "Queue visibility timeout: 30 seconds is less than Function timeout: 31 seconds"},
			{a.Queue("orders"), f, options{fakeaws.WithBatchSize(0)}, "ValidationException", "Value '0' at 'batchSize'"},
			{a.Queue("orders"), f, options{fakeaws.WithBatchSize(10_001)}, "ValidationException", "Value '10001' at 'batchSize'"},
			{a.Queue("orders"), f, options{fakeaws.WithBatchSize(11)}, "InvalidParameterValueException", "batch window in seconds must be greater than 0"},
			{a.Queue("orders"), f, options{fakeaws.WithBatchingWindow(301 * time.Second)}, "ValidationException", "maximumBatchingWindowInSeconds"},
			{a.Queue("orders"), f, options{fakeaws.WithBatchingWindow(-time.Second)}, "ValidationException", "maximumBatchingWindowInSeconds"},
			{a.Queue("orders"), f, options{fakeaws.WithBatchingWindow(time.Millisecond)}, "ValidationException", "maximumBatchingWindowInSeconds"},
			{a.Queue("orders"), f, options{fakeaws.WithMaximumConcurrency(1)}, "ValidationException", "Value '1' at 'scalingConfig.maximumConcurrency'"},
			{a.Queue("orders"), f, options{fakeaws.WithMaximumConcurrency(1001)}, "ValidationException", "maximumConcurrency"},
			{a.Queue("orders.fifo"), f, options{fakeaws.WithBatchingWindow(time.Second)}, "InvalidParameterValueException", "Batching window is not supported for FIFO queues"},
			{a.Queue("orders.fifo"), f, options{fakeaws.WithBatchSize(11)}, "InvalidParameterValueException", "FIFO"},
			{a.Queue("taken"), f, nil, "ResourceConflictException", "existing mapping with UUID " + first.ID()},
		} {
			_, err := c.queue.Map(c.f, c.options...)
			require.Equal(t, c.code, code(err), c.message)
			require.ErrorContains(t, err, c.message)
		}
		other := fakeaws.New(t)
		_, err := a.Queue("orders").Map(other.Lambda("handle", func() {}))
		require.ErrorContains(t, err, "a function of the same fake")
		_, err = a.Queue("orders").Map(nil)
		require.ErrorContains(t, err, "a function of the same fake")

		require.Contains(t, l.log(), "queue taken has a visibility timeout of 30s; for function handle with a timeout of 30s AWS advises 3m0s at least")
		before := len(l.lines)
		newQueue(t, a, "advised", visible(181)...)
		mapped(t, a.Queue("advised"), f, fakeaws.WithBatchingWindow(time.Second))
		require.Len(t, l.lines, before)
	})
}

// A mapping ends with itself and with its queue; what it had not begun comes
// again.
func TestAMappingEnds(t *testing.T) {
	bubble(t, func(t *testing.T, a *fakeaws.AWS) {
		queue := newQueue(t, a, "orders")
		f := a.Lambda("handle", func() { time.Sleep(time.Second) })
		m := mapped(t, a.Queue("orders"), f, fakeaws.WithBatchSize(1))
		sendAll(t, a, queue, "1", "2", "3", "4", "5", "6")
		m.Delete()
		m.Delete()
		time.Sleep(time.Hour)
		require.Equal(t, []string{"6"}, bodies(receive(t, a, queue)))
		require.Len(t, f.Invocations(), 5)

		time.Sleep(time.Minute)
		m = mapped(t, a.Queue("orders"), f, fakeaws.WithBatchingWindow(20*time.Second))
		time.Sleep(10 * time.Second)
		m.Delete()
		require.Empty(t, receive(t, a, queue))
		time.Sleep(20 * time.Second)
		require.Equal(t, []string{"6"}, bodies(receive(t, a, queue)))

		time.Sleep(time.Minute)
		mapped(t, a.Queue("orders"), f)
		send(t, a, queue, "7")
		_, err := a.SQS().DeleteQueue(t.Context(), &sqs.DeleteQueueInput{QueueUrl: &queue})
		require.NoError(t, err)
		require.NoError(t, a.WaitQuiet(t.Context()))
		time.Sleep(time.Hour)
		newQueue(t, a, "orders")
		send(t, a, queue, "8")
		time.Sleep(time.Minute)
		require.Equal(t, 1, a.Queue("orders").Len())
		m.Delete()
	})
}

// Functions, long polls and other functions take messages of one queue from each
// other, none twice.
func TestFunctionsAndLongPollsShareAQueue(t *testing.T) {
	bubble(t, func(t *testing.T, a *fakeaws.AWS) {
		queue := newQueue(t, a, "orders")
		f := a.Lambda("first", func() { time.Sleep(time.Second) })
		g := a.Lambda("second", func() { time.Sleep(time.Second) })
		mapped(t, a.Queue("orders"), f, fakeaws.WithBatchSize(1), fakeaws.WithMaximumConcurrency(2))
		mapped(t, a.Queue("orders"), g, fakeaws.WithBatchSize(1), fakeaws.WithMaximumConcurrency(2))
		polled := make(chan []string, 1)
		go func() {
			out, err := a.SQS().ReceiveMessage(t.Context(), &sqs.ReceiveMessageInput{QueueUrl: &queue, WaitTimeSeconds: 20})
			if err == nil {
				polled <- bodies(out.Messages)
			}
		}()
		synctest.Wait()
		sendAll(t, a, queue, "1", "2", "3", "4", "5", "6", "7")
		require.Equal(t, []string{"1"}, <-polled)
		time.Sleep(3 * time.Second)
		require.Equal(t, 1, a.Queue("orders").Len())
		require.Len(t, slices.Concat(f.Invocations(), g.Invocations()), 6)
	})
}

// What is twice in the queue is handled twice, and messages that became visible,
// through delays and changes of visibility, at their instants.
func TestWhatWakesAFunction(t *testing.T) {
	bubble(t, func(t *testing.T, a *fakeaws.AWS) {
		began := time.Now()
		newQueue(t, a, "dead")
		queue := newQueue(t, a, "orders", "RedrivePolicy", redrive(a.Queue("dead"), 1))
		f := a.Lambda("handle", func() {})
		waiting := send(t, a, queue, "received")
		m := receive(t, a, queue, hide(100))[0]
		require.Equal(t, *waiting.MessageId, *m.MessageId)
		send(t, a, queue, "delayed", func(in *sqs.SendMessageInput) { in.DelaySeconds = 7 })
		mapped(t, a.Queue("orders"), f)
		letters := a.Lambda("letters", func() {})
		mapped(t, a.Queue("dead"), letters)
		a.Inject(fakeaws.Fault{Operation: "SendMessage", Twice: true})
		send(t, a, queue, "twice")
		time.Sleep(5 * time.Second)
		require.NoError(t, change(a, queue, m, 12))
		require.NoError(t, a.WaitQuiet(t.Context()))
		require.Equal(t, []string{"0s twice twice", "7s delayed"}, runs(f, began))
		require.Eventually(t, func() bool { return a.Queue("dead").Len() == 0 }, time.Minute, time.Second)
		require.Equal(t, []string{"17s received"}, runs(letters, began))
	})
}

// A visibility timeout that is set to 0 later does not stop the clock.
func TestAVisibilityTimeoutOfZero(t *testing.T) {
	bubble(t, func(t *testing.T, a *fakeaws.AWS) {
		began := time.Now()
		newQueue(t, a, "dead")
		queue := newQueue(t, a, "orders", "RedrivePolicy", redrive(a.Queue("dead"), 3))
		f := a.Lambda("handle", func() error { return errors.New("no") })
		mapped(t, a.Queue("orders"), f)
		require.NoError(t, set(a, "orders", "VisibilityTimeout", "0"))
		send(t, a, queue, "m")
		require.NoError(t, a.WaitQuiet(t.Context()))
		require.Equal(t, []string{"0s m", "1s m", "2s m"}, runs(f, began))
	})
}

// A function uses the fake as any program does: it extends the visibility of its
// message, deletes it itself, and sends to the queue that feeds it.
func TestAFunctionUsesTheFake(t *testing.T) {
	bubble(t, func(t *testing.T, a *fakeaws.AWS) {
		began := time.Now()
		queue := newQueue(t, a, "orders")
		f := a.Lambda("handle", func(ctx context.Context, e events.SQSEvent) error {
			switch r := e.Records[0]; r.Body {
			case "start":
				_, err := a.SQS().SendMessage(ctx, &sqs.SendMessageInput{QueueUrl: &queue, MessageBody: aws.String("next")})
				return err
			case "next":
				_, err := a.SQS().DeleteMessage(ctx, &sqs.DeleteMessageInput{QueueUrl: &queue, ReceiptHandle: &r.ReceiptHandle})
				if err == nil {
					_, err = a.SQS().SendMessage(ctx, &sqs.SendMessageInput{QueueUrl: &queue, MessageBody: aws.String("later")})
				}
				return errors.Join(err, errors.New("but it is deleted"))
			case "later":
				if r.Attributes["ApproximateReceiveCount"] == "1" {
					_, err := a.SQS().ChangeMessageVisibility(ctx, &sqs.ChangeMessageVisibilityInput{QueueUrl: &queue, ReceiptHandle: &r.ReceiptHandle, VisibilityTimeout: 900})
					return errors.Join(err, errors.New("later"))
				}
			}
			return nil
		})
		mapped(t, a.Queue("orders"), f)
		send(t, a, queue, "start")
		require.NoError(t, a.WaitQuiet(t.Context()))
		require.Equal(t, []string{"0s start", "0s next", "0s later", "15m0s later"}, runs(f, began))
	})
}
