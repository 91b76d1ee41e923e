package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"strconv"
	"sync"

	"github.com/gofanout/fanout"
)

// Ours, in the ways it is used. Everything else is the default: capacity 1,024,
// Block, a visibility timeout of 30 s, 5 attempts, dead letters, IDs.
//
// Competing workers are subscribers of one worker each, on one queue, so that
// each has a handler of its own to count in; those of the batch handler are
// WithConcurrency, as that counts once a batch.
var ours = []system{
	way{name: "fanout-push", gives: "handler, published one by one", consume: subscribePush}.system(),
	way{name: "fanout-push64", gives: "handler, published in batches of 64", batches: true, consume: subscribePush}.system(),
	way{name: "fanout-batch", gives: "batch handler of 64, published in batches of 64", batches: true, consume: subscribeBatch}.system(),
	way{name: "fanout-pull64", gives: "ReceiveBatch of 64 and AckBatch, published in batches of 64", batches: true, consume: pullBatches}.system(),
	way{name: "fanout-into64", gives: "ReceiveInto a slice of 64 and AckBatch, published in batches of 64", batches: true, consume: pullInto}.system(),
	way{name: "fanout-pull", gives: "Receive and Ack one by one, published one by one", consume: pullSingly}.system(),
	way{name: "fanout-range", gives: "a range over Deliveries and Ack, published one by one", consume: pullRange}.system(),
}

var silent = fanout.WithLogger(slog.New(slog.DiscardHandler))

// A way is one of the ways in which ours is used.
type way struct {
	name, gives string
	batches     bool // it publishes in batches of 64
	consume     consumer
	// Options, none by default.
	topic  []fanout.TopicOption
	queue  func(queue int) []fanout.QueueOption
	worker []fanout.WorkerOption
	// message sets what the message has beside its body; n counts a publisher's
	// messages. If it is nil, single messages are published by their bodies alone.
	message func(to *fanout.Message[*payload], m *payload, n int)
	// check, if not nil, looks at the queues after the end.
	check func(qs []*fanout.Queue[*payload]) error
}

// A consumer attaches the workers of a queue.
type consumer func(b *fanoutBus, s shape, q *fanout.Queue[*payload], queue int) error

func (y way) system() system {
	return system{
		name: y.name, gives: "at least once: " + y.gives, drains: true, competes: true, batches: y.batches,
		open: func(s shape) (bus, error) { return openFanout(s, y) },
	}
}

type fanoutBus struct {
	way
	topic   *fanout.Topic[*payload]
	queues  []*fanout.Queue[*payload]
	scratch [][]fanout.Message[*payload] // by publisher; nil if it publishes bodies
	n       []int                        // messages published, by publisher
	unread  bool                         // nobody consumes
	wg      sync.WaitGroup               // those who pull

	mu  sync.Mutex
	err error // the first that one who pulls met
}

func openFanout(s shape, y way) (*fanoutBus, error) {
	options := y.topic
	if s.workers == 0 { // what nobody reads is dropped in the end, which is no news
		options = append(slices.Clone(options), silent)
	}
	topic, err := fanout.NewTopic[*payload]("bench", options...)
	if err != nil {
		return nil, err
	}
	b := &fanoutBus{way: y, topic: topic, unread: s.workers == 0, n: make([]int, s.publishers)}
	if y.batches || y.message != nil {
		for range s.publishers {
			b.scratch = append(b.scratch, make([]fanout.Message[*payload], chunk))
		}
	}
	for k := range s.queues {
		of := []fanout.QueueOption{fanout.WithCapacity(s.capacity)}
		if y.queue != nil {
			of = append(of, y.queue(k)...)
		}
		q, err := topic.OpenQueue(context.Background(), strconv.Itoa(k), of...)
		if err != nil {
			return nil, err
		}
		b.queues = append(b.queues, q)
		if s.workers == 0 {
			continue
		}
		if err := y.consume(b, s, q, k); err != nil {
			return nil, err
		}
	}
	return b, nil
}

func subscribePush(b *fanoutBus, s shape, q *fanout.Queue[*payload], queue int) error {
	return subscribeEach(b, s, q, queue, func(t *tally) fanout.Handler[*payload] {
		return func(_ context.Context, d fanout.Delivery[*payload]) error {
			t.take(d.Body.word)
			return nil
		}
	})
}

// subscribeEach starts the workers of a queue, each with a handler of its own.
func subscribeEach(b *fanoutBus, s shape, q *fanout.Queue[*payload], queue int, handler func(*tally) fanout.Handler[*payload]) error {
	for w := range s.workers {
		if _, err := q.Subscribe(context.Background(), handler(s.tally(queue, w)), b.worker...); err != nil {
			return err
		}
	}
	return nil
}

func subscribeBatch(_ *fanoutBus, s shape, q *fanout.Queue[*payload], queue int) error {
	// A batch is counted under a tally that is free; there are as many as workers.
	free := make(chan *tally, s.workers)
	for w := range s.workers {
		free <- s.tally(queue, w)
	}
	_, err := q.SubscribeBatch(context.Background(), func(_ context.Context, ds []fanout.Delivery[*payload]) error {
		t := <-free
		for k := range ds {
			t.take(ds[k].Body.word)
		}
		free <- t
		return nil
	}, fanout.WithBatchSize(chunk), fanout.WithConcurrency(s.workers))
	return err
}

func pullBatches(b *fanoutBus, s shape, q *fanout.Queue[*payload], queue int) error {
	for w := range s.workers {
		t := s.tally(queue, w)
		b.pull(func(ctx context.Context) error {
			ds, err := q.ReceiveBatch(ctx, chunk)
			if err != nil {
				return err
			}
			for k := range ds {
				t.take(ds[k].Body.word)
			}
			return q.AckBatch(ctx, ds...)
		})
	}
	return nil
}

func pullInto(b *fanoutBus, s shape, q *fanout.Queue[*payload], queue int) error {
	for w := range s.workers {
		t := s.tally(queue, w)
		room := make([]fanout.Delivery[*payload], chunk)
		b.pull(func(ctx context.Context) error {
			n, err := q.ReceiveInto(ctx, room)
			if err != nil {
				return err
			}
			for k := range room[:n] {
				t.take(room[k].Body.word)
			}
			return q.AckBatch(ctx, room[:n]...)
		})
	}
	return nil
}

func pullSingly(b *fanoutBus, s shape, q *fanout.Queue[*payload], queue int) error {
	for w := range s.workers {
		t := s.tally(queue, w)
		b.pull(func(ctx context.Context) error {
			d, err := q.Receive(ctx)
			if err != nil {
				return err
			}
			t.take(d.Body.word)
			return d.Ack(ctx)
		})
	}
	return nil
}

func pullRange(b *fanoutBus, s shape, q *fanout.Queue[*payload], queue int) error {
	for w := range s.workers {
		t := s.tally(queue, w)
		b.pull(func(ctx context.Context) error {
			for d, err := range q.Deliveries(ctx) {
				if err != nil {
					return err
				}
				t.take(d.Body.word)
				if err := d.Ack(ctx); err != nil {
					return err
				}
			}
			return fanout.ErrClosed // only a closed queue ends the loop without an error
		})
	}
	return nil
}

// pull calls next in a goroutine until the queue has been closed.
func (b *fanoutBus) pull(next func(context.Context) error) {
	b.wg.Go(func() {
		ctx := context.Background()
		for {
			err := next(ctx)
			if errors.Is(err, fanout.ErrClosed) {
				return
			}
			if err != nil {
				b.mu.Lock()
				b.err = errors.Join(b.err, err)
				b.mu.Unlock()
				return
			}
		}
	})
}

func (b *fanoutBus) publish(p int, ms []*payload) error {
	ctx := context.Background()
	if b.scratch == nil {
		for _, m := range ms {
			if err := b.topic.Publish(ctx, m); err != nil {
				return err
			}
		}
		return nil
	}
	batch := b.scratch[p][:len(ms)]
	for k, m := range ms {
		batch[k].Body = m
		if b.message != nil {
			b.message(&batch[k], m, b.n[p])
			b.n[p]++
		}
	}
	if b.batches {
		return b.topic.PublishMessages(ctx, batch...)
	}
	for k := range batch {
		if err := b.topic.PublishMessages(ctx, batch[k:k+1]...); err != nil {
			return err
		}
	}
	return nil
}

func (b *fanoutBus) stop() error {
	if b.unread { // there is nothing to wait for
		return b.topic.Close()
	}
	err := b.topic.Shutdown(context.Background())
	b.wg.Wait()
	if err != nil {
		return fmt.Errorf("shutdown: %w", err)
	}
	if b.err == nil && b.check != nil {
		return b.check(b.queues)
	}
	return b.err
}
