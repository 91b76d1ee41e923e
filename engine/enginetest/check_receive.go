package enginetest

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/gofanout/fanout/engine"
)

func receiveChecks() []check {
	return []check{
		{name: "at most", rule: "Receive returns at least one message and at most most, each hidden from other receivers for lease.", run: checkAtMost},
		{name: "receive waits", rule: "Receive waits until there is a message or ctx ends.", run: checkReceiveWaits},
		{name: "receive loses nothing", rule: "Receive returns ctx's error only if it returns no message.", run: checkReceiveLosesNothing},
		{name: "competing receivers", rule: "A message is hidden from other receivers for its lease; all methods may be called concurrently.", run: checkCompeting},
	}
}

func checkAtMost(x *fixture) {
	top := x.topic()
	q := x.open(top, "q")
	x.publish(top, messages("1", "2", "3", "4", "5")...)
	ctx, cancel := x.within(x.o.patience)
	defer cancel()
	all := map[string]engine.Received{}
	for len(all) < 5 {
		got, err := q.Receive(ctx, 2, x.long())
		x.must(err, "Receive, after %d of 5", len(all))
		if len(got) < 1 || len(got) > 2 {
			x.fail("Receive of at most 2 returned %d", len(got))
		}
		for _, r := range got {
			if _, twice := all[r.ID]; twice {
				x.fail("message %q came twice", r.ID)
			}
			equal(x, r.Deliveries, 1, "Deliveries of message %q", r.ID)
			all[r.ID] = r
		}
	}
	x.mustHold(all, "1", "2", "3", "4", "5")
	x.none(q, x.quiet(), "all are leased")
}

func checkReceiveWaits(x *fixture) {
	top := x.topic()
	q := x.open(top, "q")
	w := x.begin(func() error {
		got, err := q.Receive(x.ctx, 10, 0)
		if err == nil && (len(got) != 1 || got[0].ID != "a") {
			err = fmt.Errorf("received %v", got)
		}
		return err
	})
	x.pause(x.quiet())
	if len(w.done) > 0 {
		x.fail("Receive of an empty queue returned %v", <-w.done)
	}
	x.publish(top, message("a"))
	x.must(x.end(w, "Receive"), "Receive, when a message was published")
}

// checkReceiveLosesNothing lets contexts end just when messages come: what a
// Receive took and did not return would be gone for the whole lease.
func checkReceiveLosesNothing(x *fixture) {
	top := x.topic()
	q := x.open(top, "q")
	const n = 20
	got := map[string]bool{}
	var mu sync.Mutex
	for i := range n {
		ctx, cancel := context.WithCancel(x.ctx)
		w := x.begin(func() error {
			rs, err := q.Receive(ctx, 10, x.lease(x.o.pace))
			mu.Lock()
			defer mu.Unlock()
			for _, r := range rs {
				got[r.ID] = true
			}
			if err != nil && (len(rs) > 0 || !errors.Is(err, context.Canceled)) {
				return fmt.Errorf("%d messages and the error %w", len(rs), err)
			}
			return nil
		})
		x.publish(top, message(fmt.Sprint(i)))
		x.pause(time.Duration(i) * x.o.pace / 2000)
		cancel()
		x.must(x.end(w, "Receive"), "Receive whose context ended as a message came")
	}
	// What was leased and not returned may come after its lease, but must come.
	for deadline := time.Now().Add(x.o.patience); ; {
		mu.Lock()
		missing := n - len(got)
		mu.Unlock()
		if missing == 0 {
			return
		}
		if time.Now().After(deadline) {
			x.fail("%d of %d messages were never received", missing, n)
		}
		for _, r := range x.take(q, missing) {
			got[r.ID] = true
		}
	}
}

// take receives up to most messages, which need not come.
func (x *fixture) take(q engine.Queue, most int) []engine.Received {
	ctx, cancel := x.within(2 * x.o.pace)
	defer cancel()
	got, err := q.Receive(ctx, most, x.long())
	switch {
	case err != nil:
		x.mustBe(err, context.DeadlineExceeded, "Receive")
	case len(got) == 0:
		x.fail("Receive returned no message and no error")
	}
	return got
}

// competitors receive from queues until all has come.
type competitors struct {
	x    *fixture
	want int

	mu     sync.Mutex // guards the fields below
	seen   map[string]int
	faults []string

	cancel context.CancelFunc
	wg     sync.WaitGroup
}

// compete has receivers at each queue take all, n of them, and acknowledge.
func (x *fixture) compete(want, receivers int, queues ...engine.Queue) *competitors {
	ctx, cancel := x.within(x.o.patience)
	c := &competitors{x: x, want: want, seen: map[string]int{}, cancel: cancel}
	for _, q := range queues {
		for range receivers {
			c.wg.Go(func() { c.work(ctx, q) })
		}
	}
	return c
}

// work receives until all has come. Started by compete; ends with its context;
// joined by end.
func (c *competitors) work(ctx context.Context, q engine.Queue) {
	for {
		got, err := q.Receive(ctx, 3, c.x.long())
		if err != nil {
			return
		}
		if len(got) == 0 {
			c.fault("Receive returned no message and no error")
			return
		}
		for _, r := range got {
			if err := q.Ack(c.x.ctx, r.Receipt); err != nil {
				c.fault(fmt.Sprintf("Ack of message %q: %v", r.ID, err))
			}
			c.took(r)
		}
	}
}

func (c *competitors) fault(s string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.faults = append(c.faults, s)
}

func (c *competitors) took(r engine.Received) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.seen[r.ID]++
	if len(c.seen) == c.want {
		c.cancel()
	}
}

// end waits until all has come, and ends the check if something came twice.
func (c *competitors) end() {
	c.wg.Wait()
	c.cancel()
	if len(c.faults) > 0 {
		c.x.fail("%d faults, the first: %s", len(c.faults), c.faults[0])
	}
	if len(c.seen) != c.want {
		c.x.fail("%d of %d messages came", len(c.seen), c.want)
	}
	for id, n := range c.seen {
		if n > 1 {
			c.x.fail("message %q was received %d times while its first lease ran", id, n)
		}
	}
}

func checkCompeting(x *fixture) {
	top := x.topic()
	q := x.open(top, "q")
	const publishers, each = 4, 15
	c := x.compete(publishers*each, 4, q)
	x.publishConcurrently(top, "m", publishers, each)
	c.end()
	x.none(q, x.quiet(), "all is acknowledged")
}

// publishConcurrently publishes from several goroutines, each its own messages.
func (x *fixture) publishConcurrently(top engine.Topic, name string, publishers, each int) {
	ws := []*waiter{}
	for p := range publishers {
		ws = append(ws, x.begin(func() error {
			for i := range each {
				if err := top.Publish(x.ctx, messages(fmt.Sprintf("%s-%d-%d", name, p, i))); err != nil {
					return err
				}
			}
			return nil
		}))
	}
	for _, w := range ws {
		x.must(x.end(w, "Publish"), "Publish, concurrently")
	}
}
