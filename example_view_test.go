package fanout_test

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"time"

	"github.com/gofanout/fanout"
)

// A function that knows no T looks after topics of any type.
func ExampleTopicView() {
	ctx := context.Background()
	orders, _ := fanout.NewTopic[string]("orders")
	prices, _ := fanout.NewTopic[int]("prices")
	orders.OpenQueue(ctx, "billing")
	orders.OpenQueue(ctx, "audit")
	prices.OpenQueue(ctx, "latest", fanout.WithCapacity(1))
	orders.Publish(ctx, "o-17")
	prices.Publish(ctx, 4999)

	report := func(topics ...fanout.AnyTopic) {
		for _, t := range topics {
			for _, q := range t.View().Queues() {
				fmt.Printf("%s/%s: %d of %d\n", t.Name(), q.Name(), q.Stats().Unsettled(), q.Settings().Capacity)
			}
		}
	}
	report(orders, prices)
	// Output:
	// orders/audit: 1 of 1024
	// orders/billing: 1 of 1024
	// prices/latest: 1 of 1
}

// Dead letters are looked at page by page. Of those that were seen some are deleted, and
// the others sent back; what dies later is left alone.
func ExampleQueueView() {
	ctx := context.Background()
	orders, _ := fanout.NewTopic[string]("orders", fanout.WithLogger(slog.New(slog.DiscardHandler)))
	billing, _ := orders.OpenQueue(ctx, "billing", fanout.WithMaxAttempts(1))
	for _, body := range []string{"o-17", "garbage", "o-18"} {
		orders.Publish(ctx, body)
		d, _ := billing.Receive(ctx)
		d.Settle(ctx, errors.New("no such order"))
	}

	q := billing.View()
	var poison []string
	var newest time.Time
	for look := (fanout.PeekOptions{Most: 2, Body: 100}); ; {
		page, next, err := q.DeadLetters().Peek(ctx, look)
		if err != nil {
			fmt.Println(err)
			return
		}
		for _, m := range page {
			fmt.Println(m.Body, "-", m.History[0].Cause, "-", m.History[0].Err)
			if !strings.HasPrefix(m.Body, "o-") {
				poison = append(poison, m.ID)
			}
			if m.DiedAt.After(newest) {
				newest = m.DiedAt
			}
		}
		if look.After = next; next == "" {
			break
		}
	}
	deleted, _ := q.DeleteLetters(ctx, fanout.RedriveIDs(poison...))
	moved, _ := q.Redrive(ctx, fanout.RedriveUntil(newest))
	fmt.Println("deleted", deleted, "- sent back", moved)
	// Output:
	// o-17 - failed - no such order
	// garbage - failed - no such order
	// o-18 - failed - no such order
	// deleted 1 - sent back 2
}

// Which subscriber has a handler that doesn't return is seen by the line that subscribed.
func ExampleSubscriberView() {
	ctx := context.Background()
	orders, _ := fanout.NewTopic[string]("orders")
	orders.Subscribe(ctx, "billing", func(context.Context, fanout.Delivery[string]) error { return nil }, fanout.WithConcurrency(8))

	for _, s := range orders.View().Queue("billing").Subscribers() {
		file, _, _ := strings.Cut(s.Subscriber, ":")
		fmt.Println(file[strings.LastIndexByte(file, '/')+1:], s.Concurrency, s.Stuck)
	}
	// Output:
	// example_view_test.go 8 0
}

// A topic that is in use is tapped for a while.
func ExampleTopicView_tap() {
	ctx := context.Background()
	orders, _ := fanout.NewTopic[string]("orders", fanout.WithLogger(slog.New(slog.DiscardHandler)))
	billing, _ := orders.OpenQueue(ctx, "billing")

	stop, _ := orders.View().Tap(fanout.Hooks{DeadLettered: func(e fanout.Event) { fmt.Println(e.Queue, e.Cause, e.Err) }})
	for _, body := range []string{"o-17", "o-18"} {
		orders.Publish(ctx, body)
		d, _ := billing.Receive(ctx)
		d.Settle(ctx, fanout.Permanent(errors.New("poison "+body)))
		stop()
	}
	// Output:
	// billing permanent poison o-17
}

func ExampleRedriveUntil() {
	ctx := context.Background()
	orders, _ := fanout.NewTopic[string]("orders", fanout.WithLogger(slog.New(slog.DiscardHandler)))
	billing, _ := orders.OpenQueue(ctx, "billing")
	die := func(body string) {
		orders.Publish(ctx, body)
		d, _ := billing.Receive(ctx)
		d.Settle(ctx, fanout.Permanent(errors.New("poison")))
	}
	die("o-17")
	seen, _, _ := billing.View().DeadLetters().Peek(ctx, fanout.PeekOptions{Most: 100})
	die("o-18") // nobody has looked at this one

	moved, _ := billing.Redrive(ctx, fanout.RedriveUntil(seen[len(seen)-1].DiedAt))
	fmt.Println(moved, "sent back,", billing.Stats().Dead, "left")
	// Output:
	// 1 sent back, 1 left
}
