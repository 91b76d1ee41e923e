package program

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/gofanout/fanout"
	"github.com/gofanout/fanout/examples/checkout/shop"
)

// held is what a queue holds, and what its dead-letter queue does: in the memory of
// the process or in an engine, which is asked.
type held struct{ depth, dead int }

func (c *checkout) held(ctx context.Context, q *fanout.Queue[payment]) (h held, err error) {
	d, err := q.Depth(ctx)
	return held{depth: d.Unsettled(), dead: d.Dead}, err
}

// start empties queues that are older than this run: the books are of one run.
func (c *checkout) start(ctx context.Context) error {
	for _, service := range c.queues {
		for _, q := range []*fanout.Queue[payment]{service, service.DeadLetters()} {
			n, err := q.Purge(ctx)
			if err != nil {
				return err
			}
			if n > 0 {
				c.out.say("%s: dropped %s that an earlier run left", q.Name(), count(n, "order"))
			}
		}
	}
	return nil
}

// idle reports whether each order that was published is settled or dead, or the
// topic has been shut down.
func (c *checkout) idle(ctx context.Context) (bool, error) {
	for i, q := range c.queues {
		h, err := c.held(ctx, q)
		if errors.Is(err, fanout.ErrClosed) {
			return true, nil
		}
		if err != nil {
			return false, err
		}
		// An engine may be behind with its numbers. The services aren't.
		if h.depth > 0 || c.ledgers()[i].Total()+h.dead < c.published.Total() {
			return false, nil
		}
	}
	return true, nil
}

func (c *checkout) dead(ctx context.Context) (n int, err error) {
	for _, q := range c.queues {
		d, err := q.Depth(ctx)
		if err != nil {
			return n, err
		}
		n += d.Dead
	}
	return n, nil
}

func (c *checkout) ledgers() []*shop.Ledger {
	return []*shop.Ledger{c.inventory.Ledger(), c.shipping.Ledger()}
}

// sides are what the queues say once the topic is shut down.
func (c *checkout) sides(ctx context.Context) (sides []shop.QueueSide, err error) {
	left := c.topic.Leftovers()
	for _, q := range c.queues {
		s := shop.QueueSide{Stats: q.Stats(), Left: left[q.Name()], Engine: c.engine != nil}
		if s.Dead, err = letters(ctx, q); err == nil && s.Engine {
			s.Left, err = c.leftInEngine(ctx, q)
		}
		if err != nil {
			return nil, err
		}
		sides = append(sides, s)
	}
	return sides, nil
}

// leftInEngine takes what the queue holds still, and doesn't settle it: it comes
// again to whoever opens the queue next. What was being worked on comes once its
// lease has ended.
func (c *checkout) leftInEngine(ctx context.Context, q *fanout.Queue[payment]) ([]fanout.Message[payment], error) {
	d, err := q.Depth(ctx)
	n := d.Unsettled()
	if err != nil || n == 0 {
		return nil, err
	}
	c.out.say("%s: looking at %s that are left", q.Name(), count(n, "order"))
	ctx, cancel := context.WithTimeout(ctx, 2*c.visibility()+10*time.Second)
	defer cancel()
	byID := map[string]fanout.Message[payment]{}
	for len(byID) < n {
		// The lease is long: it is not to end while the others are waited for.
		ds, err := q.ReceiveBatch(ctx, n-len(byID), fanout.WithVisibilityTimeout(3*c.visibility()+10*time.Second))
		if errors.Is(err, context.DeadlineExceeded) {
			return nil, fmt.Errorf("%s holds %d messages, and gave out %d", q.Name(), n, len(byID))
		}
		if err != nil {
			return nil, err
		}
		for _, d := range ds {
			byID[d.ID()] = fanout.Message[payment]{ID: d.ID(), Body: d.Body}
		}
	}
	var left []fanout.Message[payment]
	for _, m := range byID {
		left = append(left, m)
	}
	return left, nil
}
