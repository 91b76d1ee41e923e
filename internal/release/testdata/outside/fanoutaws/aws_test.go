// A service on SNS + SQS, tested on the fake.
//
// go get github.com/gofanout/fanout/engine/fanoutaws
// go get github.com/gofanout/fanout/fanouttest/fakeaws
package outside

import (
	"context"
	"testing"
	"testing/synctest"

	"github.com/gofanout/fanout"
	"github.com/gofanout/fanout/engine"
	"github.com/gofanout/fanout/engine/fanoutaws"
	"github.com/gofanout/fanout/fanouttest/fakeaws"
)

func TestAPaymentIsHandled(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a := fakeaws.New(t)
		e, err := fanoutaws.New(a.SNS(), a.SQS())
		check(t, err)
		payments, err := fanout.NewTopic[string]("payments", fanout.WithEngine(e, fanout.Without(engine.Bounded, engine.AllOrNone)))
		check(t, err)
		handled := make(chan string, 1)
		_, err = payments.Subscribe(t.Context(), "inventory", func(_ context.Context, d fanout.Delivery[string]) error {
			handled <- d.Body
			return nil
		})
		check(t, err)
		check(t, payments.Publish(t.Context(), "o-17"))
		if got := <-handled; got != "o-17" {
			t.Fatal(got)
		}
		check(t, payments.Close())
		<-payments.Done()
	})
}

func check(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}
