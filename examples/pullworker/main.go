// Pullworker is a worker that asks for its work: a printer takes invoices from
// a queue when it is free for the next one, instead of having a handler called.
//
//	go run ./examples/pullworker
//
// One sees a test print that is taken by Receive, and then a loop over
// Deliveries. A long invoice takes more time than the visibility timeout, so the
// printer extends it after each page; nobody else gets the invoice meanwhile.
// When the paper is out the printer gives the invoice back by Nack, and finds it
// again after the backoff. The loop ends by itself when the topic has been shut
// down and the queue is empty.
package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"time"

	"github.com/gofanout/fanout"
)

// An invoice is what has to be printed.
type invoice struct {
	Order string
	Pages int
}

const (
	pageTime   = 60 * time.Millisecond
	visibility = 150 * time.Millisecond // two pages, but not three
)

func main() {
	if err := run(context.Background(), os.Stdout); err != nil {
		fmt.Fprintln(os.Stderr, "pullworker:", err)
		os.Exit(1)
	}
}

// run is the program without the process around it.
func run(ctx context.Context, stdout io.Writer) error {
	invoices, err := fanout.NewTopic[invoice]("invoices")
	if err != nil {
		return err
	}
	defer invoices.Close()
	printing, err := invoices.OpenQueue(ctx, "printing",
		fanout.WithVisibilityTimeout(visibility),
		fanout.WithBackoff(fanout.Constant(100*time.Millisecond)),
	)
	if err != nil {
		return err
	}
	for _, i := range []invoice{{"o-17", 1}, {"o-18", 5}, {"o-19", 2}, {"o-20", 1}} {
		if err := invoices.Publish(ctx, i); err != nil {
			return err
		}
	}

	p := &printer{out: stdout, paper: 7}
	if err := p.testPrint(ctx, printing); err != nil {
		return err
	}
	worker := make(chan error, 1)
	go func() { worker <- p.work(ctx, printing) }()

	// No more invoices come. What is in the queue can still be taken; what the
	// printer gives back too.
	err = errors.Join(invoices.Shutdown(ctx), <-worker)
	s := printing.Stats()
	fmt.Fprintf(stdout, "%d printed in %d deliveries: %d given back, %d timed out\n", s.Acked, s.Delivered, s.Nacked, s.TimedOut)
	return err
}

type printer struct {
	out   io.Writer
	paper int // sheets left
}

var errNoPaper = errors.New("out of paper")

// testPrint takes one invoice. Somebody looks at it, so this delivery has more
// time than the others.
func (p *printer) testPrint(ctx context.Context, q *fanout.Queue[invoice]) error {
	d, err := q.Receive(ctx, fanout.WithVisibilityTimeout(time.Minute))
	if err != nil {
		return err
	}
	fmt.Fprintln(p.out, "test print:", d.Body.Order)
	if err := p.print(ctx, d); err != nil {
		return err
	}
	return d.Ack(ctx)
}

// work prints one invoice after the other until the queue is closed or ctx ends.
func (p *printer) work(ctx context.Context, q *fanout.Queue[invoice]) error {
	for d, err := range q.Deliveries(ctx) {
		if err != nil {
			return err
		}
		fmt.Fprintf(p.out, "%s: attempt %d, pages: %d\n", d.Body.Order, d.Attempt(), d.Body.Pages)
		switch err := p.print(ctx, d); {
		case errors.Is(err, errNoPaper):
			// Another printer may have some. This one is refilled meanwhile.
			fmt.Fprintf(p.out, "%s: %v, given back\n", d.Body.Order, err)
			if err := d.Nack(ctx); err != nil {
				return err
			}
			p.paper = 500
		case err != nil:
			return err
		default:
			if err := d.Ack(ctx); err != nil {
				return err
			}
		}
	}
	return nil
}

// print prints page by page and keeps the delivery alive.
func (p *printer) print(ctx context.Context, d fanout.Delivery[invoice]) error {
	if p.paper < d.Body.Pages {
		return errNoPaper
	}
	for range d.Body.Pages {
		select {
		case <-time.After(pageTime):
		case <-ctx.Done():
			return context.Cause(ctx)
		}
		p.paper--
		// From now: the next page has the whole time again. Extend never
		// shortens, so the minute of the test print stays.
		if err := d.Extend(ctx, visibility); err != nil {
			return err // it is somebody else's by now: leave it to them
		}
	}
	return nil
}
