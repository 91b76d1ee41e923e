package onengine

import (
	"errors"
	"fmt"
	"math"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/gofanout/fanout/engine"
	"github.com/gofanout/fanout/internal/message"
)

func TestWhatIsWrittenOfAHistoryIsBounded(t *testing.T) {
	attempts := func(n int) (h *message.History) {
		for k := range n {
			text := strings.Repeat("e", 4000)
			h = h.With(message.Kept{Attempt: message.Attempt{Cause: message.Panicked, Queue: "q", Start: time.Unix(int64(k), 0).UTC(), Err: errors.New(text), Stack: strings.Repeat("s", 8<<10)}, Text: text})
		}
		return h
	}
	s := State{Spent: 3, Passes: 2, Deliveries: 5, Born: time.Unix(7, 0).UTC()}
	got, h := Decode(s.encode(attempts(3), MostState))
	require.Equal(t, []any{int32(3), uint16(2), 5, s.Born}, []any{got.Spent, got.Passes, got.Deliveries, got.Born})
	require.Len(t, h.Kept(), 3)
	for k, a := range h.Kept() {
		require.Equal(t, k+1, a.Number)
		require.Equal(t, message.Panicked, a.Cause)
		require.Regexp(t, `^e{900}e{900}e*\.\.\. \(\d+ bytes left out\)$`, a.Err.Error())
		require.Regexp(t, `^s{900}s{900}s*\.\.\. \(\d+ bytes left out\)$`, a.Stack)
		require.LessOrEqual(t, max(len(a.Err.Error()), len(a.Stack)), mostText)
	}

	data := (&State{}).encode(attempts(100), MostState)
	_, h = Decode(data)
	require.Len(t, h.Kept(), MostAttempts)
	require.Equal(t, 1, h.Kept()[0].Number, "the first is kept")
	require.Equal(t, 100, h.Kept()[MostAttempts-1].Number)
	require.Equal(t, "... (8192 bytes left out)", h.Kept()[0].Stack, "the oldest texts go first")

	data = (&State{}).encode(attempts(12), MostState)
	require.LessOrEqual(t, len(data), MostState)
	_, h = Decode(data)
	require.Equal(t, "... (8192 bytes left out)", h.Kept()[0].Stack)
	require.Greater(t, len(h.Kept()[11].Stack), 1900)

	for _, not := range []string{"", "somebody else's"} {
		got, h = Decode([]byte(not))
		require.Zero(t, got)
		require.Nil(t, h)
	}
}

func TestMemoriesForgetTheOldest(t *testing.T) {
	var m Memories
	id := func(n int) string { return fmt.Sprint(n) }
	for n := range mostRemembered + 5 {
		m.Put(id(n), []byte{1})
		m.Put(id(n), []byte{2})
	}
	require.Len(t, m.states, mostRemembered)
	require.Nil(t, m.Take(id(4)))
	require.Equal(t, []byte{2}, m.Take(id(5)))
	require.Nil(t, m.Take(id(5)), "it is taken once")

	var once Memories
	for n := range mostRemembered + 1 {
		once.Put(id(n), []byte{1})
	}
	require.Nil(t, once.Take(id(0)))
	require.Equal(t, []byte{1}, once.Take(id(1)))

	// Messages that come and go leave no trace, beside those that stay.
	for n := range 5 * mostRemembered {
		m.Put("guest "+id(n), nil)
		m.Take("guest " + id(n))
	}
	require.LessOrEqual(t, len(m.order), 2*mostRemembered)
	require.Equal(t, []byte{2}, m.Take(id(mostRemembered)))
	for n := range mostRemembered + 1 { // those that stay are forgotten in their turn
		m.Put("new "+id(n), []byte{3})
	}
	require.Nil(t, m.Take(id(mostRemembered-1)))
	require.Equal(t, []byte{3}, m.Take("new 1"))
}

// TestTheStateOfEarlierVersionsIsRead: engines keep it for days, and causes are numbers there.
func TestTheStateOfEarlierVersionsIsRead(t *testing.T) {
	const written = `{"spent":2,"history":[{"n":1,"cause":5,"queue":"q","start":"2026-07-01T12:30:00Z","elapsed":1500000000},` +
		`{"n":2,"cause":3,"queue":"q","start":"2026-07-01T12:31:00Z","err":"panic: EOF","stack":"goroutine 7"}]}`
	s, h := Decode([]byte(written))
	require.EqualValues(t, 2, s.Spent)
	require.Equal(t, []message.Cause{message.TimedOut, message.Panicked}, []message.Cause{h.Kept()[0].Cause, h.Kept()[1].Cause})
	require.Equal(t, 1500*time.Millisecond, h.Kept()[0].Elapsed)
	require.EqualError(t, h.Kept()[1].Err, "panic: EOF")
	require.JSONEq(t, written, string((&State{Spent: 2}).encode(h, MostState)))
}

// TestAStateFitsWhatEnginesLeaveForIt: engines keep room for engine.MinState bytes.
func TestAStateFitsWhatEnginesLeaveForIt(t *testing.T) {
	long := time.FixedZone("", -11*60*60-59*60)
	at := time.Date(9999, 12, 30, 23, 59, 59, 999_999_999, long)
	text := strings.Repeat("\x01", 3000) // the longest in JSON
	var as []message.Kept
	for k := range 40 {
		as = append(as, message.Kept{
			Attempt: message.Attempt{Number: math.MaxInt - 40 + k, Cause: message.Cause(255), Queue: text, Start: at, Elapsed: math.MinInt64, Err: errors.New(text), Stack: text},
			Text:    text, Letter: true,
		})
	}
	h := message.Restored(as)
	s := State{Spent: math.MinInt32, Passes: math.MaxUint16, Deliveries: math.MinInt, Born: at}
	for _, most := range []int{0, 1, 100, engine.MinState, 700, 5000, 20_000, 40_000, MostState} {
		data := s.encode(h, most)
		require.LessOrEqual(t, len(data), max(most, engine.MinState), most)
		got, hist := Decode(data)
		require.Equal(t, s.Spent, got.Spent)
		require.True(t, got.Born.Equal(at))
		last := hist.Last()
		require.Equal(t, []any{math.MaxInt - 1, message.Cause(255), time.Duration(math.MinInt64)}, []any{last.Number, last.Cause, last.Elapsed}, most)
		require.True(t, last.Start.Equal(at))
		require.NotEmpty(t, last.Err.Error())
	}
	require.LessOrEqual(t, len(s.encode(nil, 0)), engine.MinState)
	require.NotEmpty(t, s.encode(nil, 0))
	few := message.Restored([]message.Kept{{Attempt: message.Attempt{Number: 1, Queue: "q", Err: errors.New(text[:900])}, Text: text[:900]}})
	whole := s.encode(few, MostState)
	require.Equal(t, whole, s.encode(few, len(whole)), "what fits exactly is not shortened")
}

// TestAHistoryFitsIntoWhatAnEngineTakes: any number of bytes from engine.MinState on.
func TestAHistoryFitsIntoWhatAnEngineTakes(t *testing.T) {
	var h *message.History
	text := strings.Repeat("<\n€\x00", 1000) // JSON makes more of it
	for range 100 {
		h = h.With(message.Kept{Attempt: message.Attempt{Cause: message.Panicked, Queue: "q", Start: time.Unix(7, 0), Err: errors.New(text), Stack: text}, Text: text})
	}
	s := State{Spent: 3}
	least := len(s.encode(nil, 0))
	for most := least; most <= 64<<10; most += most/10 + 1 {
		data := s.encode(h, most)
		require.LessOrEqual(t, len(data), max(most, engine.MinState))
		got, h := Decode(data)
		require.EqualValues(t, 3, got.Spent)
		if most >= 512 {
			require.Equal(t, 100, h.Last().Number, "the newest stays longest, at %d bytes", most)
		}
	}
}
