package guide_test

import (
	"context"
	"errors"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/gofanout/fanout"
)

// A Conn is a connection that only one goroutine may use at a time.
type Conn struct {
	inUse  atomic.Bool
	rows   []string
	closed bool
}

func dial(context.Context) (*Conn, error) { return &Conn{}, nil }

// Insert is a handler. It is called by one worker.
func (c *Conn) Insert(_ context.Context, d fanout.Delivery[string]) error {
	if c.inUse.Swap(true) {
		return errors.New("the connection is in use")
	}
	defer c.inUse.Store(false)
	time.Sleep(time.Millisecond) // the database
	c.rows = append(c.rows, d.Body)
	return nil
}

// Close closes the connection.
func (c *Conn) Close() error {
	c.closed = true
	return nil
}

// SubscribeEach starts workers on one queue, each with a connection of its own: a
// subscriber runs one handler at a time, and the subscribers share the queue. After the
// topic's Done the caller closes the connections.
func SubscribeEach(ctx context.Context, queue *fanout.Queue[string], workers int) (conns []*Conn, err error) {
	for range workers {
		c, err := dial(ctx)
		if err != nil {
			return conns, err
		}
		conns = append(conns, c)
		if _, err := queue.Subscribe(ctx, c.Insert); err != nil {
			return conns, err
		}
	}
	return conns, nil
}

func TestEachWorkerHasItsOwnState(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx, begin := t.Context(), time.Now()
		readings, err := fanout.NewTopic[string]("readings")
		require.NoError(t, err)
		queue, err := readings.OpenQueue(ctx, "database")
		require.NoError(t, err)
		conns, err := SubscribeEach(ctx, queue, 4)
		require.NoError(t, err)
		for range 40 {
			require.NoError(t, readings.Publish(ctx, "21.5 °C"))
		}
		require.NoError(t, readings.Shutdown(ctx))
		<-readings.Done() // no handler runs any more
		for _, c := range conns {
			require.NoError(t, c.Close())
			require.Len(t, c.rows, 10)
		}
		require.Equal(t, 10*time.Millisecond, time.Since(begin), "the four work at the same time")
		require.Zero(t, queue.Stats().Failed, "and none uses the connection of another")
	})
}
