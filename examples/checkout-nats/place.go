package main

import (
	"context"
	"errors"
	"flag"
	"os"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/gofanout/fanout"
	"github.com/gofanout/fanout/engine"
	"github.com/gofanout/fanout/engine/fanoutnats"
	"github.com/gofanout/fanout/engine/fanoutnats/embedded"
	"github.com/gofanout/fanout/examples/checkout/program"
)

// A place is where JetStream keeps the queues.
type place struct {
	dir      string
	url      string
	replicas int
	sync     time.Duration
}

func (p *place) where() program.Where {
	return program.Where{Command: "go run .", Flags: p.flags, Open: p.open}
}

func (p *place) flags(fs *flag.FlagSet) {
	fs.StringVar(&p.dir, "dir", "", "keep the queues in `dir`, made if it is not there; in a temporary one by default")
	fs.StringVar(&p.url, "url", "", "keep the queues on the servers at `urls` instead, separated by commas")
	fs.IntVar(&p.replicas, "replicas", 1, "on how many of the servers: 1, 3 or 5")
	fs.DurationVar(&p.sync, "sync", 0, "flush the directory to the disk at this `interval` instead of before each answer")
}

// open puts the topic on an engine: that is all that is different.
func (p *place) open(context.Context) (fanout.TopicOption, func() error, error) {
	e, end, err := p.engine()
	if err != nil {
		return nil, nil, err
	}
	// JetStream's queues have no bounds, which is to be said.
	return fanout.WithEngine(e, fanout.Without(engine.Bounded)), end, nil
}

func (p *place) engine() (e engine.Engine, end func() error, err error) {
	switch {
	case p.url == "":
		return p.embedded()
	case p.dir != "" || p.sync != 0:
		return nil, nil, errors.New("-url excludes -dir and -sync, which are of the server within")
	}
	nc, err := nats.Connect(p.url, fanoutnats.ConnectOptions()...)
	if err != nil {
		return nil, nil, err
	}
	js, err := jetstream.New(nc)
	if err == nil {
		e, err = fanoutnats.New(js, fanoutnats.WithReplicas(p.replicas))
	}
	if err != nil {
		nc.Close()
		return nil, nil, err
	}
	return e, func() error { nc.Close(); return nil }, nil
}

// embedded starts a server within the process.
func (p *place) embedded() (e engine.Engine, end func() error, err error) {
	dir, remove := p.dir, func() error { return nil }
	if dir == "" {
		if dir, err = os.MkdirTemp("", "checkout-nats"); err != nil {
			return nil, nil, err
		}
		remove = func() error { return os.RemoveAll(dir) }
	}
	var options []embedded.Option
	if p.sync > 0 {
		options = append(options, embedded.WithSyncInterval(p.sync))
	}
	server, err := embedded.Open(dir, options...)
	if err != nil {
		return nil, nil, errors.Join(err, remove())
	}
	return server, func() error { return errors.Join(server.Close(), remove()) }, nil
}
