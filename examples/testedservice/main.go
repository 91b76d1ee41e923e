// Testedservice is a small order service and, what it is about, its tests: see
// main_test.go, which uses the kit in package fanouttest.
//
//	go run ./examples/testedservice
//	go test -v ./examples/testedservice
//
// Orders come in. The billing service charges them and publishes what was paid;
// the shipping service, which has a queue of its own on what was paid, books a
// carrier and publishes the parcel. The program runs them on a bank that is down
// at first and on a card that is declined.
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

func main() {
	if err := run(context.Background(), os.Stdout); err != nil {
		fmt.Fprintln(os.Stderr, "testedservice:", err)
		os.Exit(1)
	}
}

// A shakyBank is down when it is first called, and declines what is dear.
type shakyBank struct {
	up  atomic.Bool
	out io.Writer
}

func (b *shakyBank) Charge(_ context.Context, reference string, cents int) error {
	switch {
	case !b.up.Swap(true):
		fmt.Fprintf(b.out, "%s: the bank is down\n", reference)
		return errors.New("the bank is down")
	case cents > 100_000:
		fmt.Fprintf(b.out, "%s: declined\n", reference)
		return ErrDeclined
	}
	fmt.Fprintf(b.out, "%s: charged\n", reference)
	return nil
}

// A postOffice takes everything.
type postOffice struct{}

func (postOffice) Book(_ context.Context, reference string, _ []string) (string, error) {
	return "parcel-" + reference, nil
}

// run is the program without the process around it.
func run(ctx context.Context, stdout io.Writer) error {
	orders, err := fanout.NewTopic[Order]("orders")
	if err != nil {
		return err
	}
	defer orders.Close()
	paid, err := fanout.NewTopic[Paid]("paid")
	if err != nil {
		return err
	}
	defer paid.Close()
	shipped, err := fanout.NewTopic[Shipped]("shipped")
	if err != nil {
		return err
	}
	defer shipped.Close()

	tracking, err := shipped.OpenQueue(ctx, "tracking")
	if err != nil {
		return err
	}
	if err := Start(ctx, Service{Orders: orders, Paid: paid, Shipped: shipped, Bank: &shakyBank{out: stdout}, Carrier: postOffice{}}); err != nil {
		return err
	}

	if err := orders.Publish(ctx, Order{ID: "o-17", Cents: 4_999, Items: []string{"tea"}}); err != nil {
		return err
	}
	d, err := tracking.Receive(ctx)
	if err != nil {
		return err
	}
	fmt.Fprintf(stdout, "%s: shipped as %s\n", d.Body.Order, d.Body.Parcel)
	if err := d.Ack(ctx); err != nil {
		return err
	}

	if err := orders.Publish(ctx, Order{ID: "o-18", Cents: 250_000, Items: []string{"piano"}}); err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, 10*time.Second)
	defer cancel()
	if err := orders.Shutdown(ctx); err != nil {
		return err
	}
	fmt.Fprintln(stdout, "dead:", orders.Queue("billing").Stats().Dead)
	return nil
}
