package fanoutaws

import (
	"context"
	"errors"
	"runtime"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/gofanout/fanout"
	"github.com/gofanout/fanout/engine"
)

// TestAttemptsAreCountedByCause has one message end in each way, until it is dead.
// A letter can be received before its message is deleted, and is counted after
// that: so the counters are looked at once the hook was called.
func TestAttemptsAreCountedByCause(t *testing.T) {
	onServer(t, attemptsAreCountedByCause)
}

func attemptsAreCountedByCause(t *testing.T) {
	dead := make(chan fanout.Event, 1)
	top, err := fanout.NewTopic[paid](unique(t), fanout.WithEngine(newEngine(t), fanout.Without(engine.Bounded, engine.AllOrNone)),
		fanout.WithHooks(fanout.Hooks{DeadLettered: func(e fanout.Event) { dead <- e }}))
	require.NoError(t, err)
	defer top.Close()
	attempts := make(chan int, 10)
	s, err := top.Subscribe(t.Context(), "inventory", func(ctx context.Context, d fanout.Delivery[paid]) error {
		attempts <- d.Attempt()
		switch len(d.History()) {
		case 0:
			return errBusy
		case 1:
			panic("out of order")
		case 2:
			runtime.Goexit()
		case 3:
			return d.Nack(ctx)
		case 4:
			return fanout.Snooze(time.Millisecond)
		}
		return fanout.Permanent(errors.New("no such product"))
	}, fanout.WithMaxAttempts(20), fanout.WithBackoff(fanout.Constant(time.Millisecond)))
	require.NoError(t, err)
	require.NoError(t, top.Publish(t.Context(), paid{Order: 1}))

	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	select {
	case e := <-dead:
		require.Equal(t, fanout.PermanentlyFailed, e.Cause)
	case <-ctx.Done():
		t.Fatal("it did not die")
	}
	for _, attempt := range []int{1, 2, 3, 4, 5, 5} { // a snooze spends none
		require.Equal(t, attempt, <-attempts)
	}
	q := s.Queue()
	c := q.Stats()
	require.Equal(t, []uint64{1, 1, 1, 1, 1, 1, 1, 0},
		[]uint64{c.Failed, c.Panicked, c.Exited, c.Nacked, c.Snoozed, c.PermanentlyFailed, c.DeadLettered, c.Acked})
	letter, err := q.DeadLetters().Receive(ctx)
	require.NoError(t, err)
	var causes []fanout.Cause
	for _, a := range letter.History() {
		causes = append(causes, a.Cause)
	}
	require.Equal(t, []fanout.Cause{fanout.Failed, fanout.Panicked, fanout.Exited, fanout.Nacked, fanout.Snoozed, fanout.PermanentlyFailed}, causes)
	require.Contains(t, letter.History()[1].Stack, "attemptsAreCountedByCause")
	require.NoError(t, letter.Ack(ctx))
}

// TestWhatSQSCannotKeepIsRefusedByName is what a user sees who asks for it.
func TestWhatSQSCannotKeepIsRefusedByName(t *testing.T) {
	onServer(t, testWhatSQSCannotKeepIsRefusedByName)
}

func testWhatSQSCannotKeepIsRefusedByName(t *testing.T) {
	e := newEngine(t)
	_, err := fanout.NewTopic[paid](unique(t), fanout.WithEngine(e))
	require.ErrorIs(t, err, fanout.ErrUnsupported, "what is given up is named")
	require.ErrorContains(t, err, engine.Bounded.String())
	require.ErrorContains(t, err, "fanout.WithEngine(e, fanout.Without(engine.Bounded, engine.AllOrNone))")
	_, err = fanout.NewTopic[paid](unique(t), fanout.WithEngine(e, fanout.Without(engine.Bounded, engine.AllOrNone)), fanout.WithDeduplication(time.Hour, 100))
	require.ErrorIs(t, err, fanout.ErrUnsupported)
	require.ErrorContains(t, err, "WithDeduplication(1h0m0s)")

	top, err := fanout.NewTopic[paid](unique(t), fanout.WithEngine(e, fanout.Without(engine.Bounded, engine.AllOrNone)))
	require.NoError(t, err)
	defer top.Close()
	for want, option := range map[string]fanout.QueueOption{
		"WithCapacity(10)":               fanout.WithCapacity(10),
		"WithOverflow(DropOldest)":       fanout.WithOverflow(fanout.DropOldest),
		"WithDelay(16m0s)":               fanout.WithDelay(16 * time.Minute),
		"WithVisibilityTimeout(13h0m0s)": fanout.WithVisibilityTimeout(13 * time.Hour),
	} {
		_, err := top.OpenQueue(t.Context(), "q", option)
		require.ErrorIs(t, err, fanout.ErrUnsupported, want)
		require.ErrorContains(t, err, want)
		require.ErrorContains(t, err, e.Name())
	}
	err = top.PublishMessages(t.Context(), fanout.Message[paid]{Delay: 16 * time.Minute})
	require.ErrorIs(t, err, fanout.ErrUnsupported)
	require.ErrorContains(t, err, "16m0s")
}
