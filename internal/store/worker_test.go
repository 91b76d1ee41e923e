package store

import (
	"slices"

	"github.com/gofanout/fanout/internal/lease"
	"github.com/gofanout/fanout/internal/message"
)

// A worker goes through leases in step.
type worker struct {
	d       *driver
	l       *lease.Lease[int]
	base    uint64 // stamp of the first
	items   []message.Item[int]
	records []*record
	taken   int64
	vis     int64
	current int
	started int64 // of the current one
	forgets int
}

func (w *worker) Message(_ *lease.Lease[int], k int) message.Item[int] { return w.items[k] }
func (w *worker) At(_ *lease.Lease[int], k int) int64                  { return w.items[k].At }
func (w *worker) Began(int64) int64                                    { return w.started }
func (w *worker) ForgetDoneLocked()                                    { w.forgets++ }

func (w *worker) ref(k int) message.Ref {
	return message.Ref{Stamp: w.base + uint64(k), Block: w.d.s.Leases.First(w.l).Block, Attempt: 1}
}

// prefetch takes messages of the log into a lease, if nothing else comes first.
func (w *worker) prefetch() {
	d := w.d
	if d.log == nil || w.l != nil || d.s.Due() > 0 || d.s.In(Backlogged) > 0 || d.s.InLog() == 0 {
		return
	}
	run := d.s.Cursor.Run(min(d.s.InLog(), 1+d.arg(8)))
	n := d.s.Joins(run, d.now+checkAge)
	if n == 0 {
		return
	}
	w.vis, w.taken, w.started, w.current = int64(3+d.arg(12)), d.now, d.now, 0
	w.items, w.records = slices.Clone(run[:n]), nil
	w.l = d.s.OpenLeases().InStep(w, n, d.now, w.vis)
	d.s.Took(n)
	w.base = d.s.Leases.First(w.l).Stamp
	for k := range n {
		r, expired := d.m.next(d.now)
		if r == nil || expired || r.seq != w.items[k].Seq || d.m.expiry(r) <= d.now+checkAge {
			d.failf("prefetched %d, want %v", w.items[k].Seq, r)
		}
		d.m.becomes(r, Backlogged)
		r.waiting = true
		w.records = append(w.records, r)
	}
	d.m.begins(w.records[0], w.ref(0), d.now, w.vis, true)
}

// step acknowledges the current message, unless somebody has settled it, and begins the next.
func (w *worker) step() {
	d := w.d
	if w.l == nil {
		return
	}
	r, waits := w.records[w.current], w.current+1 < len(w.records) && w.records[w.current+1].waiting
	owns := r.state == InFlight && r.ref == w.ref(w.current)
	p := w.l.Word.Place()
	if (owns && r.inStep) != (!p.Acked() && !p.Detached()) || waits != (p.Waiting() > 0) {
		d.failf("the worker is at %d, waiting %d, acked %t, detached %t; want %v", p.Stamp(), p.Waiting(), p.Acked(), p.Detached(), r)
	}
	w.started = d.now
	next, ok := w.l.Word.Step(p)
	if ok != (owns && r.inStep && waits) || ok && next.Stamp() != p.Stamp()+1 {
		d.failf("the worker steps %t, want %v to wait %t", ok, r, waits)
	}
	if owns {
		if !ok && !d.s.Leases.Ack(r.ref) {
			d.failf("%v is not acknowledged", r)
		}
		d.s.Tally()
		d.m.ends(r, message.Verdict{Cause: message.Acked}, d.now)
	}
	if !waits {
		w.leave()
		return
	}
	if !ok && !d.s.Leases.Next(w.l) {
		d.failf("nothing is next behind %v", r)
	}
	w.current++
	d.m.begins(w.records[w.current], w.ref(w.current), d.now, w.vis, true)
}

// leave ends the lease: what waits is ready, and what is in flight stays so.
func (w *worker) leave() {
	if w.l == nil {
		return
	}
	w.d.s.TakeBack(w.l)
	w.d.m.takeBack()
	w.d.s.Leases.End(w.l, w.d.now)
	w.d.s.Tally()
	w.detach()
	w.l = nil
}

// detach says that somebody has looked at the current message.
func (w *worker) detach() {
	if r := w.records[w.current]; r.state == InFlight && r.inStep {
		r.inStep, r.instant = false, r.start+w.vis
	}
}

// look does what the timer's look does to the worker, and returns when it looks again.
func (w *worker) look() (again int64) {
	if w.l == nil {
		return 0
	}
	r := w.records[w.current]
	waits := w.current+1 < len(w.records) && w.records[w.current+1].waiting
	if !waits && !(r.state == InFlight && r.inStep) {
		return 0
	}
	if at := w.taken + min(checkAge, w.vis); at > w.d.now {
		return at
	}
	w.detach()
	w.d.m.takeBack()
	return 0
}
