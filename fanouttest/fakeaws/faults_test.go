package fakeaws_test

import (
	"context"
	"fmt"
	"net/http"
	"net/http/httptest"
	"runtime"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/sqs"
	sqstypes "github.com/aws/aws-sdk-go-v2/service/sqs/types"
	"github.com/stretchr/testify/require"

	"github.com/gofanout/fanout/fanouttest/fakeaws"
)

// once is a client that does not try again.
func once(a *fakeaws.AWS) *sqs.Client {
	return sqs.NewFromConfig(a.Config(), func(o *sqs.Options) { o.Retryer = aws.NopRetryer{} })
}

func TestTheNthCallFails(t *testing.T) {
	a := fakeaws.New(t)
	q, other := newQueue(t, a, "orders"), newQueue(t, a, "other")
	fault := a.Inject(fakeaws.Fault{Operation: "SendMessage", Resource: "orders", After: 2, Times: 2, Error: &fakeaws.AccessDenied})
	var codes []string
	for k := range 6 {
		_, err := once(a).SendMessage(t.Context(), &sqs.SendMessageInput{QueueUrl: &q, MessageBody: aws.String(fmt.Sprint(k))})
		codes = append(codes, code(err))
		send(t, a, other, "m")
		receive(t, a, q, hide(1))
	}
	require.Equal(t, []string{"", "", "AccessDenied", "AccessDenied", "", ""}, codes)
	require.Equal(t, 2, fault.Hits())
	require.Len(t, a.Queue("orders").Sent(), 4)
	require.Len(t, a.Queue("other").Sent(), 6)
	require.Equal(t, 12, a.Calls("SendMessage"))

	fault = a.Inject(fakeaws.Fault{Times: fakeaws.Always, Error: &fakeaws.Error{Code: "AWS.SimpleQueueService.NonExistentQueue"}})
	for range 3 {
		_, err := once(a).ReceiveMessage(t.Context(), &sqs.ReceiveMessageInput{QueueUrl: &q})
		var typed *sqstypes.QueueDoesNotExist
		require.ErrorAs(t, err, &typed, "an error of the model has its type")
	}
	fault.Remove()
	send(t, a, q, "m")
}

func TestMistakesOfTheTestAreRefusedByName(t *testing.T) {
	a, err := fakeaws.Start()
	require.NoError(t, err)
	defer a.Close()
	for want, mistake := range map[string]func(){
		"fakeaws: In(\"nowhere\"): want a region such as us-east-1":                                     func() { a.In("nowhere") },
		"fakeaws: Account(\"12\"): want twelve digits":                                                  func() { a.Account("12") },
		"fakeaws: Inject: Operation \"Send\" is none of SQS or SNS that the fake has":                   func() { a.Inject(fakeaws.Fault{Operation: "Send", Twice: true}) },
		"fakeaws: Inject: After -1, Times 0, Delay 0s: none can be negative":                            func() { a.Inject(fakeaws.Fault{After: -1, Twice: true}) },
		"fakeaws: Inject: Entries [\"a\"] without an Error":                                             func() { a.Inject(fakeaws.Fault{Entries: []string{"a"}, Twice: true}) },
		"fakeaws: Inject: the Fault does nothing: set Error, Delay, LoseRequest, LoseResponse or Twice": func() { a.Inject(fakeaws.Fault{Operation: "SendMessage"}) },
	} {
		require.PanicsWithValue(t, want, mistake)
	}
}

// A client that is throttled waits and tries again, in virtual time.
func TestThrottledClientsTryAgain(t *testing.T) {
	bubble(t, func(t *testing.T, a *fakeaws.AWS) {
		q := newQueue(t, a, "orders")
		for _, e := range []fakeaws.Error{fakeaws.Throttled, fakeaws.InternalFailure, fakeaws.ServiceUnavailable} {
			a.Inject(fakeaws.Fault{Operation: "SendMessage", Times: 2, Error: &e})
			began := time.Now()
			send(t, a, q, "m")
			require.Positive(t, time.Since(began), e.Code)
		}
		require.Len(t, a.Queue("orders").Sent(), 3)
		require.Equal(t, 9, a.Calls("SendMessage"))
		a.Inject(fakeaws.Fault{Operation: "SendMessage", Error: &fakeaws.Throttled})
		_, err := once(a).SendMessage(t.Context(), &sqs.SendMessageInput{QueueUrl: &q, MessageBody: aws.String("m")})
		var typed *sqstypes.RequestThrottled
		require.ErrorAs(t, err, &typed)
	})
}

func TestADelayedCallTakesItsTimeAndEndsWithItsContext(t *testing.T) {
	bubble(t, func(t *testing.T, a *fakeaws.AWS) {
		q := newQueue(t, a, "orders")
		a.Inject(fakeaws.Fault{Operation: "SendMessage", Times: 2, Delay: 7 * time.Second})
		began := time.Now()
		send(t, a, q, "m")
		require.Equal(t, 7*time.Second, time.Since(began))
		require.Equal(t, began.Add(7*time.Second), a.Queue("orders").Messages()[0].Sent, "it was sent after the delay")
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		_, err := a.SQS().SendMessage(ctx, &sqs.SendMessageInput{QueueUrl: &q, MessageBody: aws.String("m")})
		require.ErrorIs(t, err, context.DeadlineExceeded)
		require.Len(t, a.Queue("orders").Sent(), 1)
	})
}

func TestALostConnection(t *testing.T) {
	bubble(t, func(t *testing.T, a *fakeaws.AWS) {
		q := newQueue(t, a, "orders")
		a.Inject(fakeaws.Fault{Operation: "SendMessage", LoseRequest: true})
		send(t, a, q, "m")
		require.Len(t, a.Queue("orders").Sent(), 1, "the client tries again; nothing had been done")
		a.Inject(fakeaws.Fault{Operation: "SendMessage", LoseResponse: true})
		send(t, a, q, "n")
		require.Len(t, a.Queue("orders").Sent(), 3, "the client tries again; the message is there twice")
		a.Inject(fakeaws.Fault{Operation: "ReceiveMessage", LoseResponse: true})
		_, err := once(a).ReceiveMessage(t.Context(), &sqs.ReceiveMessageInput{QueueUrl: &q})
		require.Error(t, err)
		require.Equal(t, "1", attributesOf(t, a, q)["ApproximateNumberOfMessagesNotVisible"], "it is in flight, and nobody has it")
	})
}

func TestABatchIsAnsweredInPart(t *testing.T) {
	a := fakeaws.New(t)
	q := newQueue(t, a, "orders")
	in := &sqs.SendMessageBatchInput{QueueUrl: &q}
	for _, id := range []string{"a", "b", "c"} {
		in.Entries = append(in.Entries, sqstypes.SendMessageBatchRequestEntry{Id: aws.String(id), MessageBody: aws.String(id)})
	}
	a.Inject(fakeaws.Fault{Operation: "SendMessageBatch", Entries: []string{"b"}, Error: &fakeaws.InternalFailure})
	out, err := a.SQS().SendMessageBatch(t.Context(), in)
	require.NoError(t, err)
	require.Len(t, out.Successful, 2)
	require.Equal(t, []sqstypes.BatchResultErrorEntry{{Id: aws.String("b"), Code: aws.String("InternalFailure"), SenderFault: false,
		Message: aws.String(fakeaws.InternalFailure.Message)}}, out.Failed)
	ms := receive(t, a, q)
	require.Equal(t, []string{"a", "c"}, bodies(ms))
	a.Inject(fakeaws.Fault{Operation: "DeleteMessageBatch", Entries: []string{"*"}, Error: &fakeaws.InternalFailure})
	deleted, err := a.SQS().DeleteMessageBatch(t.Context(), &sqs.DeleteMessageBatchInput{QueueUrl: &q, Entries: []sqstypes.DeleteMessageBatchRequestEntry{
		{Id: aws.String("1"), ReceiptHandle: ms[0].ReceiptHandle}, {Id: aws.String("2"), ReceiptHandle: ms[1].ReceiptHandle}}})
	require.NoError(t, err)
	require.Len(t, deleted.Failed, 2)
	require.Equal(t, 2, a.Queue("orders").Len())
}

func TestAMessageIsDeliveredTwice(t *testing.T) {
	a := fakeaws.New(t)
	q := newQueue(t, a, "orders")
	a.Inject(fakeaws.Fault{Operation: "SendMessage", Twice: true})
	out := send(t, a, q, "m")
	send(t, a, q, "n")
	ms := receive(t, a, q)
	require.Equal(t, []string{"m", "m", "n"}, bodies(ms))
	require.Equal(t, *out.MessageId, *ms[0].MessageId)
	require.Equal(t, *out.MessageId, *ms[1].MessageId)
	require.NoError(t, remove(a, q, ms[0]))
	require.Equal(t, 2, a.Queue("orders").Len(), "each must be deleted")

	f := newQueue(t, a, "orders.fifo", "FifoQueue", "true")
	a.Inject(fakeaws.Fault{Operation: "SendMessage", Twice: true})
	send(t, a, f, "m", group("g", "1"))
	require.Equal(t, 1, a.Queue("orders.fifo").Len(), "never by a FIFO queue")
}

func TestAShuffledQueueGivesOutEverythingInAnotherOrder(t *testing.T) {
	orders := map[string]bool{}
	for seed := range uint64(3) {
		var first []string
		for range 2 {
			a := fakeaws.New(t)
			q := newQueue(t, a, "orders", "VisibilityTimeout", "600")
			var sent, got []string
			for k := range 5 {
				sent = append(sent, fmt.Sprint(k))
				send(t, a, q, sent[k])
			}
			a.Queue("orders").Shuffle(seed)
			for k := 5; k < 20; k++ {
				sent = append(sent, fmt.Sprint(k))
				send(t, a, q, sent[k])
			}
			for range 2 {
				got = append(got, bodies(receive(t, a, q))...)
			}
			require.ElementsMatch(t, sent, got)
			require.NotEqual(t, sent, got)
			if first == nil {
				first = got
			}
			require.Equal(t, first, got, "the seed makes the order")
		}
		orders[fmt.Sprint(first)] = true
	}
	require.Len(t, orders, 3)
}

func TestLookingTakesNothing(t *testing.T) {
	bubble(t, func(t *testing.T, a *fakeaws.AWS) {
		require.False(t, a.Queue("orders").Exists())
		require.Nil(t, a.Queue("orders").Messages())
		require.Empty(t, a.Queue("orders").URL())
		q := newQueue(t, a, "orders", "VisibilityTimeout", "30")
		began := time.Now()
		first := send(t, a, q, "first", func(in *sqs.SendMessageInput) {
			in.MessageAttributes = map[string]sqstypes.MessageAttributeValue{"a": {DataType: aws.String("String"), StringValue: aws.String("x")}}
			in.MessageGroupId = aws.String("tenant")
		})
		m := receive(t, a, q)[0]
		send(t, a, q, "second", func(in *sqs.SendMessageInput) { in.DelaySeconds = 5 })
		third := send(t, a, q, "third")
		for range 2 {
			ms := a.Queue("orders").Messages()
			require.Len(t, ms, 3)
			require.Equal(t, fakeaws.Message{ID: *first.MessageId, Body: "first", State: fakeaws.InFlight, Due: began.Add(30 * time.Second), Sent: began, Receives: 1,
				Group: "tenant", Attributes: map[string]fakeaws.Attribute{"a": {Type: "String", String: "x"}}, ReceiptHandle: *m.ReceiptHandle}, ms[0])
			require.Equal(t, fakeaws.Delayed, ms[1].State)
			require.Equal(t, began.Add(5*time.Second), ms[1].Due)
			require.Equal(t, fakeaws.Message{ID: *third.MessageId, Body: "third", State: fakeaws.Visible, Sent: began}, ms[2])
		}
		time.Sleep(5 * time.Second)
		require.Equal(t, fakeaws.Visible, a.Queue("orders").Messages()[1].State)
		require.NoError(t, remove(a, q, m))
		require.Len(t, a.Queue("orders").Messages(), 2)
		require.Len(t, a.Queue("orders").Sent(), 3, "what was sent stays in the history")
		require.Equal(t, q, a.Queue("orders").URL())
	})
}

func TestWaitQuiet(t *testing.T) {
	bubble(t, func(t *testing.T, a *fakeaws.AWS) {
		require.NoError(t, a.WaitQuiet(t.Context()))
		newQueue(t, a, "dead")
		q := newQueue(t, a, "orders", "RedrivePolicy", redrive(a.Queue("dead"), 1), "VisibilityTimeout", "10", "MessageRetentionPeriod", "60")
		send(t, a, q, "poison")
		send(t, a, q, "m")
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		err := a.WaitQuiet(ctx)
		require.ErrorIs(t, err, context.DeadlineExceeded)
		require.ErrorContains(t, err, "queue orders has 2 messages (2 visible, 0 delayed, 0 in flight)")
		began := time.Now()
		go func() {
			for _, m := range receive(t, a, q) {
				if *m.Body == "m" {
					time.Sleep(4 * time.Second)
					_ = remove(a, q, m)
				}
			}
			receive(t, a, q, wait(20))
		}()
		require.NoError(t, a.WaitQuiet(t.Context()))
		require.Equal(t, 10*time.Second, time.Since(began), "the dead letter is at rest in its queue")
		require.Equal(t, 1, a.Queue("dead").Len())

		send(t, a, q, "too old")
		receive(t, a, q, hide(600))
		began = time.Now()
		require.NoError(t, a.WaitQuiet(t.Context()))
		require.Equal(t, time.Minute, time.Since(began))
		synctest.Wait()
		_, err = a.SQS().StartMessageMoveTask(t.Context(), &sqs.StartMessageMoveTaskInput{SourceArn: aws.String(a.Queue("dead").ARN()), MaxNumberOfMessagesPerSecond: aws.Int32(1)})
		require.NoError(t, err)
		ctx, cancel = context.WithTimeout(t.Context(), time.Nanosecond)
		defer cancel()
		require.ErrorContains(t, a.WaitQuiet(ctx), "a move task runs")
	})
}

func TestALongPollWhoseCallerIsGone(t *testing.T) {
	for _, lost := range []bool{false, true} {
		synctest.Test(t, func(t *testing.T) {
			var options []fakeaws.Option
			if lost {
				options = append(options, fakeaws.WithLostPolls())
			}
			a := fakeaws.New(t, options...)
			q := newQueue(t, a, "orders")
			ctx, cancel := context.WithTimeout(t.Context(), time.Second)
			defer cancel()
			_, err := a.SQS().ReceiveMessage(ctx, &sqs.ReceiveMessageInput{QueueUrl: &q, WaitTimeSeconds: 10})
			require.ErrorIs(t, err, context.DeadlineExceeded)
			time.Sleep(9*time.Second - time.Nanosecond)
			send(t, a, q, "m")
			require.Equal(t, !lost, len(receive(t, a, q)) == 1)
			time.Sleep(time.Hour)
			require.Len(t, receive(t, a, q, hide(1)), 1)
			_, err = a.SQS().ReceiveMessage(ctx, &sqs.ReceiveMessageInput{QueueUrl: &q, WaitTimeSeconds: 10})
			require.Error(t, err)
			time.Sleep(10 * time.Second)
			send(t, a, q, "n")
			require.Len(t, receive(t, a, q, hide(1)), 2, "it takes until its wait would have ended")
		})
	}
}

func TestAfterCloseRequestsFail(t *testing.T) {
	bubble(t, func(t *testing.T, a *fakeaws.AWS) {
		q := newQueue(t, a, "orders")
		polled := make(chan error)
		go func() {
			_, err := once(a).ReceiveMessage(t.Context(), &sqs.ReceiveMessageInput{QueueUrl: &q, WaitTimeSeconds: 20})
			polled <- err
		}()
		synctest.Wait()
		began := time.Now()
		a.Close()
		a.Close()
		require.ErrorContains(t, <-polled, "fakeaws: closed")
		require.Zero(t, time.Since(began))
		_, err := once(a).ListQueues(t.Context(), &sqs.ListQueuesInput{})
		require.ErrorContains(t, err, "fakeaws: closed")
	})
}

func TestObserver(t *testing.T) {
	var mu sync.Mutex
	var calls []fakeaws.Call
	bubbleWith := func(f func(a *fakeaws.AWS, t *testing.T)) {
		synctest.Test(t, func(t *testing.T) {
			f(fakeaws.New(t, fakeaws.WithRegion("eu-west-1"), fakeaws.WithAccount("210987654321"), fakeaws.WithObserver(func(c fakeaws.Call) {
				mu.Lock()
				defer mu.Unlock()
				calls = append(calls, c)
			})), t)
		})
	}
	bubbleWith(func(a *fakeaws.AWS, t *testing.T) {
		began := time.Now()
		q := newQueue(t, a, "orders")
		receive(t, a, q, wait(5))
		_, err := once(a).PurgeQueue(t.Context(), &sqs.PurgeQueueInput{QueueUrl: aws.String("none")})
		require.Error(t, err)
		c := fakeaws.Call{Region: "eu-west-1", Account: "210987654321", Time: began}
		want := []fakeaws.Call{c, c, c}
		want[0].Operation, want[0].Resource = "CreateQueue", "orders"
		want[1].Operation, want[1].Resource, want[1].Took = "ReceiveMessage", "orders", 5*time.Second
		want[2].Operation, want[2].Resource, want[2].Time = "PurgeQueue", "none", began.Add(5*time.Second)
		want[2].Error = "AWS.SimpleQueueService.NonExistentQueue: The specified queue does not exist."
		require.Equal(t, want, calls)
	})
	for _, o := range []fakeaws.Option{fakeaws.WithRegion("nowhere"), fakeaws.WithAccount("12"), fakeaws.WithObserver(nil)} {
		_, err := fakeaws.Start(o)
		require.ErrorContains(t, err, "fakeaws: With")
	}
}

// Through a socket the same fake serves other processes.
func TestTheHandlerServesASocket(t *testing.T) {
	a := fakeaws.New(t)
	server := httptest.NewServer(a.Handler())
	defer server.Close()
	config := a.In("eu-west-1").Config()
	config.BaseEndpoint, config.HTTPClient = &server.URL, http.DefaultClient
	client := sqs.NewFromConfig(config)
	out, err := client.CreateQueue(t.Context(), &sqs.CreateQueueInput{QueueName: aws.String("orders")})
	require.NoError(t, err)
	require.Equal(t, server.URL+"/123456789012/orders", *out.QueueUrl)
	_, err = client.SendMessage(t.Context(), &sqs.SendMessageInput{QueueUrl: out.QueueUrl, MessageBody: aws.String("m")})
	require.NoError(t, err)
	require.Len(t, receive(t, a.In("eu-west-1"), a.In("eu-west-1").Queue("orders").URL()), 1)
	a.Inject(fakeaws.Fault{LoseRequest: true})
	_, err = client.ListQueues(t.Context(), &sqs.ListQueuesInput{})
	require.NoError(t, err, "it tries again")
}

// ofTheFake returns the stacks of goroutines that are in the fake or were
// started by it. runtime.NumGoroutine counts some that have just ended.
func ofTheFake() (stacks []string) {
	all := make([]byte, 1<<20)
	all = all[:runtime.Stack(all, true)]
	for _, stack := range strings.Split(string(all), "\n\n") {
		if strings.Contains(stack, "fanouttest/fakeaws.(") {
			stacks = append(stacks, stack)
		}
	}
	return stacks
}

// Idle: no call in flight. A fake owns no goroutine then, whatever is delayed,
// in flight or too old.
func TestAnIdleFakeOwnsNoGoroutineAndKeepsNoTimer(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a := fakeaws.New(t)
		for k := range 10 {
			q := newQueue(t, a, fmt.Sprint("q", k))
			send(t, a, q, "delayed", func(in *sqs.SendMessageInput) { in.DelaySeconds = 10 })
			send(t, a, q, "in flight")
			receive(t, a, q)
			receive(t, a, q, wait(1))
		}
		a.Endpoint(hookURL, newHook(status(500, 200)), fakeaws.AutoConfirm())
		topic := newTopic(t, a, "orders")
		subscribeHTTP(t, a, topic, hookURL)
		publish(t, a, topic, "m")
		time.Sleep(time.Minute)
		synctest.Wait()
		require.Empty(t, ofTheFake())
		h := newHook(func(_ int, _ http.ResponseWriter, r *http.Request) { <-r.Context().Done() })
		a.Endpoint(hookURL, h, fakeaws.AutoConfirm())
		publish(t, a, topic, "m")
		synctest.Wait()
		require.Len(t, ofTheFake(), 2, "an attempt, and its handler")
	})
}

// use creates a queue in a fake, sends and receives.
func use(a *fakeaws.AWS, name string) error {
	ctx := context.Background()
	out, err := a.SQS().CreateQueue(ctx, &sqs.CreateQueueInput{QueueName: &name})
	if err != nil {
		return err
	}
	if _, err = a.SQS().SendMessage(ctx, &sqs.SendMessageInput{QueueUrl: out.QueueUrl, MessageBody: &name}); err != nil {
		return err
	}
	got, err := a.SQS().ReceiveMessage(ctx, &sqs.ReceiveMessageInput{QueueUrl: out.QueueUrl, WaitTimeSeconds: 20, MaxNumberOfMessages: 10})
	if err != nil {
		return err
	}
	if len(got.Messages) != 1 || *got.Messages[0].Body != name {
		return fmt.Errorf("the fake of %s gave %d messages", name, len(got.Messages))
	}
	return nil
}

// Ten thousand fakes, all alive and used at once: each sees its own message
// only, none owns a goroutine, and each takes less than 32 KB, most of which is
// the SDK's client.
func TestTenThousandFakes(t *testing.T) {
	n := 10_000
	if testing.Short() {
		n = 500
	}
	heap := func() uint64 {
		var m runtime.MemStats
		runtime.GC()
		runtime.GC()
		runtime.ReadMemStats(&m)
		return m.HeapAlloc
	}
	before := heap()
	fakes := make([]*fakeaws.AWS, n)
	var group sync.WaitGroup
	rooms := make(chan struct{}, 64)
	for k := range n {
		rooms <- struct{}{}
		group.Go(func() {
			defer func() { <-rooms }()
			a, err := fakeaws.Start()
			if err == nil {
				fakes[k], err = a, use(a, fmt.Sprint("q", k))
			}
			if err != nil {
				t.Error(err)
			}
		})
	}
	group.Wait()
	if t.Failed() {
		return
	}
	each := (int64(heap()) - int64(before)) / int64(n)
	require.Empty(t, ofTheFake())
	if !testing.Short() {
		t.Logf("%d bytes for each fake", each)
		require.Less(t, each, int64(32<<10))
	}
	for _, a := range fakes {
		a.Close()
	}
}

// Each in a test of its own, in virtual time, as users have it.
func TestFakesInParallelTests(t *testing.T) {
	for k := range 1000 {
		t.Run("", func(t *testing.T) {
			t.Parallel()
			bubble(t, func(t *testing.T, a *fakeaws.AWS) { require.NoError(t, use(a, fmt.Sprint("q", k))) })
		})
	}
}

// BenchmarkFakesInParallel is a test's whole life with a fake, in parallel.
func BenchmarkFakesInParallel(b *testing.B) {
	b.ReportAllocs()
	b.RunParallel(func(p *testing.PB) {
		for p.Next() {
			a, err := fakeaws.Start()
			if err == nil {
				err = use(a, "q")
			}
			if err != nil {
				b.Fatal(err)
			}
			a.Close()
		}
	})
}

func BenchmarkStart(b *testing.B) {
	b.ReportAllocs()
	for b.Loop() {
		a, _ := fakeaws.Start()
		a.Close()
	}
}

func BenchmarkStartToFirstMessage(b *testing.B) {
	b.ReportAllocs()
	for b.Loop() {
		a, _ := fakeaws.Start()
		out, err := a.SQS().CreateQueue(b.Context(), &sqs.CreateQueueInput{QueueName: aws.String("orders")})
		if err != nil {
			b.Fatal(err)
		}
		if _, err := a.SQS().SendMessage(b.Context(), &sqs.SendMessageInput{QueueUrl: out.QueueUrl, MessageBody: aws.String("m")}); err != nil {
			b.Fatal(err)
		}
		if _, err := a.SQS().ReceiveMessage(b.Context(), &sqs.ReceiveMessageInput{QueueUrl: out.QueueUrl}); err != nil {
			b.Fatal(err)
		}
		a.Close()
	}
}
