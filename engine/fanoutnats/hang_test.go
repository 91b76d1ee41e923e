package fanoutnats_test

import (
	"context"
	"syscall"
	"testing"

	"github.com/gofanout/fanout/engine"
	"github.com/gofanout/fanout/engine/fanoutnats"
	"github.com/nats-io/nats.go"
	"github.com/stretchr/testify/require"
)

// A server that hangs is left by its clients, and those of the others go on: patience is
// far less than the time in which a client notices that by itself.
func TestAServerThatHangsIsLeft(t *testing.T) {
	c := startCluster(t)
	open := func(js *fanoutnats.Engine) (engine.Topic, engine.Queue) {
		top := openTopic(t, js, engine.TopicSpec{Name: "payments"})
		return top, openQueue(t, top, engine.QueueSpec{Name: "q"})
	}
	connect := func(options ...nats.Option) (*fanoutnats.Engine, *nats.Conn) {
		js := c.connect(t, options...)
		e, err := fanoutnats.New(js, fanoutnats.WithReplicas(3), fanoutnats.WithTimeout(3*patience))
		require.NoError(t, err)
		return e, js.Conn()
	}
	e, nc := connect()
	top, q := open(e)
	require.NoError(t, top.Publish(t.Context(), messages(1)))
	r := receiveOne(t, q, 0)
	require.NoError(t, q.Ack(t.Context(), r.Receipt))

	hangs := -1
	for k, s := range c.configs {
		if s.Name == nc.ConnectedServerName() {
			hangs = k
		}
	}
	require.GreaterOrEqual(t, hangs, 0)
	other, _ := connect()
	_, waiting := open(other)
	got := make(chan error, 1)
	asked, cancel := context.WithTimeout(t.Context(), 2*patience)
	defer cancel()
	go func() {
		_, err := waiting.Receive(asked, 1, 0)
		got <- err
	}()
	require.NoError(t, c.servers[hangs].cmd.Process.Signal(syscall.SIGSTOP))
	// A publish may be faster than the signal.
	for nc.ConnectedServerName() == c.configs[hangs].Name {
		require.NoError(t, top.Publish(soon(t), messages(1)))
	}
	require.NoError(t, <-got)
	require.NoError(t, c.servers[hangs].cmd.Process.Signal(syscall.SIGCONT))
}
