package fanout

import (
	"context"
	"errors"
	"fmt"
	"math"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/gofanout/fanout/engine"
	"github.com/gofanout/fanout/internal/fakeengine"
	"github.com/gofanout/fanout/internal/message"
)

func TestWhatIsWrittenOfAHistoryIsBounded(t *testing.T) {
	attempts := func(n int) (h *history) {
		for k := range n {
			text := strings.Repeat("e", 4000)
			h = h.With(kept{Attempt: message.Attempt{Cause: message.Panicked, Queue: "q", Start: time.Unix(int64(k), 0).UTC(), Err: errors.New(text), Stack: strings.Repeat("s", 8<<10)}, Text: text})
		}
		return h
	}
	s := remoteState{Spent: 3, Passes: 2, Deliveries: 5, Born: time.Unix(7, 0).UTC()}
	got, h := decodeState(s.encode(attempts(3), maxState))
	require.Equal(t, []any{int32(3), uint16(2), 5, s.Born}, []any{got.Spent, got.Passes, got.Deliveries, got.Born})
	require.Len(t, h.Kept(), 3)
	for k, a := range h.Kept() {
		require.Equal(t, k+1, a.Number)
		require.Equal(t, message.Panicked, a.Cause)
		require.Regexp(t, `^e{900}e{900}e*\.\.\. \(\d+ bytes left out\)$`, a.Err.Error())
		require.Regexp(t, `^s{900}s{900}s*\.\.\. \(\d+ bytes left out\)$`, a.Stack)
		require.LessOrEqual(t, max(len(a.Err.Error()), len(a.Stack)), maxStateText)
	}

	data := (&remoteState{}).encode(attempts(100), maxState)
	_, h = decodeState(data)
	require.Len(t, h.Kept(), maxStateAttempts)
	require.Equal(t, 1, h.Kept()[0].Number, "the first is kept")
	require.Equal(t, 100, h.Kept()[maxStateAttempts-1].Number)
	require.Equal(t, "... (8192 bytes left out)", h.Kept()[0].Stack, "the oldest texts go first")

	data = (&remoteState{}).encode(attempts(12), maxState)
	require.LessOrEqual(t, len(data), maxState)
	_, h = decodeState(data)
	require.Equal(t, "... (8192 bytes left out)", h.Kept()[0].Stack)
	require.Greater(t, len(h.Kept()[11].Stack), 1900)

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

// TestAQueueOnAnEngineForgetsWhatHasLeft, however it left.
func TestAQueueOnAnEngineForgetsWhatHasLeft(t *testing.T) {
	bubble(t, func(t *testing.T, ctx context.Context) {
		top := newTopic[string](t, WithEngine(fakeengine.New(fakeengine.Config{})))
		q := openQueue(t, top, "q", WithMaxAttempts(2), WithTimeToLive(time.Hour), WithFilter(func(body string) bool { return body != "unwanted" }))
		publish(t, top, "unwanted", "acked", "failed", "snoozed", "timed out", "expired")
		ds, err := q.ReceiveBatch(ctx, 6)
		require.NoError(t, err)
		require.Len(t, ds, 5, "one that nobody wants does not hide those behind it")
		require.Equal(t, 5, q.Stats().InFlight)
		for k, result := range []error{nil, errBusy, Snooze(time.Minute)} {
			require.NoError(t, ds[k].Settle(ctx, result))
		}
		time.Sleep(30 * time.Second)
		synctest.Wait()
		require.Zero(t, q.win.Len())
		require.Zero(t, q.n)
		s := q.Stats()
		require.EqualValues(t, []uint64{5, 1, 1, 1, 2}, []uint64{s.Delivered, s.Acked, s.Failed, s.Snoozed, s.TimedOut})
		time.Sleep(time.Hour)
		_, ok, err := q.TryReceive(ctx)
		require.NoError(t, err)
		require.False(t, ok, "all are too old")
		require.Zero(t, q.win.Len())
		require.Zero(t, q.n)
		require.EqualValues(t, 4, q.Stats().Expired)
		require.NoError(t, top.Close())
		<-top.Done()
	})
}

func TestWhichLettersARedriveTakesForNew(t *testing.T) {
	began := time.Unix(100, 0)
	died := func(at time.Duration) *history {
		return message.Restored([]kept{{Attempt: message.Attempt{Start: began.Add(at - time.Second), Elapsed: time.Second}}})
	}
	for _, row := range []struct {
		hist  *history
		moved bool
		want  bool
	}{
		{died(-1), false, false}, {died(-1), true, false},
		{died(0), false, false}, {died(0), true, true}, // a clock that stands still
		{died(1), false, true}, {died(1), true, true},
		{nil, false, false}, {nil, true, true},
	} {
		require.Equal(t, row.want, diedAfter(began, row.hist, row.moved), "%+v", row)
	}
}

// TestTheStateOfEarlierVersionsIsRead: engines keep it for days, and causes are numbers there.
func TestTheStateOfEarlierVersionsIsRead(t *testing.T) {
	const written = `{"spent":2,"history":[{"n":1,"cause":5,"queue":"q","start":"2026-07-01T12:30:00Z","elapsed":1500000000},` +
		`{"n":2,"cause":3,"queue":"q","start":"2026-07-01T12:31:00Z","err":"panic: EOF","stack":"goroutine 7"}]}`
	s, h := decodeState([]byte(written))
	require.EqualValues(t, 2, s.Spent)
	require.Equal(t, []message.Cause{message.TimedOut, message.Panicked}, []message.Cause{h.Kept()[0].Cause, h.Kept()[1].Cause})
	require.Equal(t, 1500*time.Millisecond, h.Kept()[0].Elapsed)
	require.EqualError(t, h.Kept()[1].Err, "panic: EOF")
	require.JSONEq(t, written, string((&remoteState{Spent: 2}).encode(h, maxState)))
}

// TestAStateFitsWhatEnginesLeaveForIt: engines keep room for engine.MinState bytes.
func TestAStateFitsWhatEnginesLeaveForIt(t *testing.T) {
	long := time.FixedZone("", -11*60*60-59*60)
	at := time.Date(9999, 12, 30, 23, 59, 59, 999_999_999, long)
	text := strings.Repeat("\x01", 3000) // the longest in JSON
	var as []kept
	for k := range 40 {
		as = append(as, kept{
			Attempt: message.Attempt{Number: math.MaxInt - 40 + k, Cause: message.Cause(255), Queue: text, Start: at, Elapsed: math.MinInt64, Err: errors.New(text), Stack: text},
			Text:    text, Letter: true,
		})
	}
	h := message.Restored(as)
	s := remoteState{Spent: math.MinInt32, Passes: math.MaxUint16, Deliveries: math.MinInt, Born: at}
	for _, most := range []int{0, 1, 100, engine.MinState, 700, 5000, 20_000, 40_000, maxState} {
		data := s.encode(h, most)
		require.LessOrEqual(t, len(data), max(most, engine.MinState), most)
		got, hist := decodeState(data)
		require.Equal(t, s.Spent, got.Spent)
		require.True(t, got.Born.Equal(at))
		last := hist.Last()
		require.Equal(t, []any{math.MaxInt - 1, message.Cause(255), time.Duration(math.MinInt64)}, []any{last.Number, last.Cause, last.Elapsed}, most)
		require.True(t, last.Start.Equal(at))
		require.NotEmpty(t, last.Err.Error())
	}
	require.LessOrEqual(t, len(s.encode(nil, 0)), engine.MinState)
}
