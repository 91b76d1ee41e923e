package linear

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"github.com/gofanout/fanout"
)

// A bench is what a row works with.
type bench struct {
	*testing.T
	ctx context.Context
	n   int
}

func (b *bench) ok(err error) {
	b.Helper()
	if err != nil {
		b.Fatal(err)
	}
}

func (b *bench) topic(options ...fanout.TopicOption) *fanout.Topic[int] {
	t, err := fanout.NewTopic[int]("topic", append(options, fanout.WithLogger(nolog))...)
	b.ok(err)
	return t
}

func (b *bench) open(t *fanout.Topic[int], name string, options ...fanout.QueueOption) *fanout.Queue[int] {
	q, err := t.OpenQueue(b.ctx, name, append([]fanout.QueueOption{fanout.WithCapacity(fanout.Unlimited)}, options...)...)
	b.ok(err)
	return q
}

// queues opens n queues.
func (b *bench) queues(t *fanout.Topic[int], options ...fanout.QueueOption) []*fanout.Queue[int] {
	qs := make([]*fanout.Queue[int], b.n)
	for k := range qs {
		qs[k] = b.open(t, fmt.Sprint(k), options...)
	}
	return qs
}

func (b *bench) publish(t *fanout.Topic[int], n int) {
	for k := range n {
		b.ok(t.Publish(b.ctx, k))
	}
}

func (b *bench) receive(q *fanout.Queue[int], n int) []fanout.Delivery[int] {
	ds := make([]fanout.Delivery[int], n)
	for k := range ds {
		d, ok, err := q.TryReceive(b.ctx)
		b.ok(err)
		if !ok {
			b.Fatalf("only %d of %d messages are ready: %+v", k, n, q.Stats())
		}
		ds[k] = d
	}
	return ds
}

// In which order many things end.
var orders = []struct {
	name string
	of   func(n int) []int
}{
	{"the first first", func(n int) []int { return upTo(n) }},
	{"the last first", func(n int) []int { s := upTo(n); slices.Reverse(s); return s }},
	{"in any order", func(n int) []int { return rand.New(rand.NewPCG(1, 2)).Perm(n) }},
}

func upTo(n int) []int {
	s := make([]int, n)
	for k := range s {
		s[k] = k
	}
	return s
}

// waiting starts n calls that wait, each with a context of its own.
func (b *bench) waiting(n int, call func(ctx context.Context, k int)) []context.CancelFunc {
	ends := make([]context.CancelFunc, n)
	for k := range ends {
		var ctx context.Context
		ctx, ends[k] = context.WithCancel(b.ctx)
		go call(ctx, k)
		if k%64 == 0 {
			synctest.Wait() // they come nearly in order
		}
	}
	synctest.Wait()
	return ends
}

// giveUp ends half of n calls.
func (b *bench) giveUp(ends []context.CancelFunc, order []int) {
	for _, k := range order[:len(order)/2] {
		ends[k]()
		synctest.Wait()
	}
}

var errFails = errors.New("it fails")

type row struct {
	name string
	run  func(b *bench)
}

// inOrders makes a row for each order.
func inOrders(name string, run func(b *bench, order []int)) (rs []row) {
	for _, o := range orders {
		rs = append(rs, row{name + ", " + o.name, func(b *bench) { run(b, o.of(b.n)) }})
	}
	return rs
}

var rows = slices.Concat(
	queueRows, waiterRows, consumerRows, messageRows,
)

var queueRows = slices.Concat(
	inOrders("queues that are closed", func(b *bench, order []int) {
		t := b.topic()
		qs := b.queues(t)
		b.publish(t, 1)
		for _, k := range order {
			b.ok(qs[k].Close())
		}
		b.ok(t.Close())
	}),
	inOrders("queues with a filter that are closed", func(b *bench, order []int) {
		t := b.topic()
		qs := b.queues(t, fanout.WithFilter(func(int) bool { return true }))
		b.publish(t, 1)
		for _, k := range order {
			b.ok(qs[k].Close())
		}
		b.ok(t.Close())
	}),
	inOrders("queues with a filter policy that are closed", func(b *bench, order []int) {
		t := b.topic()
		qs := make([]*fanout.Queue[int], b.n)
		for k := range qs {
			qs[k] = b.open(t, fmt.Sprint(k), fanout.WithFilterPolicy(fmt.Sprintf(`{"kind": ["any"], "number": ["n%d"]}`, k)))
		}
		for k := range b.n {
			b.ok(t.PublishMessages(b.ctx, fanout.Message[int]{Attributes: map[string]string{"kind": "any", "number": fmt.Sprint("n", k)}}))
		}
		for _, k := range order {
			b.ok(qs[k].Close())
		}
		b.ok(t.Close())
	}),
	inOrders("queues with a delay that are closed", func(b *bench, order []int) {
		t := b.topic()
		qs := b.queues(t, fanout.WithDelay(time.Hour))
		for _, k := range order {
			b.ok(qs[k].Close())
		}
		b.ok(t.Close())
	}),
	inOrders("queues with letters that are closed and opened again", func(b *bench, order []int) {
		t := b.topic()
		qs := b.queues(t)
		b.publish(t, 1)
		for _, q := range qs {
			b.ok(b.receive(q, 1)[0].Settle(b.ctx, fanout.Permanent(errFails)))
		}
		for _, k := range order {
			b.ok(qs[k].Close())
		}
		for _, k := range order {
			qs[k] = b.open(t, fmt.Sprint(k))
			n, err := qs[k].Redrive(b.ctx)
			b.ok(err)
			if n != 1 {
				b.Fatal("it has no letter")
			}
		}
		b.ok(t.Close())
	}),
	inOrders("dead-letter queues without a queue that are closed", func(b *bench, order []int) {
		t := b.topic()
		qs := b.queues(t)
		b.publish(t, 1)
		for _, q := range qs {
			b.ok(b.receive(q, 1)[0].Settle(b.ctx, fanout.Permanent(errFails)))
			b.ok(q.Close())
		}
		for _, k := range order {
			b.ok(qs[k].DeadLetters().Close())
		}
		b.ok(t.Close())
	}),
	[]row{
		{"queues that come and go", func(b *bench) {
			t := b.topic()
			b.queues(t)
			for k := range b.n {
				b.ok(b.open(t, fmt.Sprint("another", k)).Close())
			}
			b.ok(t.Close())
		}},
		{"queues that come and go while publishers wait", func(b *bench) {
			t := b.topic()
			full := b.open(t, "full", fanout.WithCapacity(1))
			b.publish(t, 1)
			ends := b.waiting(b.n, func(ctx context.Context, k int) { t.Publish(ctx, k) })
			for k := range b.n {
				b.ok(b.open(t, fmt.Sprint("another", k)).Close())
			}
			b.ok(full.Close())
			synctest.Wait()
			for _, end := range ends {
				end()
			}
			b.ok(t.Close())
		}},
		{"queues at the end of their topic", func(b *bench) {
			t := b.topic()
			b.queues(t)
			b.ok(t.Shutdown(b.ctx))
			for k := range b.n {
				if t.Queue(fmt.Sprint(k)) == nil {
					b.Fatal("there was such a queue")
				}
			}
		}},
		{"queues that starve for room in one dead-letter queue", func(b *bench) {
			t := b.topic()
			dead, err := fanout.NewDeadLetterQueue[int]("dead", fanout.WithDeadLetterCapacity(1), fanout.WithLogger(nolog))
			b.ok(err)
			qs := b.queues(t, fanout.WithDeadLetterQueue(dead))
			b.publish(t, 2)
			for range 2 {
				for _, q := range qs {
					b.ok(b.receive(q, 1)[0].Settle(b.ctx, fanout.Permanent(errFails)))
				}
			}
			b.ok(dead.Close())
			b.ok(t.Close())
		}},
		{"queues that publish to each other at the end of their topic", func(b *bench) {
			t := b.topic()
			for k := range 8 {
				_, err := t.Subscribe(b.ctx, fmt.Sprint(k), func(ctx context.Context, d fanout.Delivery[int]) error {
					time.Sleep(time.Second)
					if d.Body > 0 {
						return t.Publish(ctx, 0)
					}
					return nil
				}, fanout.WithConcurrency(b.n), fanout.WithCapacity(fanout.Unlimited))
				b.ok(err)
			}
			for k := range b.n / 8 {
				b.ok(t.Publish(b.ctx, k))
			}
			synctest.Wait()
			b.ok(t.Shutdown(b.ctx))
		}},
	},
)

var waiterRows = slices.Concat(
	inOrders("publishers that give up", func(b *bench, order []int) {
		t := b.topic()
		q := b.open(t, "full", fanout.WithCapacity(1))
		b.publish(t, 1)
		ends := b.waiting(b.n, func(ctx context.Context, k int) { t.Publish(ctx, k) })
		b.giveUp(ends, order)
		for range b.n/2 + 1 {
			b.ok(b.receive(q, 1)[0].Ack(b.ctx))
			synctest.Wait()
		}
		b.ok(t.Close())
		for _, end := range ends {
			end()
		}
	}),
	inOrders("publishers that wait for queues with filters, and give up", func(b *bench, order []int) {
		const of = 16
		t := b.topic()
		qs := make([]*fanout.Queue[int], of)
		for j := range qs {
			qs[j] = b.open(t, fmt.Sprint(j), fanout.WithCapacity(1), fanout.WithFilter(func(k int) bool { return k%of == j || k%of == (j+1)%of }))
		}
		b.publish(t, 1)
		b.ok(t.Publish(b.ctx, 3))
		ends := b.waiting(b.n, func(ctx context.Context, k int) { t.Publish(ctx, k) })
		b.giveUp(ends, order)
		for taken := true; taken; {
			taken = false
			for _, q := range qs {
				if d, ok, _ := q.TryReceive(b.ctx); ok {
					b.ok(d.Ack(b.ctx))
					taken = true
				}
			}
			synctest.Wait()
		}
		if w := t.Stats().Waiting; w != 0 {
			b.Fatalf("%d wait", w)
		}
		b.ok(t.Close())
		for _, end := range ends {
			end()
		}
	}),
	inOrders("publishers with one deduplication ID that give up", func(b *bench, order []int) {
		t := b.topic(fanout.WithDeduplication(time.Hour, 10))
		q := b.open(t, "full", fanout.WithCapacity(1))
		b.publish(t, 1)
		ends := b.waiting(b.n, func(ctx context.Context, k int) {
			t.PublishMessages(ctx, fanout.Message[int]{Body: k, DeduplicationID: "one"})
		})
		b.giveUp(ends, order)
		b.ok(b.receive(q, 1)[0].Ack(b.ctx))
		synctest.Wait()
		if w := t.Stats().Waiting; w != 0 {
			b.Fatalf("%d wait", w)
		}
		b.ok(t.Close())
		for _, end := range ends {
			end()
		}
	}),
	inOrders("redrives that wait, each for its queue", func(b *bench, order []int) {
		t := b.topic()
		qs := b.queues(t, fanout.WithCapacity(1))
		b.publish(t, 1)
		for _, q := range qs {
			b.ok(b.receive(q, 1)[0].Settle(b.ctx, fanout.Permanent(errFails)))
		}
		b.publish(t, 1)
		ends := b.waiting(b.n, func(ctx context.Context, k int) { qs[k].Redrive(ctx) })
		b.giveUp(ends, order)
		for _, q := range qs {
			b.ok(b.receive(q, 1)[0].Ack(b.ctx))
			synctest.Wait()
		}
		if w := t.Stats().Waiting; w != 0 {
			b.Fatalf("%d wait", w)
		}
		b.ok(t.Close())
		for _, end := range ends {
			end()
		}
	}),
	[]row{
		{"publishers that a queue with a filter keeps waiting, which is closed", func(b *bench) {
			t := b.topic()
			b.open(t, "all")
			q := b.open(t, "full", fanout.WithCapacity(1), fanout.WithFilter(func(int) bool { return true }))
			b.publish(t, 1)
			ends := b.waiting(b.n, func(ctx context.Context, k int) { t.Publish(ctx, k) })
			b.ok(q.Close())
			synctest.Wait()
			if w := t.Stats().Waiting; w != 0 {
				b.Fatalf("%d wait", w)
			}
			b.ok(t.Close())
			for _, end := range ends {
				end()
			}
		}},
		{"publishers at the end of their topic", func(b *bench) {
			t := b.topic()
			q := b.open(t, "full", fanout.WithCapacity(1))
			b.publish(t, 1)
			ends := b.waiting(b.n, func(ctx context.Context, k int) { t.Publish(ctx, k) })
			d := b.receive(q, 1)[0]
			go t.Shutdown(b.ctx)
			synctest.Wait()
			b.ok(d.Ack(b.ctx))
			for _, end := range ends {
				end()
			}
		}},
		{"publishes that come while many wait for another queue", func(b *bench) {
			t := b.topic()
			b.open(t, "full", fanout.WithCapacity(1), fanout.WithFilter(func(k int) bool { return k == 0 }))
			b.open(t, "free", fanout.WithCapacity(fanout.Unlimited), fanout.WithFilter(func(k int) bool { return k == 1 }))
			b.publish(t, 1)
			ends := b.waiting(b.n, func(ctx context.Context, k int) { t.Publish(ctx, 0) })
			for range b.n {
				b.ok(t.Publish(b.ctx, 1))
			}
			b.ok(t.Close())
			for _, end := range ends {
				end()
			}
		}},
		{"handlers whose publishes wait", func(b *bench) {
			from, to := b.topic(), b.topic()
			q := b.open(to, "full", fanout.WithCapacity(1))
			b.publish(to, 1)
			_, err := from.Subscribe(b.ctx, "q", func(ctx context.Context, d fanout.Delivery[int]) error {
				return to.Publish(ctx, d.Body)
			}, fanout.WithConcurrency(b.n), fanout.WithCapacity(fanout.Unlimited), fanout.WithVisibilityTimeout(time.Hour), fanout.WithFilter(func(int) bool { return true }))
			b.ok(err)
			b.publish(from, b.n)
			synctest.Wait()
			for range b.n + 1 {
				b.ok(b.receive(q, 1)[0].Ack(b.ctx))
				synctest.Wait()
			}
			b.ok(from.Shutdown(b.ctx))
			b.ok(to.Close())
		}},
		{"publishes of one handler that wait", func(b *bench) {
			from, to := b.topic(), b.topic()
			q := b.open(to, "full", fanout.WithCapacity(1))
			b.publish(to, 1)
			_, err := from.Subscribe(b.ctx, "q", func(ctx context.Context, d fanout.Delivery[int]) error {
				for k := range b.n {
					go to.Publish(ctx, k)
				}
				time.Sleep(time.Second)
				return nil
			})
			b.ok(err)
			b.publish(from, 1)
			synctest.Wait()
			for range b.n + 1 {
				b.ok(b.receive(q, 1)[0].Ack(b.ctx))
				synctest.Wait()
			}
			b.ok(from.Shutdown(b.ctx))
			b.ok(to.Close())
		}},
		{"redrives that wait for one queue", func(b *bench) {
			t := b.topic()
			q := b.open(t, "full", fanout.WithCapacity(1), fanout.WithDeadLetterCapacity(fanout.Unlimited))
			ids := make([]string, b.n)
			for k := range ids {
				b.publish(t, 1)
				d := b.receive(q, 1)[0]
				ids[k] = d.ID()
				b.ok(d.Settle(b.ctx, fanout.Permanent(errFails)))
			}
			b.publish(t, 1)
			ends := b.waiting(16, func(ctx context.Context, k int) { q.Redrive(ctx) })
			for range b.n + 1 {
				b.ok(b.receive(q, 1)[0].Ack(b.ctx))
				synctest.Wait()
			}
			b.ok(t.Close())
			for _, end := range ends {
				end()
			}
		}},
	},
)

var consumerRows = slices.Concat(
	inOrders("receivers that give up", func(b *bench, order []int) {
		t := b.topic()
		q := b.open(t, "q")
		ends := b.waiting(b.n, func(ctx context.Context, k int) {
			if d, err := q.Receive(ctx); err == nil {
				d.Ack(ctx)
			}
		})
		b.giveUp(ends, order)
		for k := range b.n / 2 {
			b.ok(t.Publish(b.ctx, k))
			synctest.Wait()
		}
		b.ok(t.Close())
		for _, end := range ends {
			end()
		}
	}),
	inOrders("subscribers that end", func(b *bench, order []int) {
		t := b.topic()
		q := b.open(t, "q")
		subs := make([]*fanout.Subscriber[int], b.n)
		for k := range subs {
			var err error
			subs[k], err = q.Subscribe(b.ctx, func(context.Context, fanout.Delivery[int]) error { return nil })
			b.ok(err)
		}
		for k := range b.n {
			b.ok(t.Publish(b.ctx, k))
			synctest.Wait()
		}
		for _, k := range order {
			b.ok(subs[k].Shutdown(b.ctx))
		}
		b.ok(t.Close())
	}),
	inOrders("shutdowns of one subscriber that give up", func(b *bench, order []int) {
		t := b.topic()
		s, err := t.Subscribe(b.ctx, "q", func(context.Context, fanout.Delivery[int]) error { time.Sleep(10 * time.Second); return nil })
		b.ok(err)
		b.publish(t, 1)
		synctest.Wait()
		ends := b.waiting(b.n, func(ctx context.Context, k int) { s.Shutdown(ctx) })
		for _, k := range order {
			ends[k]()
			synctest.Wait()
		}
		b.ok(t.Shutdown(b.ctx))
	}),
	inOrders("loops that end", func(b *bench, order []int) {
		t := b.topic()
		q := b.open(t, "q")
		ends := b.waiting(b.n, func(ctx context.Context, k int) {
			for d := range q.Deliveries(ctx) {
				d.Ack(ctx)
			}
		})
		for k := range b.n {
			b.ok(t.Publish(b.ctx, k))
			synctest.Wait()
		}
		for _, k := range order {
			ends[k]()
			synctest.Wait()
		}
		b.ok(t.Close())
	}),
	[]row{
		{"workers", func(b *bench) {
			t := b.topic()
			_, err := t.Subscribe(b.ctx, "q", func(context.Context, fanout.Delivery[int]) error { time.Sleep(time.Second); return nil },
				fanout.WithConcurrency(b.n))
			b.ok(err)
			b.publish(t, b.n)
			b.ok(t.Shutdown(b.ctx))
		}},
		{"workers of a queue with a filter", func(b *bench) {
			t := b.topic()
			_, err := t.Subscribe(b.ctx, "q", func(context.Context, fanout.Delivery[int]) error { time.Sleep(time.Second); return nil },
				fanout.WithConcurrency(b.n), fanout.WithFilter(func(int) bool { return true }))
			b.ok(err)
			b.publish(t, b.n)
			b.ok(t.Shutdown(b.ctx))
		}},
		{"subscribers that are all busy", func(b *bench) {
			t := b.topic()
			q := b.open(t, "q", fanout.WithFilter(func(int) bool { return true }))
			for range b.n {
				_, err := q.Subscribe(b.ctx, func(context.Context, fanout.Delivery[int]) error { time.Sleep(time.Second); return nil })
				b.ok(err)
			}
			b.publish(t, 4*b.n)
			b.ok(t.Shutdown(b.ctx))
		}},
		{"handlers that settle for themselves", func(b *bench) {
			t := b.topic()
			_, err := t.Subscribe(b.ctx, "q", func(ctx context.Context, d fanout.Delivery[int]) error {
				time.Sleep(time.Second)
				return d.Ack(ctx)
			}, fanout.WithConcurrency(b.n))
			b.ok(err)
			b.publish(t, b.n)
			b.ok(t.Shutdown(b.ctx))
		}},
		{"handlers whose visibility timeouts pass", func(b *bench) {
			t := b.topic()
			_, err := t.Subscribe(b.ctx, "q", func(ctx context.Context, d fanout.Delivery[int]) error {
				<-ctx.Done()
				return ctx.Err()
			}, fanout.WithConcurrency(b.n), fanout.WithVisibilityTimeout(time.Second), fanout.WithMaxAttempts(1),
				fanout.WithFilter(func(int) bool { return true }))
			b.ok(err)
			b.publish(t, b.n)
			b.ok(t.Shutdown(b.ctx))
		}},
		{"handlers whose messages are purged", func(b *bench) {
			t := b.topic()
			s, err := t.Subscribe(b.ctx, "q", func(ctx context.Context, d fanout.Delivery[int]) error {
				<-ctx.Done()
				return ctx.Err()
			}, fanout.WithConcurrency(b.n), fanout.WithFilter(func(int) bool { return true }))
			b.ok(err)
			b.publish(t, b.n)
			synctest.Wait()
			_, err = s.Queue().Purge(b.ctx)
			b.ok(err)
			b.ok(t.Shutdown(b.ctx))
		}},
		{"shutdowns of one topic", func(b *bench) {
			t := b.topic()
			_, err := t.Subscribe(b.ctx, "q", func(ctx context.Context, d fanout.Delivery[int]) error {
				time.Sleep(time.Second)
				if d.Body > 0 {
					return t.Publish(ctx, d.Body-1)
				}
				return nil
			})
			b.ok(err)
			b.ok(t.Publish(b.ctx, b.n))
			synctest.Wait()
			b.waiting(b.n, func(ctx context.Context, k int) { t.Shutdown(ctx) })
			<-t.Done()
			synctest.Wait()
		}},
	},
)

var messageRows = slices.Concat(
	inOrders("messages in flight", func(b *bench, order []int) {
		t := b.topic()
		q := b.open(t, "q")
		b.publish(t, b.n)
		ds := b.receive(q, b.n)
		for _, k := range order {
			b.ok(ds[k].Ack(b.ctx))
		}
		b.ok(t.Shutdown(b.ctx))
	}),
	inOrders("messages in flight that are extended", func(b *bench, order []int) {
		t := b.topic()
		q := b.open(t, "q")
		b.publish(t, b.n)
		ds := b.receive(q, b.n)
		for j, k := range order {
			b.ok(ds[k].Extend(b.ctx, time.Hour-time.Duration(j)))
		}
		for _, k := range order {
			b.ok(ds[k].Ack(b.ctx))
		}
		b.ok(t.Shutdown(b.ctx))
	}),
	inOrders("messages that fail", func(b *bench, order []int) {
		t := b.topic()
		q := b.open(t, "q")
		b.publish(t, b.n)
		ds := b.receive(q, b.n)
		for _, k := range order {
			b.ok(ds[k].Settle(b.ctx, fanout.RetryAfter(errFails, time.Duration(k)*time.Second)))
		}
		time.Sleep(time.Duration(b.n) * time.Second)
		synctest.Wait()
		for _, d := range b.receive(q, b.n) {
			b.ok(d.Ack(b.ctx))
		}
		b.ok(t.Shutdown(b.ctx))
	}),
	inOrders("messages that are released", func(b *bench, order []int) {
		t := b.topic()
		q := b.open(t, "q")
		b.publish(t, b.n)
		ds := b.receive(q, b.n)
		for _, k := range order {
			b.ok(ds[k].Release(b.ctx))
		}
		for _, d := range b.receive(q, b.n) {
			b.ok(d.Ack(b.ctx))
		}
		b.ok(t.Shutdown(b.ctx))
	}),
	inOrders("messages with delays", func(b *bench, order []int) {
		t := b.topic()
		q := b.open(t, "q")
		for _, k := range order {
			b.ok(t.PublishMessages(b.ctx, fanout.Message[int]{Body: k, Delay: time.Duration(k+1) * time.Second}))
		}
		for range b.n {
			d, err := q.Receive(b.ctx)
			b.ok(err)
			b.ok(d.Ack(b.ctx))
		}
		b.ok(t.Shutdown(b.ctx))
	}),
	inOrders("letters that are redriven by their IDs", func(b *bench, order []int) {
		t := b.topic()
		q := b.open(t, "q", fanout.WithDeadLetterCapacity(fanout.Unlimited))
		b.publish(t, b.n)
		ids := make([]string, b.n)
		for k, d := range b.receive(q, b.n) {
			ids[order[k]] = d.ID()
			b.ok(d.Settle(b.ctx, fanout.Permanent(errFails)))
		}
		n, err := q.Redrive(b.ctx, fanout.RedriveIDs(ids[:b.n/2]...))
		b.ok(err)
		m, err := q.Redrive(b.ctx)
		b.ok(err)
		if n+m != b.n {
			b.Fatal(n, m)
		}
		b.ok(t.Close())
	}),
	[]row{
		{"letters that are redriven before others of their key", func(b *bench) {
			t := b.topic(fanout.WithOrdering())
			q := b.open(t, "q", fanout.WithDeadLetterCapacity(fanout.Unlimited))
			for range 2 * b.n {
				b.ok(t.PublishMessages(b.ctx, fanout.Message[int]{OrderingKey: "one"}))
			}
			for range b.n {
				b.ok(b.receive(q, 1)[0].Settle(b.ctx, fanout.Permanent(errFails)))
			}
			head := b.receive(q, 1)[0]
			for range 2 { // what is ready goes in line behind the head: the younger ones, and then the older
				if _, ok, err := q.TryReceive(b.ctx); ok || err != nil {
					b.Fatal(ok, err)
				}
				_, err := q.Redrive(b.ctx)
				b.ok(err)
			}
			if s := q.Stats(); s.Blocked != 2*b.n-1 {
				b.Fatal(s)
			}
			b.ok(head.Ack(b.ctx))
			for range 2*b.n - 1 {
				b.ok(b.receive(q, 1)[0].Ack(b.ctx))
			}
			b.ok(t.Close())
		}},
		{"ordering keys in line at the end of their topic", func(b *bench) {
			t := b.topic(fanout.WithOrdering())
			_, err := t.Subscribe(b.ctx, "q", func(context.Context, fanout.Delivery[int]) error { return nil }, fanout.WithCapacity(fanout.Unlimited))
			b.ok(err)
			b.ok(t.Queue("q").Pause(b.ctx))
			for range 2 {
				for k := range b.n {
					b.ok(t.PublishMessages(b.ctx, fanout.Message[int]{Body: k, OrderingKey: fmt.Sprint(k)}))
				}
			}
			b.ok(t.Queue("q").Resume(b.ctx))
			b.ok(t.Shutdown(b.ctx))
		}},
		{"ordering keys whose heads snooze at the end of their topic", func(b *bench) {
			t := b.topic(fanout.WithOrdering())
			q := b.open(t, "q", fanout.WithCapacity(fanout.Unlimited))
			for k := range b.n {
				for range 2 {
					b.ok(t.PublishMessages(b.ctx, fanout.Message[int]{Body: k, OrderingKey: fmt.Sprint(k)}))
				}
			}
			for range 2 {
				for k := range b.n {
					b.ok(t.PublishMessages(b.ctx, fanout.Message[int]{Body: k, OrderingKey: fmt.Sprint(b.n + k)}))
				}
			}
			ds := b.receive(q, 2*b.n)
			go t.Shutdown(b.ctx)
			synctest.Wait()
			for k, d := range ds {
				if k < b.n {
					b.ok(d.Settle(b.ctx, fanout.Snooze(time.Hour)))
				} else {
					b.ok(d.Ack(b.ctx))
				}
			}
			for range b.n {
				b.ok(b.receive(q, 1)[0].Ack(b.ctx))
			}
			<-t.Done()
		}},
		{"one ordering key", func(b *bench) {
			t := b.topic(fanout.WithOrdering())
			_, err := t.Subscribe(b.ctx, "q", func(context.Context, fanout.Delivery[int]) error { return nil }, fanout.WithCapacity(fanout.Unlimited))
			b.ok(err)
			for k := range b.n {
				b.ok(t.PublishMessages(b.ctx, fanout.Message[int]{Body: k, OrderingKey: "one"}))
			}
			b.ok(t.Shutdown(b.ctx))
		}},
		{"messages that time out", func(b *bench) {
			t := b.topic()
			q := b.open(t, "q", fanout.WithVisibilityTimeout(time.Second))
			b.publish(t, b.n)
			for range 2 {
				ds := b.receive(q, b.n)
				time.Sleep(2 * time.Second)
				for _, d := range ds {
					if !errors.Is(d.Ack(b.ctx), fanout.ErrStale) {
						b.Fatal("it is not stale")
					}
				}
			}
			for _, d := range b.receive(q, b.n) {
				b.ok(d.Ack(b.ctx))
			}
			b.ok(t.Shutdown(b.ctx))
		}},
		{"messages in flight that are purged", func(b *bench) {
			t := b.topic()
			q := b.open(t, "q")
			b.publish(t, 2*b.n)
			b.receive(q, b.n)
			_, err := q.Purge(b.ctx)
			b.ok(err)
			b.ok(t.Shutdown(b.ctx))
		}},
		{"messages in flight when their queue is closed", func(b *bench) {
			t := b.topic()
			q := b.open(t, "q")
			b.publish(t, 2*b.n)
			b.receive(q, b.n)
			b.ok(q.Close())
			q.Leftovers()
			b.ok(t.Shutdown(b.ctx))
		}},
		{"messages whose time to live passes", func(b *bench) {
			t := b.topic()
			q := b.open(t, "q", fanout.WithTimeToLive(time.Second), fanout.WithDeadLetterCapacity(fanout.Unlimited))
			b.publish(t, b.n)
			time.Sleep(time.Minute)
			if _, ok, _ := q.TryReceive(b.ctx); ok {
				b.Fatal("it has expired")
			}
			b.ok(t.Shutdown(b.ctx))
		}},
		{"messages that are dropped, the oldest first", func(b *bench) {
			t := b.topic()
			b.open(t, "q", fanout.WithOverflow(fanout.DropOldest), fanout.WithCapacity(b.n))
			b.open(t, "f", fanout.WithOverflow(fanout.DropOldest), fanout.WithCapacity(b.n), fanout.WithFilter(func(int) bool { return true }))
			b.publish(t, 3*b.n)
			b.ok(t.Close())
		}},
		{"messages that are dropped, the newest first", func(b *bench) {
			t := b.topic()
			b.open(t, "q", fanout.WithOverflow(fanout.DropNewest), fanout.WithCapacity(b.n))
			b.open(t, "f", fanout.WithOverflow(fanout.DropNewest), fanout.WithCapacity(b.n), fanout.WithFilter(func(int) bool { return true }))
			b.publish(t, 3*b.n)
			b.ok(t.Close())
		}},
		{"messages that are parked", func(b *bench) {
			t := b.topic()
			q := b.open(t, "q", fanout.WithDeadLetterCapacity(1))
			b.publish(t, b.n)
			for _, d := range b.receive(q, b.n) {
				b.ok(d.Settle(b.ctx, fanout.Permanent(errFails)))
			}
			for range b.n {
				b.ok(b.receive(q.DeadLetters(), 1)[0].Ack(b.ctx))
			}
			b.ok(t.Shutdown(b.ctx))
		}},
		{"letters of one queue", func(b *bench) {
			t := b.topic()
			q := b.open(t, "q", fanout.WithDeadLetterCapacity(fanout.Unlimited))
			b.publish(t, b.n)
			for _, d := range b.receive(q, b.n) {
				b.ok(d.Settle(b.ctx, fanout.Permanent(errFails)))
			}
			_, err := q.Redrive(b.ctx)
			b.ok(err)
			for _, d := range b.receive(q, b.n) {
				b.ok(d.Ack(b.ctx))
			}
			b.ok(t.Shutdown(b.ctx))
		}},
		{"deduplication IDs", func(b *bench) {
			t := b.topic(fanout.WithDeduplication(time.Minute, b.n/2))
			b.open(t, "q", fanout.WithCapacity(fanout.Unlimited))
			for k := range b.n {
				for range 2 {
					b.ok(t.PublishMessages(b.ctx, fanout.Message[int]{Body: k, DeduplicationID: fmt.Sprint(k)}))
				}
				if k%2 == 0 {
					time.Sleep(time.Second)
				}
			}
			time.Sleep(time.Hour)
			b.ok(t.Close())
		}},
		{"messages that are retained and replayed", func(b *bench) {
			t := b.topic(fanout.WithRetention(b.n))
			b.publish(t, 2*b.n)
			b.open(t, "q", fanout.WithReplay(b.n))
			b.open(t, "f", fanout.WithReplay(b.n), fanout.WithFilter(func(k int) bool { return k%2 == 0 }))
			b.publish(t, b.n)
			b.ok(t.Close())
		}},
		{"messages of a batch", func(b *bench) {
			t := b.topic()
			_, err := t.SubscribeBatch(b.ctx, "q", func(context.Context, []fanout.Delivery[int]) error { return nil }, fanout.WithBatchSize(b.n))
			b.ok(err)
			b.ok(t.PublishMessages(b.ctx, make([]fanout.Message[int], b.n)...))
			b.ok(t.Shutdown(b.ctx))
		}},
	},
)
