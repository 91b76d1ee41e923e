package main

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	"github.com/gofanout/fanout"
	"github.com/gofanout/fanout/examples/checkout/shop"
	"github.com/gofanout/fanout/plugin/fanoutotel"
)

// A mail tells a customer that a parcel is under way.
type mail struct{ OrderID int }

// A service is the checkout: payments for inventory and shipping, and mails.
type service struct {
	cfg      config
	payments *fanout.Topic[shop.PaymentSucceeded]
	mails    *fanout.Topic[mail]
	load     *shop.Workload
	stop     func() error // of the observation

	failure    float64       // the share of calls to warehouses and carriers that fail
	visibility time.Duration // of payments
	patience   time.Duration // of the payment service

	published, refused atomic.Int64
}

const (
	workers    = 8
	publishers = 4
	speed      = 10 // of warehouses and carriers, in times of real life
	mailTime   = 2 * time.Millisecond
)

// open makes the topics, with one option each, has them observed, and starts the workers.
func open(ctx context.Context, c config, t *telemetry) (s *service, err error) {
	s = &service{cfg: c, load: shop.Flood(1_000_000, 1), visibility: 30 * time.Second, patience: 10 * time.Second}
	if c.trouble {
		s.failure, s.visibility, s.patience = 0.3, time.Second, 500*time.Millisecond
	}
	world := shop.NewWorld(1, s.failure, speed)
	inventory, shipping := shop.NewInventory(s.load, world), shop.NewShipping(s.load, world)
	if s.payments, err = fanout.NewTopic[shop.PaymentSucceeded]("payments", t.fanout.Topic(), fanout.WithLogger(t.log)); err != nil {
		return nil, err
	}
	if s.mails, err = fanout.NewTopic[mail]("mails", t.fanout.Topic(), fanout.WithLogger(t.log)); err != nil {
		return nil, err
	}
	if s.stop, err = t.fanout.Observe(fanoutotel.Of(s.payments), fanoutotel.Of(s.mails)); err != nil {
		return nil, err
	}
	options := []fanout.SubscribeOption{
		fanout.WithConcurrency(workers), fanout.WithCapacity(64), fanout.WithVisibilityTimeout(s.visibility),
		fanout.WithMaxAttempts(5), fanout.WithBackoff(fanout.Exponential(20*time.Millisecond, time.Second)), fanout.WithDeadLetterCapacity(fanout.Unlimited),
	}
	if _, err = s.payments.Subscribe(ctx, "inventory", s.reserve(inventory), options...); err != nil {
		return nil, err
	}
	if _, err = s.payments.Subscribe(ctx, "shipping", s.ship(shipping), options...); err != nil {
		return nil, err
	}
	// A mail that nobody has written in time is better dropped than late.
	_, err = s.mails.Subscribe(ctx, "writer", s.write, fanout.WithCapacity(64), fanout.WithOverflow(fanout.DropOldest))
	return s, err
}

// reserve is the inventory. In trouble it can't reserve every tenth order at all.
func (s *service) reserve(inventory *shop.Inventory) fanout.Handler[shop.PaymentSucceeded] {
	return func(ctx context.Context, d fanout.Delivery[shop.PaymentSucceeded]) error {
		if s.cfg.trouble && d.Body.OrderID%10 == 0 {
			return fanout.Permanent(fmt.Errorf("order %d: the product was recalled", d.Body.OrderID))
		}
		return inventory.Handle(ctx, d)
	}
}

// ship is the shipping service, which has a mail written for what is shipped. In trouble it
// hangs at every tenth order, longer than its visibility timeout.
func (s *service) ship(shipping *shop.Shipping) fanout.Handler[shop.PaymentSucceeded] {
	return func(ctx context.Context, d fanout.Delivery[shop.PaymentSucceeded]) error {
		if s.cfg.trouble && d.Body.OrderID%10 == 5 && d.Attempt() == 1 {
			time.Sleep(3 * s.visibility) // a bad client: it does not look at the context
		}
		if err := shipping.Handle(ctx, d); err != nil {
			return err
		}
		return s.mails.Publish(ctx, mail{d.Body.OrderID})
	}
}

// write writes a mail. In trouble that takes a hundred times as long.
func (s *service) write(ctx context.Context, _ fanout.Delivery[mail]) error {
	d := mailTime
	if s.cfg.trouble {
		d *= 100
	}
	select {
	case <-time.After(d):
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

// publish is the payment service, until ctx ends.
func (s *service) publish(ctx context.Context) {
	var all sync.WaitGroup
	var next atomic.Int64
	for range publishers {
		all.Go(func() {
			pace := time.NewTicker(time.Duration(float64(publishers) * float64(time.Second) / s.cfg.rate))
			defer pace.Stop()
			for {
				select {
				case <-pace.C:
					s.pay(ctx, s.load.Payment(int(next.Add(1)-1)%s.load.Len()))
				case <-ctx.Done():
					return
				}
			}
		})
	}
	all.Wait()
}

// pay publishes a payment. It waits for room in full queues, but not for long.
func (s *service) pay(ctx context.Context, p shop.PaymentSucceeded) {
	ctx, cancel := context.WithTimeout(ctx, s.patience)
	defer cancel()
	if err := s.payments.Publish(ctx, p); err != nil {
		s.refused.Add(1) // a real one would answer 503, or try again
		return
	}
	s.published.Add(1)
}

// close drains, for as long as the grace lasts.
func (s *service) close() error {
	ctx, cancel := context.WithTimeout(context.Background(), grace)
	defer cancel()
	var left *fanout.ShutdownError
	err := errors.Join(s.payments.Shutdown(ctx), s.mails.Shutdown(ctx))
	if errors.As(err, &left) && s.cfg.trouble {
		err = nil // that is the trouble
	}
	<-s.payments.Done()
	<-s.mails.Done()
	return errors.Join(err, s.stop())
}
