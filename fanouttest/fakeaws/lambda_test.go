package fakeaws_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"runtime"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/aws/aws-lambda-go/events"
	"github.com/aws/aws-lambda-go/lambda"
	"github.com/aws/aws-lambda-go/lambdacontext"
	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/sns"
	snstypes "github.com/aws/aws-sdk-go-v2/service/sns/types"
	"github.com/aws/aws-sdk-go-v2/service/sqs"
	sqstypes "github.com/aws/aws-sdk-go-v2/service/sqs/types"
	"github.com/stretchr/testify/require"

	"github.com/gofanout/fanout/fanouttest/fakeaws"
)

// A logged test keeps what is written to its log.
type logged struct {
	*testing.T
	mu    sync.Mutex // guards lines
	lines []string
}

func (l *logged) Logf(format string, args ...any) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.lines = append(l.lines, fmt.Sprintf(format, args...))
}

// log returns the lines, each cut after its first.
func (l *logged) log() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return strings.Join(l.lines, "\n")
}

func loggedBubble(t *testing.T, f func(t *testing.T, a *fakeaws.AWS, l *logged)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		l := &logged{T: t}
		f(t, fakeaws.New(l), l)
	})
}

// visible is a queue's attributes for a visibility timeout.
func visible(seconds int) []string {
	return []string{"VisibilityTimeout", fmt.Sprint(seconds)}
}

func sendAll(t testing.TB, a *fakeaws.AWS, queue string, bodies ...string) {
	t.Helper()
	in := &sqs.SendMessageBatchInput{QueueUrl: &queue}
	for k, body := range bodies {
		in.Entries = append(in.Entries, sqstypes.SendMessageBatchRequestEntry{Id: aws.String(fmt.Sprint(k)), MessageBody: &body})
	}
	out, err := a.SQS().SendMessageBatch(t.Context(), in)
	require.NoError(t, err)
	require.Empty(t, out.Failed)
}

func mapped(t testing.TB, q *fakeaws.Queue, f *fakeaws.Function, options ...fakeaws.MappingOption) *fakeaws.Mapping {
	t.Helper()
	m, err := q.Map(f, options...)
	require.NoError(t, err)
	return m
}

// runs says what a function got, and when after began: a line for each run.
func runs(f *fakeaws.Function, began time.Time) []string {
	var lines []string
	for _, i := range f.Invocations() {
		var e events.SQSEvent
		if err := json.Unmarshal(i.Payload, &e); err != nil {
			panic(err)
		}
		var bodies []string
		for _, r := range e.Records {
			bodies = append(bodies, r.Body)
		}
		lines = append(lines, fmt.Sprintf("%v %s", i.Began.Sub(began), strings.Join(bodies, " ")))
	}
	return lines
}

func TestAFunctionGetsTheMessagesOfAQueue(t *testing.T) {
	bubble(t, func(t *testing.T, a *fakeaws.AWS) {
		began := time.Now()
		var got events.SQSEvent
		var at, deadline time.Duration
		f := a.Lambda("resize", func(ctx context.Context, e events.SQSEvent) error {
			got, at = e, time.Since(began)
			d, _ := ctx.Deadline()
			deadline = d.Sub(began)
			lc, ok := lambdacontext.FromContext(ctx)
			require.True(t, ok)
			require.Equal(t, "arn:aws:lambda:us-east-1:123456789012:function:resize", lc.InvokedFunctionArn)
			require.NotEmpty(t, lc.AwsRequestID)
			time.Sleep(2 * time.Second)
			return nil
		})
		queue := newQueue(t, a, "photos")
		mapped(t, a.Queue("photos"), f)
		time.Sleep(time.Minute)
		out := send(t, a, queue, "<p-1>", func(in *sqs.SendMessageInput) {
			in.MessageGroupId = aws.String("tenant")
			in.MessageAttributes = map[string]sqstypes.MessageAttributeValue{
				"size":  {DataType: aws.String("Number"), StringValue: aws.String("17")},
				"photo": {DataType: aws.String("Binary.png"), BinaryValue: []byte{1, 255}},
			}
			in.MessageSystemAttributes = map[string]sqstypes.MessageSystemAttributeValue{"AWSTraceHeader": {DataType: aws.String("String"), StringValue: aws.String("Root=1")}}
		})
		require.NoError(t, a.WaitQuiet(t.Context()))
		require.Equal(t, 62*time.Second, time.Since(began))
		require.Equal(t, time.Minute, at)
		require.Equal(t, 63*time.Second, deadline)
		require.Zero(t, a.Queue("photos").Len())
		require.Len(t, got.Records, 1)
		sent := fmt.Sprint(began.Add(time.Minute).UnixMilli())
		r := got.Records[0]
		require.NotEmpty(t, r.ReceiptHandle)
		r.ReceiptHandle = ""
		require.Equal(t, events.SQSMessage{MessageId: *out.MessageId, Body: "<p-1>", Md5OfBody: *out.MD5OfMessageBody, Md5OfMessageAttributes: *out.MD5OfMessageAttributes,
			EventSource: "aws:sqs", EventSourceARN: a.Queue("photos").ARN(), AWSRegion: "us-east-1",
			Attributes: map[string]string{"ApproximateReceiveCount": "1", "SentTimestamp": sent, "ApproximateFirstReceiveTimestamp": sent,
				"SenderId": r.Attributes["SenderId"], "MessageGroupId": "tenant", "AWSTraceHeader": "Root=1"},
			MessageAttributes: map[string]events.SQSMessageAttribute{
				"size":  {DataType: "Number", StringValue: aws.String("17"), StringListValues: []string{}, BinaryListValues: [][]byte{}},
				"photo": {DataType: "Binary.png", BinaryValue: []byte{1, 255}, StringListValues: []string{}, BinaryListValues: [][]byte{}},
			}}, r)
		is := f.Invocations()
		require.Len(t, is, 1)
		require.Equal(t, []any{began.Add(time.Minute), began.Add(62 * time.Second), "null", "", a.Queue("photos").ARN()}, []any{is[0].Began, is[0].Ended, string(is[0].Response), is[0].Error, is[0].Source})
	})
}

type stubHandler struct{ seen chan []byte }

func (h stubHandler) Invoke(_ context.Context, payload []byte) ([]byte, error) {
	h.seen <- slices.Clone(payload)
	return nil, nil
}

// A handler is what lambda.Start takes.
func TestHandlers(t *testing.T) {
	bubble(t, func(t *testing.T, a *fakeaws.AWS) {
		seen := make(chan []byte, 1)
		note := func(payload []byte) { seen <- payload }
		for name, handler := range map[string]any{
			"none":    func() { note([]byte("m")) },
			"context": func(context.Context) error { note([]byte("m")); return nil },
			"raw": func(_ context.Context, e json.RawMessage) (any, error) {
				note(e)
				return map[string]any{}, nil
			},
			"any": func(e any) (string, error) { note([]byte(fmt.Sprint(e))); return "", nil },
			"response": func(e events.SQSEvent) (events.SQSEventResponse, error) {
				note([]byte(e.Records[0].Body))
				return events.SQSEventResponse{}, nil
			},
			"reader": func(e *events.SQSEvent) (io.Reader, error) {
				note([]byte(e.Records[0].Body))
				return strings.NewReader("{}"), nil
			},
			"handler": stubHandler{seen},
			"ready":   lambda.NewHandler(func() { note([]byte("m")) }),
		} {
			queue := newQueue(t, a, name)
			f := a.Lambda(name, handler)
			mapped(t, a.Queue(name), f, fakeaws.WithReportBatchItemFailures())
			send(t, a, queue, "m")
			require.Contains(t, string(<-seen), "m", name)
			require.NoError(t, a.WaitQuiet(t.Context()), name)
			require.Empty(t, f.Invocations()[0].Error, name)
		}
	})
}

func TestMistakesInFunctionsAreRefusedByName(t *testing.T) {
	a, err := fakeaws.Start()
	require.NoError(t, err)
	defer a.Close()
	handler := func(events.SQSEvent) error { return nil }
	a.Lambda("taken", handler)
	topic := a.Topic("dead").ARN()
	for want, f := range map[string]func(){
		`fakeaws: Lambda("a b"): want a name of 1 to 64 letters, digits, hyphens and underscores`:                            func() { a.Lambda("a b", handler) },
		`fakeaws: Lambda("taken"): there is a function of that name already`:                                                 func() { a.Lambda("taken", handler) },
		`fakeaws: Lambda("f"): WithTimeout(15m1s): want whole seconds from 1s to 15m`:                                        func() { a.Lambda("f", handler, fakeaws.WithTimeout(901*time.Second)) },
		`fakeaws: Lambda("f"): WithTimeout(1.5s): want whole seconds from 1s to 15m`:                                         func() { a.Lambda("f", handler, fakeaws.WithTimeout(1500*time.Millisecond)) },
		`fakeaws: Lambda("f"): WithReservedConcurrency(-1): want 0 or more`:                                                  func() { a.Lambda("f", handler, fakeaws.WithReservedConcurrency(-1)) },
		`fakeaws: Lambda("f"): WithRetries(3): want 0, 1 or 2`:                                                               func() { a.Lambda("f", handler, fakeaws.WithRetries(3)) },
		`fakeaws: Lambda("f"): WithMaximumEventAge(59s): want 1m to 6h`:                                                      func() { a.Lambda("f", handler, fakeaws.WithMaximumEventAge(59*time.Second)) },
		`fakeaws: Lambda("f"): WithFailureDestination("dead"): want the ARN of a queue or a topic`:                           func() { a.Lambda("f", handler, fakeaws.WithFailureDestination("dead")) },
		`fakeaws: Lambda("f"): WithFailureDestination("` + topic + `.fifo"): Lambda does not send to FIFO queues and topics`: func() { a.Lambda("f", handler, fakeaws.WithFailureDestination(topic+".fifo")) },
		`fakeaws: Lambda("f"): the handler is <nil>: want a function such as func(context.Context, events.SQSEvent) error`:   func() { a.Lambda("f", nil) },
		`fakeaws: Lambda("f"): the handler is func(): want a function such as func(context.Context, events.SQSEvent) error`:  func() { a.Lambda("f", (func())(nil)) },
		`fakeaws: Lambda("f"): the handler is int: want a function such as func(context.Context, events.SQSEvent) error`:     func() { a.Lambda("f", 17) },
		`fakeaws: Lambda("f"): the handler is func(string, string): it may take a context.Context and an event`:              func() { a.Lambda("f", func(string, string) {}) },
		`fakeaws: Lambda("f"): the handler is func(io.Reader): it may take a context.Context and an event`:                   func() { a.Lambda("f", func(io.Reader) {}) },
		`fakeaws: Lambda("f"): the handler is func() string: it may return a value and an error`:                             func() { a.Lambda("f", func() string { return "" }) },
		`fakeaws: Lambda("f"): the handler is func() (error, error, error): it may return a value and an error`:              func() { a.Lambda("f", func() (_, _, _ error) { return }) },
	} {
		require.PanicsWithValue(t, want, f)
	}
}

func TestAFunctionIsDeleted(t *testing.T) {
	loggedBubble(t, func(t *testing.T, a *fakeaws.AWS, l *logged) {
		queue := newQueue(t, a, "orders")
		f := a.Lambda("handle", func() error { time.Sleep(time.Second); return nil })
		mapped(t, a.Queue("orders"), f)
		send(t, a, queue, "before")
		f.Delete()
		f.Delete()
		send(t, a, queue, "after")
		time.Sleep(time.Hour)
		require.Equal(t, 1, a.Queue("orders").Len(), "the run under way went on")
		require.Len(t, f.Invocations(), 1)
		_, err := a.Queue("orders").Map(f)
		require.Equal(t, "ResourceNotFoundException", code(err))
		again := a.Lambda("handle", func() {})
		mapped(t, a.Queue("orders"), again)
		require.NoError(t, a.WaitQuiet(t.Context()))
	})
}

// When the fake ends, so do the contexts of the functions that run; it waits for
// them. Nothing runs after it.
func TestCloseEndsFunctionsAndWaitsForThem(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a := fakeaws.New(t)
		queue := newQueue(t, a, "orders")
		var ended, cause any
		f := a.Lambda("handle", func(ctx context.Context) error {
			began := time.Now()
			<-ctx.Done()
			cause = ctx.Err()
			time.Sleep(3 * time.Second)
			ended = time.Since(began)
			return nil
		}, fakeaws.WithTimeout(10*time.Second))
		waiting := a.Lambda("waiting", func() error { return nil }, fakeaws.WithReservedConcurrency(0))
		mapped(t, a.Queue("orders"), f, fakeaws.WithBatchingWindow(time.Second), fakeaws.WithBatchSize(1))
		second := newQueue(t, a, "second")
		mapped(t, a.Queue("second"), waiting)
		send(t, a, queue, "m")
		send(t, a, second, "m")
		time.Sleep(time.Second)
		a.Close()
		require.Equal(t, context.Canceled, cause)
		require.Equal(t, 4*time.Second, ended)
		require.Len(t, f.Invocations(), 1)
		require.Zero(t, f.Invocations()[0].Ended)
		_, err := a.Queue("orders").Map(f)
		require.Error(t, err)
	})
}

func TestAnIdleMappingOwnsNoGoroutine(t *testing.T) {
	a := fakeaws.New(t)
	queue := newQueue(t, a, "orders")
	mapped(t, a.Queue("orders"), a.Lambda("handle", func() {}))
	send(t, a, queue, "m")
	require.NoError(t, a.WaitQuiet(t.Context()))
	stacks := make([]byte, 1<<20)
	for {
		stack := string(stacks[:runtime.Stack(stacks, true)])
		_, others, _ := strings.Cut(stack, "\n\n")
		if !strings.Contains(others, "fakeaws.(*batch)") && !strings.Contains(others, "fakeaws.(*run)") && !strings.Contains(others, "fakeaws.(*job)") {
			return // or the test times out
		}
		runtime.Gosched()
	}
}

// A topic's message, and what comes of it.
func TestAFunctionGetsTheMessagesOfATopic(t *testing.T) {
	bubble(t, func(t *testing.T, a *fakeaws.AWS) {
		topic := newTopic(t, a, "orders")
		var got []events.SNSEvent
		f := a.Lambda("handle", func(_ context.Context, e events.SNSEvent) error { got = append(got, e); return nil })
		subscription := subscribeFunction(t, a, topic, f.ARN(), "FilterPolicy", `{"kind":["a"]}`)
		out := publish(t, a, topic, "<o-17>", func(in *sns.PublishInput) {
			in.Subject = aws.String("an order")
			in.MessageAttributes = map[string]snstypes.MessageAttributeValue{"kind": text("a")}
		})
		publish(t, a, topic, "not wanted")
		require.NoError(t, a.WaitQuiet(t.Context()))
		require.Len(t, got, 1)
		require.Len(t, got[0].Records, 1)
		r := got[0].Records[0]
		require.Equal(t, []string{"aws:sns", "1.0", subscription}, []string{r.EventSource, r.EventVersion, r.EventSubscriptionArn})
		require.Equal(t, []string{"Notification", *out.MessageId, topic, "an order", "<o-17>"}, []string{r.SNS.Type, r.SNS.MessageID, r.SNS.TopicArn, r.SNS.Subject, r.SNS.Message})
		require.True(t, r.SNS.Timestamp.Equal(time.Now()))
		require.Equal(t, map[string]any{"kind": map[string]any{"Type": "String", "Value": "a"}}, r.SNS.MessageAttributes)
		d := a.Topic("orders").Published()[0].Deliveries[0]
		require.Equal(t, []any{fakeaws.Delivered, f.ARN(), 1}, []any{d.Outcome, d.Endpoint, d.Attempts})
		require.Equal(t, topic, f.Invocations()[0].Source)
		response, err := a.HTTPClient().Get(r.SNS.UnsubscribeURL)
		require.NoError(t, err)
		require.Equal(t, 200, response.StatusCode)
		require.NoError(t, response.Body.Close())
	})
}

func subscribeFunction(t testing.TB, a *fakeaws.AWS, topic, endpoint string, attributes ...string) string {
	t.Helper()
	out, err := a.SNS().Subscribe(t.Context(), &sns.SubscribeInput{TopicArn: &topic, Protocol: aws.String("lambda"), Endpoint: &endpoint, Attributes: pairs(attributes)})
	require.NoError(t, err)
	return *out.SubscriptionArn
}

// An event is tried three times: at once, a minute after the first run and two
// minutes after the second. Then the failure destination gets a record of it.
func TestAnEventIsTriedThreeTimes(t *testing.T) {
	bubble(t, func(t *testing.T, a *fakeaws.AWS) {
		began := time.Now()
		topic := newTopic(t, a, "orders")
		newQueue(t, a, "failed")
		f := a.Lambda("handle", func() error {
			time.Sleep(time.Second)
			return errors.New("no stock")
		}, fakeaws.WithFailureDestination(a.Queue("failed").ARN()))
		subscribeFunction(t, a, topic, f.ARN())
		publish(t, a, topic, "o-17")
		require.NoError(t, a.WaitQuiet(t.Context()))
		require.Equal(t, 3*time.Minute+3*time.Second, time.Since(began))
		is := f.Invocations()
		var at []time.Duration
		for _, i := range is {
			at = append(at, i.Began.Sub(began))
			require.Equal(t, is[0].RequestID, i.RequestID)
			require.Equal(t, "errorString: no stock", i.Error)
		}
		require.Equal(t, []time.Duration{0, 61 * time.Second, 182 * time.Second}, at)
		records := a.Queue("failed").Messages()
		require.Len(t, records, 1)
		require.JSONEq(t, fmt.Sprintf(`{"version":"1.0","timestamp":%q,
			"requestContext":{"requestId":%q,"functionArn":"%s:$LATEST","condition":"RetriesExhausted","approximateInvokeCount":3},
			"requestPayload":%s,
			"responseContext":{"statusCode":200,"executedVersion":"$LATEST","functionError":"Unhandled"},
			"responsePayload":{"errorType":"errorString","errorMessage":"no stock"}}`,
			time.Now().UTC().Format("2006-01-02T15:04:05.000Z"), is[0].RequestID, f.ARN(), is[0].Payload), records[0].Body)
	})
}

func TestAnEventSucceedsWhenItIsTriedAgain(t *testing.T) {
	bubble(t, func(t *testing.T, a *fakeaws.AWS) {
		began := time.Now()
		topic := newTopic(t, a, "orders")
		newQueue(t, a, "failed")
		runs := 0
		f := a.Lambda("handle", func() {
			if runs++; runs == 1 {
				panic("once")
			}
		}, fakeaws.WithFailureDestination(a.Queue("failed").ARN()))
		subscribeFunction(t, a, topic, f.ARN())
		publish(t, a, topic, "o-17")
		require.NoError(t, a.WaitQuiet(t.Context()))
		require.Equal(t, time.Minute, time.Since(began))
		require.Equal(t, 2, runs)
		require.Zero(t, a.Queue("failed").Len())
	})
}

// Records go to a topic, too. Retries can be fewer; what has no destination is
// lost, and shows.
func TestWhatBecomesOfAnEventThatIsGivenUp(t *testing.T) {
	loggedBubble(t, func(t *testing.T, a *fakeaws.AWS, l *logged) {
		topic, failures := newTopic(t, a, "orders"), newTopic(t, a, "failures")
		newQueue(t, a, "readers", "Policy", permission(failures))
		subscribe(t, a, failures, a.Queue("readers"), "RawMessageDelivery", "true")
		fail := func() error { return errors.New("no") }
		options := []fakeaws.FunctionOption{fakeaws.WithRetries(0)}
		subscribeFunction(t, a, topic, a.Lambda("told", fail, append(options, fakeaws.WithFailureDestination(failures))...).ARN())
		subscribeFunction(t, a, topic, a.Lambda("lost", fail, options...).ARN())
		subscribeFunction(t, a, topic, a.Lambda("nowhere", fail, append(options, fakeaws.WithFailureDestination(a.Queue("none").ARN()))...).ARN())
		subscribeFunction(t, a, topic, a.Lambda("nobody", fail, append(options, fakeaws.WithFailureDestination(a.Topic("none").ARN()))...).ARN())
		publish(t, a, topic, "o-17")
		synctest.Wait()
		require.Len(t, a.Queue("readers").Messages(), 1)
		require.Contains(t, a.Queue("readers").Messages()[0].Body, `"approximateInvokeCount":1`)
		for _, want := range []string{
			`an event of function lost was lost \(request .*, RetriesExhausted\): it has no failure destination`,
			`an event of function nowhere was lost .*: there is no queue arn:aws:sqs:us-east-1:123456789012:none`,
			`an event of function nobody was lost .*: there is no topic arn:aws:sns:us-east-1:123456789012:none`,
		} {
			require.Regexp(t, want, l.log())
		}
	})
}

// An event that would be too old when it is tried again is given up when it has
// that age.
func TestMaximumEventAge(t *testing.T) {
	for age, want := range map[time.Duration]struct {
		runs  int
		at    time.Duration
		cause string
	}{
		time.Minute:     {2, time.Minute, "EventAgeExceeded"}, // the first retry is just in time
		2 * time.Minute: {2, 2 * time.Minute, "EventAgeExceeded"},
		3 * time.Minute: {3, 3 * time.Minute, "RetriesExhausted"},
	} {
		bubble(t, func(t *testing.T, a *fakeaws.AWS) {
			began := time.Now()
			topic := newTopic(t, a, "orders")
			newQueue(t, a, "failed")
			f := a.Lambda("handle", func() error { return errors.New("no") }, fakeaws.WithMaximumEventAge(age), fakeaws.WithFailureDestination(a.Queue("failed").ARN()))
			subscribeFunction(t, a, topic, f.ARN())
			publish(t, a, topic, "o-17")
			require.NoError(t, a.WaitQuiet(t.Context()))
			require.Equal(t, want.at, time.Since(began))
			require.Len(t, f.Invocations(), want.runs)
			require.Contains(t, a.Queue("failed").Messages()[0].Body, want.cause)
		})
	}
}

// A throttled event is tried again after 1 s, 2 s, 4 s and so on, up to five
// minutes, for up to six hours. That is no run.
func TestAThrottledEventIsTriedAgain(t *testing.T) {
	bubble(t, func(t *testing.T, a *fakeaws.AWS) {
		began := time.Now()
		topic := newTopic(t, a, "orders")
		busy := a.Lambda("busy", func() { time.Sleep(10 * time.Second) }, fakeaws.WithReservedConcurrency(1), fakeaws.WithTimeout(time.Minute))
		subscribeFunction(t, a, topic, busy.ARN())
		publish(t, a, topic, "first")
		publish(t, a, topic, "second")
		require.NoError(t, a.WaitQuiet(t.Context()))
		is := busy.Invocations()
		require.Len(t, is, 2)
		require.Equal(t, 15*time.Second, is[1].Began.Sub(began), "1 + 2 + 4 + 8")
		require.Equal(t, 4, busy.Throttled())

		began = time.Now()
		newQueue(t, a, "failed")
		never := a.Lambda("never", func() {}, fakeaws.WithReservedConcurrency(0), fakeaws.WithFailureDestination(a.Queue("failed").ARN()))
		topic = newTopic(t, a, "others")
		subscribeFunction(t, a, topic, never.ARN())
		publish(t, a, topic, "o-17")
		require.NoError(t, a.WaitQuiet(t.Context()))
		require.Equal(t, 6*time.Hour, time.Since(began))
		require.Empty(t, never.Invocations())
		require.Equal(t, 9+1+(6*3600-511)/300, never.Throttled()) // 1 to 256 s, then each 300 s
		var r map[string]any
		require.NoError(t, json.Unmarshal([]byte(a.Queue("failed").Messages()[0].Body), &r))
		require.NotContains(t, r, "responsePayload")
		require.Equal(t, map[string]any{"condition": "EventAgeExceeded", "approximateInvokeCount": 0.0, "functionArn": never.ARN() + ":$LATEST", "requestId": r["requestContext"].(map[string]any)["requestId"]}, r["requestContext"])
	})
}

// What SNS refuses, and what it finds out when it delivers.
func TestSubscriptionsOfFunctions(t *testing.T) {
	loggedBubble(t, func(t *testing.T, a *fakeaws.AWS, l *logged) {
		topic := newTopic(t, a, "orders")
		fifo := newTopic(t, a, "orders.fifo", "FifoTopic", "true")
		f := a.Lambda("handle", func() {})
		for _, c := range []struct{ topic, endpoint, raw, message string }{
			{topic, "handle", "false", "Lambda endpoint ARN"},
			{topic, a.Queue("handle").ARN(), "false", "Lambda endpoint ARN"},
			{topic, "arn:aws:lambda:us-east-1:123456789012:layer:handle", "false", "Lambda endpoint ARN"},
			{topic, f.ARN(), "true", "does not support raw message delivery"},
			{topic, a.Account("210987654321").Lambda("handle", func() {}).ARN(), "false", "by its own account only"},
			{fifo, f.ARN(), "false", "Please use FIFO SQS queue"},
		} {
			_, err := a.SNS().Subscribe(t.Context(), &sns.SubscribeInput{TopicArn: &c.topic, Protocol: aws.String("lambda"), Endpoint: &c.endpoint, Attributes: map[string]string{"RawMessageDelivery": c.raw}})
			require.Equal(t, "InvalidParameter", code(err), c.endpoint)
			require.ErrorContains(t, err, c.message)
		}
		dead := newQueue(t, a, "dead", "Policy", permission(topic))
		redrive := fmt.Sprintf(`{"deadLetterTargetArn":%q}`, a.Queue("dead").ARN())
		subscribeFunction(t, a, topic, f.ARN()+":$LATEST")
		subscribeFunction(t, a, topic, "arn:aws:lambda:us-east-1:123456789012:function:none", "RedrivePolicy", redrive)
		subscribeFunction(t, a, topic, "arn:aws:lambda:eu-west-1:123456789012:function:none")
		publish(t, a, topic, "o-17")
		require.NoError(t, a.WaitQuiet(t.Context()))
		var outcomes []fakeaws.Outcome
		for _, d := range a.Topic("orders").Published()[0].Deliveries {
			outcomes = append(outcomes, d.Outcome)
		}
		require.Equal(t, []fakeaws.Outcome{fakeaws.Delivered, fakeaws.DeadLettered, fakeaws.Lost}, outcomes)
		letter := receive(t, a, dead)[0]
		require.Equal(t, "ResourceNotFoundException", *letter.MessageAttributes["ErrorCode"].StringValue)
		require.Contains(t, *letter.Body, `"Message":"o-17"`)
		require.Contains(t, l.log(), "to arn:aws:lambda:eu-west-1:123456789012:function:none was lost: there is no function")
		f.Delete()
		publish(t, a, topic, "o-18")
		require.Equal(t, fakeaws.Lost, a.Topic("orders").Published()[1].Deliveries[0].Outcome)
	})
}

// An event that waits for its next run is dropped with its function.
func TestAnEventIsDroppedWithItsFunction(t *testing.T) {
	bubble(t, func(t *testing.T, a *fakeaws.AWS) {
		topic := newTopic(t, a, "orders")
		f := a.Lambda("handle", func() error { return errors.New("no") })
		subscribeFunction(t, a, topic, f.ARN())
		publish(t, a, topic, "o-17")
		time.Sleep(time.Second)
		f.Delete()
		require.NoError(t, a.WaitQuiet(t.Context()))
		require.Len(t, f.Invocations(), 1)
	})
}

func TestTheObserverIsToldOfRuns(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var told []fakeaws.Call
		a := fakeaws.New(t, fakeaws.WithObserver(func(c fakeaws.Call) {
			if c.Operation == "Invoke" {
				told = append(told, c)
			}
		}))
		topic := newTopic(t, a, "orders")
		began := time.Now()
		subscribeFunction(t, a, topic, a.Lambda("handle", func() error { time.Sleep(time.Second); return errors.New("no") }, fakeaws.WithRetries(0)).ARN())
		publish(t, a, topic, "o-17")
		require.NoError(t, a.WaitQuiet(t.Context()))
		require.Equal(t, []fakeaws.Call{{Operation: "Invoke", Resource: "handle", Region: "us-east-1", Account: "123456789012", Time: began, Took: time.Second, Error: "errorString: no"}}, told)
	})
}
