package fanouttest_test

import (
	"context"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/gofanout/fanout"
	"github.com/gofanout/fanout/fanouttest"
)

func TestTheKitFindsItsOptionsInGroups(t *testing.T) {
	both(t, func(t *testing.T) {
		hooked := 0
		_, failed := failures(func(tb *fakeTB) {
			k := fanouttest.New(tb)
			orders := fanouttest.NewTopic[order](k, "orders", fanout.TopicOptions(
				fanout.WithHooks(fanout.Hooks{Published: func(fanout.Event) { hooked++ }}),
				fanout.TopicOptions(fanouttest.AllowDeadLetters())))
			subscribe(tb, orders, "billing", func(context.Context, fanout.Delivery[order]) error { return errDown },
				fanout.WithMaxAttempts(1), fanout.WithBackoff(fanout.Constant(time.Millisecond)))
			publish(tb, orders, order{"o-17", 1})
			k.Settle(context.Background())
		})
		require.Empty(t, failed)
		require.Equal(t, 1, hooked)
	})
}
