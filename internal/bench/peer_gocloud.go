package main

import (
	"context"
	"errors"
	"sync"
	"time"

	"gocloud.dev/pubsub"
	"gocloud.dev/pubsub/mempubsub"
)

// gocloud.dev's mempubsub. A Send returns when its batch has been sent, so it is
// fast only with many at a time: 256 goroutines send, and share batches. Its
// consumer sleeps 250 ms whenever it finds nothing. So it is not throttled, and
// begins to receive when there is a backlog, and gets more messages than others:
// else those sleeps would be most of what is measured.
var gocloud = system{
	name: "gocloud-mem", gives: "at least once; unbounded, no order", competes: true, costly: true, widest: 16, polls: true, least: 1 << 18,
	open: func(s shape) (bus, error) {
		ctx, cancel := context.WithCancel(context.Background())
		b := &gocloudBus{topic: mempubsub.NewTopic(), in: make(chan *payload, chunk), ctx: ctx, cancel: cancel}
		for q := range s.queues {
			sub := mempubsub.NewSubscription(b.topic, time.Minute)
			b.subs = append(b.subs, sub)
			for w := range s.workers {
				t := s.tally(q, w)
				b.start = append(b.start, func() { b.receive(sub, t) })
			}
		}
		for range 256 {
			b.senders.Go(b.send)
		}
		return b, nil
	},
}

type gocloudBus struct {
	topic              *pubsub.Topic
	subs               []*pubsub.Subscription
	in                 chan *payload
	start              []func() // the receivers, until there is a backlog
	published          int
	ctx                context.Context
	cancel             context.CancelFunc
	senders, receivers sync.WaitGroup

	mu   sync.Mutex
	errs []error
}

func (b *gocloudBus) send() {
	for m := range b.in {
		if err := b.topic.Send(b.ctx, &pubsub.Message{Body: m.raw}); err != nil {
			b.note(err)
		}
	}
}

func (b *gocloudBus) receive(sub *pubsub.Subscription, t *tally) {
	for {
		m, err := sub.Receive(b.ctx)
		if err != nil {
			if b.ctx.Err() == nil {
				b.note(err)
			}
			return
		}
		t.take(wordOf(m.Body))
		m.Ack()
	}
}

func (b *gocloudBus) note(err error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.errs = append(b.errs, err)
}

func (b *gocloudBus) publish(_ int, ms []*payload) error {
	for _, m := range ms {
		b.in <- m
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.published += len(ms); b.published >= 2*chunk {
		b.startReceivers()
	}
	return nil
}

// startReceivers is called with mu held.
func (b *gocloudBus) startReceivers() {
	for _, receive := range b.start {
		b.receivers.Go(receive)
	}
	b.start = nil
}

func (b *gocloudBus) stop() error {
	close(b.in)
	b.senders.Wait()
	b.cancel()
	b.receivers.Wait()
	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
	defer cancel()
	for _, sub := range b.subs {
		b.errs = append(b.errs, sub.Shutdown(ctx))
	}
	b.errs = append(b.errs, b.topic.Shutdown(ctx))
	return errors.Join(b.errs...)
}
