package message

import (
	"context"
	"errors"
	"fmt"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/uuid"
	"github.com/stretchr/testify/require"
)

func TestExtraIsNeverChanged(t *testing.T) {
	var none *Extra
	require.True(t, none.Plain())
	require.Empty(t, none.OrderingKey())
	require.Nil(t, none.CopyAttributes())
	_, ok := none.Attribute("a")
	require.False(t, ok)

	x := none.With(func(x *Extra) { x.ID, x.Attributes = "1", map[string]string{"a": "b"} })
	y := x.With(func(x *Extra) { x.Key = "k" })
	require.Equal(t, "1", y.ID)
	require.Empty(t, x.Key)
	require.Equal(t, "k", y.OrderingKey())
	v, ok := y.Attribute("a")
	require.True(t, ok)
	require.Equal(t, "b", v)
	y.CopyAttributes()["a"] = "c"
	require.Equal(t, "b", y.Attributes["a"])
}

func TestWhatIsPlain(t *testing.T) {
	for _, row := range []struct {
		x     Extra
		plain bool
	}{
		{Extra{ID: "1", Dedup: "d", Delay: 1, Attributes: map[string]string{}}, true},
		{Extra{Key: "k"}, false},
		{Extra{TTL: 1}, false},
		{Extra{Born: 1}, false},
	} {
		require.Equal(t, row.plain, row.x.Plain(), "%+v", row.x)
	}
	key := &Extra{Key: "k"}
	require.Equal(t, 2, PlainRun([]Item[int]{{}, {Ext: &Extra{}}, {Ext: key}, {}}))
	require.Equal(t, 0, PlainRun([]Item[int]{{Ext: key}}))
	require.Equal(t, 1, PlainRun([]Item[int]{{}}))
}

func TestRefsFollowEachOther(t *testing.T) {
	r := Ref{Stamp: 7, Block: 3, Attempt: 2}
	require.Equal(t, Ref{Stamp: 12, Block: 3, Attempt: 2}, r.Next(5))
	require.Equal(t, uint64(7), r.Stamp)
}

func TestCauses(t *testing.T) {
	names := map[string]bool{}
	for c := Acked; int(c) < Causes; c++ {
		require.NotContains(t, c.String(), "Cause(")
		names[c.String()] = true
		require.Equal(t, c != Acked && c != Snoozed && c != Released, c.Spends())
	}
	require.Len(t, names, Causes-1)
	require.Equal(t, "Cause(11)", Cause(11).String())
}

func TestWhatAHandlerReturnsIsJudged(t *testing.T) {
	errOrder, errBusy := errors.New("no such order"), errors.New("busy")
	inPermanent := fmt.Errorf("handler: %w", Permanent(errOrder))
	twice := errors.Join(RetryAfter(errBusy, time.Minute), Permanent(errOrder))
	outer, later := Permanent(RetryAfter(errBusy, time.Minute)), RetryAfter(Permanent(errOrder), time.Minute)
	closed := fmt.Errorf("publish: %w", ErrClosed)
	for _, row := range []struct {
		name string
		err  error
		want Verdict
	}{
		{"nil acknowledges", nil, Verdict{Cause: Acked}},
		{"an error fails", errBusy, Verdict{Cause: Failed, Wait: FromBackoff, Err: errBusy}},
		{"the end of the context fails", context.Canceled, Verdict{Cause: Failed, Wait: FromBackoff, Err: context.Canceled}},
		{"permanent of a closed topic is not released", Permanent(closed), Verdict{Cause: PermanentlyFailed, Err: Permanent(closed)}},
		{"wrapped permanent", inPermanent, Verdict{Cause: PermanentlyFailed, Err: inPermanent}},
		{"retry at once", RetryAfter(errBusy, 0), Verdict{Cause: Failed, Wait: MinWait, Err: RetryAfter(errBusy, 0)}},
		{"the first of two that are joined", twice, Verdict{Cause: Failed, Wait: time.Minute, Err: twice}},
		{"the outer of two: permanent", outer, Verdict{Cause: PermanentlyFailed, Err: outer}},
		{"the outer of two: retry", later, Verdict{Cause: Failed, Wait: time.Minute, Err: later}},
		{"wrapped snooze", fmt.Errorf("not yet: %w", Snooze(time.Hour)), Verdict{Cause: Snoozed, Wait: time.Hour}},
		{"snooze in the past", Snooze(-1), Verdict{Cause: Snoozed, Wait: MinWait}},
		{"a closed topic releases", closed, Verdict{Cause: Released, Wait: FromBackoff, Err: closed}},
	} {
		t.Run(row.name, func(t *testing.T) { require.Equal(t, row.want, Judge(row.err)) })
	}
	require.NoError(t, Permanent(nil))
	require.NoError(t, RetryAfter(nil, 1))
	require.EqualError(t, Permanent(errOrder), "no such order")
	require.EqualError(t, Snooze(time.Minute), "fanout: snooze for 1m0s")
	require.ErrorIs(t, RetryAfter(errOrder, 1), errOrder)
}

func TestTheClock(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		began := time.Now()
		c, err := NewClock()
		require.NoError(t, err)
		at := c.Now()
		require.Positive(t, at)
		time.Sleep(time.Second)
		require.Equal(t, at+int64(time.Second), c.Now())
		require.True(t, c.Time(at+int64(time.Minute)).Equal(began.Add(time.Minute)))
		require.Equal(t, at+5, c.At(began.Add(5)))
		require.Negative(t, c.At(began.Add(-age-1)))

		a, b := c.ID(1, at+5e6, nil), c.ID(2, at+6e6, &Extra{})
		require.Less(t, a, b)
		u, err := uuid.Parse(a)
		require.NoError(t, err)
		require.Equal(t, uuid.Version(7), u.Version())
		require.Equal(t, uuid.RFC4122, u.Variant())
		sec, nsec := u.Time().UnixTime()
		require.Equal(t, began.Add(5*time.Millisecond).UnixMilli(), time.Unix(sec, nsec).UnixMilli())
		require.Equal(t, "mine", c.ID(1, 2, &Extra{ID: "mine"}))

		var ids IDs
		for n := range uint64(40) {
			seq, at := n<<22+n, at+int64(n)*1_000_003
			id := c.ID(seq, at, nil)
			require.Equal(t, id, uuid.MustParse(id).String())
			require.Equal(t, id, ids.ID(c, seq, at, nil))
			require.Equal(t, "mine", ids.ID(c, seq, at, &Extra{ID: "mine"}))
		}
		require.InDelta(t, 1.0/16, testing.AllocsPerRun(160, func() { ids.ID(c, 1, at, nil) }), 1.0/16)

		other, err := NewClock()
		require.NoError(t, err)
		require.NotEqual(t, c.ID(1, 5, nil), other.ID(1, 5, nil))
	})
	require.Equal(t, int64(5), After(2, 3))
	require.Equal(t, int64(1<<63-1), After(2, 1<<63-2))
}

func TestAHistoryIsNeverChanged(t *testing.T) {
	var none *History
	require.Nil(t, none.Attempts(1))
	require.Nil(t, none.Of(1))
	h := none.With(attempt(Failed))
	a, b := h.With(attempt(Nacked)), h.With(attempt(Exited))
	require.Equal(t, []Attempt{{Number: 1, Cause: Failed}}, h.Attempts(1))
	require.Equal(t, []Attempt{{Number: 1, Cause: Failed}, {Number: 2, Cause: Nacked}}, a.Attempts(1))
	require.Equal(t, []Attempt{{Number: 1, Cause: Failed}, {Number: 2, Cause: Exited}}, b.Attempts(1))
	a.Attempts(1)[0].Cause = Acked
	require.Equal(t, Failed, a.Attempts(1)[0].Cause)
	require.Same(t, a, a.Of(1))
}

func attempt(c Cause) Kept { return Kept{Attempt: Attempt{Cause: c}} }

func TestALongHistoryKeepsTheFirstAttemptsAndTheLast(t *testing.T) {
	var h *History
	for range 3000 {
		h = h.With(attempt(Failed))
		require.LessOrEqual(t, len(h.Kept()), mostAttempts+slack)
	}
	as := h.Attempts(1)
	require.Len(t, as, mostAttempts)
	require.Equal(t, []int{1, mostAttempts / 2, 3000 - mostAttempts/2 + 1, 3000}, []int{as[0].Number, as[mostAttempts/2-1].Number, as[mostAttempts/2].Number, as[mostAttempts-1].Number})
	require.Equal(t, 3000, h.Last().Number)
}

func TestReleasesInARowAreCounted(t *testing.T) {
	var h *History
	require.Zero(t, h.Releases(10))
	for range 3 {
		h = h.With(Kept{Attempt: Attempt{Cause: Released, Err: errors.New("busy")}})
	}
	require.Equal(t, 3, h.Releases(10))
	require.Equal(t, 2, h.Releases(2))
	require.Equal(t, 3, h.With(attempt(Released)).Releases(10), "one without an error did not wait")
	require.Zero(t, h.With(attempt(Failed)).Releases(10))
}

func TestMessagesThatTimedOutTogetherShareAHistory(t *testing.T) {
	c, err := NewClock()
	require.NoError(t, err)
	o := &Origin{Clock: c, Queue: "q"}
	own := (*History)(nil).With(attempt(Failed))
	first := Together(o, Group{At: 100, Starts: []int64{10, 20}, Seqs: []uint64{5, 3}, Befores: []*History{nil, own}})
	second := Together(o, Group{At: 300, Start: 200, Before: first})
	timedOut := func(number int, start, at int64) Attempt {
		return Attempt{Number: number, Cause: TimedOut, Queue: "q", Start: c.Time(start), Elapsed: time.Duration(at - start)}
	}
	require.Equal(t, []Attempt{timedOut(1, 10, 100), timedOut(2, 200, 300)}, second.Attempts(5))
	require.Equal(t, []Attempt{{Number: 1, Cause: Failed}, timedOut(2, 20, 100), timedOut(3, 200, 300)}, second.Attempts(3))
	alone := second.Of(3).With(attempt(Nacked))
	require.Equal(t, second.Attempts(3), alone.Attempts(3)[:3])
	require.Equal(t, 4, alone.Attempts(3)[3].Number)
}
