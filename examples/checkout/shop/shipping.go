package shop

import (
	"context"
	"fmt"
	"time"

	"github.com/gofanout/fanout"
)

// Shipping is the service that books a carrier for each order.
//
// All methods may be called concurrently.
type Shipping struct {
	world  *World
	ledger *Ledger
}

// A Carrier takes orders to customers, and takes its time to answer.
type Carrier struct {
	Name   string
	Answer time.Duration
}

// carriers are known by their numbers in the orders, from 1. The last is slow.
var carriers = []Carrier{
	{"Hare Express", 150 * time.Millisecond},
	{"Ox Parcel", 450 * time.Millisecond},
	{"Snail Freight", 1200 * time.Millisecond},
}

// SlowestCall is how long a call to the slowest carrier can take.
const SlowestCall = 1800 * time.Millisecond

var _ fanout.Handler[PaymentSucceeded] = (*Shipping)(nil).Handle

// NewShipping returns the service.
func NewShipping(load *Workload, world *World) *Shipping {
	return &Shipping{world: world, ledger: NewLedger(load.Orders)}
}

// CarrierOf returns the carrier with a number. One that is not known by name is
// as fast as the second.
func CarrierOf(number int) Carrier {
	if number >= 1 && number <= len(carriers) {
		return carriers[number-1]
	}
	return Carrier{Name: fmt.Sprintf("carrier %d", number), Answer: carriers[1].Answer}
}

// Ledger tells which orders have a carrier booked.
func (s *Shipping) Ledger() *Ledger { return s.ledger }

// Handle books the carrier of a paid order. A call that fails is worth another attempt.
func (s *Shipping) Handle(ctx context.Context, d fanout.Delivery[PaymentSucceeded]) error {
	p := d.Body
	if s.ledger.Has(p.OrderID) {
		s.ledger.Enter(p.OrderID) // booked before, and the acknowledgement came too late
		return nil
	}
	by := CarrierOf(p.Carrier)
	if err := s.world.call(ctx, carrier, p.OrderID, d.Attempt(), by.Answer); err != nil {
		return fmt.Errorf("%s: %w", by.Name, err)
	}
	s.ledger.Enter(p.OrderID)
	return nil
}
