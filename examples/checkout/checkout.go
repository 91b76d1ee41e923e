package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"sync"
	"time"

	"github.com/gofanout/fanout"
	"github.com/gofanout/fanout/examples/checkout/shop"
)

type payment = shop.PaymentSucceeded

// A checkout is one run of the program: the shop, its topic, and what one sees of it.
type checkout struct {
	cfg config
	out *console

	load      *shop.Workload
	world     *shop.World
	inventory *shop.Inventory
	shipping  *shop.Shipping
	published *shop.Ledger // the payment service's own

	topic  *fanout.Topic[payment]
	queues []*fanout.Queue[payment]

	heap heapPeak
}

const (
	// payEvery is how often an order is paid.
	payEvery = 40 * time.Millisecond
	// refreshEvery is how often progress is looked at.
	refreshEvery = 10 * time.Millisecond
	// attention is how many dead letters make somebody look into a flood.
	attention = 1000
)

// run is the program without the process around it. When ctx ends it drains.
func run(ctx context.Context, args []string, stdout io.Writer) error {
	cfg, err := parseFlags(args, stdout)
	if err != nil {
		return err
	}
	c := &checkout{cfg: cfg, out: newConsole(stdout, isTerminal(stdout))}
	if err := c.stockShop(); err != nil {
		return err
	}
	if err := c.wire(ctx); err != nil {
		return err
	}
	defer c.topic.Close()

	end := context.WithoutCancel(ctx)
	err = c.work(ctx)
	if ctx.Err() == nil {
		return errors.Join(err, c.shutdown(end), c.balance())
	}
	// To be interrupted is no failure, if the books balance.
	c.out.say("interrupted: %s of %s payments are published; draining for at most %v (interrupt again to kill)",
		number(c.published.Total()), number(c.load.Len()), cfg.grace)
	return errors.Join(c.shutdown(end), c.showDead(end), c.balance())
}

// stockShop makes the shop: from files, or up.
func (c *checkout) stockShop() (err error) {
	speed := c.cfg.speed
	switch {
	case c.cfg.flood > 0:
		c.load, speed = shop.Flood(c.cfg.flood, c.cfg.seed), shop.Instant
	case c.cfg.orders != "":
		if c.load, err = shop.Load(os.DirFS(c.cfg.orders)); err != nil {
			return fmt.Errorf("-orders %s: %w", c.cfg.orders, err)
		}
	default:
		if c.load, err = shop.Load(shop.Sample()); err != nil {
			return err
		}
	}
	c.world = shop.NewWorld(c.cfg.seed, c.cfg.failure, speed)
	c.inventory = shop.NewInventory(c.load, c.world)
	c.shipping = shop.NewShipping(c.load, c.world)
	c.published = shop.NewLedger(c.load.Orders)
	return nil
}

// wire connects the services: one topic, and a queue with workers for each.
func (c *checkout) wire(ctx context.Context) (err error) {
	// What the library would log, losses at the end, is what the books tell.
	c.topic, err = fanout.NewTopic[payment]("payments", fanout.WithLogger(slog.New(slog.DiscardHandler)))
	if err != nil {
		return err
	}
	for _, service := range []struct {
		name   string
		handle fanout.Handler[payment]
	}{
		{"inventory", c.inventory.Handle},
		{"shipping", c.shipping.Handle},
	} {
		s, err := c.topic.Subscribe(ctx, service.name, service.handle,
			fanout.WithConcurrency(c.cfg.workers),
			fanout.WithCapacity(c.cfg.capacity),
			fanout.WithMaxAttempts(5),
			fanout.WithBackoff(c.backoff()),
			fanout.WithVisibilityTimeout(max(30*time.Second, 2*c.world.Scale(shop.SlowestCall))),
			// A dead letter without room would be parked and count against the
			// capacity: a shop with little stock would hold up its own payments.
			fanout.WithDeadLetterCapacity(fanout.Unlimited),
		)
		if err != nil {
			return err
		}
		c.queues = append(c.queues, s.Queue())
	}
	return nil
}

func (c *checkout) backoff() fanout.Backoff {
	first := max(c.world.Scale(200*time.Millisecond), time.Millisecond)
	return fanout.Exponential(first, max(c.world.Scale(3*time.Second), 16*first))
}

// work is the business of the day: all payments, and then what died of them.
func (c *checkout) work(ctx context.Context) error {
	c.out.say("%s payments with %s order lines; %d workers and room for %d messages in each queue",
		number(c.load.Len()), number(c.load.Lines()), c.cfg.workers, c.cfg.capacity)
	if err := c.watch(ctx, c.publishAll); err != nil {
		return err
	}
	c.out.due() // the end of a stage is worth a look
	c.refresh()
	c.out.say("every queue is drained")
	if err := c.showDead(ctx); err != nil {
		return err
	}
	if c.dead() == 0 {
		return nil
	}
	return c.watch(ctx, c.revive)
}

// publishAll is the payment service: an order is paid every now and then, or in
// a flood as fast as the queues allow.
func (c *checkout) publishAll(ctx context.Context) error {
	next := c.lookAfterFlood
	if c.cfg.flood == 0 {
		pace := time.NewTicker(c.world.Scale(payEvery))
		defer pace.Stop()
		next = func(ctx context.Context, _ int) error {
			select {
			case <-pace.C:
				return nil
			case <-ctx.Done():
				return context.Cause(ctx)
			}
		}
	}
	for i := range c.load.Len() {
		if err := next(ctx, i); err != nil {
			return err
		}
		p := c.load.Payment(i)
		// A full queue makes this wait. An error means that no queue got the payment.
		if err := c.topic.Publish(ctx, p); err != nil {
			return fmt.Errorf("payment of order %d: %w", p.OrderID, err)
		}
		c.published.Enter(p.OrderID)
	}
	return nil
}

// lookAfterFlood sees to the dead letters of a flood once they are many, so that
// they don't pile up to the end.
func (c *checkout) lookAfterFlood(ctx context.Context, i int) error {
	if i%attention > 0 || c.dead() < attention {
		return nil
	}
	return c.revive(ctx)
}

// revive removes the causes that messages died of, and redrives them.
func (c *checkout) revive(ctx context.Context) error {
	c.world.Calm()
	letters, err := letters(ctx, c.queues[0])
	if err != nil {
		return err
	}
	products, units := c.inventory.Restock(bodies(letters))
	c.out.say("warehouses and carriers are well again; restocked %s products with %s units", number(products), number(units))
	for _, q := range c.queues {
		dead := q.Stats().Dead
		moved, err := q.Redrive(ctx)
		c.out.say("%s: redrove %s of %s dead letters", q.Name(), number(moved), number(dead))
		if err != nil {
			return err
		}
	}
	return nil
}

// watch does a job and shows how it gets on, until the job is done and every
// message is settled or dead.
func (c *checkout) watch(ctx context.Context, job func(context.Context) error) error {
	var wg sync.WaitGroup
	defer wg.Wait()
	done := make(chan error, 1)
	wg.Go(func() { done <- job(ctx) })
	tick := time.NewTicker(refreshEvery)
	defer tick.Stop()
	for finished := false; ; {
		select {
		case err := <-done:
			if err != nil {
				return err
			}
			finished = true
		case <-tick.C:
		case <-ctx.Done():
			return context.Cause(ctx)
		}
		c.refresh()
		if finished && c.idle() {
			return nil
		}
	}
}

func (c *checkout) idle() bool {
	for _, q := range c.queues {
		if q.Stats().Unsettled() > 0 {
			return false
		}
	}
	return true
}

func (c *checkout) dead() (n int) {
	for _, q := range c.queues {
		n += q.Stats().Dead
	}
	return n
}

func (c *checkout) refresh() {
	c.heap.sample()
	c.out.refresh(c.snapshot)
}

// shutdown drains the topic for as long as the grace lasts, and says what is left.
func (c *checkout) shutdown(ctx context.Context) error {
	grace, cancel := context.WithTimeout(ctx, c.cfg.grace)
	defer cancel()
	err := c.watch(ctx, func(context.Context) error { return c.topic.Shutdown(grace) })
	var left *fanout.ShutdownError
	if !errors.As(err, &left) {
		return err
	}
	for _, l := range left.Queues {
		c.out.say("left in %v", l)
	}
	// The handlers' contexts are cancelled: they are on their way home, and until
	// then they may still do what they were about to.
	<-c.topic.Done()
	return nil
}
