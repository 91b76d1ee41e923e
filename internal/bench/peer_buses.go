package main

import (
	"sync"

	"github.com/asaskevich/EventBus"
	"github.com/cskr/pubsub/v2"
	"github.com/ethereum/go-ethereum/event"
	"tailscale.com/util/eventbus"
)

// The small in-process buses. None acknowledges.

// cskr/pubsub: one goroutine routes to a channel for each subscriber. Its
// capacity is the channels'; it has no batches.
var cskr = system{
	name: "cskr", gives: "blocks; one router; no ack", drains: true, competes: true,
	open: func(s shape) (bus, error) {
		b := &cskrBus{ps: pubsub.New[int, *payload](s.capacity)}
		for q := range s.queues {
			consumeChannel(&b.wg, s, q, b.ps.Sub(0))
		}
		return b, nil
	},
}

// consumeChannel starts the workers of a queue whose messages come by a channel
// that is closed in the end.
func consumeChannel(wg *sync.WaitGroup, s shape, queue int, in <-chan *payload) {
	for w := range s.workers {
		t := s.tally(queue, w)
		wg.Go(func() {
			for m := range in {
				t.take(m.word)
			}
		})
	}
}

type cskrBus struct {
	ps *pubsub.PubSub[int, *payload]
	wg sync.WaitGroup
}

func (b *cskrBus) publish(_ int, ms []*payload) error {
	for _, m := range ms {
		b.ps.Pub(m, 0)
	}
	return nil
}

func (b *cskrBus) stop() error {
	b.ps.Shutdown()
	b.wg.Wait()
	return nil
}

// go-ethereum's FeedOf, the one without reflection on the values: it sends to
// the subscribers' own channels.
var geth = system{
	name: "geth-feed", gives: "blocks; no ack", drains: true, competes: true,
	open: func(s shape) (bus, error) {
		b := &gethBus{}
		for q := range s.queues {
			ch := make(chan *payload, s.capacity)
			b.chans = append(b.chans, ch)
			b.subs = append(b.subs, b.feed.Subscribe(ch))
			consumeChannel(&b.wg, s, q, ch)
		}
		return b, nil
	},
}

type gethBus struct {
	feed  event.FeedOf[*payload]
	chans []chan *payload
	subs  []event.Subscription
	wg    sync.WaitGroup
}

func (b *gethBus) publish(_ int, ms []*payload) error {
	for _, m := range ms {
		b.feed.Send(m)
	}
	return nil
}

func (b *gethBus) stop() error {
	for k, s := range b.subs {
		s.Unsubscribe()
		close(b.chans[k])
	}
	b.wg.Wait()
	return nil
}

// asaskevich/EventBus calls subscribers by reflection, in the publisher. There
// is no queue: what is measured is the call. Asynchronous and in order
// ("transactional") it starts a goroutine for each delivery and waits for the
// one before.
var (
	asaskevichSync  = asaskevichSystem("asaskevich", "calls subscribers; no queue", false)
	asaskevichAsync = asaskevichSystem("asaskevich-async", "a goroutine each, a queue of one", true)
)

func asaskevichSystem(name, gives string, async bool) system {
	return system{
		name: name, gives: gives, drains: true, costly: async, synchronous: !async,
		open: func(s shape) (bus, error) {
			b := asaskevichBus{EventBus.New()}
			for q := range s.queues {
				t := s.tally(q, 0)
				handle := func(m *payload) { t.take(m.word) }
				var err error
				if async {
					err = b.SubscribeAsync("bench", handle, true)
				} else {
					err = b.Subscribe("bench", handle)
				}
				if err != nil {
					return nil, err
				}
			}
			return b, nil
		},
	}
}

type asaskevichBus struct{ EventBus.Bus }

func (b asaskevichBus) publish(_ int, ms []*payload) error {
	for _, m := range ms {
		b.Publish("bench", m)
	}
	return nil
}

func (b asaskevichBus) stop() error {
	b.WaitAsync()
	return nil
}

// Tailscale's eventbus. A client for each queue, as one client's subscribers are
// called one after the other. SubscribeFunc, which saves a channel; competing
// workers need the channel.
var tailscale = system{
	name: "tailscale", gives: "unbounded; one router; no ack", throttled: true, competes: true, costly: true,
	open: func(s shape) (bus, error) {
		b := &tailscaleBus{bus: eventbus.New(), done: make(chan struct{})}
		for q := range s.queues {
			c := b.bus.Client("")
			if s.workers == 1 {
				t := s.tally(q, 0)
				eventbus.SubscribeFunc(c, func(m *payload) { t.take(m.word) })
				continue
			}
			sub := eventbus.Subscribe[*payload](c)
			for w := range s.workers {
				t := s.tally(q, w)
				b.wg.Go(func() {
					for {
						select {
						case m := <-sub.Events():
							t.take(m.word)
						case <-b.done:
							return
						}
					}
				})
			}
		}
		for range s.publishers {
			b.publishers = append(b.publishers, eventbus.Publish[*payload](b.bus.Client("")))
		}
		return b, nil
	},
}

type tailscaleBus struct {
	bus        *eventbus.Bus
	publishers []*eventbus.Publisher[*payload]
	done       chan struct{}
	wg         sync.WaitGroup
}

func (b *tailscaleBus) publish(p int, ms []*payload) error {
	for _, m := range ms {
		b.publishers[p].Publish(m)
	}
	return nil
}

func (b *tailscaleBus) stop() error {
	close(b.done)
	b.wg.Wait()
	b.bus.Close()
	return nil
}
