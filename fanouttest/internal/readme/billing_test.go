package billing_test

import (
	"context"
	"errors"
	"testing"
	"testing/synctest"

	"github.com/gofanout/fanout"
	"github.com/gofanout/fanout/fanouttest"
)

type Order struct{ ID string }

func startBilling(ctx context.Context, orders *fanout.Topic[Order]) error {
	_, err := orders.Subscribe(ctx, "billing", func(ctx context.Context, d fanout.Delivery[Order]) error {
		return nil // charges the order
	})
	return err
}

func TestABankThatIsDownIsAskedAgain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) { // time is virtual
		kit := fanouttest.New(t)
		orders := fanouttest.NewTopic[Order](kit, "orders")
		if err := startBilling(t.Context(), orders.Topic); err != nil {
			t.Fatal(err)
		}

		orders.Handling("billing").First(2).Fail(errors.New("the bank is down"))
		if err := orders.Publish(t.Context(), Order{ID: "o-17"}); err != nil {
			t.Fatal(err)
		}
		kit.Settle(t.Context()) // until nothing is ready, in flight or waiting for a retry

		orders.Retried("billing").WantCount(2)
		orders.Acked("billing").Want(Order{ID: "o-17"})
	})
}
