// A test with the test kit.
//
// go get github.com/gofanout/fanout
package outside

import (
	"context"
	"testing"
	"testing/synctest"

	"github.com/gofanout/fanout"
	"github.com/gofanout/fanout/fanouttest"
)

func TestARetryInVirtualTime(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		k := fanouttest.New(t)
		orders := fanouttest.NewTopic[string](k, "orders")
		orders.Handling("billing").Nth(1).Panic("out of memory")
		_, err := orders.Subscribe(t.Context(), "billing", func(context.Context, fanout.Delivery[string]) error { return nil })
		if err != nil {
			t.Fatal(err)
		}
		if err := orders.Publish(t.Context(), "o-17"); err != nil {
			t.Fatal(err)
		}
		k.Settle(t.Context())
		orders.Acked("billing").Want("o-17")
	})
}
