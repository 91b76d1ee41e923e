package guide_test

import (
	"context"
	"errors"
	"testing"
	"testing/synctest"

	"github.com/stretchr/testify/require"

	"github.com/gofanout/fanout"
)

// A Publisher is what a service needs of a topic. *fanout.Topic[T] implements it.
type Publisher[T any] interface {
	Publish(ctx context.Context, body T) error
}

var _ Publisher[Placed] = (*fanout.Topic[Placed])(nil)

// A Shop places orders. It does not know where their events go.
type Shop struct{ Events Publisher[Placed] }

// Place places an order.
func (s *Shop) Place(ctx context.Context, order, item string) error {
	if item == "" {
		return errors.New("an order needs an item")
	}
	return s.Events.Publish(ctx, Placed{Order: order, Item: item})
}

// A Stock reserves items. It does not know where orders come from.
type Stock struct{ left map[string]int }

// Reserve takes an item for an order.
func (s *Stock) Reserve(_ context.Context, e Placed) error {
	if s.left[e.Item] == 0 {
		return errors.New("sold out: " + e.Item)
	}
	s.left[e.Item]--
	return nil
}

// Bodies makes a handler of a function that needs no more than the body.
func Bodies[T any](handle func(context.Context, T) error) fanout.Handler[T] {
	return func(ctx context.Context, d fanout.Delivery[T]) error { return handle(ctx, d.Body) }
}

// A FakePublisher records what is published, or fails.
type FakePublisher[T any] struct {
	Published []T
	Err       error
}

func (f *FakePublisher[T]) Publish(_ context.Context, body T) error {
	if f.Err == nil {
		f.Published = append(f.Published, body)
	}
	return f.Err
}

func TestAShopWithoutATopic(t *testing.T) {
	fake := &FakePublisher[Placed]{}
	shop := &Shop{Events: fake}
	require.Error(t, shop.Place(t.Context(), "o-17", ""))
	require.NoError(t, shop.Place(t.Context(), "o-18", "tea"))
	require.Equal(t, []Placed{{"o-18", "tea"}}, fake.Published)
	fake.Err = fanout.ErrQueueFull
	require.ErrorIs(t, shop.Place(t.Context(), "o-19", "tea"), fanout.ErrQueueFull)
}

func TestAStockWithoutATopic(t *testing.T) {
	stock := &Stock{left: map[string]int{"tea": 1}}
	require.NoError(t, stock.Reserve(t.Context(), Placed{"o-18", "tea"}))
	require.EqualError(t, stock.Reserve(t.Context(), Placed{"o-19", "tea"}), "sold out: tea")
}

func TestAShopAndAStockOnATopic(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx := t.Context()
		events, err := fanout.NewTopic[Placed]("placed")
		require.NoError(t, err)
		stock := &Stock{left: map[string]int{"tea": 1}}
		_, err = events.Subscribe(ctx, "stock", Bodies(stock.Reserve))
		require.NoError(t, err)
		shop := &Shop{Events: events}
		require.NoError(t, shop.Place(ctx, "o-18", "tea"))
		require.NoError(t, events.Shutdown(ctx))
		require.Zero(t, stock.left["tea"])
	})
}
