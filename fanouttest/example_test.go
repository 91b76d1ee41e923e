package fanouttest_test

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/gofanout/fanout"
	"github.com/gofanout/fanout/fanouttest"
)

// printer stands for the *testing.T of a test: it prints what fails.
type printer struct{ cleanups []func() }

func (p *printer) Helper()                           {}
func (p *printer) Name() string                      { return "TestExample" }
func (p *printer) Logf(string, ...any)               {} // go test shows it with -v, or if the test fails
func (p *printer) Fatalf(format string, args ...any) { panic(fmt.Sprintf(format, args...)) }
func (p *printer) Cleanup(end func())                { p.cleanups = append(p.cleanups, end) }
func (p *printer) Errorf(format string, args ...any) {
	fmt.Println(strings.TrimSpace(fmt.Sprintf(format, args...)))
}

// end is the end of the test.
func (p *printer) end() {
	for _, end := range slices.Backward(p.cleanups) {
		end()
	}
}

// Order and Receipt are what the service under test, startBilling, works on.
type (
	Order struct {
		ID    string
		Cents int
	}
	Receipt struct {
		ID    string // of the order
		Cents int
	}
)

func startBilling(ctx context.Context, orders *fanout.Topic[Order], receipts *fanout.Topic[Receipt]) error {
	charge := func(ctx context.Context, d fanout.Delivery[Order]) error {
		if d.Body.Cents > 100_00 {
			return fanout.Permanent(errors.New("card declined"))
		}
		return receipts.Publish(ctx, Receipt(d.Body))
	}
	_, err := orders.Subscribe(ctx, "billing", charge, fanout.WithBackoff(fanout.Constant(time.Millisecond)))
	return err
}

// A service, its topics and a test of it. In a real test t is its *testing.T,
// and what is printed here would be the failures.
func Example() {
	t, ctx := &printer{}, context.Background()
	defer t.end()

	k := fanouttest.New(t)
	orders := fanouttest.NewTopic[Order](k, "orders")
	receipts := fanouttest.NewTopic[Receipt](k, "receipts")
	if err := startBilling(ctx, orders.Topic, receipts.Topic); err != nil {
		t.Fatalf("%v", err)
	}

	_ = orders.Publish(ctx, Order{"o-17", 49_99})
	_ = orders.Publish(ctx, Order{"o-18", 250_00})
	k.Settle(ctx)

	receipts.Published().Want(Receipt{"o-17", 49_99})
	orders.DeadLettered("billing").Want(Order{"o-18", 250_00})
	fmt.Println("nothing failed")
	// Output: nothing failed
}

func ExampleList_Want() {
	t, ctx := &printer{}, context.Background()
	defer t.end()
	k := fanouttest.New(t)
	receipts := fanouttest.NewTopic[Receipt](k, "receipts")
	_ = receipts.Publish(ctx, Receipt{"o-17", 49_99})
	_ = receipts.Publish(ctx, Receipt{"o-19", 5_00})

	receipts.Published().Want(Receipt{"o-17", 49_99}, Receipt{"o-18", 5_00})
	// Output:
	// fanouttest: published to topic "receipts": as many as wanted, 1 of 2 different:
	//     - want
	//     + got
	//       {
	//         "ID": "o-17",
	//         "Cents": 4999
	//       }
	//       {
	//     -   "ID": "o-18",
	//     +   "ID": "o-19",
	//         "Cents": 500
	//       }
}

func ExampleTopic_Handling() {
	t, ctx := &printer{}, context.Background()
	defer t.end()
	k := fanouttest.New(t)
	orders := fanouttest.NewTopic[Order](k, "orders")
	receipts := fanouttest.NewTopic[Receipt](k, "receipts")
	_ = startBilling(ctx, orders.Topic, receipts.Topic)

	orders.Handling("billing").Nth(1).Panic("nil map")
	orders.Handling("billing").Nth(2).Fail(errors.New("no connection"))
	orders.Handling("billing").Nth(3).Duplicate()
	_ = orders.Publish(ctx, Order{"o-17", 49_99})
	k.Settle(ctx)

	orders.Delivered("billing").WantCount(3)
	fmt.Println(receipts.Published().Bodies())
	// Output: [{o-17 4999} {o-17 4999}]
}

func ExampleTopic_Publishing() {
	t, ctx := &printer{}, context.Background()
	defer t.end()
	k := fanouttest.New(t)
	orders := fanouttest.NewTopic[Order](k, "orders")
	receipts := fanouttest.NewTopic[Receipt](k, "receipts")
	_ = startBilling(ctx, orders.Topic, receipts.Topic)

	receipts.Publishing().Nth(1).Fail(fanout.ErrQueueFull)
	_ = orders.Publish(ctx, Order{"o-17", 49_99})
	k.Settle(ctx)

	orders.Retried("billing").WantCount(1)
	fmt.Println(receipts.Published().Bodies())
	// Output: [{o-17 4999}]
}

func ExampleKit_AwaitSettled() {
	t := &printer{}
	defer t.end()
	k := fanouttest.New(t)
	orders := fanouttest.NewTopic[Order](k, "orders", fanouttest.AllowUnsettled())
	_, _ = orders.OpenQueue(context.Background(), "audit") // that nobody reads
	_ = orders.PublishMessages(context.Background(), fanout.Message[Order]{ID: "m-1", Body: Order{"o-17", 49_99}})

	ctx, cancel := context.WithTimeout(context.Background(), time.Millisecond)
	defer cancel()
	fmt.Println(k.AwaitSettled(ctx))
	// Output:
	// fanouttest: not settled: context deadline exceeded:
	//     topic "orders", queue "audit": 1 ready
	//     queue "audit": message m-1, not delivered yet: {"ID":"o-17","Cents":4999}
}

func ExampleNew() {
	t, ctx := &printer{}, context.Background()
	k := fanouttest.New(t)
	orders := fanouttest.NewTopic[Order](k, "orders")
	_, _ = orders.OpenQueue(ctx, "audit")
	_ = orders.PublishMessages(ctx, fanout.Message[Order]{ID: "m-1", Body: Order{"o-17", 49_99}})
	orders.Handling("billing").Nth(1).TimeOut()
	t.end()
	// Output:
	// fanouttest: topic "orders" ends with messages that are not settled (Settle was not called):
	//     queue "audit": message m-1, not delivered yet: {"ID":"o-17","Cents":4999}
	// fanouttest: topic "orders" was given faults that never struck:
	//     Handling("billing").Nth(1).TimeOut(): struck 0 times, of 1
}

// Baskets share their items between the queues.
func ExampleWithSnapshot() {
	type basket struct{ items []string } // JSON sees nothing of it
	t, ctx := &printer{}, context.Background()
	defer t.end()
	k := fanouttest.New(t)
	baskets := fanouttest.NewTopic[*basket](k, "baskets", fanouttest.WithSnapshot(func(b *basket) any { return b.items }))
	_, _ = baskets.Subscribe(ctx, "sorter", func(_ context.Context, d fanout.Delivery[*basket]) error {
		slices.Sort(d.Body.items)
		return nil
	})
	_ = baskets.PublishMessages(ctx, fanout.Message[*basket]{ID: "m-1", Body: &basket{[]string{"tea", "cup"}}})
	k.Settle(ctx)
	// Output:
	// fanouttest: topic "baskets": the body of message m-1, which queues share, was changed while the handler of queue "sorter" had it, attempt 1:
	//     - was
	//     + is
	//       [
	//     -   "tea",
	//     -   "cup"
	//     +   "cup",
	//     +   "tea"
	//       ]
}

func ExampleKit_Settle() {
	t, ctx := &printer{}, context.Background()
	defer t.end()
	k := fanouttest.New(t)
	orders := fanouttest.NewTopic[Order](k, "orders")
	receipts := fanouttest.NewTopic[Receipt](k, "receipts")
	_ = startBilling(ctx, orders.Topic, receipts.Topic)

	orders.Handling("billing").Nth(1).Fail(errors.New("no connection"))
	_ = orders.PublishMessages(ctx, fanout.Message[Order]{Body: Order{"o-17", 49_99}, Delay: 50 * time.Millisecond})
	k.Settle(ctx, fanouttest.Delayed())
	fmt.Println(orders.Delivered("billing").Bodies())
	// Output: [{o-17 4999} {o-17 4999}]
}
