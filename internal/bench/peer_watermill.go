package main

import (
	"context"
	"sync"

	"github.com/ThreeDotsLabs/watermill"
	"github.com/ThreeDotsLabs/watermill/message"
	"github.com/ThreeDotsLabs/watermill/pubsub/gochannel"
)

// Watermill's GoChannel, without its router, whose goroutine for each message
// costs more, and without a logger. Messages have no UUID: GoChannel doesn't
// look at it, and making one costs as much as a delivery. It takes bytes, which
// are not copied. A Publish of 64 messages is one call.
var (
	// As it comes: a goroutine for each message and subscriber, without a bound.
	watermillFree = watermillSystem("watermill", "ack, nack; no timeout, no order", true, gochannel.Config{OutputChannelBuffer: capacity})
	// Bounded and in order: a publish waits until all subscribers have acknowledged.
	watermillBlock = watermillSystem("watermill-block", "ack, nack; no timeout; a queue of one", false,
		gochannel.Config{OutputChannelBuffer: capacity, BlockPublishUntilSubscriberAck: true})
)

func watermillSystem(name, gives string, throttled bool, config gochannel.Config) system {
	return system{
		name: name, gives: gives, throttled: throttled, competes: true, costly: true,
		open: func(s shape) (bus, error) { return openWatermill(s, config) },
	}
}

type watermillBus struct {
	ch      *gochannel.GoChannel
	scratch [][]*message.Message // by publisher
	wg      sync.WaitGroup
}

const watermillTopic = "bench"

func openWatermill(s shape, config gochannel.Config) (bus, error) {
	b := &watermillBus{ch: gochannel.NewGoChannel(config, watermill.NopLogger{}), scratch: make([][]*message.Message, s.publishers)}
	for q := range s.queues {
		in, err := b.ch.Subscribe(context.Background(), watermillTopic)
		if err != nil {
			return nil, err
		}
		for w := range s.workers {
			t := s.tally(q, w)
			b.wg.Go(func() {
				for m := range in {
					t.take(wordOf(m.Payload))
					m.Ack()
				}
			})
		}
	}
	return b, nil
}

func (b *watermillBus) publish(p int, ms []*payload) error {
	batch := b.scratch[p][:0]
	for _, m := range ms {
		batch = append(batch, message.NewMessage("", m.raw))
	}
	b.scratch[p] = batch
	return b.ch.Publish(watermillTopic, batch...)
}

func (b *watermillBus) stop() error {
	err := b.ch.Close()
	b.wg.Wait()
	return err
}
