package fanoutnats

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync/atomic"
	"time"

	"github.com/gofanout/fanout/engine"
	"github.com/gofanout/fanout/engine/fanoutnats/internal/failure"
	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
)

// An Engine is an engine.Engine on NATS JetStream. It need not be closed: the connection
// belongs to the caller of New.
type Engine struct {
	js jetstream.JetStream
	nc *nats.Conn

	settings  settings
	clustered atomic.Bool // the connection was to a server of a cluster
}

var _ engine.Engine = (*Engine)(nil)

// New makes an engine on js, which has the domain or the API prefix if you use one. The
// servers must have version 2.14 or newer. New does no I/O; it returns an error for bad
// options.
//
// The engine needs js's connection for as long as it is used. See [ConnectOptions].
func New(js jetstream.JetStream, options ...Option) (*Engine, error) {
	if js == nil {
		return nil, errors.New("fanoutnats: New: js is nil")
	}
	s := settings{prefix: "fanout", replicas: 1, timeout: 15 * time.Second}
	for _, o := range options {
		if err := o(&s); err != nil {
			return nil, fmt.Errorf("fanoutnats: %w", err)
		}
	}
	if from, ok := js.(failure.Source); ok {
		s.failures = from.Failures()
	}
	return &Engine{js: js, nc: js.Conn(), settings: s}, nil
}

// Name returns "NATS JetStream".
func (e *Engine) Name() string { return "NATS JetStream" }

// OpenTopic makes the topic's three streams, or finds them. A client that has no
// permission to ask for them gets a topic that can publish, if somebody else has made
// it, and whose settings are not compared. See [engine.Engine].
func (e *Engine) OpenTopic(caller context.Context, spec engine.TopicSpec) (engine.Topic, error) {
	ctx, cancel := e.limit(caller)
	defer cancel()
	t := newTopic(e, spec)
	err := t.openStreams(ctx)
	if errors.Is(err, nats.ErrPermissionViolation) && t.records == nil {
		t.denied = err // which is no reason not to publish
		err = hears(ctx, e.nc)
		if err == nil {
			return t, nil
		}
	}
	if err != nil {
		return nil, t.wrap(caller, "open", err)
	}
	return t, nil
}

// ConnectOptions returns options for nats.Connect that an engine needs to be reliable. With
// them a connection survives the restart of servers, and leaves a server that hangs after
// about three seconds. With the defaults of nats.go it gives up after two minutes, and stays
// with a server that hangs for four. Options that you give after them replace them.
func ConnectOptions() []nats.Option {
	return []nats.Option{
		nats.MaxReconnects(-1), nats.ReconnectWait(250 * time.Millisecond),
		nats.PingInterval(time.Second), nats.MaxPingsOutstanding(2),
	}
}

// alone reports whether there is one server only. A connection that is being made again
// knows of none: then it is what it was, and a cluster if that isn't known either.
func (e *Engine) alone() bool {
	if e.nc.ConnectedClusterName() != "" {
		e.clustered.Store(true)
	}
	return !e.clustered.Load() && (e.nc.IsConnected() || e.nc.IsClosed())
}

// limit gives a context without a deadline the engine's timeout, since an answer
// of a server may be lost.
func (e *Engine) limit(ctx context.Context) (context.Context, context.CancelFunc) {
	if _, ok := ctx.Deadline(); ok {
		return context.WithCancel(ctx)
	}
	return context.WithTimeout(ctx, e.settings.timeout)
}

// late tells the engine's timeout from the end of the caller's context, whose
// error it would look like.
func (e *Engine) late(caller context.Context, err error) error {
	if caller.Err() == nil && errors.Is(err, context.DeadlineExceeded) {
		late := fmt.Errorf("no answer within %v: %w", e.settings.timeout, nats.ErrTimeout)
		if errors.Is(err, engine.ErrUnconfirmed) {
			late = fmt.Errorf("%w: %w", engine.ErrUnconfirmed, late)
		}
		return late
	}
	return err
}

// api is the subject of a request to the JetStream API.
func (e *Engine) api(what string) string {
	o := e.js.Options()
	switch {
	case o.APIPrefix != "":
		return strings.TrimSuffix(o.APIPrefix, ".") + "." + what
	case o.Domain != "":
		return "$JS." + o.Domain + ".API." + what
	default:
		return "$JS.API." + what
	}
}
