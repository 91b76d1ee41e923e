package kit

import (
	"fmt"
	"testing"
	"unsafe"

	"github.com/stretchr/testify/require"

	"github.com/gofanout/fanout"
	"github.com/gofanout/fanout/internal/topic"
)

// Check requires that the invariants of an open topic in memory hold, and that its books
// balance: each queue's counters agree with each other and with its pages, message by
// message, and none is above its capacity. Nothing else may run on the topic meanwhile but
// consumers that stand still.
func Check[T any](t *testing.T, top *fanout.Topic[T]) {
	t.Helper()
	require.NoError(t, Invariants(top))
	blocking := 0
	for _, q := range top.View().Queues() {
		require.NoError(t, checkBooks(t, q, false), "queue %q", q.Name())
		if q.Blocking() {
			blocking++
		}
		if d := q.DeadLetters(); d != nil {
			require.NoError(t, checkBooks(t, d, true), "queue %q", d.Name())
		}
	}
	if s := top.Stats(); s.Waiting < blocking || s.Queues != len(top.Queues()) {
		require.Fail(t, "the topic's counters", "%+v, %d queues have publishers waiting for them", s, blocking)
	}
}

// Invariants returns an error if an invariant of the topic's inside does not hold. A
// fanout.Topic is a topic.Topic, see layout.go of package fanout.
func Invariants[T any](top *fanout.Topic[T]) error {
	return (*topic.Topic[T])(unsafe.Pointer(top)).Check()
}

// CheckDeadLetters is Check for a dead-letter queue of its own.
func CheckDeadLetters[T any](t *testing.T, dead *fanout.Queue[T]) {
	t.Helper()
	require.NoError(t, checkBooks(t, dead.View(), true))
}

func checkBooks(t *testing.T, q fanout.QueueView, letters bool) error {
	if q.Stats().Left > 0 { // it is closed
		return nil
	}
	// Pages first: messages that wait in workers are given back.
	seen := map[string]int{}
	for after := ""; ; {
		page, next, err := q.Peek(t.Context(), fanout.PeekOptions{After: after, Most: 1000})
		if err != nil {
			return err
		}
		for _, m := range page {
			seen[m.State]++
		}
		if after = next; next == "" {
			break
		}
	}
	s := q.Stats()
	counted := map[string]int{
		"ready": s.Ready, "delayed": s.Delayed, "retrying": s.Retrying, "parked": s.Parked, "released": s.Released, "blocked": s.Blocked,
	}
	for state, n := range counted {
		if seen[state] != n {
			return fmt.Errorf("%d messages are %s, %d are counted: %+v", seen[state], state, n, s)
		}
	}
	held := s.Unsettled()
	if held > s.Capacity {
		return fmt.Errorf("%d messages, capacity %d", held, s.Capacity)
	}
	in, out := uint64(s.Published), s.Acked+s.Dropped+s.DeadLettered
	if letters {
		out += s.Redriven
	} else {
		in += s.Redriven
	}
	if in != out+uint64(held) {
		return fmt.Errorf("the books don't balance: %d in, %d out, %d held: %+v", in, out, held, s)
	}
	return nil
}
