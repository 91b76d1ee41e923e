package fanoutaws

import (
	"context"
	"errors"
	"log/slog"
	"strconv"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/aws/aws-sdk-go-v2/service/sns"
	"github.com/aws/aws-sdk-go-v2/service/sqs"
	"github.com/stretchr/testify/require"

	"github.com/gofanout/fanout"
	"github.com/gofanout/fanout/engine"
	"github.com/gofanout/fanout/fanouttest/fakeaws"
)

// inFake runs a test in virtual time, unless the suite is pointed at another server.
func inFake(t *testing.T, test func(t *testing.T)) {
	t.Helper()
	t.Parallel()
	if !virtual() {
		t.Log("not part of a run on another server: it needs more of the fake than that has")
		return
	}
	synctest.Test(t, test)
}

// oldQueues makes the queues of topic p and queue q as SQS did before August 2025.
func oldQueues(t *testing.T, e *Engine, source, dead int) {
	t.Helper()
	createQueue(t, e, "p-q", map[string]string{sizeAttribute: strconv.Itoa(source)})
	createQueue(t, e, "p-q-dlq", map[string]string{sizeAttribute: strconv.Itoa(dead)})
}

func newFanoutTopic(t *testing.T, e *Engine, options ...fanout.TopicOption) *fanout.Topic[string] {
	t.Helper()
	top, err := fanout.NewTopic[string]("p", append(options, fanout.WithEngine(e, fanout.Without(engine.Bounded, engine.AllOrNone)),
		fanout.WithLogger(slog.New(slog.DiscardHandler)))...)
	require.NoError(t, err)
	t.Cleanup(func() {
		_ = top.Close()
		<-top.Done()
	})
	return top
}

// TestWhatIsPublishedCanDieInQueuesOf256KiB: the largest message that Publish takes
// becomes a dead letter, and what is larger is refused with bytes and limit.
func TestWhatIsPublishedCanDieInQueuesOf256KiB(t *testing.T) {
	inFake(t, func(t *testing.T) {
		e := newEngine(t)
		oldQueues(t, e, 256<<10, 256<<10)
		top := newFanoutTopic(t, e)
		q, err := top.OpenQueue(t.Context(), "q", fanout.WithMaxAttempts(3))
		require.NoError(t, err)
		var largest int
		for n := 262_144; ; n -= 10 {
			err := top.Publish(t.Context(), strings.Repeat("x", n))
			if err == nil {
				largest = n
				break
			}
			require.ErrorIs(t, err, fanout.ErrInvalidMessage)
			require.ErrorContains(t, err, "262144")
		}
		require.Greater(t, largest, 261_000)
		_, err = q.Subscribe(t.Context(), func(context.Context, fanout.Delivery[string]) error {
			return errors.New(strings.Repeat("it failed. ", 1000))
		})
		require.NoError(t, err)
		time.Sleep(10 * time.Minute)
		require.Equal(t, uint64(1), q.Stats().DeadLettered)
		require.Zero(t, q.Stats().TimesParked)
		letters, err := q.DeadLetters().Peek(t.Context(), 10)
		require.NoError(t, err)
		require.Len(t, letters, 1)
		require.Len(t, letters[0].Body, largest)
		as := letters[0].History()
		require.Equal(t, 3, as[len(as)-1].Number)
		n, err := q.Redrive(t.Context())
		require.NoError(t, err)
		require.Equal(t, 1, n, "and it fits when it goes back")
	})
}

// TestALetterHasAsMuchOfItsHistoryAsFits.
func TestALetterHasAsMuchOfItsHistoryAsFits(t *testing.T) {
	inFake(t, func(t *testing.T) {
		e := newEngine(t)
		oldQueues(t, e, 256<<10, 256<<10)
		top := newFanoutTopic(t, e)
		q, err := top.OpenQueue(t.Context(), "q", fanout.WithMaxAttempts(3))
		require.NoError(t, err)
		_, err = q.Subscribe(t.Context(), func(context.Context, fanout.Delivery[string]) error {
			return errors.New(strings.Repeat("it failed. ", 150))
		})
		require.NoError(t, err)
		require.NoError(t, top.Publish(t.Context(), strings.Repeat("x", 258_000)))
		time.Sleep(10 * time.Minute)
		letters, err := q.DeadLetters().Peek(t.Context(), 10)
		require.NoError(t, err)
		require.Len(t, letters, 1)
		as := letters[0].History()
		require.Len(t, as, 3)
		require.Contains(t, as[2].Err.Error(), "it failed. it failed.")
	})
}

// TestAForeignMessageThatCannotDieComesSeldom: it is left to the broker's own net,
// which takes a thousand receives. The limit of its queues is low, so that they are cheap.
func TestAForeignMessageThatCannotDieComesSeldom(t *testing.T) {
	const limit = 4 << 10
	inFake(t, func(t *testing.T) {
		e := newEngine(t)
		oldQueues(t, e, limit, limit)
		var said []string
		top := newFanoutTopic(t, e, fanout.WithHooks(fanout.Hooks{EngineFailed: func(e fanout.Event) { said = append(said, e.Err.Error()) }}))
		q, err := top.OpenQueue(t.Context(), "q", fanout.WithMaxAttempts(2))
		require.NoError(t, err)
		p, err := e.findPlace(t.Context(), "p-q")
		require.NoError(t, err)
		body := `"` + strings.Repeat("x", limit-2) + `"`
		_, err = e.sqs.SendMessage(t.Context(), &sqs.SendMessageInput{QueueUrl: &p.url, MessageBody: &body})
		require.NoError(t, err)
		runs := 0
		_, err = q.Subscribe(t.Context(), func(context.Context, fanout.Delivery[string]) error { runs++; return errors.New("no") })
		require.NoError(t, err)
		time.Sleep(10 * time.Hour)
		require.Equal(t, 2, runs)
		require.Zero(t, q.Stats().DeadLettered)
		require.Equal(t, uint64(1), q.Stats().TimesParked)
		s, err := q.DeadLetters().Depth(t.Context())
		require.NoError(t, err)
		require.Equal(t, 1, s.Unsettled(), "SQS has moved it after a thousand receives")
		require.Len(t, said, 1, "%q", said)
		require.Contains(t, said[0], strconv.Itoa(limit))
		require.Contains(t, said[0], "bytes")
	})
}

// TestLimitsAreComparedAndRaisedOnlyWhenAsked.
func TestLimitsAreComparedAndRaisedOnlyWhenAsked(t *testing.T) {
	const kib256, mib = 256 << 10, 1 << 20
	for name, c := range map[string]struct {
		source, dead int
		options      []Option
		want         string // of the error
		left         int    // each queue's limit then
	}{
		"equal":                       {kib256, kib256, nil, "", kib256},
		"letters take less":           {mib, kib256, nil, "MaximumMessageSize of dead-letter queue", 0},
		"letters take less, raised":   {mib, kib256, []Option{WithMaxMessageSize(mib)}, "", mib},
		"raised":                      {kib256, kib256, []Option{WithMaxMessageSize(mib)}, "", mib},
		"not raised where they exist": {kib256, kib256, []Option{WithMaxMessageSize(mib), WithExisting()}, "262144, and should be 1048576", kib256},
	} {
		t.Run(name, func(t *testing.T) {
			inFake(t, func(t *testing.T) {
				e := newEngine(t, c.options...)
				oldQueues(t, e, c.source, c.dead)
				if e.existing {
					top := newTopic(t, newEngine(t), engine.TopicSpec{Name: "p"})
					openQueue(t, top, engine.QueueSpec{Name: "q"})
					_, err := e.sns.SetTopicAttributes(t.Context(), &sns.SetTopicAttributesInput{TopicArn: &top.arn, AttributeName: ptr(sizeAttribute), AttributeValue: ptr("1048576")})
					require.NoError(t, err)
				}
				top := newTopic(t, e, engine.TopicSpec{Name: "p"})
				q, err := top.OpenQueue(t.Context(), engine.QueueSpec{Name: "q", MaxAttempts: 5})
				if c.want != "" {
					require.ErrorIs(t, err, engine.ErrMismatch)
					require.ErrorContains(t, err, c.want)
				} else {
					require.NoError(t, err)
					require.NoError(t, q.Close())
				}
				for _, called := range []string{"p-q", "p-q-dlq"} {
					p, err := e.findPlace(t.Context(), called)
					require.NoError(t, err)
					if c.left > 0 {
						require.Equal(t, c.left, p.most(), called)
					}
				}
			})
		})
	}
}

func ptr(s string) *string { return &s }

// TestTheTopicsOwnLimitCounts: and who may not ask for it can still publish.
func TestTheTopicsOwnLimitCounts(t *testing.T) {
	inFake(t, func(t *testing.T) {
		e := newEngine(t)
		top := newTopic(t, e, engine.TopicSpec{Name: "p"})
		_, err := e.sns.SetTopicAttributes(t.Context(), &sns.SetTopicAttributesInput{TopicArn: &top.arn, AttributeName: ptr(sizeAttribute), AttributeValue: ptr("2048")})
		require.NoError(t, err)
		top = newTopic(t, e, engine.TopicSpec{Name: "p"})
		err = top.Publish(t.Context(), []engine.Message{message("a", strings.Repeat("x", 3000))})
		require.ErrorIs(t, err, engine.ErrTooLarge)
		require.ErrorContains(t, err, "2048")

		denied := fakeaws.Error{Code: "AuthorizationError", Message: "not you", Status: 403}
		fakeOf(t).Inject(fakeaws.Fault{Operation: "GetTopicAttributes", Times: fakeaws.Always, Error: &denied})
		top = newTopic(t, e, engine.TopicSpec{Name: "p"})
		publish(t, top, message("a", "1"))
		_, err = newEngine(t, WithMaxMessageSize(1<<20)).OpenTopic(t.Context(), engine.TopicSpec{Name: "p"})
		require.ErrorContains(t, err, "not you")
	})
}

// TestAnARNOfElsewhereIsAMismatch: a queue of that name here is another one.
func TestAnARNOfElsewhereIsAMismatch(t *testing.T) {
	inFake(t, func(t *testing.T) {
		here := newEngine(t)
		top := newTopic(t, here, engine.TopicSpec{Name: "p"})
		q := openQueue(t, top, engine.QueueSpec{Name: "q"})
		elsewhere := func(arn string) string { return strings.Replace(arn, ":"+fakeaws.DefaultRegion+":", ":ap-south-2:", 1) }
		theirs := strings.Replace(q.place.arn, ":"+fakeaws.DefaultAccount+":", ":999999999999:", 1)
		for name, c := range map[string]struct {
			names Names
			want  []string
		}{
			"topic":       {Names{Topic: func(string) string { return elsewhere(top.arn) }}, []string{"ap-south-2", fakeaws.DefaultRegion}},
			"queue":       {Names{Queue: func(string, string) string { return elsewhere(q.place.arn) }}, []string{"ap-south-2", fakeaws.DefaultRegion}},
			"dead":        {Names{DeadLetters: func(string, string) string { return elsewhere(q.dead.place.arn) }}, []string{"ap-south-2", fakeaws.DefaultRegion}},
			"no topic":    {Names{Topic: func(string) string { return q.place.arn }}, []string{"sqs", "sns"}},
			"no queue":    {Names{Queue: func(string, string) string { return top.arn }}, []string{"sqs", "sns"}},
			"our account": {Names{Queue: func(string, string) string { return theirs }}, []string{theirs}},
		} {
			for _, options := range [][]Option{{WithNames(c.names)}, {WithNames(c.names), WithExisting()}} {
				top, err := newEngine(t, options...).OpenTopic(t.Context(), engine.TopicSpec{Name: "p"})
				if err == nil {
					_, err = top.OpenQueue(t.Context(), engine.QueueSpec{Name: "q", MaxAttempts: 5})
				}
				if name == "dead" && len(options) == 2 {
					require.NoError(t, err, "the redrive policy names it")
					continue
				}
				if name != "our account" {
					require.ErrorIs(t, err, engine.ErrMismatch, name)
				}
				for _, want := range c.want {
					require.ErrorContains(t, err, want, name)
				}
			}
		}
	})
}

// TestWhatIsThrottledIsTriedAgain: a message that was handled is deleted, while its lease
// has time.
func TestWhatIsThrottledIsTriedAgain(t *testing.T) {
	for name, fault := range map[string]fakeaws.Fault{
		"one entry":   {Operation: "DeleteMessageBatch", Times: 4, Error: &fakeaws.Throttled, Entries: []string{"*"}},
		"SQS's fault": {Operation: "DeleteMessageBatch", Times: 4, Error: &fakeaws.InternalFailure, Entries: []string{"*"}},
		"it hangs":    {Operation: "DeleteMessageBatch", Times: 1, Delay: time.Hour},
	} {
		t.Run(name, func(t *testing.T) {
			inFake(t, func(t *testing.T) {
				top := newFanoutTopic(t, newEngine(t))
				runs, failures := 0, 0
				q, err := top.OpenQueue(t.Context(), "q")
				require.NoError(t, err)
				_, err = q.Subscribe(t.Context(), func(context.Context, fanout.Delivery[string]) error { runs++; return nil })
				require.NoError(t, err)
				fakeOf(t).Inject(fault)
				require.NoError(t, top.Publish(t.Context(), "a"))
				time.Sleep(10 * time.Minute)
				require.Equal(t, 1, runs)
				require.Zero(t, failures)
				require.Equal(t, uint64(1), q.Stats().Acked)
				s, err := q.Depth(t.Context())
				require.NoError(t, err)
				require.Zero(t, s.Unsettled())
			})
		})
	}
}

// TestNoSettlementIsTriedAfterItsLease, nor after its context has ended.
func TestNoSettlementIsTriedAfterItsLease(t *testing.T) {
	inFake(t, func(t *testing.T) {
		top := newTopic(t, newEngine(t), engine.TopicSpec{})
		q := openQueue(t, top, engine.QueueSpec{Name: "q"})
		publish(t, top, message("a", "1"))
		fakeOf(t).Inject(fakeaws.Fault{Operation: "DeleteMessageBatch", Times: fakeaws.Always, Error: &fakeaws.Throttled, Entries: []string{"*"}})
		rs, err := q.Receive(t.Context(), 1, 20*time.Second)
		require.NoError(t, err)
		began := time.Now()
		require.ErrorContains(t, q.Ack(t.Context(), rs[0].Receipt), "Throttled")
		require.Less(t, time.Since(began), 20*time.Second)
		require.Greater(t, time.Since(began), 15*time.Second)
		rs, err = q.Receive(t.Context(), 1, 20*time.Second)
		require.NoError(t, err)
		ctx, cancel := context.WithTimeout(t.Context(), 3*time.Second)
		defer cancel()
		began = time.Now()
		require.Error(t, q.Ack(ctx, rs[0].Receipt))
		require.Equal(t, 3*time.Second, time.Since(began))
	})
}

// TestAPendingSubscriptionIsSaidInWords: and what SNS sends the queue for its owner is
// nobody's message.
func TestAPendingSubscriptionIsSaidInWords(t *testing.T) {
	inFake(t, func(t *testing.T) {
		ours := fakeOf(t)
		theirs := ours.Account("222222222222")
		topic, err := theirs.SNS().CreateTopic(t.Context(), &sns.CreateTopicInput{Name: ptr("p")})
		require.NoError(t, err)
		names := WithNames(Names{Topic: func(string) string { return *topic.TopicArn }})
		e, err := New(theirs.SNS(), ours.SQS(), WithPollTime(time.Second), names)
		require.NoError(t, err)
		for range 2 { // it is made, and it is there
			top := newTopic(t, e, engine.TopicSpec{Name: "p"})
			_, err = top.OpenQueue(t.Context(), engine.QueueSpec{Name: "q", MaxAttempts: 5})
			require.ErrorContains(t, err, "is not confirmed")
			require.ErrorContains(t, err, "SubscribeURL")
		}
	})
}

// TestAConfirmationMessageIsNoDeadLetter.
func TestAConfirmationMessageIsNoDeadLetter(t *testing.T) {
	inFake(t, func(t *testing.T) {
		var log strings.Builder
		e := newEngine(t, WithLogger(slog.New(slog.NewTextHandler(&log, nil))))
		top := newFanoutTopic(t, e)
		q, err := top.OpenQueue(t.Context(), "q", fanout.WithMaxAttempts(1))
		require.NoError(t, err)
		runs := 0
		_, err = q.Subscribe(t.Context(), func(context.Context, fanout.Delivery[string]) error { runs++; return nil })
		require.NoError(t, err)
		p, err := e.findPlace(t.Context(), "p-q")
		require.NoError(t, err)
		for _, kind := range []string{"SubscriptionConfirmation", "UnsubscribeConfirmation"} {
			body := `{"Type":"` + kind + `","MessageId":"m","Token":"t","TopicArn":"` + fakeTopic + `","Message":"You have chosen",
				"SubscribeURL":"https://sns.invalid/?Action=ConfirmSubscription","Timestamp":"2026-01-02T03:04:05Z"}`
			_, err = e.sqs.SendMessage(t.Context(), &sqs.SendMessageInput{QueueUrl: &p.url, MessageBody: &body})
			require.NoError(t, err)
		}
		time.Sleep(time.Hour)
		require.Zero(t, runs)
		require.Zero(t, q.Stats().DeadLettered)
		require.Equal(t, 2, strings.Count(log.String(), "asks the queue's owner"), log.String())
		require.Contains(t, log.String(), "https://sns.invalid/?Action=ConfirmSubscription")
	})
}

// TestAttributesThatSQSDoesNotTakeAreInvalidMessages: naming the attribute.
func TestAttributesThatSQSDoesNotTakeAreInvalidMessages(t *testing.T) {
	inFake(t, func(t *testing.T) {
		top := newFanoutTopic(t, newEngine(t))
		for name, value := range map[string]string{"empty": "", "control": "\x01", "a b": "1", "AWS.x": "1", "fanout": "1", "utf": "\xff", strings.Repeat("n", 257): "1"} {
			err := top.PublishMessages(t.Context(), fanout.Message[string]{Body: "a", Attributes: map[string]string{name: value}})
			require.ErrorIs(t, err, fanout.ErrInvalidMessage, name)
			require.ErrorContains(t, err, strconv.Quote(name))
		}
	})
}
