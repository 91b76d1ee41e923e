package program

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"time"

	"golang.org/x/sync/errgroup"

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

	engine fanout.TopicOption // nil in memory
	topic  *fanout.Topic[payment]
	queues []*fanout.Queue[payment]

	heap heapPeak
}

const (
	// payEvery is how often an order is paid.
	payEvery = 40 * time.Millisecond
	// refreshEvery is how often progress is looked at.
	refreshEvery = 10 * time.Millisecond
	// askEvery is how often an engine is asked about it.
	askEvery = 100 * time.Millisecond
	// attention is how many dead letters make somebody look into a flood.
	attention = 1000
)

// run is a day of the shop. When ctx ends it drains.
func (c *checkout) run(ctx context.Context) error {
	if err := c.wire(ctx); err != nil {
		return err
	}
	defer func() { _ = c.topic.Close() }()

	if c.cfg.http != "" {
		end, err := c.serve()
		if err != nil {
			return err
		}
		defer end()
	}
	end := context.WithoutCancel(ctx)
	err := c.work(ctx)
	if ctx.Err() == nil {
		return errors.Join(err, c.shutdown(end), c.balance())
	}
	// To be interrupted is no failure, if the books balance.
	c.out.say("interrupted: %s of %s are published; draining for at most %v (interrupt again to kill)",
		number(c.published.Total()), count(c.load.Len(), "payment"), c.cfg.grace)
	return errors.Join(c.shutdown(end), c.showDead(end), c.balance())
}

// stockShop makes the shop: from files, or up.
func (c *checkout) stockShop() (err error) {
	speed := c.cfg.speed
	switch {
	case c.cfg.http != "":
		c.load = shop.Endless(c.cfg.seed)
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
func (c *checkout) wire(ctx context.Context) error {
	if err := c.openTopic(ctx); err != nil {
		return err
	}
	if c.engine != nil {
		if err := c.start(ctx); err != nil {
			return errors.Join(err, c.topic.Close())
		}
	}
	for i, handle := range []fanout.Handler[payment]{c.inventory.Handle, c.shipping.Handle} {
		if _, err := c.queues[i].Subscribe(ctx, handle, fanout.WithConcurrency(c.cfg.workers)); err != nil {
			return err
		}
	}
	return nil
}

// openTopic makes the topic, or finds it, with a queue for each service.
func (c *checkout) openTopic(ctx context.Context) (err error) {
	// What the library would log, losses at the end, is what the books tell.
	options := []fanout.TopicOption{fanout.WithLogger(slog.New(slog.DiscardHandler))}
	if c.engine != nil {
		options = append(options, c.engine)
	}
	if c.topic, err = fanout.NewTopic[payment]("payments", options...); err != nil {
		return err
	}
	c.queues = nil
	for _, service := range []string{"inventory", "shipping"} {
		q, err := c.topic.OpenQueue(ctx, service, c.queueOptions()...)
		if err != nil {
			return errors.Join(err, c.topic.Close())
		}
		c.queues = append(c.queues, q)
	}
	return nil
}

func (c *checkout) queueOptions() []fanout.QueueOption {
	options := []fanout.QueueOption{
		fanout.WithMaxAttempts(5),
		fanout.WithBackoff(c.backoff()),
		fanout.WithVisibilityTimeout(c.visibility()),
	}
	if c.engine != nil {
		return options
	}
	return append(options,
		fanout.WithCapacity(c.cfg.capacity),
		// A dead letter without room would be parked and count against the
		// capacity: a shop with little stock would hold up its own payments.
		fanout.WithDeadLetterCapacity(fanout.Unlimited),
	)
}

func (c *checkout) visibility() time.Duration {
	return max(30*time.Second, 2*c.world.Scale(shop.SlowestCall))
}

func (c *checkout) backoff() fanout.Backoff {
	first := max(c.world.Scale(200*time.Millisecond), time.Millisecond)
	return fanout.Exponential(first, max(c.world.Scale(3*time.Second), 16*first))
}

// work is the business of the day: all payments, and then what died of them.
func (c *checkout) work(ctx context.Context) error {
	room := "room for " + count(c.cfg.capacity, "message")
	if c.engine != nil {
		room = "no bounds"
	}
	c.out.say("%s with %s; %s and %s in each queue",
		count(c.load.Len(), "payment"), count(c.load.Lines(), "order line"), count(c.cfg.workers, "worker"), room)
	if err := c.watch(ctx, c.publishAll); err != nil {
		return err
	}
	c.out.due() // the end of a stage is worth a look
	c.refresh(ctx)
	c.out.say("every queue is drained")
	if err := c.showDead(ctx); err != nil {
		return err
	}
	if dead, err := c.dead(ctx); err != nil || dead == 0 {
		return err
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
		// From an engine it means that nobody knows, so there it is not interrupted.
		publishing := ctx
		if c.engine != nil {
			publishing = context.WithoutCancel(ctx)
		}
		if err := c.topic.Publish(publishing, p); err != nil {
			return fmt.Errorf("payment of order %d: %w", p.OrderID, err)
		}
		c.published.Enter(p.OrderID)
	}
	return nil
}

// lookAfterFlood sees to the dead letters of a flood once they are many, so that
// they don't pile up to the end.
func (c *checkout) lookAfterFlood(ctx context.Context, i int) error {
	if i%attention > 0 {
		return nil
	}
	if dead, err := c.dead(ctx); err != nil || dead < attention {
		return err
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
	c.out.say("warehouses and carriers are well again; restocked %s with %s", count(products, "product"), count(units, "unit"))
	for _, q := range c.queues {
		d, err := q.Depth(ctx)
		if err != nil {
			return err
		}
		moved, err := q.Redrive(ctx)
		c.out.say("%s: redrove %s of %s", q.Name(), number(moved), count(d.Dead, "dead letter"))
		if err != nil {
			return err
		}
	}
	return nil
}

// watch does a job and shows how it gets on, until the job is done and every
// message is settled or dead.
func (c *checkout) watch(ctx context.Context, job func(context.Context) error) error {
	var jobs errgroup.Group // without a context: the job ends by its own
	done := make(chan struct{})
	jobs.Go(func() error {
		defer close(done)
		return job(ctx)
	})
	defer jobs.Wait()
	every := refreshEvery
	if c.engine != nil {
		every = askEvery
	}
	tick := time.NewTicker(every)
	defer tick.Stop()
	for finished := false; ; {
		select {
		case <-done:
			if err := jobs.Wait(); err != nil {
				return err
			}
			finished, done = true, nil
		case <-tick.C:
		case <-ctx.Done():
			return context.Cause(ctx)
		}
		c.refresh(ctx)
		if !finished {
			continue
		}
		if idle, err := c.idle(ctx); idle || err != nil {
			return err
		}
	}
}

func (c *checkout) refresh(ctx context.Context) {
	c.heap.sample()
	c.out.refresh(func() snapshot { return c.snapshot(ctx) })
}

// shutdown drains the topic for as long as the grace lasts, and says what is left.
// What is in an engine outlives the topic: it is opened again, to look.
func (c *checkout) shutdown(ctx context.Context) error {
	err := c.drain(ctx)
	if c.engine == nil {
		return err
	}
	return errors.Join(err, c.openTopic(ctx))
}

func (c *checkout) drain(ctx context.Context) error {
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
