package main

import (
	"context"
	"errors"
	"time"

	"github.com/gofanout/fanout"
)

// What the services tell each other.
type (
	// An Order is to be paid for and sent.
	Order struct {
		ID    string
		Cents int
		Items []string
	}
	// Paid says that an order was paid for.
	Paid struct {
		ID    string // of the order
		Cents int
		Items []string
	}
	// Shipped says that an order was handed to the carrier.
	Shipped struct {
		Order, Parcel string
	}
)

// ErrDeclined is what a Bank returns for a card that is no good.
var ErrDeclined = errors.New("card declined")

// A Bank takes money. Charging the same reference again does nothing.
type Bank interface {
	Charge(ctx context.Context, reference string, cents int) error
}

// A Carrier takes parcels. Booking the same reference again returns the same parcel.
type Carrier interface {
	Book(ctx context.Context, reference string, items []string) (parcel string, err error)
}

// A Service is what the handlers work with.
type Service struct {
	Orders  *fanout.Topic[Order]
	Paid    *fanout.Topic[Paid]
	Shipped *fanout.Topic[Shipped]
	Bank    Bank
	Carrier Carrier
}

// Start subscribes the handlers.
func Start(ctx context.Context, s Service) error {
	_, err := s.Orders.Subscribe(ctx, "billing", s.charge,
		fanout.WithConcurrency(4),
		fanout.WithMaxAttempts(20),
		fanout.WithBackoff(fanout.BackoffFunc(backoff)),
	)
	if err != nil {
		return err
	}
	_, err = s.Paid.Subscribe(ctx, "shipping", s.ship,
		fanout.WithVisibilityTimeout(time.Minute),
		fanout.WithBackoff(fanout.BackoffFunc(backoff)),
	)
	return err
}

// backoff is 100 ms after the first attempt, and twice as long after each further
// one, up to ten minutes. fanout.Exponential has jitter too, as it should be with
// many orders; without it a test can tell the instant.
func backoff(attempt int) time.Duration {
	return min(100*time.Millisecond<<(attempt-1), 10*time.Minute)
}

// charge takes the money for an order. If telling of it fails the order comes
// again, and charging it again does nothing.
func (s Service) charge(ctx context.Context, d fanout.Delivery[Order]) error {
	o := d.Body
	switch err := s.Bank.Charge(ctx, o.ID, o.Cents); {
	case errors.Is(err, ErrDeclined):
		return fanout.Permanent(err)
	case err != nil:
		return err
	}
	return s.Paid.Publish(ctx, Paid(o))
}

// ship hands a paid order to the carrier. An order can be told as paid twice;
// the reference makes it one parcel, of which it then tells twice.
func (s Service) ship(ctx context.Context, d fanout.Delivery[Paid]) error {
	parcel, err := s.Carrier.Book(ctx, d.Body.ID, d.Body.Items)
	if err != nil {
		return err
	}
	return s.Shipped.Publish(ctx, Shipped{Order: d.Body.ID, Parcel: parcel})
}
