package orders_test

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/sns"
	"github.com/aws/aws-sdk-go-v2/service/sqs"
	"github.com/stretchr/testify/require"

	"github.com/gofanout/fanout/examples/orders-aws/orders"
	"github.com/gofanout/fanout/fanouttest/fakeaws"
)

// receives is how often a message is received before it is a dead letter: with
// orders.Backoff that is in a day.
const receives = 18

// A shop is everything that there is in production: the topic, the queues with
// their dead-letter queues, the consumers and the function. Bank, carrier and
// mailer are stubs.
type shop struct {
	aws   *fakeaws.AWS
	topic string
	desk  *orders.Desk

	bank, carrier, mailer *partner
	receipts              *fakeaws.Function
}

// A partner does what it is asked to, once for each key, and fails or takes its
// time if it shall.
type partner struct {
	mu    sync.Mutex // guards the fields below
	asked int
	done  []string
	err   func(key string) error // nil: all goes well
	takes time.Duration
}

func (p *partner) do(ctx context.Context, key string) error {
	p.mu.Lock()
	p.asked++
	takes, fail := p.takes, p.err
	p.mu.Unlock()
	select {
	case <-time.After(takes):
	case <-ctx.Done():
		return context.Cause(ctx)
	}
	if fail != nil {
		if err := fail(key); err != nil {
			return err
		}
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	if !slices.Contains(p.done, key) {
		p.done = append(p.done, key)
	}
	return nil
}

func (p *partner) Charge(ctx context.Context, key string, _ int64) error { return p.do(ctx, key) }
func (p *partner) Ship(ctx context.Context, key, _ string) error         { return p.do(ctx, key) }
func (p *partner) Send(ctx context.Context, key, _, _ string) error      { return p.do(ctx, key) }
func (p *partner) failing(err func(key string) error)                    { p.set(func() { p.err = err }) }
func (p *partner) set(change func())                                     { p.mu.Lock(); defer p.mu.Unlock(); change() }
func (p *partner) finished() (keys []string) {
	p.set(func() { keys = slices.Sorted(slices.Values(p.done)) })
	return keys
}
func (p *partner) calls() (n int) { p.set(func() { n = p.asked }); return n }

// open opens a shop in virtual time. It is closed at the end of the test.
func open(t *testing.T, test func(t *testing.T, s *shop)) {
	synctest.Test(t, func(t *testing.T) {
		s := &shop{aws: fakeaws.New(t), bank: &partner{}, carrier: &partner{}, mailer: &partner{}}
		topic, err := s.aws.SNS().CreateTopic(t.Context(), &sns.CreateTopicInput{Name: aws.String("orders")})
		require.NoError(t, err)
		s.topic = *topic.TopicArn
		s.desk = &orders.Desk{Client: s.aws.SNS(), TopicARN: s.topic}
		s.queue(t, "billing", orders.Placed)
		s.queue(t, "shipping", orders.Paid)
		s.queue(t, "receipts", orders.Paid)
		s.receipts = s.aws.Lambda("receipts", (&orders.Receipts{Mailer: s.mailer}).Handle, fakeaws.WithTimeout(10*time.Second))
		_, err = s.aws.Queue("receipts").Map(s.receipts, fakeaws.WithReportBatchItemFailures())
		require.NoError(t, err)

		ctx, cancel := context.WithCancel(t.Context())
		var running sync.WaitGroup
		defer running.Wait()
		defer cancel()
		for _, c := range []*orders.Consumer{s.consumer("billing", s.billing()), s.consumer("shipping", (&orders.Shipping{Carrier: s.carrier}).Handle)} {
			running.Go(func() { c.Run(ctx) })
		}
		test(t, s)
	})
}

func (s *shop) billing() orders.Handler { return (&orders.Billing{Bank: s.bank, Desk: s.desk}).Handle }

func (s *shop) consumer(queue string, handle orders.Handler) *orders.Consumer {
	return &orders.Consumer{Client: s.aws.SQS(), QueueURL: s.aws.Queue(queue).URL(), Handle: handle,
		Concurrency: 10, Visibility: time.Minute, Grace: 10 * time.Second, Log: slog.New(slog.DiscardHandler)}
}

// queue makes a queue for an event, with its dead-letter queue, as the
// infrastructure of the shop does.
func (s *shop) queue(t *testing.T, name, event string) {
	ctx, dead := t.Context(), s.aws.Queue(name+"-dead")
	_, err := s.aws.SQS().CreateQueue(ctx, &sqs.CreateQueueInput{QueueName: aws.String(name + "-dead"), Attributes: map[string]string{"MessageRetentionPeriod": "1209600"}})
	require.NoError(t, err)
	_, err = s.aws.SQS().CreateQueue(ctx, &sqs.CreateQueueInput{QueueName: &name, Attributes: map[string]string{
		"VisibilityTimeout": "60",
		"RedrivePolicy":     fmt.Sprintf(`{"deadLetterTargetArn":%q,"maxReceiveCount":%d}`, dead.ARN(), receives),
		"Policy": fmt.Sprintf(`{"Version":"2012-10-17","Statement":[{"Effect":"Allow","Principal":{"Service":"sns.amazonaws.com"},
			"Action":"sqs:SendMessage","Resource":%q,"Condition":{"ArnEquals":{"aws:SourceArn":%q}}}]}`, s.aws.Queue(name).ARN(), s.topic),
	}})
	require.NoError(t, err)
	_, err = s.aws.SNS().Subscribe(ctx, &sns.SubscribeInput{TopicArn: &s.topic, Protocol: aws.String("sqs"), Endpoint: aws.String(s.aws.Queue(name).ARN()),
		Attributes: map[string]string{"RawMessageDelivery": "true", "FilterPolicy": fmt.Sprintf(`{"event":[%q]}`, event)}})
	require.NoError(t, err)
}

func (s *shop) place(t *testing.T, ids ...string) {
	t.Helper()
	for _, id := range ids {
		require.NoError(t, s.desk.Place(t.Context(), orders.Order{ID: id, Cents: 1999, Address: "1 Main St", Email: "a@example.com"}))
	}
}

func TestAnOrderIsPaidShippedAndConfirmed(t *testing.T) {
	open(t, func(t *testing.T, s *shop) {
		began := time.Now()
		s.bank.set(func() { s.bank.takes = 2 * time.Second })
		s.place(t, "o-1", "o-2")
		require.NoError(t, s.aws.WaitQuiet(t.Context()))
		require.Equal(t, 2*time.Second, time.Since(began))
		for _, p := range []*partner{s.bank, s.carrier, s.mailer} {
			require.Equal(t, []string{"o-1", "o-2"}, p.finished())
			require.Equal(t, 2, p.calls())
		}
		require.Len(t, s.aws.Topic("orders").Published(), 4)
	})
}

// The bank does not answer for more than a day. The order is tried for 24 hours
// and is a dead letter then; when the bank is back, a move task redrives it.
func TestABankThatIsDownForADay(t *testing.T) {
	open(t, func(t *testing.T, s *shop) {
		began := time.Now()
		s.bank.failing(func(string) error { return errors.New("no connection") })
		s.place(t, "o-1")
		require.NoError(t, s.aws.WaitQuiet(t.Context()))
		require.Equal(t, 24*time.Hour+7*time.Minute, time.Since(began))
		require.Equal(t, receives, s.bank.calls())
		letters := s.aws.Queue("billing-dead").Messages()
		require.Len(t, letters, 1)
		require.Contains(t, letters[0].Body, `"id":"o-1"`)
		require.Equal(t, receives, letters[0].Receives)
		require.Equal(t, s.aws.Queue("billing").ARN(), letters[0].Source)
		require.Equal(t, began, letters[0].Sent)

		s.bank.failing(nil)
		_, err := s.aws.SQS().StartMessageMoveTask(t.Context(), &sqs.StartMessageMoveTaskInput{SourceArn: aws.String(s.aws.Queue("billing-dead").ARN())})
		require.NoError(t, err)
		require.NoError(t, s.aws.WaitQuiet(t.Context()))
		require.Zero(t, s.aws.Queue("billing-dead").Len())
		require.Equal(t, []string{"o-1"}, s.bank.finished())
		require.Equal(t, []string{"o-1"}, s.carrier.finished())
		require.Equal(t, []string{"o-1"}, s.mailer.finished())
	})
}

// A bank that is back after five hours charges at the next try, and others are
// not held up by one order that fails.
func TestABankThatIsDownForSomeHours(t *testing.T) {
	open(t, func(t *testing.T, s *shop) {
		began := time.Now()
		s.bank.failing(func(key string) error {
			if key == "o-1" && time.Since(began) < 5*time.Hour {
				return errors.New("no connection")
			}
			return nil
		})
		s.place(t, "o-1", "o-2")
		time.Sleep(time.Second)
		require.Equal(t, []string{"o-2"}, s.carrier.finished())
		require.NoError(t, s.aws.WaitQuiet(t.Context()))
		require.Equal(t, 6*time.Hour+7*time.Minute, time.Since(began), "127 minutes, and two hours twice")
		require.Equal(t, []string{"o-1", "o-2"}, s.carrier.finished())
		require.Zero(t, s.aws.Queue("billing-dead").Len())
	})
}

// A charge of 45 minutes keeps its message by heartbeats.
func TestASlowChargeKeepsItsMessage(t *testing.T) {
	open(t, func(t *testing.T, s *shop) {
		began := time.Now()
		s.bank.set(func() { s.bank.takes = 45*time.Minute + time.Second })
		s.place(t, "o-1")
		require.NoError(t, s.aws.WaitQuiet(t.Context()))
		require.Equal(t, 45*time.Minute+time.Second, time.Since(began))
		require.Equal(t, 1, s.bank.calls())
		require.Equal(t, 90, s.aws.Calls("ChangeMessageVisibility"))
	})
}

// A heart that stops: SQS is out of reach for the heartbeats, the message goes to
// another consumer, and the first handler is told to end.
func TestAMessageThatIsLostToAnotherConsumer(t *testing.T) {
	open(t, func(t *testing.T, s *shop) {
		began := time.Now()
		s.bank.set(func() { s.bank.takes = 3 * time.Minute })
		s.aws.Inject(fakeaws.Fault{Operation: "ChangeMessageVisibility", Times: 6, Error: &fakeaws.ServiceUnavailable})
		s.place(t, "o-1")
		require.NoError(t, s.aws.WaitQuiet(t.Context()))
		require.Equal(t, 2, s.bank.calls())
		require.Equal(t, []string{"o-1"}, s.bank.finished())
		require.Equal(t, time.Minute+3*time.Minute, time.Since(began), "the second consumer had it after a minute")
	})
}

// A process that dies leaves its message to the next one, after a minute.
func TestAConsumerThatDies(t *testing.T) {
	open(t, func(t *testing.T, s *shop) {
		synctest.Wait() // the first poll has begun; the second one receives, and nobody gets it
		s.aws.Inject(fakeaws.Fault{Operation: "ReceiveMessage", Resource: "billing", LoseResponse: true})
		time.Sleep(25 * time.Second)
		began := time.Now()
		s.place(t, "o-1")
		require.NoError(t, s.aws.WaitQuiet(t.Context()))
		require.Equal(t, time.Minute, time.Since(began))
		require.Equal(t, []string{"o-1"}, s.bank.finished())
	})
}

// SQS delivers at least once: what comes twice is done once.
func TestDuplicatesAndLostAnswers(t *testing.T) {
	open(t, func(t *testing.T, s *shop) {
		s.aws.Inject(fakeaws.Fault{Operation: "Publish", Times: 2, Twice: true})
		s.aws.Inject(fakeaws.Fault{Operation: "DeleteMessage", Times: 3, LoseResponse: true})
		s.place(t, "o-1")
		require.NoError(t, s.aws.WaitQuiet(t.Context()))
		require.Equal(t, []string{"o-1"}, s.bank.finished())
		require.Equal(t, []string{"o-1"}, s.carrier.finished())
		require.Equal(t, []string{"o-1"}, s.mailer.finished())
		require.Equal(t, 2, s.bank.calls())
	})
}

// What nobody can read is a dead letter at once, and holds up nothing.
func TestAMessageThatNobodyCanRead(t *testing.T) {
	open(t, func(t *testing.T, s *shop) {
		began := time.Now()
		for _, queue := range []string{"billing", "shipping"} {
			_, err := s.aws.SQS().SendMessage(t.Context(), &sqs.SendMessageInput{QueueUrl: aws.String(s.aws.Queue(queue).URL()), MessageBody: aws.String(`{"id":17}`)})
			require.NoError(t, err)
		}
		s.place(t, "o-1")
		require.NoError(t, s.aws.WaitQuiet(t.Context()))
		require.Zero(t, time.Since(began))
		require.Equal(t, 1, s.aws.Queue("billing-dead").Len())
		require.Equal(t, 1, s.aws.Queue("shipping-dead").Len())
		require.Equal(t, []string{"o-1"}, s.carrier.finished())
	})
}

// Of a batch of receipts only those that failed are sent again. A carrier that
// panics is one that fails.
func TestReceiptsThatFail(t *testing.T) {
	open(t, func(t *testing.T, s *shop) {
		began := time.Now()
		s.mailer.failing(func(key string) error {
			if key == "o-2" && time.Since(began) < 90*time.Second {
				return errors.New("the mailbox is full")
			}
			return nil
		})
		s.carrier.failing(func(key string) error {
			if key == "o-3" && time.Since(began) < time.Minute {
				panic("no address")
			}
			return nil
		})
		s.place(t, "o-1", "o-2", "o-3")
		require.NoError(t, s.aws.WaitQuiet(t.Context()))
		require.Equal(t, 2*time.Minute, time.Since(began), "o-2 came again after 60 and 120 s")
		require.Equal(t, []string{"o-1", "o-2", "o-3"}, s.mailer.finished())
		require.Equal(t, []string{"o-1", "o-2", "o-3"}, s.carrier.finished())
		require.Equal(t, 5, s.mailer.calls())
	})
}

// When the process is told to end it takes nothing more, and settles what it has.
func TestShutdown(t *testing.T) {
	for takes, done := range map[time.Duration]bool{5 * time.Second: true, time.Hour: false} {
		open(t, func(t *testing.T, s *shop) {
			url := aws.String(s.aws.Queue("shipping-dead").URL()) // a queue that nobody else reads
			for _, body := range []string{"a", "b"} {
				_, err := s.aws.SQS().SendMessage(t.Context(), &sqs.SendMessageInput{QueueUrl: url, MessageBody: &body})
				require.NoError(t, err)
			}
			var ended error
			c := s.consumer("shipping-dead", func(ctx context.Context, m orders.Message) error {
				select {
				case <-time.After(takes):
					return nil
				case <-ctx.Done():
					ended = ctx.Err()
					return ctx.Err()
				}
			})
			c.Concurrency = 1
			ctx, cancel := context.WithTimeout(t.Context(), time.Second)
			defer cancel()
			began := time.Now()
			c.Run(ctx)
			left := s.aws.Queue("shipping-dead").Messages()
			if done {
				require.Equal(t, 5*time.Second, time.Since(began))
				require.Len(t, left, 1)
				require.NoError(t, ended)
			} else {
				require.Equal(t, 11*time.Second, time.Since(began), "a second, and ten of grace")
				require.Len(t, left, 2)
				require.Equal(t, time.Minute, time.Until(left[0].Due), "it comes again after its backoff")
				require.Equal(t, context.Canceled, ended)
			}
			require.Equal(t, fakeaws.Visible, left[len(left)-1].State, "it was not taken")
		})
	}
}

// SQS that cannot be reached is tried again, at growing distances.
func TestSQSIsOutOfReach(t *testing.T) {
	open(t, func(t *testing.T, s *shop) {
		s.aws.Inject(fakeaws.Fault{Operation: "ReceiveMessage", Times: 60, Error: &fakeaws.ServiceUnavailable})
		s.place(t, "o-1")
		require.NoError(t, s.aws.WaitQuiet(t.Context()))
		require.Equal(t, []string{"o-1"}, s.carrier.finished())
	})
}

func TestPublishingFails(t *testing.T) {
	open(t, func(t *testing.T, s *shop) {
		s.aws.Inject(fakeaws.Fault{Operation: "Publish", Error: &fakeaws.AccessDenied})
		err := s.desk.Place(t.Context(), orders.Order{ID: "o-1", Cents: 1})
		require.ErrorContains(t, err, "order.placed o-1")
		require.ErrorContains(t, err, "AccessDenied")
	})
}

func TestUnreadableOrders(t *testing.T) {
	for _, body := range []string{"", "{", `{"id":17}`, `{"cents":1}`, `{"id":"o-1"}`, `{"id":"o-1","cents":-1}`, strings.Repeat("[", 20000)} {
		_, err := orders.ReadOrder(body)
		require.ErrorIs(t, err, orders.ErrUnreadable, body)
	}
	o, err := orders.ReadOrder(`{"id":"o-1","cents":1}`)
	require.NoError(t, err)
	require.Equal(t, orders.Order{ID: "o-1", Cents: 1}, o)
}

func TestBackoff(t *testing.T) {
	var all time.Duration
	for n := 1; n <= receives; n++ {
		all += orders.Backoff(n)
	}
	require.Equal(t, 24*time.Hour+7*time.Minute, all)
	require.Equal(t, []time.Duration{time.Minute, 2 * time.Minute, 64 * time.Minute, 2 * time.Hour, 2 * time.Hour},
		[]time.Duration{orders.Backoff(1), orders.Backoff(2), orders.Backoff(7), orders.Backoff(8), orders.Backoff(1000)})
}
