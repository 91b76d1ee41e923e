package main

import (
	"sync"
	"time"
)

// At least once as it is usually written by hand: a channel for each
// subscriber, a map of what is not acknowledged yet, a timer for each of them
// that puts it back. It selects on no context, which would cost it as much
// again, and knows no attempts, dead letters or fences.
var handWritten = system{
	name: "hand-written", gives: "ack, timeout; no fence", drains: true, competes: true,
	open: func(s shape) (bus, error) {
		b := &handBus{}
		for q := range s.queues {
			h := newHandQueue(s.capacity, 30*time.Second)
			b.queues = append(b.queues, h)
			for w := range s.workers {
				t := s.tally(q, w)
				b.wg.Go(func() {
					for m := range h.ch {
						id := h.deliver(m)
						t.take(m.word)
						h.ack(id)
					}
				})
			}
		}
		return b, nil
	},
}

// A handQueue is one subscriber's queue.
type handQueue struct {
	ch      chan *payload
	timeout time.Duration

	mu      sync.Mutex // guards the fields below
	next    uint64
	pending map[uint64]*time.Timer
}

func newHandQueue(capacity int, timeout time.Duration) *handQueue {
	return &handQueue{ch: make(chan *payload, capacity), timeout: timeout, pending: map[uint64]*time.Timer{}}
}

// deliver notes that m has been taken from the channel and is not acknowledged.
func (h *handQueue) deliver(m *payload) uint64 {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.next++
	id := h.next
	h.pending[id] = time.AfterFunc(h.timeout, func() { h.expire(id, m) })
	return id
}

// ack ends a delivery. It reports whether it was still open.
func (h *handQueue) ack(id uint64) bool {
	h.mu.Lock()
	defer h.mu.Unlock()
	t, ok := h.pending[id]
	if ok {
		t.Stop()
		delete(h.pending, id)
	}
	return ok
}

func (h *handQueue) expire(id uint64, m *payload) {
	if h.ack(id) {
		h.ch <- m
	}
}

type handBus struct {
	queues []*handQueue
	wg     sync.WaitGroup
}

func (b *handBus) publish(_ int, ms []*payload) error {
	for _, m := range ms {
		for _, h := range b.queues {
			h.ch <- m
		}
	}
	return nil
}

func (b *handBus) stop() error {
	for _, h := range b.queues {
		close(h.ch)
	}
	b.wg.Wait()
	return nil
}
