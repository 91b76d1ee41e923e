package fanout_test

import (
	"context"
	"errors"
	"fmt"

	"github.com/gofanout/fanout"
)

// A BatchError says which deliveries were not acknowledged, and why.
func ExampleBatchError() {
	ctx := context.Background()
	orders, _ := fanout.NewTopic[string]("orders")
	billing, _ := orders.OpenQueue(ctx, "billing")
	orders.PublishMessages(ctx, fanout.Message[string]{Body: "o-17"}, fanout.Message[string]{Body: "o-18"})
	ds, _ := billing.ReceiveBatch(ctx, 10)
	ds[1].Ack(ctx)

	err := billing.AckBatch(ctx, ds...)
	var failed *fanout.BatchError
	if errors.As(err, &failed) {
		for k, err := range failed.Failed {
			fmt.Println(ds[k].Body, "settled already:", errors.Is(err, fanout.ErrSettled))
		}
	}
	// Output:
	// o-18 settled already: true
}
