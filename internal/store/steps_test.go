package store

import (
	"errors"
	"math"
	"math/rand/v2"
	"slices"
	"testing"

	"github.com/gofanout/fanout/internal/lease"
	"github.com/gofanout/fanout/internal/message"
	"github.com/gofanout/fanout/internal/settings"
)

// steps are what a program of a driver may do, by how often.
var steps = []struct {
	name  string
	often int
	run   func(d *driver)
}{
	{"publish", 16, (*driver).publish},
	{"take", 12, (*driver).take},
	{"settle", 14, (*driver).settle},
	{"settle again", 3, (*driver).settleOld},
	{"extend", 3, (*driver).extend},
	{"deadline", 1, (*driver).deadline},
	{"tick", 6, func(d *driver) { d.tick(d.now + int64(d.arg(4))) }},
	{"tick at the next instant", 5, func(d *driver) {
		if at, ok := d.m.nextDue(); ok {
			d.tick(max(d.now, at))
		}
	}},
	{"prefetch", 5, func(d *driver) { d.w.prefetch() }},
	{"step", 8, func(d *driver) { d.w.step() }},
	{"leave", 1, func(d *driver) { d.w.leave() }},
	{"look", 2, (*driver).look},
	{"take back", 1, func(d *driver) {
		if got, want := d.s.TakeAllBack(), d.m.takeBack(); got != want {
			d.failf("took back %t, want %t", got, want)
		}
	}},
	{"spill", 1, func(d *driver) { d.s.Spill() }},
	{"unfold", 1, func(d *driver) { d.s.Unfold(d.arg(4)) }},
	{"evict", 3, (*driver).evict},
	{"unpark", 1, (*driver).unpark},
	{"redrive", 1, (*driver).redrive},
	{"replay", 1, (*driver).replay},
	{"give back", 1, (*driver).giveBack},
	{"resize", 1, (*driver).resize},
	{"join", 1, (*driver).join},
	{"drain", 1, func(d *driver) { d.s.Draining, d.m.draining = true, true }},
	{"purge", 1, (*driver).purge},
}

// run runs a program to its end, and ends the queue then.
func (d *driver) run(more func() bool) {
	sum := 0
	for _, s := range steps {
		sum += s.often
	}
	for more() {
		at, k := d.arg(sum), 0
		for ; at >= steps[k].often; k++ {
			at -= steps[k].often
		}
		if name := steps[k].name; name != "drain" && name != "purge" || d.arg(8) == 0 {
			steps[k].run(d)
			d.check(name)
		}
	}
	d.end()
}

func (d *driver) extend() {
	rs := d.m.inFlight()
	if len(rs) == 0 {
		return
	}
	r := rs[d.arg(len(rs))]
	until := d.now + int64(d.arg(30))
	if err := d.s.Extend(r.ref, until, d.now); err != nil {
		d.failf("extend %d: %v", r.seq, err)
	}
	r.inStep, r.unplaced, r.instant = false, r.unplaced || until > r.instant, max(r.instant, until)
}

func (d *driver) deadline() {
	for _, r := range d.m.inFlight() {
		at, ok := d.s.Deadline(r.ref, d.now)
		if r.inStep = false; !ok || at != r.instant {
			d.failf("the deadline of %d is %d, %t, want %d", r.seq, at, ok, r.instant)
		}
	}
}

// tick goes to an instant, and has all come that is due by then.
func (d *driver) tick(to int64) {
	d.now = to
	for {
		if e, ok := d.s.TimeOutLease(d.now, d.each); ok {
			d.timedOut(&e)
			continue
		}
		i, timedOut, ok := d.s.PopDue(d.now)
		if !ok {
			break
		}
		r := d.m.find(d.s.Win.At(i).Seq)
		if !d.m.comes(r, d.now) || timedOut != (r.state == InFlight) {
			d.failf("%v comes by time, timed out %t", r, timedOut)
		}
		if timedOut {
			d.s.Stale.Add(d.s.Win.Meta(i).Stamp)
			v := message.Verdict{Cause: message.TimedOut}
			e := d.s.End(i, v, d.now)
			d.ended(&e, r, v)
			continue
		}
		d.m.leaves(r)
		d.m.becomes(r, Due)
	}
	if at, ok := d.m.nextDue(); ok && at <= d.now {
		d.failf("what is due at %d has not come", at)
	}
}

// timedOut does what follows when messages of a lease have timed out.
func (d *driver) timedOut(e *lease.TimedOut[int]) {
	for first, n := range e.Runs() {
		for stamp := first; stamp < first+uint64(n); stamp++ {
			k := slices.IndexFunc(d.m.all, func(r *record) bool { return r.state == InFlight && r.ref.Stamp == stamp })
			if k < 0 || !d.m.comes(d.m.all[k], d.now) {
				d.failf("stamp %d times out of %v", stamp, d.m.inFlight())
			}
			r, v := d.m.all[k], message.Verdict{Cause: message.TimedOut}
			if !e.Several {
				ended := d.s.Land(&e.Out, v, d.now)
				d.ended(&ended, r, v)
				continue
			}
			if then := d.m.ends(r, v, d.now); then != Retries || d.each {
				d.failf("%v timed out together with others: %d", r, then)
			}
			r.state = Due // what waits in a lease is not taken back
			d.m.due = append(d.m.due, r)
		}
	}
}

// look is the timer's look at the leases.
func (d *driver) look() {
	want := d.w.look()
	again := d.s.Rest(d.now, checkAge, spareAge)
	busy := d.m.began != d.looked
	d.looked = d.m.began
	soon := d.now + spareAge
	switch {
	case busy && again == soon && (want == 0 || want > soon): // for the memory that it has kept
	case again != want:
		d.failf("looks again at %d, want %d, busy %t", again, want, busy)
	case again == 0 && d.s.Leases.Spare():
		d.failf("keeps spare memory, and does not look again")
	}
	if again == 0 && d.s.Leases != nil && d.s.Leases.Held() == 0 && len(d.s.Leases.Leases()) == 0 {
		d.failf("keeps an empty table, and does not look again")
	}
}

// evict has what has expired make room.
func (d *driver) evict() {
	if !d.s.Evicts {
		return
	}
	at, ok := d.s.FirstExpiry(d.now, d.own)
	first := int64(math.MaxInt64)
	for _, r := range d.m.all {
		if r.state != InFlight && r.state != Parked && !r.waiting {
			first = min(first, d.m.expiry(r))
		}
	}
	if first < math.MaxInt64 && (!ok || at > first) || ok && first > d.now && at <= d.now {
		d.failf("the first expires at %d, %t, want %d", at, ok, first)
	}
	last := int64(0)
	for {
		i, ok := d.s.PopExpired(d.now)
		if !ok {
			break
		}
		r := d.m.find(d.s.Win.At(i).Seq)
		if r == nil || r.state == InFlight || r.state == Parked || r.waiting || d.m.expiry(r) > d.now || d.m.expiry(r) < last {
			d.failf("%v is evicted", r)
		}
		last = d.m.expiry(r)
		d.m.leaves(r)
		d.expire(i, r)
	}
	for _, r := range d.m.all {
		if r.state != InFlight && r.state != Parked && !r.waiting && d.m.expiry(r) <= d.now {
			d.failf("%v was not evicted", r)
		}
	}
}

// redrive adds a message that died before.
func (d *driver) redrive() {
	if d.s.Count(); d.s.Letters || d.s.Room() <= 0 || d.log != nil {
		return
	}
	d.seq++
	r := &record{seq: d.seq, at: d.now, born: d.now + 3}
	d.m.add(r)
	d.s.Counters().Redriven++
	d.s.Admit(Held[int]{Item: message.Item[int]{Seq: r.seq, At: r.at, Ext: &message.Extra{Born: r.born}}}, Due)
	d.m.becomes(r, Due)
}

// giveBack gives a ready message back to whom it came from, an engine.
func (d *driver) giveBack() {
	if !d.entry {
		return
	}
	r := d.m.backlog()
	if len(d.m.due) > 0 {
		r = d.m.due[0]
	}
	i, ok := d.s.PopReady()
	if ok != (r != nil) || ok && d.s.Win.At(i).Seq != r.seq {
		d.failf("gave back entry %d, %t, want %v", i, ok, r)
	}
	if ok {
		d.s.CountOut(i)
		d.s.Remove(i)
		d.s.Counters().Dropped++
		d.m.leaves(r)
		d.m.remove(r)
		d.m.dropped++
	}
}

// resize is what happens to the dead letters of a queue that is opened again.
func (d *driver) resize() {
	if d.s.Letters {
		capacity, overflow := 1+d.arg(20), []settings.Overflow{settings.Block, settings.DropOldest}[d.arg(2)]
		d.s.Resize(capacity, overflow)
		d.m.set.Capacity, d.m.set.Overflow = max(capacity, len(d.m.all)), overflow
	}
}

// join asks what of the log could be taken together.
func (d *driver) join() {
	in := d.s.InLog()
	if in == 0 {
		return
	}
	n, want := 1+d.arg(in), true
	k := 0
	d.s.Cursor.Scan(func(it *message.Item[int]) bool {
		r := d.m.find(it.Seq)
		want = r.key == "" && d.m.expiry(r) > d.now
		k++
		return want && k < n
	})
	if got := d.s.AllJoin(n, d.now); got != want {
		d.failf("%d of the log join %t, want %t", n, got, want)
	}
}

func (d *driver) purge() {
	lost := map[uint64]bool{}
	n := d.s.Purge(d.now, func(stamp uint64, _ lease.Consumer[int]) { lost[stamp] = true })
	if n != len(d.m.all) || len(lost) != len(d.m.inFlight()) {
		d.failf("purged %d, of them %d in flight; want %d, %d", n, len(lost), len(d.m.all), len(d.m.inFlight()))
	}
	for _, r := range d.m.inFlight() {
		if !lost[r.ref.Stamp] {
			d.failf("%v was purged, and nobody told", r)
		}
		d.m.refs[r.ref.Stamp] = "lost"
	}
	for _, r := range d.m.all {
		d.m.leaves(r)
	}
	d.m.all, d.m.due, d.m.heads, d.m.lines = nil, nil, map[string]*record{}, map[string][]*record{}
	d.m.dropped += uint64(n)
}

// end closes the store, which holds all that the model does.
func (d *driver) end() {
	d.s.LandAll(d.now)
	d.s.Spill()
	var got, want []uint64
	for _, i := range d.s.InOrder() {
		got = append(got, d.s.Win.At(i).Seq)
	}
	for _, r := range d.m.all {
		want = append(want, r.seq)
	}
	if !slices.Equal(got, want) {
		d.failf("it ends with %v, want %v", got, want)
	}
	d.s.Close()
	if _, err := d.s.Settle(message.Ref{Stamp: 1}, message.Verdict{Cause: message.Acked}, d.now); !errors.Is(err, message.ErrClosed) {
		d.failf("settling in a closed store: %v", err)
	}
	if d.s.Empty(); d.s.Held() > 0 || d.s.n != [States]int32{} {
		d.failf("an empty store holds %d", d.s.Held())
	}
}

func TestModel(t *testing.T) {
	clock := clockFor(t)
	for seed := range uint64(600) {
		rng := rand.New(rand.NewPCG(seed, 7))
		d := newDriver(t, clock, rng.IntN)
		n := 0
		d.run(func() bool { n++; return n <= 300 })
	}
}

// FuzzStore: a store does what its model does.
func FuzzStore(f *testing.F) {
	for seed := range uint64(8) {
		rng := rand.New(rand.NewPCG(seed, 2))
		program := make([]byte, 400)
		for k := range program {
			program[k] = byte(rng.Uint32())
		}
		f.Add(program)
	}
	clock := clockFor(f)
	f.Fuzz(func(t *testing.T, program []byte) {
		program = program[:min(len(program), 2000)]
		d := newDriver(t, clock, func(n int) int {
			if len(program) == 0 {
				return 0
			}
			b := int(program[0])
			program = program[1:]
			return b * n / 256
		})
		d.run(func() bool { return len(program) > 0 })
	})
}
