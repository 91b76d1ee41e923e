package fakeengine

import (
	"context"
	"errors"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/gofanout/fanout/engine"
)

func open(t *testing.T, e *Engine, queues ...string) (engine.Topic, []engine.Queue) {
	t.Helper()
	top, err := e.OpenTopic(t.Context(), engine.TopicSpec{Name: "payments"})
	require.NoError(t, err)
	qs := []engine.Queue{}
	for _, name := range queues {
		q, err := top.OpenQueue(t.Context(), engine.QueueSpec{Name: name, Visibility: time.Minute})
		require.NoError(t, err)
		qs = append(qs, q)
	}
	return top, qs
}

func one(t *testing.T, q engine.Queue) engine.Received {
	t.Helper()
	got, err := q.Receive(t.Context(), 1, 0)
	require.NoError(t, err)
	require.Len(t, got, 1)
	return got[0]
}

func TestALeaseEndsAtItsExactInstant(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		top, qs := open(t, New(Config{}), "q")
		require.NoError(t, top.Publish(t.Context(), []engine.Message{{ID: "a"}}))
		first := one(t, qs[0])
		start := time.Now()
		second := one(t, qs[0])
		require.Equal(t, time.Minute, time.Since(start))
		require.Equal(t, 2, second.Deliveries)
		require.ErrorIs(t, qs[0].Ack(t.Context(), first.Receipt), engine.ErrStale)
		require.NoError(t, qs[0].Ack(t.Context(), second.Receipt))
		s, err := qs[0].Stats(t.Context())
		require.NoError(t, err)
		require.Zero(t, s)
	})
}

func TestAFaultHappensAtItsCall(t *testing.T) {
	boom := errors.New("boom")
	synctest.Test(t, func(t *testing.T) {
		e := New(Config{})
		top, qs := open(t, e, "q")
		e.Inject(Fault{Op: Publish, Nth: 2, Latency: time.Second, Err: boom})
		e.Inject(Fault{Op: Ack, Nth: 1, Err: boom, Lost: true})
		e.Inject(Fault{Op: DeadLetter, Nth: 1, Err: boom, Halfway: true})
		ms := []engine.Message{{ID: "a"}}
		start := time.Now()
		require.NoError(t, top.Publish(t.Context(), ms))
		require.ErrorIs(t, top.Publish(t.Context(), ms), boom)
		require.Equal(t, time.Second, time.Since(start))
		require.NoError(t, top.Publish(t.Context(), []engine.Message{{ID: "b"}}))
		require.Equal(t, 3, e.Calls(Publish))

		require.ErrorIs(t, qs[0].Ack(t.Context(), one(t, qs[0]).Receipt), boom)
		b := one(t, qs[0])
		require.Equal(t, "b", b.ID, "the acknowledgement was done, the second publish was not")
		require.ErrorIs(t, qs[0].DeadLetter(t.Context(), b.Receipt, b.Message), boom)
		for _, q := range []engine.Queue{qs[0], qs[0].DeadLetters()} {
			s, err := q.Stats(t.Context())
			require.NoError(t, err)
			require.Equal(t, 1, s.Ready+s.InFlight)
		}

		e.Inject(Fault{Op: Publish, Latency: time.Hour})
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		require.ErrorIs(t, top.Publish(ctx, ms), context.DeadlineExceeded, "latency ends with the context")
		e.Heal()
		require.NoError(t, top.Publish(t.Context(), ms))
	})
}

func TestACrashLeavesTheStorage(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		e := New(Config{})
		top, qs := open(t, e, "q")
		require.NoError(t, top.Publish(t.Context(), []engine.Message{{ID: "a"}}))
		got := one(t, qs[0])
		waiting := make(chan error)
		go func() {
			_, err := qs[0].Receive(context.Background(), 1, 0)
			waiting <- err
		}()
		synctest.Wait()
		e.Crash()
		require.ErrorIs(t, <-waiting, engine.ErrClosed)
		require.ErrorIs(t, qs[0].Ack(t.Context(), got.Receipt), engine.ErrClosed)

		_, qs = open(t, e.Sibling(), "q")
		start := time.Now()
		require.Equal(t, 2, one(t, qs[0]).Deliveries)
		require.Equal(t, time.Minute, time.Since(start), "the lease of the dead process ends by itself")
	})
}

func TestAFullQueueMakesAPublishWaitOrFail(t *testing.T) {
	for _, fails := range []bool{false, true} {
		synctest.Test(t, func(t *testing.T) {
			top, err := New(Config{FullFails: fails}).OpenTopic(t.Context(), engine.TopicSpec{Name: "payments"})
			require.NoError(t, err)
			q, err := top.OpenQueue(t.Context(), engine.QueueSpec{Name: "q", Capacity: 1})
			require.NoError(t, err)
			require.NoError(t, top.Publish(t.Context(), []engine.Message{{ID: "a"}}))
			done := make(chan error, 1)
			go func() { done <- top.Publish(t.Context(), []engine.Message{{ID: "b"}}) }()
			synctest.Wait()
			if fails {
				require.ErrorIs(t, <-done, engine.ErrFull)
				return
			}
			require.Empty(t, done)
			require.NoError(t, q.Ack(t.Context(), one(t, q).Receipt))
			require.NoError(t, <-done)
			require.Equal(t, "b", one(t, q).ID)
		})
	}
}

func TestWithoutFencingAnyReceiptSettles(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		top, qs := open(t, New(Config{Without: []engine.Feature{engine.Fencing, engine.State}}), "q")
		require.NoError(t, top.Publish(t.Context(), []engine.Message{{ID: "a"}}))
		first := one(t, qs[0])
		require.NoError(t, qs[0].Return(t.Context(), first.Receipt, time.Second, []byte("state")))
		second := one(t, qs[0])
		require.Empty(t, second.State)
		require.NoError(t, qs[0].Ack(t.Context(), first.Receipt), "an old receipt acknowledges")
		require.NoError(t, qs[0].Ack(t.Context(), second.Receipt), "and what is gone is no error")
		s, err := qs[0].Stats(t.Context())
		require.NoError(t, err)
		require.Zero(t, s)
	})
}
