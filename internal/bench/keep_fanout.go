package main

import (
	"context"
	"errors"
	"log/slog"
	"time"

	"github.com/gofanout/fanout"
)

// Ours: a queue with room for all of them.
var oursKept = keeper{
	name: "fanout-pull",
	open: func(n int, timeout time.Duration) (held, error) {
		topic, err := fanout.NewTopic[*payload]("bench", fanout.WithLogger(slog.New(slog.DiscardHandler)))
		if err != nil {
			return nil, err
		}
		q, err := topic.OpenQueue(context.Background(), "q", fanout.WithCapacity(n), fanout.WithVisibilityTimeout(timeout))
		if err != nil {
			return nil, err
		}
		return &fanoutHeld{topic: topic, q: q, ds: make([]fanout.Delivery[*payload], 0, 2*n)}, nil
	},
}

type fanoutHeld struct {
	topic *fanout.Topic[*payload]
	q     *fanout.Queue[*payload]
	ds    []fanout.Delivery[*payload]
	batch [chunk]fanout.Message[*payload]
}

func (h *fanoutHeld) publish(ms []*payload) error {
	for k, m := range ms {
		h.batch[k].Body = m
	}
	return h.topic.PublishMessages(context.Background(), h.batch[:len(ms)]...)
}

func (h *fanoutHeld) receive() (uint64, error) {
	d, ok, err := h.q.TryReceive(context.Background())
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

func (h *fanoutHeld) expired() (int, bool) { return int(h.q.Stats().TimedOut), true }

func (h *fanoutHeld) stop() error { return h.topic.Close() }
