package guide_test

import (
	"context"
	"testing"
	"testing/synctest"

	"github.com/stretchr/testify/require"

	"github.com/gofanout/fanout"
)

// An OrderEvent is something that happened to an order.
type OrderEvent interface{ OrderID() string }

type (
	Placed    struct{ Order, Item string }
	Charged   struct{ Order string }
	Cancelled struct{ Order, Reason string }
)

func (e Placed) OrderID() string    { return e.Order }
func (e Charged) OrderID() string   { return e.Order }
func (e Cancelled) OrderID() string { return e.Order }

// A Warehouse needs several types of events, in the order in which they happened.
type Warehouse struct{ reserved map[string]string }

// Handle is the warehouse's handler.
func (w *Warehouse) Handle(_ context.Context, d fanout.Delivery[OrderEvent]) error {
	switch e := d.Body.(type) {
	case Placed:
		w.reserved[e.Order] = e.Item
	case Cancelled:
		delete(w.reserved, e.Order)
	default:
		// A type that is of no interest here, perhaps one that was added later.
	}
	return nil
}

// SubscribeTo subscribes to the events of one type. The others do not enter the queue.
func SubscribeTo[E OrderEvent](ctx context.Context, events *fanout.Topic[OrderEvent], name string,
	handle func(context.Context, E) error, options ...fanout.SubscribeOption) (*fanout.Subscriber[OrderEvent], error) {
	isE := fanout.WithFilter(func(e OrderEvent) bool { _, is := e.(E); return is })
	return events.Subscribe(ctx, name, func(ctx context.Context, d fanout.Delivery[OrderEvent]) error {
		return handle(ctx, d.Body.(E))
	}, append(options, isE)...)
}

func TestSeveralEventTypesOnOneTopic(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx := t.Context()
		events, err := fanout.NewTopic[OrderEvent]("order-events")
		require.NoError(t, err)

		warehouse := &Warehouse{reserved: map[string]string{}}
		_, err = events.Subscribe(ctx, "warehouse", warehouse.Handle)
		require.NoError(t, err)
		var complaints []string
		_, err = SubscribeTo(ctx, events, "complaints", func(_ context.Context, e Cancelled) error {
			complaints = append(complaints, e.Order+": "+e.Reason)
			return nil
		})
		require.NoError(t, err)

		for _, e := range []OrderEvent{
			Placed{"o-17", "tea"}, Placed{"o-18", "cup"}, Charged{"o-17"}, Cancelled{"o-18", "the cup is broken"},
		} {
			require.NoError(t, events.Publish(ctx, e))
		}
		require.NoError(t, events.Shutdown(ctx))
		require.Equal(t, map[string]string{"o-17": "tea"}, warehouse.reserved)
		require.Equal(t, []string{"o-18: the cup is broken"}, complaints)
		require.EqualValues(t, 1, events.Queue("complaints").Stats().Delivered)
	})
}
