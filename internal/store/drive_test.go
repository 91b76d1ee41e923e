package store

import (
	"errors"
	"fmt"
	"math"
	"slices"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/gofanout/fanout/internal/block"
	"github.com/gofanout/fanout/internal/lease"
	"github.com/gofanout/fanout/internal/log"
	"github.com/gofanout/fanout/internal/message"
	"github.com/gofanout/fanout/internal/settings"
)

// A driver does with a store what a queue does, and the same with a model, and compares them.
// Time is a number.
type driver struct {
	t      require.TestingT
	arg    func(n int) int // the next choice, below n
	s      Store[int]
	m      *model
	log    *log.Log[message.Item[int]] // nil: the store is direct
	now    int64
	seq    uint64
	own    uint64 // the latest message that has a time to live of its own
	each   bool   // somebody hears of each settlement
	entry  bool   // what is in flight is in entries
	aside  []aside
	w      worker
	looked uint64 // m.began at the last look
}

// An aside is a message that is to be replayed, with the stamp that was reserved for it.
type aside struct {
	it    message.Item[int]
	stamp uint64
}

const (
	checkAge = 5
	spareAge = 40
)

// newDriver returns one for a queue with settings of its choice.
func newDriver(t require.TestingT, clock *message.Clock, arg func(n int) int) *driver {
	d := &driver{t: t, arg: arg, now: 1000, each: arg(4) == 0}
	d.w.d = d
	set := settings.Limits{
		Capacity: []int{3, 8, 40, 200}[arg(4)], Overflow: []settings.Overflow{settings.Block, settings.DropOldest}[arg(2)],
		MaxAttempts: []int{message.Unlimited, 1, 2, 4}[arg(4)], TTL: time.Duration([]int{0, 0, 30}[arg(3)]),
	}
	d.m = &model{set: set, heads: map[string]*record{}, lines: map[string][]*record{}, refs: map[uint64]string{}}
	d.s.Init("q", &set, clock, new(block.Pool))
	switch arg(4) {
	case 0: // a dead-letter queue
		d.s.Letters, d.s.Direct, d.s.Evicts = true, true, false
		d.m.letters, d.entry = true, true
	case 1: // a queue with a delay
		d.s.Direct, d.entry = true, arg(2) == 0
		set.Delay = 7
	default:
		d.log = log.New[message.Item[int]](4)
		d.s.Log, d.s.Cursor = d.log, d.log.Cursor()
	}
	for n := arg(3); n > 0 && !d.s.Letters; n-- {
		d.seq++
		d.aside = append(d.aside, aside{message.Item[int]{Seq: d.seq, At: d.now}, d.s.Win.Reserve(1)})
	}
	return d
}

func (d *driver) failf(format string, args ...any) {
	d.t.Errorf("at %d: %s\nletters %t, direct %t, %+v\n%v", d.now, fmt.Sprintf(format, args...), d.s.Letters, d.s.Direct, d.m.set, d.m.all)
	d.t.FailNow()
}

// check compares the store with the model.
func (d *driver) check(what string) {
	if err := d.s.Check(); err != nil {
		d.failf("%s: %v", what, err)
	}
	s, m, c := &d.s, d.m, d.s.Leases.Counts()
	ready := m.count(Backlogged, Due)
	oldest := int64(math.MaxInt64)
	for _, r := range m.all {
		if r.state == Backlogged || r.state == Due {
			oldest = min(oldest, r.at)
		}
	}
	totals := s.Totals()
	for _, row := range []struct {
		name      string
		got, want int64
	}{
		{"ready", int64(s.Ready()), int64(ready)},
		{"due", int64(s.Due()), int64(m.count(Due))},
		{"in flight", int64(s.In(InFlight) + s.In(InHandler) + c.InFlight), int64(m.count(InFlight))},
		{"delayed", int64(s.In(Delayed)), int64(m.count(Delayed))},
		{"retrying", int64(s.In(Retrying)), int64(m.count(Retrying))},
		{"parked", int64(s.In(Parked)), int64(m.count(Parked))},
		{"released", int64(s.In(Released)), int64(m.count(Released))},
		{"blocked", int64(s.In(Blocked)), int64(m.count(Blocked))},
		{"held", int64(s.Held() + s.InLog()), int64(len(m.all))},
		{"room", s.Room(), int64(m.set.Capacity - len(m.all))},
		{"oldest", s.Oldest(), oldest},
		{"delivered", int64(s.Delivered), int64(m.began)},
		{"acknowledged", int64(s.Acked), int64(m.acked)},
		{"dropped", int64(totals.Dropped), int64(m.dropped)},
		{"dead", int64(totals.DeadLettered), int64(m.dead)},
		{"expired", int64(s.Expiries()), int64(m.ended[message.Expired])},
		{"keys", int64(s.Keys.Len()), int64(len(m.heads))},
	} {
		if row.got != row.want {
			d.failf("%s: %s is %d, want %d", what, row.name, row.got, row.want)
		}
	}
	if totals.Ended != m.ended {
		d.failf("%s: ended %v, want %v", what, totals.Ended, m.ended)
	}
	at, ok := s.NextDue()
	if want, found := m.nextDue(); ok != found || ok && at != want {
		d.failf("%s: next due at %d, %t, want %d, %t", what, at, ok, want, found)
	}
}

// publish adds a message, as a topic does with one that finds room, or makes it.
func (d *driver) publish() {
	if d.s.Count(); d.s.Room() <= 0 {
		if d.m.set.Overflow != settings.DropOldest || !d.dropOldest() {
			return
		}
	}
	d.seq++
	it := message.Item[int]{Seq: d.seq, At: d.now, Body: int(d.seq)}
	r := &record{seq: d.seq, at: d.now}
	var x message.Extra
	if d.arg(3) == 0 {
		x.Key = string(rune('a' + d.arg(2)))
		r.key = x.Key
	}
	if d.arg(6) == 0 {
		x.TTL, d.own = time.Duration(1+d.arg(20)), d.seq
		r.ttl = int64(x.TTL)
	}
	delay := int64(d.s.Set.Delay)
	if d.arg(8) == 0 {
		x.Delay = time.Duration(1 + d.arg(20))
		delay = int64(x.Delay)
	}
	if x.Key != "" || x.TTL > 0 || x.Delay > 0 {
		it.Ext = &x
	}
	d.m.add(r)
	if d.log != nil && x.Delay == 0 {
		r.state = Backlogged
		d.log.Append(it)
		d.log.Publish()
		return
	}
	d.s.Offered++
	d.s.Spill()
	d.enter(&it, r, delay, 0)
}

// enter adds a message to the window.
func (d *driver) enter(it *message.Item[int], r *record, delay int64, stamp uint64) {
	d.s.Enter(it, stamp, d.now)
	d.m.becomes(r, Backlogged)
	if delay > 0 {
		d.m.becomes(r, Delayed)
		r.instant = it.At + delay
	}
}

// replay adds the first message that was set aside, at the place of its publication.
func (d *driver) replay() {
	if d.s.Count(); len(d.aside) == 0 || d.s.Room() <= 0 {
		return
	}
	it, stamp := d.aside[0].it, d.aside[0].stamp
	d.aside = d.aside[1:]
	r := &record{seq: it.Seq, at: it.At}
	d.m.add(r)
	r.unplaced = true
	d.s.Offered++
	d.enter(&it, r, int64(d.s.Set.Delay), stamp)
}

func (d *driver) dropOldest() bool {
	d.s.TakeAllBack()
	d.m.takeBack()
	end := int64(0)
	if d.log != nil {
		end = d.log.Head()
	}
	want := d.m.oldest()
	it, ok := d.s.DropOldest(end)
	if ok != (want != nil) || ok && it.Seq != want.seq {
		d.failf("dropped %d, %t, want %v", it.Seq, ok, want)
	}
	if ok {
		d.m.leaves(want)
		d.m.remove(want)
		d.m.dropped++
	}
	return ok
}

// next is what the queue does to claim the next message by itself.
func (d *driver) next() (i int32, r *record) {
	for {
		want, expires := d.m.next(d.now)
		i, expired, ok := d.s.Next(d.now)
		if ok != (want != nil) || ok && (expired != expires || d.s.Win.At(i).Seq != want.seq) {
			d.failf("next is entry %d, expired %t, %t; want %v, expired %t", i, expired, ok, want, expires)
		}
		if !ok || !expired {
			return i, want
		}
		d.expire(i, want)
	}
}

// began checks that what a run has taken is next.
func (d *driver) began(r *lease.Run[int], vis int64) {
	for k := range r.Items {
		want, expired := d.m.next(d.now)
		if want == nil || expired || want.seq != r.Items[k].Seq {
			d.failf("took %d, want %v, expired %t", r.Items[k].Seq, want, expired)
		}
		if got := r.History; want.spent > 0 && got.Of(want.seq).Last().Cause == 0 {
			d.failf("%d has no past", want.seq)
		}
		ref := r.First.Next(k)
		if int(ref.Attempt) != int(want.spent)+1 {
			d.failf("%d is at attempt %d, want %d", want.seq, ref.Attempt, want.spent+1)
		}
		d.m.begins(want, ref, d.now, vis, false)
	}
}

// take takes messages for a caller, in one step, if it may.
func (d *driver) take() {
	most, vis := 1+d.arg(6), int64(10+5*d.arg(2))
	if d.entry || d.s.Ready() == 0 {
		d.claim(vis)
		return
	}
	t := d.s.OpenLeases()
	if d.s.Due() > 0 {
		if r, ok := d.s.TakeTimedOut(most, vis, d.now); ok {
			d.began(&r, vis)
			return
		}
	}
	if run := d.s.PlainRun(most, d.now); len(run) > 0 {
		var r lease.Run[int]
		t.Take(&r, run, most, vis, d.now)
		d.s.Took(len(r.Items))
		d.began(&r, vis)
		return
	}
	l := t.Fill(1, vis)
	first := l.Len()
	if i, want := d.next(); want != nil {
		d.s.Fly(l, i, d.now)
		r := t.Run(l, first)
		if len(r.Items) != 1 || r.Items[0].Seq != want.seq {
			d.failf("flew %v, want %d", r.Items, want.seq)
		}
		d.m.begins(want, r.First, d.now, vis, false)
	}
}

// claim puts a message in flight in its entry.
func (d *driver) claim(vis int64) {
	i, want := d.next()
	if want == nil {
		return
	}
	d.s.Claim(i, []uint8{InFlight, InHandler}[d.arg(2)], d.now, d.now+vis)
	d.m.begins(want, message.Ref{Stamp: d.s.Win.Meta(i).Stamp, Block: i}, d.now, vis, false)
}

// settle ends a delivery in one of all ways.
func (d *driver) settle() {
	rs := d.m.inFlight()
	if len(rs) == 0 {
		return
	}
	r := rs[d.arg(len(rs))]
	v := message.Verdict{Wait: time.Duration([]int{0, 1, 4, 9}[d.arg(4)])}
	v.Cause = []message.Cause{
		message.Acked, message.Acked, message.Acked, message.Failed, message.Nacked, message.Snoozed, message.Released, message.PermanentlyFailed,
	}[d.arg(8)]
	if p, ok := d.s.Past(r.ref); !ok || p.Spent != r.spent || p.Passes != r.passes {
		d.failf("%d has the past %v, %t; want %d spent, %d passes", r.seq, p, ok, r.spent, r.passes)
	}
	e, err := d.s.Settle(r.ref, v, d.now)
	if err != nil {
		d.failf("settle %d: %v", r.seq, err)
	}
	if e.Attempt != int(r.spent)+1 || e.Elapsed != time.Duration(d.now-r.start) {
		d.failf("%d ended as attempt %d after %v, want %d after %d", r.seq, e.Attempt, e.Elapsed, r.spent+1, d.now-r.start)
	}
	d.ended(&e, r, v)
}

// ended has the message of a delivery that has ended go on.
func (d *driver) ended(e *Ended[int], r *record, v message.Verdict) {
	then := d.m.ends(r, v, d.now)
	if e.Then != then || e.Item.Seq != r.seq {
		d.failf("%d becomes %d, want %d of %d", e.Item.Seq, e.Then, then, r.seq)
	}
	switch then {
	case Dies:
		d.dies(e.Entry, r)
	case Expires:
		d.expire(e.Entry, r)
	case Retries:
		d.s.Retry(e.Entry, v, d.now)
		d.m.retries(r, v, d.now)
	}
}

func (d *driver) expire(i int32, r *record) {
	d.s.Expire(i, d.now)
	d.m.ended[message.Expired]++
	d.dies(i, r)
}

// dies moves a dead message to a dead-letter queue, or parks it.
func (d *driver) dies(i int32, r *record) {
	if h := d.s.Win.At(i); h.Seq != r.seq || h.Hist.Last().Queue != "q" {
		d.failf("%d is dead, of %v, want %d", h.Seq, h.Hist.Last(), r.seq)
	}
	if d.arg(2) == 0 {
		d.s.Park(i)
		d.m.leaveKey(r)
		d.m.becomes(r, Parked)
		return
	}
	d.s.Remove(i)
	d.s.Counters().DeadLettered++
	d.m.dead++
	d.m.remove(r)
}

// unpark moves what was parked first to a dead-letter queue.
func (d *driver) unpark() {
	if i, ok := d.s.FirstParked(); ok {
		r := d.m.find(d.s.Win.At(i).Seq)
		if r == nil || r.state != Parked {
			d.failf("%v is not parked", r)
		}
		d.s.TakeOut(i)
		d.m.leaves(r)
		d.s.Remove(i)
		d.s.Counters().DeadLettered++
		d.m.dead++
		d.m.remove(r)
	}
}

// settleOld settles what was settled, or has lost its message.
func (d *driver) settleOld() {
	stamps := make([]uint64, 0, len(d.m.refs))
	for stamp, how := range d.m.refs {
		if how != "" {
			stamps = append(stamps, stamp)
		}
	}
	if len(stamps) == 0 {
		return
	}
	slices.Sort(stamps)
	ref := message.Ref{Stamp: stamps[d.arg(len(stamps))], Block: int32(d.arg(4))}
	want := message.ErrSettled
	if d.m.refs[ref.Stamp] == "lost" {
		want = message.ErrStale
	}
	if _, err := d.s.Settle(ref, message.Verdict{Cause: message.Acked}, d.now); !errors.Is(err, want) {
		d.failf("settling stamp %d again: %v, want %v", ref.Stamp, err, want)
	}
	if _, ok := d.s.Deadline(ref, d.now); ok {
		d.failf("stamp %d owns a message still", ref.Stamp)
	}
}

// clockFor returns a clock for stores.
func clockFor(t testing.TB) *message.Clock {
	clock, err := message.NewClock()
	require.NoError(t, err)
	return clock
}
