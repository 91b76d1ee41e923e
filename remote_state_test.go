package fanout

import (
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

func TestWhatIsWrittenOfAHistoryIsBounded(t *testing.T) {
	attempts := func(n int) (h *history) {
		for k := range n {
			h = h.with(Attempt{Cause: Panicked, Queue: "q", Start: time.Unix(int64(k), 0).UTC(), Err: errors.New(strings.Repeat("e", 2000)), Stack: strings.Repeat("s", 8<<10)}, 1000)
		}
		return h
	}
	s := remoteState{Spent: 3, Passes: 2, Deliveries: 5, Born: time.Unix(7, 0).UTC()}
	got, h := decodeState(s.encode(attempts(3)))
	require.Equal(t, []any{int32(3), uint16(2), 5, s.Born}, []any{got.Spent, got.Passes, got.Deliveries, got.Born})
	require.Len(t, h.attempts, 3)
	for k, a := range h.attempts {
		require.Equal(t, k+1, a.Number)
		require.Equal(t, Panicked, a.Cause)
		require.Len(t, a.Err.Error(), maxStateErr)
		require.Len(t, a.Stack, maxStateStack)
	}

	data := (&remoteState{}).encode(attempts(100))
	_, h = decodeState(data)
	require.Len(t, h.attempts, maxStateAttempts)
	require.Equal(t, 1, h.attempts[0].Number, "the first is kept")
	require.Equal(t, 100, h.attempts[maxStateAttempts-1].Number)
	require.Empty(t, h.attempts[0].Stack, "the oldest stacks go first")

	data = (&remoteState{}).encode(attempts(12))
	require.LessOrEqual(t, len(data), maxState)
	_, h = decodeState(data)
	require.Empty(t, h.attempts[0].Stack)
	require.Len(t, h.attempts[11].Stack, maxStateStack)

	for _, not := range []string{"", "somebody else's"} {
		got, h = decodeState([]byte(not))
		require.Zero(t, got)
		require.Nil(t, h)
	}
}

func TestMemoriesForgetTheOldest(t *testing.T) {
	var m memories
	id := func(n int) string { return fmt.Sprint(n) }
	for n := range maxRemembered + 5 {
		m.put(id(n), []byte{1})
		m.put(id(n), []byte{2})
	}
	require.Len(t, m.states, maxRemembered)
	require.Nil(t, m.take(id(4)))
	require.Equal(t, []byte{2}, m.take(id(5)))
	require.Nil(t, m.take(id(5)), "it is taken once")

	// Messages that come and go leave no trace, beside those that stay.
	for n := range 5 * maxRemembered {
		m.put("guest "+id(n), nil)
		m.take("guest " + id(n))
	}
	require.LessOrEqual(t, len(m.order), 2*maxRemembered)
	require.Equal(t, []byte{2}, m.take(id(maxRemembered)))
}
