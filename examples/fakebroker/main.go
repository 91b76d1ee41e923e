// Fakebroker is a small service and its unit test, which uses the library as
// a fake broker. The point is in main_test.go.
//
//	go run ./examples/fakebroker
//	go test -v ./examples/fakebroker
//
// The billing service charges each order and publishes a receipt. A bank that is
// down makes it try again later; a card that is declined is final. Running it
// one sees both. The test says what happens if the bank is down for an hour or
// for a day, and takes milliseconds: in a testing/synctest bubble time is virtual
// and jumps to the next thing that is due, so there is no clock to replace and
// nothing to wait for or to poll.
package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"sync/atomic"
	"time"

	"github.com/gofanout/fanout"
)

// An order is to be paid for.
type order struct {
	ID    string
	Cents int
}

// A receipt says that it was.
type receipt struct {
	ID    string // of the order
	Cents int
}

// A bank takes money. Charging an order again does nothing.
type bank interface {
	Charge(ctx context.Context, o order) error
}

// errDeclined is what a bank returns for a card that is no good.
var errDeclined = errors.New("card declined")

// startBilling charges orders and publishes receipts. It knows nothing of how it
// is run: in a test, in one process, or with an engine behind the topics.
func startBilling(ctx context.Context, orders *fanout.Topic[order], receipts *fanout.Topic[receipt], b bank) (*fanout.Subscriber[order], error) {
	charge := func(ctx context.Context, d fanout.Delivery[order]) error {
		switch err := b.Charge(ctx, d.Body); {
		case errors.Is(err, errDeclined):
			return fanout.Permanent(err)
		case err != nil:
			return err
		}
		// If this fails the order is charged again, which does nothing, and the
		// receipt is published then.
		return receipts.Publish(ctx, receipt(d.Body))
	}
	return orders.Subscribe(ctx, "billing", charge,
		fanout.WithConcurrency(4),
		fanout.WithMaxAttempts(20),
		fanout.WithVisibilityTimeout(time.Minute),
		fanout.WithHandlerTimeout(10*time.Second),
		fanout.WithBackoff(fanout.BackoffFunc(backoff)),
	)
}

// backoff is 100 ms after the first attempt, and twice as long after each further
// one, up to ten minutes. fanout.Exponential has jitter too, as it should be with
// many orders; without it the test can tell the instant.
func backoff(attempt int) time.Duration {
	return min(100*time.Millisecond<<(attempt-1), 10*time.Minute)
}

func main() {
	if err := run(context.Background(), os.Stdout); err != nil {
		fmt.Fprintln(os.Stderr, "fakebroker:", err)
		os.Exit(1)
	}
}

// A shakyBank is down when it is first called, and declines what is dear.
type shakyBank struct {
	up  atomic.Bool
	out io.Writer
}

func (b *shakyBank) Charge(_ context.Context, o order) error {
	switch {
	case !b.up.Swap(true):
		fmt.Fprintf(b.out, "%s: the bank is down\n", o.ID)
		return errors.New("the bank is down")
	case o.Cents > 100_000:
		fmt.Fprintf(b.out, "%s: declined\n", o.ID)
		return errDeclined
	}
	fmt.Fprintf(b.out, "%s: charged\n", o.ID)
	return nil
}

// run is the program without the process around it.
func run(ctx context.Context, stdout io.Writer) error {
	orders, err := fanout.NewTopic[order]("orders")
	if err != nil {
		return err
	}
	defer orders.Close()
	receipts, err := fanout.NewTopic[receipt]("receipts")
	if err != nil {
		return err
	}
	defer receipts.Close()
	mails, err := receipts.OpenQueue(ctx, "mails")
	if err != nil {
		return err
	}
	billing, err := startBilling(ctx, orders, receipts, &shakyBank{out: stdout})
	if err != nil {
		return err
	}

	if err := orders.Publish(ctx, order{"o-17", 4_999}); err != nil {
		return err
	}
	d, err := mails.Receive(ctx)
	if err != nil {
		return err
	}
	fmt.Fprintln(stdout, "receipt for", d.Body.ID)
	if err := d.Ack(ctx); err != nil {
		return err
	}

	if err := orders.Publish(ctx, order{"o-18", 250_000}); err != nil {
		return err
	}
	if err := orders.Shutdown(ctx); err != nil {
		return err
	}
	fmt.Fprintln(stdout, "dead:", billing.Queue().Stats().Dead)
	return nil
}
