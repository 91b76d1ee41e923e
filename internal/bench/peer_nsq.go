package main

import (
	"errors"
	"fmt"
	"io"
	"log"
	"os"
	"time"

	"github.com/nsqio/go-nsq"
	"github.com/nsqio/nsq/nsqd"
)

// nsqd inside this process. Publishers hand it batches by its own Go API, which
// no client could; consumers have no way but TCP over loopback. Its queues in
// memory are large enough never to spill to disk, and it holds a message back for
// 1 ms, not 250, to write several at once.
var nsqSystem = system{
	name: "nsqd", gives: "at least once; spills to disk, no order", throttled: true, competes: true, costly: true, widest: 16,
	open: func(s shape) (bus, error) {
		dir, err := os.MkdirTemp("", "bench-nsq")
		if err != nil {
			return nil, err
		}
		o := nsqd.NewOptions()
		o.TCPAddress, o.HTTPAddress, o.HTTPSAddress = "127.0.0.1:0", "127.0.0.1:0", ""
		o.BroadcastAddress, o.DataPath = "127.0.0.1", dir
		o.MemQueueSize, o.MaxRdyCount = 4*window, 2*window
		o.MinOutputBufferTimeout = time.Millisecond
		o.LogLevel, o.Logger = nsqd.LOG_FATAL, log.New(io.Discard, "", 0)
		n, err := nsqd.New(o)
		if err != nil {
			return nil, errors.Join(err, os.RemoveAll(dir))
		}
		b := &nsqBus{nsqd: n, dir: dir, main: make(chan error, 1)}
		go func() { b.main <- n.Main() }()
		b.topic = n.GetTopic("bench")
		if err := b.subscribe(s); err != nil {
			return nil, errors.Join(err, b.stop())
		}
		return b, nil
	},
}

type nsqBus struct {
	nsqd      *nsqd.NSQD
	topic     *nsqd.Topic
	consumers []*nsq.Consumer
	dir       string
	main      chan error
}

func (b *nsqBus) subscribe(s shape) error {
	for q := range s.queues {
		channel := fmt.Sprintf("q%d", q)
		b.topic.GetChannel(channel) // before the first message
		for w := range s.workers {
			config := nsq.NewConfig()
			config.MaxInFlight = window
			config.OutputBufferTimeout = time.Millisecond
			c, err := nsq.NewConsumer("bench", channel, config)
			if err != nil {
				return err
			}
			c.SetLogger(log.New(io.Discard, "", 0), nsq.LogLevelError)
			t := s.tally(q, w)
			c.AddHandler(nsq.HandlerFunc(func(m *nsq.Message) error {
				t.take(wordOf(m.Body))
				return nil
			}))
			if err := c.ConnectToNSQD(b.nsqd.RealTCPAddr().String()); err != nil {
				return err
			}
			b.consumers = append(b.consumers, c)
		}
	}
	return nil
}

func (b *nsqBus) publish(_ int, ms []*payload) error {
	batch := make([]*nsqd.Message, len(ms)) // nsqd keeps the messages
	for k, m := range ms {
		batch[k] = nsqd.NewMessage(b.topic.GenerateID(), m.raw)
	}
	return b.topic.PutMessages(batch)
}

func (b *nsqBus) stop() error {
	for _, c := range b.consumers {
		c.Stop()
	}
	for _, c := range b.consumers {
		<-c.StopChan
	}
	b.nsqd.Exit()
	return errors.Join(<-b.main, os.RemoveAll(b.dir))
}
