package main

import (
	"context"
	"errors"
	"time"

	"github.com/gofanout/fanout"
)

// Ours: a queue with room for all of them.
var (
	oursKept = keeper{name: pull, open: func(n int, timeout time.Duration) (held, error) {
		return keptByUs(n, fanout.WithVisibilityTimeout(timeout))
	}}
	// Received and acknowledged 64 at a time.
	oursInto = keeper{name: into64, open: func(n int, timeout time.Duration) (held, error) {
		h, err := keptByUs(n, fanout.WithVisibilityTimeout(timeout))
		return &batchHeld{fanoutHeld: h}, err
	}}
	// The same with a timeout that is not the queue's, acknowledged in the order received.
	oursOwn = keeper{name: own, open: func(n int, timeout time.Duration) (held, error) {
		h, err := keptByUs(n)
		if h != nil {
			h.options = []fanout.ReceiveOption{fanout.WithVisibilityTimeout(timeout)}
		}
		return &inOrder{batchHeld{fanoutHeld: h}}, err
	}}
)

type fanoutHeld struct {
	ctx     context.Context // which ends if there is no message for long
	cancel  context.CancelFunc
	topic   *fanout.Topic[*payload]
	q       *fanout.Queue[*payload]
	options []fanout.ReceiveOption
	ds      []fanout.Delivery[*payload]
	batch   [chunk]fanout.Message[*payload]
}

func keptByUs(n int, options ...fanout.QueueOption) (*fanoutHeld, error) {
	topic, err := fanout.NewTopic[*payload]("bench", silent)
	if err != nil {
		return nil, err
	}
	q, err := topic.OpenQueue(context.Background(), "q", append(options, fanout.WithCapacity(n))...)
	if err != nil {
		return nil, errors.Join(err, topic.Close())
	}
	h := &fanoutHeld{topic: topic, q: q, ds: make([]fanout.Delivery[*payload], 0, 2*n)}
	h.ctx, h.cancel = context.WithTimeout(context.Background(), 5*time.Minute)
	return h, nil
}

func (h *fanoutHeld) publish(ms []*payload) error {
	for k, m := range ms {
		h.batch[k].Body = m
	}
	return h.topic.PublishMessages(context.Background(), h.batch[:len(ms)]...)
}

func (h *fanoutHeld) receive() (uint64, error) {
	d, ok, err := h.q.TryReceive(context.Background(), h.options...)
	if err != nil {
		return 0, err
	}
	if !ok {
		return 0, errors.New("there is no message")
	}
	h.ds = append(h.ds, d)
	return d.Body.word, nil
}

func (h *fanoutHeld) arrange(order []int) { arrange(h.ds, order) }

func (h *fanoutHeld) ack(k int) error { return h.ds[k].Ack(context.Background()) }

func (h *fanoutHeld) flush() error { return nil }

// expired asks for Stats, which look at all messages that are ready again.
func (h *fanoutHeld) expired() (int, bool) { return int(h.q.Stats().TimedOut), true }

func (h *fanoutHeld) stop() error {
	h.cancel()
	return h.topic.Close()
}

// A batchHeld receives and acknowledges in batches of 64.
type batchHeld struct {
	*fanoutHeld
	room  [chunk]fanout.Delivery[*payload]
	ready []fanout.Delivery[*payload] // the part of room that receive has not returned
	acked int                         // how many ack was called for that have been acknowledged
	asked int                         // how many it was called for
}

// An inOrder is acknowledged in the order in which it was received.
type inOrder struct{ batchHeld }

func (*inOrder) arrange([]int) {}

func (h *batchHeld) receive() (uint64, error) {
	if len(h.ready) == 0 {
		n, err := h.q.ReceiveInto(h.ctx, h.room[:], h.options...)
		if err != nil {
			return 0, err
		}
		h.ready = h.room[:n]
	}
	d := h.ready[0]
	h.ready = h.ready[1:]
	h.ds = append(h.ds, d)
	return d.Body.word, nil
}

// ack is called for 0, 1, 2 and so on.
func (h *batchHeld) ack(k int) error {
	if h.asked = k + 1; h.asked-h.acked == chunk {
		return h.flush()
	}
	return nil
}

func (h *batchHeld) flush() error {
	ds := h.ds[h.acked:h.asked]
	h.acked = h.asked
	return h.q.AckBatch(context.Background(), ds...)
}
