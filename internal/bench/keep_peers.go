package main

import (
	"context"
	"errors"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
	"gocloud.dev/pubsub"
	"gocloud.dev/pubsub/mempubsub"
)

// Peers that keep deliveries open. How many have timed out they don't tell: they
// look when they are asked for more, so mass expiry is left out.

// JetStream: Messages prefetches, which is its fastest way to receive one by
// one; as much as is to be in flight.
var jetStreamKept = keeper{
	name: "jetstream", most: 100_000, slow: true,
	open: func(n int, timeout time.Duration) (held, error) {
		server, err := startNATS(true)
		if err != nil {
			return nil, err
		}
		h := &jetStreamHeld{natsServer: server, ms: make([]jetstream.Msg, 0, n)}
		if err := h.begin(n, timeout); err != nil {
			return nil, errors.Join(err, h.stop())
		}
		return h, nil
	},
}

type jetStreamHeld struct {
	*natsServer
	conn     *nats.Conn
	js       jetstream.JetStream
	consumer jetstream.Consumer
	most     int
	messages jetstream.MessagesContext // made when the first is received
	ms       []jetstream.Msg
}

func (h *jetStreamHeld) begin(n int, timeout time.Duration) (err error) {
	ctx := context.Background()
	if h.conn, err = h.connect(); err != nil {
		return err
	}
	if h.js, err = jetstream.New(h.conn, jetstream.WithPublishAsyncMaxPending(window)); err != nil {
		return err
	}
	if err = addStream(ctx, h.js); err != nil {
		return err
	}
	h.most = min(n, 10_000)
	h.consumer, err = h.js.CreateConsumer(ctx, natsSubject, jetStreamConsumer("q", timeout))
	return err
}

func (h *jetStreamHeld) publish(ms []*payload) error {
	for _, m := range ms {
		if _, err := h.js.PublishAsync(natsSubject, m.raw); err != nil {
			return err
		}
	}
	<-h.js.PublishAsyncComplete()
	return nil
}

func (h *jetStreamHeld) receive() (_ uint64, err error) {
	if h.messages == nil {
		if h.messages, err = h.consumer.Messages(jetstream.PullMaxMessages(h.most)); err != nil {
			return 0, err
		}
	}
	m, err := h.messages.Next()
	if err != nil {
		return 0, err
	}
	h.ms = append(h.ms, m)
	return wordOf(m.Data()), nil
}

func (h *jetStreamHeld) arrange(order []int) { arrange(h.ms, order) }

func (h *jetStreamHeld) ack(k int) error { return h.ms[k].Ack() }

// flush waits until the server has read what was written, and has done it: it
// answers in order.
func (h *jetStreamHeld) flush() error { return h.conn.Flush() }

func (h *jetStreamHeld) expired() (int, bool) { return 0, false }

func (h *jetStreamHeld) stop() error {
	if h.messages != nil {
		h.messages.Stop()
	}
	return h.natsServer.stop()
}

// mempubsub scans a map for every batch it receives.
var gocloudKept = keeper{
	name: "gocloud-mem", most: 100_000, slow: true,
	open: func(n int, timeout time.Duration) (held, error) {
		h := &gocloudHeld{topic: mempubsub.NewTopic(), ms: make([]*pubsub.Message, 0, n)}
		h.sub = mempubsub.NewSubscription(h.topic, timeout)
		return h, nil
	},
}

type gocloudHeld struct {
	topic *pubsub.Topic
	sub   *pubsub.Subscription
	ms    []*pubsub.Message
}

func (h *gocloudHeld) publish(ms []*payload) error {
	errs := make(chan error, len(ms))
	for _, m := range ms {
		go func() { errs <- h.topic.Send(context.Background(), &pubsub.Message{Body: m.raw}) }()
	}
	var err error
	for range ms {
		err = errors.Join(err, <-errs)
	}
	return err
}

func (h *gocloudHeld) receive() (uint64, error) {
	m, err := h.sub.Receive(context.Background())
	if err != nil {
		return 0, err
	}
	h.ms = append(h.ms, m)
	return wordOf(m.Body), nil
}

func (h *gocloudHeld) arrange(order []int) { arrange(h.ms, order) }

func (h *gocloudHeld) ack(k int) error {
	h.ms[k].Ack()
	return nil
}

// flush: a shutdown sends the acknowledgements that wait in the batcher.
func (h *gocloudHeld) flush() error { return h.sub.Shutdown(context.Background()) }

func (h *gocloudHeld) expired() (int, bool) { return 0, false }

func (h *gocloudHeld) stop() error {
	_ = h.sub.Shutdown(context.Background()) // the second time it says that it was the second
	return h.topic.Shutdown(context.Background())
}
