package main

import (
	"context"
	"slices"
	"sync"
)

// The yardstick: a buffered channel and a goroutine for each subscriber.
var channels = system{
	name: "chan", gives: "blocks; no ack", drains: true, competes: true,
	open: func(s shape) (bus, error) {
		b := &chanBus{}
		for q := range s.queues {
			ch := make(chan *payload, s.capacity)
			b.chans = append(b.chans, ch)
			for w := range s.workers {
				t := s.tally(q, w)
				b.wg.Go(func() {
					for m := range ch {
						t.take(m.word)
					}
				})
			}
		}
		return b, nil
	},
}

type chanBus struct {
	chans []chan *payload
	wg    sync.WaitGroup
}

func (b *chanBus) publish(_ int, ms []*payload) error {
	for _, m := range ms {
		for _, ch := range b.chans {
			ch <- m
		}
	}
	return nil
}

func (b *chanBus) stop() error {
	for _, ch := range b.chans {
		close(ch)
	}
	b.wg.Wait()
	return nil
}

// The same once more, at the end of each group: how far the two are apart is the
// noise.
var channelsAgain = func() system {
	s := channels
	s.name, s.gives = "chan-again", "the same, measured at the end of each group: the noise"
	return s
}()

// A channel of slices of 64. The publisher makes a slice for each batch, as it
// gives it away; the queues share it. There is nothing for each message but a
// copied pointer and the handler.
var channelsBatched = system{
	name: "chan64", gives: "channels of []T of 64; blocks; no ack", drains: true, competes: true, batches: true,
	open: func(s shape) (bus, error) {
		b := &chan64Bus{}
		for q := range s.queues {
			ch := make(chan []*payload, max(s.capacity/chunk, 1))
			b.chans = append(b.chans, ch)
			for w := range s.workers {
				t := s.tally(q, w)
				b.wg.Go(func() {
					for ms := range ch {
						for _, m := range ms {
							t.take(m.word)
						}
					}
				})
			}
		}
		return b, nil
	},
}

type chan64Bus struct {
	chans []chan []*payload
	wg    sync.WaitGroup
}

func (b *chan64Bus) publish(_ int, ms []*payload) error {
	ms = slices.Clone(ms)
	for _, ch := range b.chans {
		ch <- ms
	}
	return nil
}

func (b *chan64Bus) stop() error {
	for _, ch := range b.chans {
		close(ch)
	}
	b.wg.Wait()
	return nil
}

// What is really written: neither side may hang when the program ends, so both
// select on a context.
var channelsContext = system{
	name: "chan-ctx", gives: "blocks, ends with ctx; no ack", drains: true, competes: true,
	open: func(s shape) (bus, error) {
		ctx, cancel := context.WithCancel(context.Background())
		b := &contextBus{ctx: ctx, cancel: cancel}
		for q := range s.queues {
			ch := make(chan *payload, s.capacity)
			b.chans = append(b.chans, ch)
			for w := range s.workers {
				t := s.tally(q, w)
				b.wg.Go(func() { b.consume(ch, t) })
			}
		}
		return b, nil
	},
}

type contextBus struct {
	chanBus
	ctx    context.Context
	cancel context.CancelFunc
}

func (b *contextBus) consume(ch <-chan *payload, t *tally) {
	for {
		select {
		case m, ok := <-ch:
			if !ok {
				return
			}
			t.take(m.word)
		case <-b.ctx.Done():
			return
		}
	}
}

func (b *contextBus) publish(_ int, ms []*payload) error {
	for _, m := range ms {
		for _, ch := range b.chans {
			select {
			case ch <- m:
			case <-b.ctx.Done():
				return b.ctx.Err()
			}
		}
	}
	return nil
}

func (b *contextBus) stop() error {
	err := b.chanBus.stop()
	b.cancel()
	return err
}
