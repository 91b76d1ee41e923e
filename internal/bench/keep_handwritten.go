package main

import (
	"container/heap"
	"errors"
	"sync"
	"time"
)

// By hand, as in sys_handwritten.go: a map of timers.
var mapTimers = keeper{
	name: "map+timers",
	open: func(n int, timeout time.Duration) (held, error) {
		return &timersHeld{q: newHandQueue(n, timeout)}, nil
	},
}

type timersHeld struct {
	q     *handQueue
	order []int // of acknowledgements
}

func (h *timersHeld) publish(ms []*payload) error {
	for _, m := range ms {
		h.q.ch <- m
	}
	return nil
}

func (h *timersHeld) receive() (uint64, error) {
	select {
	case m := <-h.q.ch:
		h.q.deliver(m)
		return m.word, nil
	default:
		return 0, errors.New("there is no message")
	}
}

func (h *timersHeld) arrange(order []int) { h.order = order }

// Numbers of deliveries begin at 0, those of a handQueue at 1.
func (h *timersHeld) ack(k int) error {
	if !h.q.ack(uint64(h.order[k]) + 1) {
		return errors.New("the delivery is over")
	}
	return nil
}

func (h *timersHeld) flush() error { return nil }

func (h *timersHeld) expired() (int, bool) { return len(h.q.ch), true }

func (h *timersHeld) stop() error {
	h.q.mu.Lock()
	defer h.q.mu.Unlock()
	for id, t := range h.q.pending {
		t.Stop()
		delete(h.q.pending, id)
	}
	return nil
}

// By hand, with more thought: a map of entries, a heap of deadlines, one timer.
var mapHeap = keeper{
	name: "map+heap",
	open: func(_ int, timeout time.Duration) (held, error) {
		h := &heapHeld{timeout: timeout, pending: map[uint64]*heapEntry{}}
		h.timer = time.AfterFunc(time.Hour, h.expire)
		return h, nil
	},
}

type heapHeld struct {
	timeout time.Duration
	timer   *time.Timer
	order   []int // of acknowledgements

	mu      sync.Mutex // guards the fields below
	ready   []*payload
	first   int // in ready
	next    uint64
	pending map[uint64]*heapEntry
	due     dueHeap
	count   int // timed out
}

type heapEntry struct {
	m        *payload
	id       uint64
	deadline time.Time
	index    int // in the heap
}

type dueHeap []*heapEntry

func (h dueHeap) Len() int           { return len(h) }
func (h dueHeap) Less(i, j int) bool { return h[i].deadline.Before(h[j].deadline) }
func (h dueHeap) Swap(i, j int) {
	h[i], h[j] = h[j], h[i]
	h[i].index, h[j].index = i, j
}
func (h *dueHeap) Push(x any) {
	e := x.(*heapEntry)
	e.index = len(*h)
	*h = append(*h, e)
}
func (h *dueHeap) Pop() any {
	last := len(*h) - 1
	e := (*h)[last]
	(*h)[last] = nil
	*h = (*h)[:last]
	return e
}

func (h *heapHeld) publish(ms []*payload) error {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.ready = append(h.ready, ms...)
	return nil
}

func (h *heapHeld) receive() (uint64, error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.first == len(h.ready) {
		return 0, errors.New("there is no message")
	}
	m := h.ready[h.first]
	h.ready[h.first] = nil
	if h.first++; h.first == len(h.ready) {
		h.ready, h.first = nil, 0
	}
	h.next++
	e := &heapEntry{m: m, id: h.next, deadline: time.Now().Add(h.timeout)}
	h.pending[e.id] = e
	heap.Push(&h.due, e)
	if e.index == 0 {
		h.timer.Reset(h.timeout)
	}
	return m.word, nil
}

func (h *heapHeld) arrange(order []int) { h.order = order }

func (h *heapHeld) ack(k int) error {
	h.mu.Lock()
	defer h.mu.Unlock()
	e, ok := h.pending[uint64(h.order[k])+1]
	if !ok {
		return errors.New("the delivery is over")
	}
	delete(h.pending, e.id)
	heap.Remove(&h.due, e.index)
	return nil
}

func (h *heapHeld) flush() error { return nil }

func (h *heapHeld) expire() {
	h.mu.Lock()
	defer h.mu.Unlock()
	now := time.Now()
	for len(h.due) > 0 && !h.due[0].deadline.After(now) {
		e := heap.Pop(&h.due).(*heapEntry)
		delete(h.pending, e.id)
		h.ready = append(h.ready, e.m)
		h.count++
	}
	if len(h.due) > 0 {
		h.timer.Reset(time.Until(h.due[0].deadline))
	}
}

func (h *heapHeld) expired() (int, bool) {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.count, true
}

func (h *heapHeld) stop() error {
	h.timer.Stop()
	return nil
}
