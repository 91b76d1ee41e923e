package store

import (
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/gofanout/fanout/internal/block"
	"github.com/gofanout/fanout/internal/lease"
	"github.com/gofanout/fanout/internal/log"
	"github.com/gofanout/fanout/internal/message"
	"github.com/gofanout/fanout/internal/settings"
)

// newStore returns one that reads a log, and the log.
func newStore(t *testing.T, change ...func(s *settings.Limits)) (*Store[int], *log.Log[message.Item[int]]) {
	t.Helper()
	clock, err := message.NewClock()
	require.NoError(t, err)
	set := settings.DefaultQueue().Limits
	for _, f := range change {
		f(&set)
	}
	s, l := new(Store[int]), log.New[message.Item[int]](8)
	s.Init("q", &set, clock, new(block.Pool))
	s.Log, s.Cursor = l, l.Cursor()
	return s, l
}

func publish(l *log.Log[message.Item[int]], n int) {
	for range n {
		l.Append(message.Item[int]{Seq: uint64(l.Head() + 1), At: l.Head() + 1, Body: int(l.Head())})
	}
	l.Publish()
}

// take puts n messages of the log in flight, for so long.
func take(s *Store[int], n int, vis time.Duration, now int64) (refs []message.Ref) {
	for n > 0 {
		var r lease.Run[int]
		run := s.PlainRun(n, now)
		s.OpenLeases().Take(&r, run, n, int64(vis), now)
		s.Took(len(r.Items))
		for k := range r.Items {
			refs = append(refs, r.First.Next(k))
		}
		n -= len(r.Items)
	}
	s.Tally()
	return refs
}

// Once it is closed, what was in flight is in the window by its state, and the log is not kept.
func TestACloseLetsGoOfTheLog(t *testing.T) {
	s, l := newStore(t)
	publish(l, 5)
	take(s, 2, 100, 10)
	s.LandAll(20)
	require.Equal(t, 2, s.In(InFlight))
	require.Equal(t, 2, s.Win.Len())
	for _, i := range s.InOrder() {
		require.Equal(t, InFlight, s.Win.Meta(i).State)
		require.True(t, s.InFlight(i))
	}
	require.True(t, l.Read())
	s.Stale.Add(77)
	s.Offered = s.Published(s.InLog())
	s.Close()
	require.False(t, l.Read())
	require.Nil(t, s.Leases)
	require.False(t, s.Stale.Has(77), "whatever is settled hears that it is closed")
	require.Equal(t, []any{0, uint64(5)}, []any{s.InLog(), s.Published(100)})
	for _, i := range s.InOrder() {
		require.False(t, s.InFlight(i), "nothing is in flight any more")
	}
	s.Empty()
	require.Equal(t, []int{0, 0}, []int{s.Held(), s.In(InFlight)})
	_, ok := s.PopReady()
	require.False(t, ok)
	_, ok = s.FirstParked()
	require.False(t, ok)
	publish(l, 1) // the topic goes on

	other, shared := newStore(t)
	reader := shared.Cursor()
	publish(shared, 1)
	other.Close()
	require.True(t, shared.Read())
	require.Equal(t, 0, reader.Peek().Body, "others read it still")

	letters, _ := newStore(t)
	letters.Letters, letters.Direct = true, true
	letters.Stale.Add(5)
	letters.Close()
	require.True(t, letters.Stale.Has(5), "letters stay, to be looked at")
}

// A purge leaves nothing, and lets go of the log.
func TestAPurgeLetsGoOfTheLog(t *testing.T) {
	s, l := newStore(t)
	publish(l, 20)
	refs := take(s, 3, 100, 10)
	s.Cursor.Rest()
	lost := map[uint64]bool{}
	require.Equal(t, 20, s.Purge(20, func(stamp uint64, _ lease.Consumer[int]) { lost[stamp] = true }))
	require.Len(t, lost, 3)
	require.True(t, s.Cursor.Resting())
	require.EqualValues(t, 20, s.Cursor.Pos())
	for _, ref := range refs {
		require.ErrorIs(t, s.Owned(ref.Block, ref.Stamp), message.ErrStale)
	}
	require.EqualValues(t, 20, s.Totals().Dropped)
	require.EqualValues(t, s.Set.Capacity, s.Room())
	require.NoError(t, s.Check())
}

// A release goes before what was published later, wherever that waits.
func TestAReleaseGoesBackToItsPlace(t *testing.T) {
	s, l := newStore(t)
	publish(l, 5)
	refs := take(s, 3, 100, 10)
	for _, k := range []int{1, 0, 2} {
		v := message.Verdict{Cause: message.Released}
		e, err := s.Settle(refs[k], v, 20)
		require.NoError(t, err)
		require.Equal(t, []any{Retries, 1, time.Duration(10), k}, []any{e.Then, e.Attempt, e.Elapsed, e.Item.Body})
		s.Retry(e.Entry, v, 20)
	}
	var got []int
	for range 5 {
		i, expired, ok := s.Next(30)
		require.True(t, ok)
		require.False(t, expired)
		got = append(got, s.Win.At(i).Body)
		s.Claim(i, InFlight, 30, 100)
	}
	require.Equal(t, []int{0, 1, 2, 3, 4}, got)
	i, expired, ok := s.Next(30)
	require.Equal(t, []any{int32(0), false, false}, []any{i, expired, ok})
}

// What an end keeps of an attempt, and where the message waits.
func TestWhatIsKeptOfAnAttempt(t *testing.T) {
	s, l := newStore(t)
	publish(l, 2)
	refs := take(s, 2, 100, 10)
	v := message.Verdict{Cause: message.Failed, Wait: 50, Text: "busy", Stack: "stack"}
	e, err := s.Settle(refs[0], v, 25)
	require.NoError(t, err)
	h := s.Win.At(e.Entry).Hist.Last()
	require.Equal(t, []any{message.Failed, "q", "busy", "stack", time.Duration(15), false}, []any{h.Cause, h.Queue, h.Text, h.Stack, h.Elapsed, h.Letter})
	s.Retry(e.Entry, v, 25)
	at, ok := s.NextDue()
	require.Equal(t, []any{int64(75), true}, []any{at, ok})
	_, _, ok = s.PopDue(74)
	require.False(t, ok)
	i, timedOut, ok := s.PopDue(75)
	require.Equal(t, []any{e.Entry, false, true}, []any{i, timedOut, ok})
	_, ok = s.Past(refs[0])
	require.False(t, ok, "it is over")
	past, ok := s.Past(refs[1])
	require.True(t, ok)
	require.Equal(t, message.Past{}, past)
	require.ErrorIs(t, s.Extend(refs[0], 500, 80), message.ErrSettled)
	require.NoError(t, s.Extend(refs[1], 500, 80))
	at, ok = s.Deadline(refs[1], 80)
	require.Equal(t, []any{int64(500), true}, []any{at, ok})
	_, ok = s.Deadline(refs[0], 80)
	require.False(t, ok)
}

// Another policy ranks what is there already, and a smaller capacity is at least what it holds.
func TestAnotherCapacityAndPolicy(t *testing.T) {
	s, _ := newStore(t)
	s.Letters, s.Direct = true, true
	for k := range 4 {
		s.Offered++
		s.Admit(Held[int]{Item: message.Item[int]{Seq: uint64(9 - k), Body: k}}, Backlogged)
	}
	allow := s.Allow.Load()
	s.Resize(2, settings.DropOldest)
	require.Equal(t, 4, s.Set.Capacity)
	require.Equal(t, allow-1020, s.Allow.Load())
	it, ok := s.DropOldest(0)
	require.True(t, ok)
	require.Equal(t, 3, it.Body, "what was published first")
	s.Resize(2, settings.DropOldest)
	it, ok = s.DropOldest(0)
	require.True(t, ok)
	require.Equal(t, 2, it.Body)
	require.NoError(t, s.Check())
}

// The oldest of what is ready is that which was published first, wherever it stands.
func TestTheOldestOfWhatIsReady(t *testing.T) {
	s, l := newStore(t)
	publish(l, 3)
	require.EqualValues(t, 1, s.Oldest())
	s.Spill()
	publish(l, 1)
	require.EqualValues(t, 1, s.Oldest())

	letters, _ := newStore(t)
	letters.Letters, letters.Direct = true, true
	for _, at := range []int64{7, 3, 5} { // as they die
		letters.Offered++
		letters.Admit(Held[int]{Item: message.Item[int]{Seq: uint64(at), At: at}}, Backlogged)
	}
	require.EqualValues(t, 3, letters.Oldest())
}

// What has been counted is told at once.
func TestASettlementIsTallied(t *testing.T) {
	s, l := newStore(t)
	publish(l, 3)
	refs := take(s, 3, 100, 10)
	require.EqualValues(t, 3, s.Delivered)
	room := s.Room()
	_, err := s.Settle(refs[0], message.Verdict{Cause: message.Acked}, 20)
	require.NoError(t, err)
	require.Equal(t, []int64{1, room + 1}, []int64{int64(s.Acked), s.Room()})
	require.True(t, s.Leases.Ack(refs[1]))
	require.EqualValues(t, 1, s.Acked)
	s.Tally()
	require.Equal(t, []int64{2, room + 2}, []int64{int64(s.Acked), s.Room()})
	_, err = s.Settle(refs[1], message.Verdict{Cause: message.Acked}, 20)
	require.ErrorIs(t, err, message.ErrSettled)
}

// Keys that are idle cost nothing.
func TestKeysAreLetGoOf(t *testing.T) {
	s, l := newStore(t)
	x := &message.Extra{Key: "k"}
	for k := range 2 {
		l.Append(message.Item[int]{Seq: uint64(k + 1), Ext: x, Body: k})
	}
	l.Publish()
	i, _, ok := s.Next(5)
	require.True(t, ok)
	s.Claim(i, InFlight, 5, 100)
	_, _, ok = s.Next(5)
	require.False(t, ok)
	require.Equal(t, 1, s.In(Blocked))
	for want := range 2 {
		require.Equal(t, want, s.Win.At(i).Body)
		s.Win.Unschedule(i)
		require.Equal(t, Gone, s.End(i, message.Verdict{Cause: message.Acked}, 6).Then)
		if want == 0 {
			i, _, ok = s.Next(7)
			require.True(t, ok)
			s.Claim(i, InFlight, 7, 100)
		}
	}
	require.Zero(t, s.Keys.Len())
	require.NoError(t, s.Check())
}

// What is plain can be taken in one step, whatever else it has, unless the first has expired.
func TestWhatCanBeTakenInOneStep(t *testing.T) {
	with := func(ttl time.Duration, exts ...*message.Extra) *Store[int] {
		s, l := newStore(t, func(s *settings.Limits) { s.TTL = ttl })
		require.True(t, s.Evicts)
		for k, x := range exts {
			l.Append(message.Item[int]{Seq: uint64(k + 1), At: 10, Ext: x})
		}
		l.Publish()
		return s
	}
	plain, own, key := &message.Extra{ID: "a"}, &message.Extra{TTL: 5}, &message.Extra{Key: "k"}
	for name, row := range map[string]struct {
		s    *Store[int]
		now  int64
		want int
	}{
		"all":                           {with(0, plain, nil, plain), 20, 3},
		"all that are asked for":        {with(0, nil, nil, nil, nil, nil, nil), 20, 4},
		"up to one with a key":          {with(0, plain, nil, key), 20, 2},
		"the first has a key":           {with(0, key, nil), 20, 0},
		"none of which has expired":     {with(50, plain, nil), 59, 2},
		"the first has expired":         {with(50, plain, nil), 60, 0},
		"one of its own has expired":    {with(0, own, nil), 20, 0},
		"one of its own may yet":        {with(0, own, nil), 12, 0},
		"one of its own behind a plain": {with(0, nil, own), 20, 1},
	} {
		require.Len(t, row.s.PlainRun(4, row.now), row.want, name)
	}
}

// How many may time out together is said by what has to find each by itself.
func TestWhatMayTimeOutTogether(t *testing.T) {
	s, _ := newStore(t)
	require.Equal(t, s.Set.MaxAttempts, s.together(false))
	require.Zero(t, s.together(true), "somebody wants to hear of each")
	s.Set.TTL = 1
	require.Zero(t, s.together(false))
	s.Set.TTL, s.Set.Overflow = 0, settings.DropOldest
	require.Zero(t, s.together(false))
	i, timedOut, ok := s.PopDue(1 << 60)
	require.Equal(t, []any{int32(0), false, false}, []any{i, timedOut, ok})
}

// What is parked is put aside, in the order in which it was, and can be taken out.
func TestWhatIsParkedIsPutAside(t *testing.T) {
	s, l := newStore(t)
	publish(l, 3)
	for range 3 {
		i, _, ok := s.Next(5)
		require.True(t, ok)
		s.Park(i)
	}
	require.Equal(t, 3, s.In(Parked))
	for want := range 3 {
		i, ok := s.FirstParked()
		require.True(t, ok)
		require.Equal(t, want, s.Win.At(i).Body)
		s.Counters().Dropped++
		s.Discard(i)
		require.NoError(t, s.Check())
	}
	_, ok := s.FirstParked()
	require.False(t, ok)
}
