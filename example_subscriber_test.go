package fanout_test

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/gofanout/fanout"
)

func ExampleTopic_SubscribeBatch() {
	ctx := context.Background()
	orders, _ := fanout.NewTopic[string]("orders")
	orders.SubscribeBatch(ctx, "warehouse", func(ctx context.Context, ds []fanout.Delivery[string]) error {
		fmt.Println("insert", len(ds), "rows, from", ds[0].Body)
		return nil // acknowledges all
	}, fanout.WithBatchSize(100))

	orders.PublishMessages(ctx,
		fanout.Message[string]{Body: "o-17"},
		fanout.Message[string]{Body: "o-18"},
		fanout.Message[string]{Body: "o-19"},
	)
	orders.Shutdown(ctx)
	// Output:
	// insert 3 rows, from o-17
}

// A queue can have been there before its workers.
func ExampleQueue_SubscribeBatch() {
	ctx := context.Background()
	orders, _ := fanout.NewTopic[string]("orders")
	warehouse, _ := orders.OpenQueue(ctx, "warehouse")
	for _, id := range []string{"o-17", "o-18", "o-19"} {
		orders.Publish(ctx, id)
	}

	warehouse.SubscribeBatch(ctx, func(ctx context.Context, ds []fanout.Delivery[string]) error {
		fmt.Println(len(ds), "rows, from", ds[0].Body)
		return nil
	}, fanout.WithBatchSize(2))
	orders.Shutdown(ctx)
	// Output:
	// 2 rows, from o-17
	// 1 rows, from o-19
}

func ExampleWithBatchSize() {
	ctx := context.Background()
	orders, _ := fanout.NewTopic[string]("orders")
	warehouse, _ := orders.OpenQueue(ctx, "warehouse")
	for range 25 {
		orders.Publish(ctx, "o-17")
	}

	warehouse.SubscribeBatch(ctx, func(ctx context.Context, ds []fanout.Delivery[string]) error {
		fmt.Println(len(ds)) // at most; it doesn't wait for more
		return nil
	}, fanout.WithBatchSize(20))
	orders.Shutdown(ctx)
	// Output:
	// 20
	// 5
}

// What the handler settles itself is settled. The error holds for the rest.
func ExampleBatchHandler() {
	ctx := context.Background()
	orders, _ := fanout.NewTopic[string]("orders")
	warehouse, _ := orders.SubscribeBatch(ctx, "warehouse", func(ctx context.Context, ds []fanout.Delivery[string]) error {
		if err := ds[0].Ack(ctx); err != nil {
			return err
		}
		return fanout.Permanent(errors.New("the disk is full"))
	})

	orders.PublishMessages(ctx,
		fanout.Message[string]{Body: "o-17"},
		fanout.Message[string]{Body: "o-18"},
		fanout.Message[string]{Body: "o-19"},
	)
	orders.Shutdown(ctx)
	s := warehouse.Queue().Stats()
	fmt.Println(s.Acked, "acked,", s.Dead, "dead")
	// Output:
	// 1 acked, 2 dead
}

func ExampleWithRateLimit() {
	ctx := context.Background()
	orders, _ := fanout.NewTopic[string]("orders")
	orders.Subscribe(ctx, "mails", func(ctx context.Context, d fanout.Delivery[string]) error {
		return nil
	}, fanout.WithRateLimit(1000)) // a second: one each millisecond

	begin := time.Now()
	for range 4 {
		orders.Publish(ctx, "o-17")
	}
	orders.Shutdown(ctx)
	fmt.Println("4 mails took 3 ms:", time.Since(begin) >= 3*time.Millisecond)
	// Output:
	// 4 mails took 3 ms: true
}

// The queue has a short timeout, so that a lost message is soon found again;
// handlers keep theirs for as long as they run.
func ExampleWithAutoExtend() {
	ctx := context.Background()
	orders, _ := fanout.NewTopic[string]("orders")
	mails, _ := orders.Subscribe(ctx, "mails", func(ctx context.Context, d fanout.Delivery[string]) error {
		time.Sleep(5 * time.Millisecond)
		fmt.Println(d.Body, "attempt", d.Attempt())
		return nil
	}, fanout.WithVisibilityTimeout(time.Millisecond), fanout.WithAutoExtend(fanout.MaxAutoExtend))

	orders.Publish(ctx, "o-17")
	orders.Shutdown(ctx)
	fmt.Println(mails.Queue().Stats().TimedOut, "timed out")
	// Output:
	// o-17 attempt 1
	// 0 timed out
}

func ExampleWithHandlerTimeout() {
	ctx := context.Background()
	orders, _ := fanout.NewTopic[string]("orders")
	mails, _ := orders.Subscribe(ctx, "mails", func(ctx context.Context, d fanout.Delivery[string]) error {
		<-ctx.Done() // the mail server doesn't answer
		fmt.Println(errors.Is(context.Cause(ctx), context.DeadlineExceeded))
		return context.Cause(ctx)
	}, fanout.WithHandlerTimeout(time.Millisecond), fanout.WithMaxAttempts(1))

	orders.Publish(ctx, "o-17")
	orders.Shutdown(ctx)
	// The error counts as any. That is not the visibility timeout.
	s := mails.Queue().Stats()
	fmt.Println(s.Failed, "failed,", s.TimedOut, "timed out")
	// Output:
	// true
	// 1 failed, 0 timed out
}
