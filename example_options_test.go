// Options and codecs.

package fanout_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"sync"
	"time"

	"github.com/gofanout/fanout"
	"github.com/gofanout/fanout/internal/fakeengine"
)

// Payment is an interface: its JSON doesn't say which payment it was.
type Payment interface{ Amount() int }

type Card struct{ Cents int }

func (c Card) Amount() int { return c.Cents }

type Voucher struct{ Value int }

func (v Voucher) Amount() int { return v.Value }

// paymentCodec puts a tag beside each value that says which type it has.
type paymentCodec struct{}

type taggedPayment struct {
	Type  string
	Value json.RawMessage
}

func (paymentCodec) ContentType() string { return "application/json" }

func (paymentCodec) Encode(body any) (data []byte, err error) {
	p := taggedPayment{Type: "voucher"}
	switch body.(type) {
	case Card:
		p.Type = "card"
	case Voucher:
	default:
		return nil, fmt.Errorf("%T is no payment that travels", body)
	}
	if p.Value, err = json.Marshal(body); err != nil {
		return nil, err
	}
	return json.Marshal(p)
}

func (paymentCodec) Decode(data []byte, body any) error {
	var p taggedPayment
	if err := json.Unmarshal(data, &p); err != nil {
		return err
	}
	to := body.(*Payment)
	switch p.Type {
	case "card":
		return decodePayment[Card](p.Value, to)
	case "voucher":
		return decodePayment[Voucher](p.Value, to)
	}
	return fmt.Errorf("%q is no payment", p.Type)
}

func decodePayment[P Payment](data []byte, to *Payment) error {
	var p P
	err := json.Unmarshal(data, &p)
	*to = p
	return err
}

// A topic of an interface needs a codec that says which type a value has.
func ExampleWithCodec_interface() {
	ctx := context.Background()
	e := fakeengine.New(fakeengine.Config{}) // in a program: an engine of fanoutnats or fanoutaws
	_, err := fanout.NewTopic[Payment]("payments", fanout.WithEngine(e))
	fmt.Println(err != nil)

	payments, _ := fanout.NewTopic[Payment]("payments", fanout.WithEngine(e), fanout.WithCodec(paymentCodec{}))
	defer payments.Close()
	billing, _ := payments.OpenQueue(ctx, "billing")
	payments.Publish(ctx, Card{499})
	payments.Publish(ctx, Voucher{1000})
	for range 2 {
		d, _ := billing.Receive(ctx)
		fmt.Printf("%T %d\n", d.Body, d.Body.Amount())
		d.Ack(ctx)
	}
	// Output:
	// true
	// fanout_test.Card 499
	// fanout_test.Voucher 1000
}

// What can't be decoded is a dead letter; what there is of it are the bytes.
func ExampleDelivery_Encoded() {
	ctx := context.Background()
	e := fakeengine.New(fakeengine.Config{})
	quiet := fanout.WithLogger(slog.New(slog.DiscardHandler)) // else what dies is logged
	old, _ := fanout.NewTopic[string]("orders", fanout.WithEngine(e), quiet)
	old.OpenQueue(ctx, "billing")
	old.Publish(ctx, "o-17")
	old.Close()

	orders, _ := fanout.NewTopic[int]("orders", fanout.WithEngine(e), quiet) // they have numbers now
	defer orders.Close()
	billing, _ := orders.OpenQueue(ctx, "billing")
	billing.TryReceive(ctx)
	letter, _ := billing.DeadLetters().Receive(ctx)
	fmt.Println(letter.Body, string(letter.Encoded()))
	// Output:
	// 0 "o-17"
}

func ExampleWithCapacity() {
	ctx := context.Background()
	orders, _ := fanout.NewTopic[string]("orders")
	billing, _ := orders.OpenQueue(ctx, "billing", fanout.WithCapacity(2))

	// What is in flight takes room until it is settled.
	orders.Publish(ctx, "o-17")
	orders.Publish(ctx, "o-18")
	d, _ := billing.Receive(ctx)
	fmt.Println(orders.TryPublish(ctx, "o-19"))
	d.Ack(ctx)
	fmt.Println(orders.TryPublish(ctx, "o-19"))
	// Output:
	// fanout: publish to "orders": fanout: queue full: queue "billing"
	// <nil>
}

func ExampleUnlimited() {
	ctx := context.Background()
	orders, _ := fanout.NewTopic[string]("orders")
	_, err := orders.OpenQueue(ctx, "billing",
		fanout.WithCapacity(fanout.Unlimited),
		fanout.WithMaxAttempts(fanout.Unlimited),
	)
	fmt.Println(err)

	// Zero never stands for no limit.
	_, err = orders.OpenQueue(ctx, "audit", fanout.WithCapacity(0))
	fmt.Println(err)
	// Output:
	// <nil>
	// fanout: invalid option: WithCapacity(0): want at least 1
}

func ExampleWithOverflow_reject() {
	ctx := context.Background()
	orders, _ := fanout.NewTopic[string]("orders")
	orders.OpenQueue(ctx, "billing", fanout.WithCapacity(1), fanout.WithOverflow(fanout.Reject))
	audit, _ := orders.OpenQueue(ctx, "audit")

	orders.Publish(ctx, "o-17")
	fmt.Println(orders.Publish(ctx, "o-18"))
	fmt.Println(audit.Stats().Ready, "in the other queue") // all or none
	// Output:
	// fanout: publish to "orders": fanout: queue full: queue "billing" holds 1
	// 1 in the other queue
}

func ExampleWithOverflow_dropOldest() {
	ctx := context.Background()
	quiet := fanout.WithLogger(slog.New(slog.DiscardHandler)) // else what is dropped is logged
	prices, _ := fanout.NewTopic[int]("prices", quiet)
	latest, _ := prices.OpenQueue(ctx, "latest", fanout.WithCapacity(1), fanout.WithOverflow(fanout.DropOldest))

	for _, cents := range []int{4999, 5999, 3999} {
		prices.Publish(ctx, cents)
	}
	d, _ := latest.Receive(ctx)
	fmt.Println(d.Body, "after", latest.Stats().Dropped, "dropped")
	d.Ack(ctx)
	// Output:
	// 3999 after 2 dropped
}

func ExampleWithOverflow_dropNewest() {
	ctx := context.Background()
	quiet := fanout.WithLogger(slog.New(slog.DiscardHandler)) // else what is dropped is logged
	prices, _ := fanout.NewTopic[int]("prices", quiet)
	samples, _ := prices.OpenQueue(ctx, "samples", fanout.WithCapacity(1), fanout.WithOverflow(fanout.DropNewest))

	for _, cents := range []int{4999, 5999, 3999} {
		prices.Publish(ctx, cents)
	}
	d, _ := samples.Receive(ctx)
	fmt.Println(d.Body, "before", samples.Stats().Dropped, "dropped")
	d.Ack(ctx)
	// Output:
	// 4999 before 2 dropped
}

func ExampleWithVisibilityTimeout() {
	ctx := context.Background()
	orders, _ := fanout.NewTopic[string]("orders")
	audit, _ := orders.OpenQueue(ctx, "audit", fanout.WithVisibilityTimeout(10*time.Minute))
	orders.Publish(ctx, "o-17")
	orders.Publish(ctx, "o-18")

	d, _ := audit.Receive(ctx) // for all deliveries of the queue
	fmt.Println(time.Until(d.Deadline()).Round(time.Minute))
	d.Ack(ctx)

	d, _ = audit.Receive(ctx, fanout.WithVisibilityTimeout(time.Hour)) // for this one
	fmt.Println(time.Until(d.Deadline()).Round(time.Minute))
	d.Ack(ctx)
	// Output:
	// 10m0s
	// 1h0m0s
}

func ExampleWithMaxAttempts() {
	ctx := context.Background()
	orders, _ := fanout.NewTopic[string]("orders")
	orders.Subscribe(ctx, "billing", func(ctx context.Context, d fanout.Delivery[string]) error {
		fmt.Println("attempt", d.Attempt())
		return errors.New("no such customer")
	}, fanout.WithMaxAttempts(3), fanout.WithBackoff(fanout.Constant(time.Millisecond)))
	billing := orders.Queue("billing")

	orders.Publish(ctx, "o-17")
	orders.Shutdown(ctx)
	fmt.Println(billing.Stats().Dead, "dead")
	// Output:
	// attempt 1
	// attempt 2
	// attempt 3
	// 1 dead
}

func ExampleWithBackoff() {
	ctx := context.Background()
	orders, _ := fanout.NewTopic[string]("orders", fanout.WithHooks(fanout.Hooks{
		Settled: func(e fanout.Event) { fmt.Println(e.Cause, "wait", e.Wait) },
	}))
	billing, _ := orders.OpenQueue(ctx, "billing", fanout.WithBackoff(fanout.Constant(3*time.Second)))

	orders.Publish(ctx, "o-17")
	d, _ := billing.Receive(ctx)
	d.Nack(ctx)
	// Output:
	// nacked wait 3s
}

func ExampleConstant() {
	ctx := context.Background()
	orders, _ := fanout.NewTopic[string]("orders")
	orders.Subscribe(ctx, "billing", func(ctx context.Context, d fanout.Delivery[string]) error {
		if h := d.History(); len(h) > 0 {
			waited := time.Since(h[0].Start.Add(h[0].Elapsed))
			fmt.Println(waited >= 2*time.Millisecond)
			return nil
		}
		return errors.New("busy")
	}, fanout.WithBackoff(fanout.Constant(2*time.Millisecond)))

	orders.Publish(ctx, "o-17")
	orders.Shutdown(ctx)
	// Output:
	// true
}

// About 100 ms after the first attempt, 200 ms after the second and so on, up
// to 30 s; each between half of that and the whole.
func ExampleExponential() {
	ctx := context.Background()
	orders, _ := fanout.NewTopic[string]("orders", fanout.WithHooks(fanout.Hooks{
		Settled: func(e fanout.Event) {
			fmt.Println(50*time.Millisecond <= e.Wait && e.Wait <= 100*time.Millisecond)
		},
	}))
	billing, _ := orders.OpenQueue(ctx, "billing",
		fanout.WithBackoff(fanout.Exponential(100*time.Millisecond, 30*time.Second)))

	orders.Publish(ctx, "o-17")
	d, _ := billing.Receive(ctx)
	d.Nack(ctx)
	// Output:
	// true
}

func ExampleBackoffFunc() {
	ctx := context.Background()
	orders, _ := fanout.NewTopic[string]("orders", fanout.WithHooks(fanout.Hooks{
		Settled: func(e fanout.Event) { fmt.Println("attempt", e.Attempt, "wait", e.Wait) },
	}))
	billing, _ := orders.OpenQueue(ctx, "billing",
		fanout.WithBackoff(fanout.BackoffFunc(func(attempt int) time.Duration {
			return time.Duration(attempt*attempt) * time.Millisecond
		})))

	orders.Publish(ctx, "o-17")
	for range 3 {
		d, _ := billing.Receive(ctx)
		d.Nack(ctx)
	}
	// Output:
	// attempt 1 wait 1ms
	// attempt 2 wait 4ms
	// attempt 3 wait 9ms
}

func ExampleWithDelay() {
	ctx := context.Background()
	orders, _ := fanout.NewTopic[string]("orders")
	reminders, _ := orders.OpenQueue(ctx, "reminders", fanout.WithDelay(24*time.Hour))

	orders.Publish(ctx, "o-17")
	s := reminders.Stats()
	fmt.Println(s.Ready, "ready,", s.Delayed, "delayed")
	// Output:
	// 0 ready, 1 delayed
}

func ExampleWithFilter() {
	type order struct {
		OrderID string
		Cents   int
	}
	ctx := context.Background()
	orders, _ := fanout.NewTopic[order]("orders")
	audit, _ := orders.OpenQueue(ctx, "audit",
		fanout.WithFilter(func(o order) bool { return o.Cents > 100_000 }))

	orders.Publish(ctx, order{OrderID: "o-17", Cents: 4_999})
	orders.Publish(ctx, order{OrderID: "o-18", Cents: 250_000})

	d, _ := audit.Receive(ctx)
	fmt.Println(d.Body.OrderID, "of", audit.Stats().Published)
	d.Ack(ctx)
	// Output:
	// o-18 of 1
}

// A dead message that finds no room is parked in its own queue: it is not lost,
// and moves when there is room.
func ExampleWithDeadLetterCapacity() {
	ctx := context.Background()
	quiet := fanout.WithLogger(slog.New(slog.DiscardHandler)) // else parking is logged
	orders, _ := fanout.NewTopic[string]("orders", quiet)
	billing, _ := orders.OpenQueue(ctx, "billing",
		fanout.WithMaxAttempts(1), fanout.WithDeadLetterCapacity(1))
	orders.Publish(ctx, "o-17")
	orders.Publish(ctx, "o-18")
	for range 2 {
		d, _ := billing.Receive(ctx)
		d.Nack(ctx)
	}
	fmt.Println(billing.Stats().Dead, "dead,", billing.Stats().Parked, "parked")

	letter, _ := billing.DeadLetters().Receive(ctx)
	letter.Ack(ctx)
	fmt.Println(billing.Stats().Dead, "dead,", billing.Stats().Parked, "parked")
	// Output:
	// 1 dead, 1 parked
	// 1 dead, 0 parked
}

func ExampleWithDeadLetterOverflow() {
	ctx := context.Background()
	quiet := fanout.WithLogger(slog.New(slog.DiscardHandler)) // else what is dropped is logged
	orders, _ := fanout.NewTopic[string]("orders", quiet)
	billing, _ := orders.OpenQueue(ctx, "billing", fanout.WithMaxAttempts(1),
		fanout.WithDeadLetterCapacity(1), fanout.WithDeadLetterOverflow(fanout.DropOldest))
	orders.Publish(ctx, "o-17")
	orders.Publish(ctx, "o-18")
	for range 2 {
		d, _ := billing.Receive(ctx)
		d.Nack(ctx)
	}

	letters, _ := billing.DeadLetters().Peek(ctx, 10)
	for _, d := range letters {
		fmt.Println(d.Body)
	}
	// Output:
	// o-18
}

func ExampleWithConcurrency() {
	ctx := context.Background()
	orders, _ := fanout.NewTopic[string]("orders")
	var together sync.WaitGroup
	together.Add(3)
	orders.Subscribe(ctx, "billing", func(ctx context.Context, d fanout.Delivery[string]) error {
		together.Done()
		together.Wait() // until three handlers run
		fmt.Println("bill", d.Body)
		return nil
	}, fanout.WithConcurrency(3))

	for _, id := range []string{"o-17", "o-18", "o-19"} {
		orders.Publish(ctx, id)
	}
	orders.Shutdown(ctx)
	// Unordered output:
	// bill o-17
	// bill o-18
	// bill o-19
}

func ExampleWithHooks() {
	ctx := context.Background()
	orders, _ := fanout.NewTopic[string]("orders", fanout.WithHooks(fanout.Hooks{
		Published:    func(e fanout.Event) { fmt.Println("published", e.MessageID) },
		Delivered:    func(e fanout.Event) { fmt.Println("delivered", e.MessageID, "by", e.Queue) },
		Settled:      func(e fanout.Event) { fmt.Println("settled", e.MessageID, e.Cause) },
		DeadLettered: func(e fanout.Event) { fmt.Println("dead", e.MessageID, e.Err) },
	}))
	billing, _ := orders.OpenQueue(ctx, "billing")

	orders.PublishMessages(ctx, fanout.Message[string]{Body: "o-17", ID: "payment-4711"})
	d, _ := billing.Receive(ctx)
	d.Settle(ctx, fanout.Permanent(errors.New("no such customer")))
	// Output:
	// published payment-4711
	// delivered payment-4711 by billing
	// settled payment-4711 permanent
	// dead payment-4711 no such customer
}

func ExampleWithLogger() {
	ctx := context.Background()
	logger := slog.New(slog.NewTextHandler(os.Stdout, &slog.HandlerOptions{
		ReplaceAttr: func(_ []string, a slog.Attr) slog.Attr {
			if a.Key == slog.TimeKey {
				return slog.Attr{} // for the sake of the example
			}
			return a
		},
	}))
	prices, _ := fanout.NewTopic[int]("prices", fanout.WithLogger(logger))
	prices.OpenQueue(ctx, "latest", fanout.WithCapacity(1), fanout.WithOverflow(fanout.DropOldest))

	prices.PublishMessages(ctx, fanout.Message[int]{Body: 4999, ID: "p-1"})
	prices.PublishMessages(ctx, fanout.Message[int]{Body: 5999, ID: "p-2"})
	// Output:
	// level=WARN msg="fanout: messages dropped" topic=prices queue=latest count=1 reason="drop oldest" message_id=p-1
}

// Dead letters are logged, the first at once, more of them by their number once a second.
func ExampleWithLogger_deadLetters() {
	ctx := context.Background()
	logger := slog.New(slog.NewTextHandler(os.Stdout, &slog.HandlerOptions{
		ReplaceAttr: func(_ []string, a slog.Attr) slog.Attr {
			if a.Key == slog.TimeKey || a.Key == "elapsed" {
				return slog.Attr{} // for the sake of the example
			}
			return a
		},
	}))
	orders, _ := fanout.NewTopic[string]("orders", fanout.WithLogger(logger))
	billing, _ := orders.OpenQueue(ctx, "billing")
	orders.PublishMessages(ctx, fanout.Message[string]{Body: "o-17", ID: "payment-4711"})
	d, _ := billing.Receive(ctx)
	d.Settle(ctx, fanout.Permanent(errors.New("no such customer")))
	// Output:
	// level=WARN msg="fanout: messages went to the dead-letter queue" topic=orders queue=billing count=1 message_id=payment-4711 attempt=1 cause=permanent error="no such customer"
}

// A predicate on the whole message: its body, its attributes, its keys.
func ExampleWithMessageFilter() {
	ctx := context.Background()
	orders, _ := fanout.NewTopic[int]("orders")
	audit, _ := orders.OpenQueue(ctx, "audit",
		fanout.WithMessageFilter(func(m fanout.Message[int]) bool {
			return m.Body > 100_000 && m.Attributes["region"] == "eu"
		}))

	orders.PublishMessages(ctx,
		fanout.Message[int]{Body: 4_999, Attributes: map[string]string{"region": "eu"}},
		fanout.Message[int]{Body: 250_000, Attributes: map[string]string{"region": "us"}},
		fanout.Message[int]{Body: 150_000, Attributes: map[string]string{"region": "eu"}},
	)
	d, _ := audit.Receive(ctx)
	fmt.Println(d.Body, "of", audit.Stats().Published)
	d.Ack(ctx)
	// Output:
	// 150000 of 1
}

// A filter policy as SNS has it, on attributes: it can come from a file.
func ExampleWithFilterPolicy() {
	ctx := context.Background()
	orders, _ := fanout.NewTopic[string]("orders")
	america, err := orders.OpenQueue(ctx, "america",
		fanout.WithFilterPolicy(`{"region": ["ca", {"prefix": "us-"}], "cents": [{"numeric": [">=", 10000]}]}`))
	if err != nil {
		fmt.Println(err)
		return
	}

	publish := func(body, region, cents string) {
		orders.PublishMessages(ctx, fanout.Message[string]{
			Body: body, Attributes: map[string]string{"region": region, "cents": cents},
		})
	}
	publish("o-17", "us-east", "4999")
	publish("o-18", "us-west", "25000")
	publish("o-19", "eu", "25000")
	publish("o-20", "ca", "10000")

	batch, _ := america.ReceiveBatch(ctx, 10)
	for _, d := range batch {
		fmt.Println(d.Body)
		d.Ack(ctx)
	}
	// Output:
	// o-18
	// o-20
}

func ExampleWithFilterPolicy_invalid() {
	ctx := context.Background()
	orders, _ := fanout.NewTopic[string]("orders")
	_, err := orders.OpenQueue(ctx, "america", fanout.WithFilterPolicy(`{"region": "us"}`))
	fmt.Println(errors.Is(err, fanout.ErrInvalidOption))
	fmt.Println(err)
	// Output:
	// true
	// fanout: invalid option: WithFilterPolicy: invalid filter policy: key "region": Invalid parameter: FilterPolicy: "region" must be an object or an array
}

func ExampleWithTimeToLive() {
	ctx := context.Background()
	orders, _ := fanout.NewTopic[string]("orders")
	screen, _ := orders.OpenQueue(ctx, "screen", fanout.WithTimeToLive(time.Millisecond))
	archive, _ := orders.OpenQueue(ctx, "archive")
	orders.Publish(ctx, "o-17")
	time.Sleep(2 * time.Millisecond)

	_, ok, _ := screen.TryReceive(ctx)
	fmt.Println("on the screen:", ok, screen.Stats().Expired, "expired")
	_, ok, _ = archive.TryReceive(ctx)
	fmt.Println("in the archive:", ok)
	// Output:
	// on the screen: false 1 expired
	// in the archive: true
}

func ExampleBackoff() {
	ctx := context.Background()
	orders, _ := fanout.NewTopic[string]("orders")
	for name, b := range map[string]fanout.Backoff{
		"billing":  fanout.Exponential(100*time.Millisecond, 30*time.Second),
		"shipping": fanout.Constant(time.Minute),
		"audit":    fanout.BackoffFunc(func(attempt int) time.Duration { return time.Duration(attempt) * time.Second }),
	} {
		if _, err := orders.OpenQueue(ctx, name, fanout.WithBackoff(b)); err != nil {
			fmt.Println(err)
		}
	}
	_, err := orders.OpenQueue(ctx, "mails", fanout.WithBackoff(fanout.Constant(0)))
	fmt.Println(err)
	// Output:
	// fanout: invalid option: WithBackoff: Constant(0s): want a positive duration
}

// A policy out of a configuration.
func ExampleOverflow_UnmarshalText() {
	var config struct{ Overflow fanout.Overflow }
	err := json.Unmarshal([]byte(`{"overflow": "DropOldest"}`), &config)
	fmt.Println(config.Overflow, err)
	err = json.Unmarshal([]byte(`{"overflow": "DropAll"}`), &config)
	fmt.Println(err)
	// Output:
	// DropOldest <nil>
	// fanout: invalid option: Overflow("DropAll"): want one of Block, Reject, DropOldest, DropNewest
}

func ExampleOverflow_MarshalText() {
	data, _ := json.Marshal(map[string]fanout.Overflow{"overflow": fanout.Reject})
	fmt.Println(string(data))
	// Output:
	// {"overflow":"Reject"}
}

func ExampleOverflow_String() {
	for _, o := range []fanout.Overflow{fanout.Block, fanout.Reject, fanout.DropOldest, fanout.DropNewest} {
		fmt.Println(o)
	}
	// Output:
	// Block
	// Reject
	// DropOldest
	// DropNewest
}

// Block is the default: the publish waits, until there is room.
func ExampleWithOverflow_block() {
	ctx := context.Background()
	orders, _ := fanout.NewTopic[string]("orders")
	billing, _ := orders.OpenQueue(ctx, "billing", fanout.WithCapacity(1), fanout.WithOverflow(fanout.Block))
	orders.Publish(ctx, "o-17")

	published := make(chan error)
	go func() { published <- orders.Publish(ctx, "o-18") }()
	d, _ := billing.Receive(ctx)
	d.Ack(ctx) // makes room
	fmt.Println(<-published)
	// Output:
	// <nil>
}

// Options are values, to be kept for several queues.
func ExampleQueueOption() {
	ctx := context.Background()
	patient := []fanout.QueueOption{
		fanout.WithMaxAttempts(10),
		fanout.WithBackoff(fanout.Exponential(time.Second, time.Hour)),
	}
	orders, _ := fanout.NewTopic[string]("orders")
	for _, name := range []string{"billing", "shipping"} {
		q, err := orders.OpenQueue(ctx, name, patient...)
		if err != nil {
			fmt.Println(err)
			return
		}
		fmt.Println(q.Name())
	}
	// Output:
	// billing
	// shipping
}

// Subscribe takes options for the queue and for its workers.
func ExampleSubscribeOption() {
	ctx := context.Background()
	options := []fanout.SubscribeOption{fanout.WithCapacity(10), fanout.WithConcurrency(4)}
	orders, _ := fanout.NewTopic[string]("orders")
	billing, err := orders.Subscribe(ctx, "billing", func(ctx context.Context, d fanout.Delivery[string]) error {
		return nil
	}, options...)
	if err != nil {
		fmt.Println(err)
		return
	}
	fmt.Println(billing.Queue().Stats().Capacity)
	// Output:
	// 10
}

// Lists of options for a queue and for its workers are handed on together.
func ExampleQueueOptions() {
	ctx := context.Background()
	patient := []fanout.QueueOption{fanout.WithCapacity(10), fanout.WithMaxAttempts(10)}
	workers := []fanout.WorkerOption{fanout.WithConcurrency(4), fanout.WithRateLimit(100)}
	orders, _ := fanout.NewTopic[string]("orders")
	billing, err := orders.Subscribe(ctx, "billing", func(ctx context.Context, d fanout.Delivery[string]) error {
		return nil
	}, fanout.QueueOptions(patient...), fanout.WorkerOptions(workers...))
	if err != nil {
		fmt.Println(err)
		return
	}
	fmt.Println(billing.Queue().Stats().Capacity)
	// Output:
	// 10
}

// A group of options is an option, and can be part of another group.
func ExampleWorkerOptions() {
	ctx := context.Background()
	careful := fanout.WorkerOptions(fanout.WithRateLimit(10), fanout.WithHandlerTimeout(time.Second))
	orders, _ := fanout.NewTopic[string]("orders")
	billing, _ := orders.OpenQueue(ctx, "billing")
	_, err := billing.Subscribe(ctx, func(ctx context.Context, d fanout.Delivery[string]) error {
		return nil
	}, fanout.WorkerOptions(careful, fanout.WithConcurrency(0)))
	fmt.Println(err)
	// Output:
	// fanout: invalid option: WithConcurrency(0): want at least 1
}

// What a service wants of all its topics is kept in one option.
func ExampleTopicOptions() {
	house := fanout.TopicOptions(
		fanout.WithOrdering(),
		fanout.WithDeduplication(5*time.Minute, 10_000),
	)
	orders, err := fanout.NewTopic[string]("orders", house, fanout.WithRetention(100))
	if err != nil {
		fmt.Println(err)
		return
	}
	err = orders.PublishMessages(context.Background(), fanout.Message[string]{Body: "o-17", OrderingKey: "anna", DeduplicationID: "17"})
	fmt.Println(err, orders.Stats().Remembered)
	// Output:
	// <nil> 1
}
