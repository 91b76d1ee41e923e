// Orderedbycustomer keeps each customer's events in order while several workers
// share the work.
//
//	go run ./examples/orderedbycustomer
//
// The customer is the ordering key. One sees four workers handle three customers
// at the same time, but never two events of one customer. The first event of ann
// fails twice: her later ones wait for it, through its retries, and nobody else
// waits for her. That is why she comes last.
package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/gofanout/fanout"
)

// An event is what happened to a customer's order.
type event struct {
	Customer, What string
}

var whatHappens = []string{"placed", "paid", "shipped"}

// workTime is how long an event of a customer takes.
var workTime = map[string]time.Duration{
	"ann": 20 * time.Millisecond,
	"bob": 50 * time.Millisecond,
	"cid": 80 * time.Millisecond,
}

func main() {
	if err := run(context.Background(), os.Stdout); err != nil {
		fmt.Fprintln(os.Stderr, "orderedbycustomer:", err)
		os.Exit(1)
	}
}

// run is the program without the process around it.
func run(ctx context.Context, stdout io.Writer) error {
	events, err := fanout.NewTopic[event]("events", fanout.WithOrdering())
	if err != nil {
		return err
	}
	defer events.Close()
	seen := record{of: map[string][]string{}, busy: map[string]bool{}}
	if _, err := events.Subscribe(ctx, "accounts", seen.handle,
		fanout.WithConcurrency(4),
		fanout.WithBackoff(fanout.Constant(200*time.Millisecond)),
	); err != nil {
		return err
	}

	for _, what := range whatHappens {
		for _, customer := range []string{"ann", "bob", "cid"} {
			err := events.PublishMessages(ctx, fanout.Message[event]{
				Body:        event{customer, what},
				OrderingKey: customer,
			})
			if err != nil {
				return err
			}
		}
	}
	if err := events.Shutdown(ctx); err != nil {
		return err
	}

	for _, customer := range slices.Sorted(maps.Keys(seen.of)) {
		fmt.Fprintf(stdout, "%s: %s\n", customer, strings.Join(seen.of[customer], ", "))
	}
	fmt.Fprintln(stdout, "done first:", strings.Join(seen.done, ", "))
	fmt.Fprintln(stdout, "customers at the same time:", seen.mostBusy)
	fmt.Fprintln(stdout, "two events of one customer at the same time:", seen.overlap)
	return nil
}

// A record is what the handlers have seen.
type record struct {
	mu       sync.Mutex // guards the fields below
	of       map[string][]string
	done     []string // customers, in the order of their last events
	busy     map[string]bool
	mostBusy int
	overlap  bool
}

// handle works on an event. It is called by several workers at once.
func (r *record) handle(ctx context.Context, d fanout.Delivery[event]) error {
	e := d.Body
	r.begin(e)
	defer r.end(e)
	select {
	case <-time.After(workTime[e.Customer]):
	case <-ctx.Done():
		return context.Cause(ctx)
	}
	if e == (event{"ann", "placed"}) && d.Attempt() < 3 {
		r.add(e, "failed")
		return errors.New("the account is locked")
	}
	r.add(e, e.What)
	return nil
}

func (r *record) begin(e event) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.overlap = r.overlap || r.busy[e.Customer]
	r.busy[e.Customer] = true
	r.mostBusy = max(r.mostBusy, len(r.busy))
}

func (r *record) end(e event) {
	r.mu.Lock()
	defer r.mu.Unlock()
	delete(r.busy, e.Customer)
}

func (r *record) add(e event, what string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.of[e.Customer] = append(r.of[e.Customer], what)
	if what == whatHappens[len(whatHappens)-1] {
		r.done = append(r.done, e.Customer)
	}
}
