package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strconv"
	"sync"
	"sync/atomic"
	"time"

	"github.com/nats-io/nats-server/v2/server"
	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
)

// A NATS server inside this process, reached by its in-process connections, not
// by TCP. It logs nothing and listens nowhere. Publishers have a connection each,
// so that they don't share a lock; subscribers share one, as the server then
// writes to it in larger pieces.

const natsSubject = "bench"

type natsServer struct {
	server *server.Server
	dir    string
	conns  []*nats.Conn
}

func startNATS(jetStream bool) (*natsServer, error) {
	n := &natsServer{}
	o := &server.Options{DontListen: true, NoLog: true, NoSigs: true, JetStream: jetStream}
	if jetStream {
		dir, err := os.MkdirTemp("", "bench-nats")
		if err != nil {
			return nil, err
		}
		n.dir, o.StoreDir = dir, dir
	}
	s, err := server.NewServer(o)
	if err != nil {
		return nil, err
	}
	n.server = s
	s.Start()
	if !s.ReadyForConnections(10 * time.Second) {
		return nil, errors.Join(errors.New("the server doesn't get ready"), n.stop())
	}
	return n, nil
}

func (n *natsServer) connect() (*nats.Conn, error) {
	c, err := nats.Connect("", nats.InProcessServer(n.server))
	if err == nil {
		n.conns = append(n.conns, c)
	}
	return c, err
}

func (n *natsServer) connectPublishers(s shape) (out []*nats.Conn, err error) {
	for range s.publishers {
		c, err := n.connect()
		if err != nil {
			return nil, err
		}
		out = append(out, c)
	}
	return out, nil
}

func (n *natsServer) stop() error {
	for _, c := range n.conns {
		c.Close()
	}
	n.server.Shutdown()
	n.server.WaitForShutdown()
	if n.dir == "" {
		return nil
	}
	return os.RemoveAll(n.dir)
}

// Core NATS: at most once. Competing workers are a queue group. The client's
// flusher writes what Publish buffered; a last Flush makes sure nothing waits.
var natsCore = system{
	name: "nats", gives: "drops what is too much; no ack", throttled: true, competes: true, costly: true,
	open: func(s shape) (bus, error) {
		n, err := startNATS(false)
		if err != nil {
			return nil, err
		}
		b := &natsBus{natsServer: n}
		if err := b.subscribe(s); err != nil {
			return nil, errors.Join(err, n.stop())
		}
		return b, nil
	},
}

type natsBus struct {
	*natsServer
	publishers []*nats.Conn
}

func (b *natsBus) subscribe(s shape) error {
	c, err := b.connect()
	if err != nil {
		return err
	}
	for q := range s.queues {
		for w := range s.workers {
			t := s.tally(q, w)
			handle := func(m *nats.Msg) { t.take(wordOf(m.Data)) }
			if s.workers == 1 {
				_, err = c.Subscribe(natsSubject, handle)
			} else {
				_, err = c.QueueSubscribe(natsSubject, fmt.Sprint(q), handle)
			}
			if err != nil {
				return err
			}
		}
	}
	if err := c.Flush(); err != nil { // the server knows of them
		return err
	}
	b.publishers, err = b.connectPublishers(s)
	return err
}

func (b *natsBus) publish(p int, ms []*payload) error {
	for _, m := range ms {
		if err := b.publishers[p].Publish(natsSubject, m.raw); err != nil {
			return err
		}
	}
	return nil
}

// JetStream in memory: a stream that keeps a message until every consumer has
// acknowledged it, a pull consumer for each queue, read by Consume, its fastest
// way, and acknowledged one by one, without waiting for the server. Now and then a
// consumer gets nothing more until its request expires, so that is after a second,
// not 30. Publishes
// are asynchronous, at most window of them unanswered. In batches, 64 messages are
// stored all or none, and the server answers once for all of them; the client has
// no method for that, only the protocol's headers.
var (
	jetStream        = jetStreamSystem("jetstream", "at least once; rejects when full", false)
	jetStreamBatched = jetStreamSystem("jetstream64", "at least once; rejects when full; atomic batches of 64", true)
)

func jetStreamSystem(name, gives string, batched bool) system {
	return system{
		name: name, gives: gives, throttled: true, competes: true, costly: true, batches: batched,
		open: func(s shape) (bus, error) {
			n, err := startNATS(true)
			if err != nil {
				return nil, err
			}
			b := &jetStreamBus{natsServer: n, batched: batched}
			if err := b.subscribe(s); err != nil {
				return nil, errors.Join(err, b.stop())
			}
			return b, nil
		},
	}
}

type jetStreamBus struct {
	*natsServer
	batched    bool
	publishers []jetstream.JetStream
	consumers  []jetstream.ConsumeContext
	batches    atomic.Uint64 // begun

	mu  sync.Mutex
	err error // of an asynchronous publish
}

func (b *jetStreamBus) subscribe(s shape) error {
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	c, err := b.connect()
	if err != nil {
		return err
	}
	js, err := jetstream.New(c)
	if err != nil {
		return err
	}
	if err := addStream(ctx, js); err != nil {
		return err
	}
	for q := range s.queues {
		consumer, err := js.CreateConsumer(ctx, natsSubject, jetStreamConsumer(fmt.Sprint("q", q), time.Minute))
		if err != nil {
			return err
		}
		for w := range s.workers {
			t := s.tally(q, w)
			cc, err := consumer.Consume(func(m jetstream.Msg) {
				t.take(wordOf(m.Data()))
				b.note(m.Ack())
			}, jetstream.PullExpiry(time.Second))
			if err != nil {
				return err
			}
			b.consumers = append(b.consumers, cc)
		}
	}
	conns, err := b.connectPublishers(s)
	if err != nil {
		return err
	}
	for _, c := range conns {
		js, err := jetstream.New(c, jetstream.WithPublishAsyncMaxPending(window),
			jetstream.WithPublishAsyncErrHandler(func(_ jetstream.JetStream, _ *nats.Msg, err error) { b.note(err) }))
		if err != nil {
			return err
		}
		b.publishers = append(b.publishers, js)
	}
	return nil
}

func addStream(ctx context.Context, js jetstream.JetStream) error {
	_, err := js.CreateStream(ctx, jetstream.StreamConfig{
		Name: natsSubject, Subjects: []string{natsSubject}, Storage: jetstream.MemoryStorage,
		Retention: jetstream.InterestPolicy, Discard: jetstream.DiscardNew, AllowAtomicPublish: true,
	})
	return err
}

func jetStreamConsumer(name string, wait time.Duration) jetstream.ConsumerConfig {
	return jetstream.ConsumerConfig{
		Durable: name, AckPolicy: jetstream.AckExplicitPolicy, AckWait: wait, MaxAckPending: -1, MemoryStorage: true,
	}
}

func (b *jetStreamBus) note(err error) {
	if err == nil {
		return
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	b.err = errors.Join(b.err, err)
}

func (b *jetStreamBus) publish(p int, ms []*payload) error {
	if b.batched {
		return b.publishBatch(b.publishers[p], ms)
	}
	for _, m := range ms {
		if _, err := b.publishers[p].PublishAsync(natsSubject, m.raw); err != nil {
			return err
		}
	}
	return nil
}

// publishBatch sends the messages of a batch, of which only the last is answered.
func (b *jetStreamBus) publishBatch(js jetstream.JetStream, ms []*payload) error {
	id := strconv.FormatUint(b.batches.Add(1), 10)
	for k, m := range ms {
		msg := &nats.Msg{Subject: natsSubject, Data: m.raw, Header: nats.Header{"Nats-Batch-Id": {id}, "Nats-Batch-Sequence": {strconv.Itoa(k + 1)}}}
		var err error
		if k < len(ms)-1 {
			err = js.Conn().PublishMsg(msg)
		} else {
			msg.Header["Nats-Batch-Commit"] = []string{"1"}
			_, err = js.PublishMsgAsync(msg)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

func (b *jetStreamBus) stop() error {
	for _, p := range b.publishers {
		select {
		case <-p.PublishAsyncComplete():
		case <-time.After(5 * time.Second):
			b.note(errors.New("publishes were not answered"))
		}
	}
	for _, c := range b.consumers {
		c.Stop()
		<-c.Closed()
	}
	b.mu.Lock()
	err := b.err
	b.mu.Unlock()
	return errors.Join(err, b.natsServer.stop())
}
