package main

import (
	"context"
	"errors"
	"fmt"
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
	fanoutSystem("fanout-push", "handler, published one by one", false, subscribePush),
	fanoutSystem("fanout-push64", "handler, published in batches of 64", true, subscribePush),
	fanoutSystem("fanout-batch", "batch handler of 64, published in batches of 64", true, subscribeBatch),
	fanoutSystem("fanout-pull64", "ReceiveBatch of 64 and AckBatch, published in batches of 64", true, pullBatches),
	fanoutSystem("fanout-into64", "ReceiveInto a slice of 64 and AckBatch, published in batches of 64", true, pullInto),
	fanoutSystem("fanout-pull", "Receive and Ack one by one, published one by one", false, pullSingly),
	fanoutSystem("fanout-range", "a range over Deliveries and Ack, published one by one", false, pullRange),
}

// A consumer attaches the workers of a queue.
type consumer func(b *fanoutBus, s shape, q *fanout.Queue[*payload], queue int) error

func fanoutSystem(name, gives string, batches bool, consume consumer) system {
	return system{
		name: name, gives: "at least once: " + gives, drains: true, competes: true, batches: batches,
		open: func(s shape) (bus, error) { return openFanout(s, batches, consume) },
	}
}

type fanoutBus struct {
	topic   *fanout.Topic[*payload]
	scratch [][]fanout.Message[*payload] // by publisher; nil if it publishes one by one
	wg      sync.WaitGroup               // those who pull

	mu  sync.Mutex
	err error // the first that one who pulls met
}

func openFanout(s shape, batches bool, consume consumer) (*fanoutBus, error) {
	topic, err := fanout.NewTopic[*payload]("bench")
	if err != nil {
		return nil, err
	}
	b := &fanoutBus{topic: topic}
	if batches {
		for range s.publishers {
			b.scratch = append(b.scratch, make([]fanout.Message[*payload], chunk))
		}
	}
	for k := range s.queues {
		q, err := topic.OpenQueue(context.Background(), strconv.Itoa(k), fanout.WithCapacity(s.capacity))
		if err != nil {
			return nil, err
		}
		if err := consume(b, s, q, k); err != nil {
			return nil, err
		}
	}
	return b, nil
}

func subscribePush(_ *fanoutBus, s shape, q *fanout.Queue[*payload], queue int) error {
	for w := range s.workers {
		t := s.tally(queue, w)
		_, err := q.Subscribe(context.Background(), func(_ context.Context, d fanout.Delivery[*payload]) error {
			t.take(d.Body.word)
			return nil
		})
		if err != nil {
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
	}
	return b.topic.PublishMessages(ctx, batch...)
}

func (b *fanoutBus) stop() error {
	err := b.topic.Shutdown(context.Background())
	b.wg.Wait()
	if err != nil {
		return fmt.Errorf("shutdown: %w", err)
	}
	return b.err
}
