// Deadletters shows what becomes of messages that can't be processed, and how
// they are sent back once the reason is gone.
//
//	go run ./examples/deadletters
//
// The shipping service has a bug: it doesn't know Canadian postcodes. It says so
// by Permanent, so those orders are not tried in vain and go to the dead-letter
// queue at once; an order whose carrier never answers goes there after three
// attempts. One sees the letters with the histories of their attempts. Then
// the service is replaced by a fixed one, and the letters that the bug made are
// redriven. Their histories stay; the other letter stays where it is.
package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
	"time"

	"github.com/gofanout/fanout"
)

// An order is to be shipped.
type order struct {
	ID, Postcode string
}

var (
	errPostcode = errors.New("postcode not understood")
	errNoAnswer = errors.New("the carrier doesn't answer")
)

func main() {
	if err := run(context.Background(), os.Stdout); err != nil {
		fmt.Fprintln(os.Stderr, "deadletters:", err)
		os.Exit(1)
	}
}

// run is the program without the process around it.
func run(ctx context.Context, stdout io.Writer) error {
	orders, err := fanout.NewTopic[order]("orders")
	if err != nil {
		return err
	}
	defer orders.Close()
	shipping, err := orders.OpenQueue(ctx, "shipping",
		fanout.WithMaxAttempts(3),
		fanout.WithBackoff(fanout.Constant(50*time.Millisecond)),
	)
	if err != nil {
		return err
	}
	buggy, err := shipping.Subscribe(ctx, ship(stdout, isNumber))
	if err != nil {
		return err
	}
	for _, o := range []order{{"o-17", "10115"}, {"o-18", "K1A 0B1"}, {"o-19", "99999"}, {"o-20", "V6B 1A1"}} {
		if err := orders.Publish(ctx, o); err != nil {
			return err
		}
	}
	if err := workedOff(ctx, shipping); err != nil {
		return err
	}
	if err := showDead(ctx, stdout, shipping); err != nil {
		return err
	}

	// The fix is deployed: other workers on the same queue.
	fmt.Fprintln(stdout, "the fixed service takes over")
	if err := buggy.Shutdown(ctx); err != nil {
		return err
	}
	if _, err := shipping.Subscribe(ctx, ship(stdout, func(string) bool { return true })); err != nil {
		return err
	}
	moved, err := shipping.Redrive(ctx, fanout.RedriveIf(func(d fanout.Delivery[order]) bool {
		attempts := d.History()
		return errors.Is(attempts[len(attempts)-1].Err, errPostcode)
	}))
	if err != nil {
		return err
	}
	if err := orders.Shutdown(ctx); err != nil {
		return err
	}
	fmt.Fprintf(stdout, "%d redriven\n", moved)
	return showDead(ctx, stdout, shipping) // they can be read when all else is closed
}

// ship returns the shipping service's handler.
func ship(stdout io.Writer, postcodeOK func(string) bool) fanout.Handler[order] {
	return func(ctx context.Context, d fanout.Delivery[order]) error {
		switch {
		case !postcodeOK(d.Body.Postcode):
			return fanout.Permanent(fmt.Errorf("%w: %q", errPostcode, d.Body.Postcode))
		case d.Body.Postcode == "99999":
			return errNoAnswer
		}
		fmt.Fprintf(stdout, "shipped %s to %s, failed before: %d\n", d.Body.ID, d.Body.Postcode, len(d.History()))
		return nil
	}
}

func isNumber(s string) bool { return strings.Trim(s, "0123456789") == "" }

// workedOff waits until every message of the queue is acknowledged or dead.
func workedOff(ctx context.Context, q *fanout.Queue[order]) error {
	for {
		left, err := q.Depth(ctx)
		if err != nil || left.Unsettled() == 0 {
			return err
		}
		select {
		case <-time.After(10 * time.Millisecond):
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
}

// showDead shows the dead letters, and leaves them where they are.
func showDead(ctx context.Context, stdout io.Writer, q *fanout.Queue[order]) error {
	letters, err := q.DeadLetters().Peek(ctx, fanout.Unlimited)
	if err != nil {
		return err
	}
	fmt.Fprintf(stdout, "%d dead\n", len(letters))
	for _, l := range letters {
		fmt.Fprintf(stdout, "  %s\n", l.Body.ID)
		for _, a := range l.History() {
			fmt.Fprintf(stdout, "    attempt %d %s: %v\n", a.Number, a.Cause, a.Err)
		}
	}
	return nil
}
