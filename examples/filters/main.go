// Filters routes one stream of orders to the queues that want them, by filter
// policies as SNS has them and by predicates in Go.
//
//	go run ./examples/filters
//
// A policy is JSON and looks at a message's attributes, so it can come from a
// configuration file and be the same one that SNS gets. A predicate looks at the
// body with its type. One sees which queue got which orders: some go to several,
// and an order that no queue wants is nobody's. A policy with a mistake in it is
// refused when the queue is opened, not when a message comes.
package main

import (
	"context"
	"fmt"
	"io"
	"os"
	"strconv"

	"github.com/gofanout/fanout"
)

type order struct {
	ID      string
	Region  string
	Cents   int
	Express bool
}

var orders = []order{
	{"o-17", "eu", 4_999, false},
	{"o-18", "us-east", 250_000, false},
	{"o-19", "us-west", 1_999, true},
	{"o-20", "ch", 150_000, true},
	{"o-21", "jp", 2_999, false},
}

// routes are the queues. A queue with several filters gets what all accept.
var routes = []struct {
	queue  string
	filter fanout.QueueOption
}{
	{"europe", fanout.WithFilterPolicy(`{"region": ["eu", "ch"]}`)},
	{"america", fanout.WithFilterPolicy(`{"region": [{"prefix": "us-"}, "ca"]}`)},
	{"customs", fanout.WithFilterPolicy(`{"region": [{"anything-but": ["eu", "us-east", "us-west"]}], "cents": [{"numeric": [">=", 10000]}]}`)},
	{"express", fanout.WithFilter(func(o order) bool { return o.Express })},
	{"audit", fanout.WithMessageFilter(func(m fanout.Message[order]) bool {
		return m.Body.Cents > 100_000 && m.Attributes["region"] != ""
	})},
}

func main() {
	if err := run(context.Background(), os.Stdout); err != nil {
		fmt.Fprintln(os.Stderr, "filters:", err)
		os.Exit(1)
	}
}

// run is the program without the process around it.
func run(ctx context.Context, stdout io.Writer) error {
	topic, err := fanout.NewTopic[order]("orders")
	if err != nil {
		return err
	}
	defer topic.Close()
	var queues []*fanout.Queue[order]
	for _, r := range routes {
		q, err := topic.OpenQueue(ctx, r.queue, r.filter)
		if err != nil {
			return err
		}
		queues = append(queues, q)
	}
	_, err = topic.OpenQueue(ctx, "africa", fanout.WithFilterPolicy(`{"region": [{"prefx": "za"}]}`))
	fmt.Fprintln(stdout, "a mistake:", err)

	for _, o := range orders {
		// Attributes are text. One that reads as a number meets numeric conditions.
		m := fanout.Message[order]{Body: o, Attributes: map[string]string{
			"region": o.Region,
			"cents":  strconv.Itoa(o.Cents),
		}}
		if err := topic.PublishMessages(ctx, m); err != nil {
			return err
		}
	}

	taken := map[string]bool{}
	for _, q := range queues {
		fmt.Fprintf(stdout, "%s:", q.Name())
		for {
			d, ok, err := q.TryReceive(ctx)
			if err != nil {
				return err
			}
			if !ok {
				break
			}
			fmt.Fprintf(stdout, " %s", d.Body.ID)
			taken[d.Body.ID] = true
			if err := d.Ack(ctx); err != nil {
				return err
			}
		}
		fmt.Fprintln(stdout)
	}
	for _, o := range orders {
		if !taken[o.ID] {
			fmt.Fprintf(stdout, "nobody's: %s to %s\n", o.ID, o.Region)
		}
	}
	return topic.Shutdown(ctx)
}
