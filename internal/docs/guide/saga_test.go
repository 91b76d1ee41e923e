package guide_test

import (
	"context"
	"errors"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/gofanout/fanout"
)

// The topics of the saga: an order is placed, charged, and shipped. If it can't be
// shipped, the charge is undone.
type (
	SagaOrder struct {
		ID          string
		Unshippable string // why it can't be shipped; empty for a new order
	}
	SagaCharge struct{ Order string }
)

// ErrNoDelivery says that no carrier goes there.
var ErrNoDelivery = errors.New("no delivery to this address")

const shippingAttempts = 3

// A Saga is the steps, each a handler that publishes the next one. The bank and the
// carrier take the order's ID as a key, so that a step that is repeated is done once.
type Saga struct {
	Orders  *fanout.Topic[*SagaOrder]
	Charges *fanout.Topic[*SagaCharge]

	Charge, Refund, Book func(ctx context.Context, order string) error
}

// Start subscribes the steps.
func (s *Saga) Start(ctx context.Context) error {
	_, err := s.Orders.Subscribe(ctx, "billing", s.bill)
	if err != nil {
		return err
	}
	_, err = s.Charges.Subscribe(ctx, "shipping", s.ship, fanout.WithMaxAttempts(shippingAttempts))
	return err
}

// bill charges a new order, and refunds one that can't be shipped.
func (s *Saga) bill(ctx context.Context, d fanout.Delivery[*SagaOrder]) error {
	if d.Body.Unshippable != "" {
		return s.Refund(ctx, d.Body.ID)
	}
	if err := s.Charge(ctx, d.Body.ID); err != nil {
		return err
	}
	return s.Charges.Publish(ctx, &SagaCharge{Order: d.Body.ID})
}

// ship books a carrier. If no further attempt can help, it has the charge undone.
func (s *Saga) ship(ctx context.Context, d fanout.Delivery[*SagaCharge]) error {
	err := s.Book(ctx, d.Body.Order)
	if err == nil || !errors.Is(err, ErrNoDelivery) && d.Attempt() < shippingAttempts {
		return err
	}
	return s.Orders.Publish(ctx, &SagaOrder{ID: d.Body.Order, Unshippable: err.Error()})
}

// Stop waits until all orders that were placed are shipped or refunded.
func (s *Saga) Stop(ctx context.Context) error {
	return fanout.Shutdown(ctx, s.Orders, s.Charges)
}

func TestASagaOverTwoTopics(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx := t.Context()
		orders, err := fanout.NewTopic[*SagaOrder]("orders")
		require.NoError(t, err)
		charges, err := fanout.NewTopic[*SagaCharge]("charges")
		require.NoError(t, err)

		done := map[string][]string{}
		step := func(name string, fails func(order string) error) func(context.Context, string) error {
			return func(_ context.Context, order string) error {
				if err := fails(order); err != nil {
					return err
				}
				done[order] = append(done[order], name)
				return nil
			}
		}
		never := func(string) error { return nil }
		booked := 0
		saga := &Saga{Orders: orders, Charges: charges, Charge: step("charged", never), Refund: step("refunded", never),
			Book: step("shipped", func(order string) error {
				switch order {
				case "to the moon":
					return ErrNoDelivery
				case "by a lazy carrier":
					booked++
					return errors.New("the carrier does not answer")
				}
				return nil
			})}
		require.NoError(t, saga.Start(ctx))
		for _, order := range []string{"o-17", "to the moon", "by a lazy carrier"} {
			require.NoError(t, orders.Publish(ctx, &SagaOrder{ID: order}))
		}
		stop, cancel := context.WithTimeout(ctx, time.Minute)
		defer cancel()
		require.NoError(t, saga.Stop(stop))
		require.Equal(t, map[string][]string{
			"o-17": {"charged", "shipped"}, "to the moon": {"charged", "refunded"}, "by a lazy carrier": {"charged", "refunded"},
		}, done)
		require.Equal(t, shippingAttempts, booked)
	})
}
