package notice

import (
	"sync"
	"time"

	"github.com/gofanout/fanout/internal/callback"
)

// A Reporter tells a queue's events to the listeners. It keeps the log to a line a second
// for each kind: the first of a kind is logged at once, what comes within a second after
// is counted, and told by a one-shot timer.
//
// Its mutex guards the fields below it, is held for a few stores and is the last of all
// locks.
type Reporter struct {
	to    *Listeners
	queue string

	mu      sync.Mutex
	kinds   *[Kinds]backlog // made when there is first something to log
	timer   *time.Timer
	armed   bool  // a flush is to come
	at      int64 // when, while it is armed
	stopped bool
}

// backlog is what of a kind has not been logged yet.
type backlog struct {
	until int64 // no line before this instant
	count int
	last  Event
}

const logEvery = int64(time.Second)

// Init says whom the reporter tells, and of which queue. It is called once, before all else.
func (r *Reporter) Init(to *Listeners, queue string) { r.to, r.queue = to, queue }

// Tell calls the hook and logs. No lock is held.
func (r *Reporter) Tell(k Kind, e Event) {
	e.Topic, e.Queue = r.to.Topic, r.queue
	if k == StuckStack {
		if e.Stack = r.to.stackOf(e.Goroutine); e.Stack == "" {
			return
		}
	}
	if lines[k] != "" {
		defer r.toLog(k, e) // even if the hook ends the goroutine
	}
	r.to.Call(k, &e)
}

// CallHook calls the hooks of a kind that is not logged. It keeps nothing of e. No lock is
// held.
func (r *Reporter) CallHook(k Kind, e *Event) {
	e.Topic, e.Queue = r.to.Topic, r.queue
	r.to.Call(k, e)
}

// toLog logs an event, now or later.
func (r *Reporter) toLog(k Kind, e Event) {
	r.mu.Lock()
	if r.kinds == nil {
		r.kinds = new([Kinds]backlog)
	}
	b := &r.kinds[k]
	now := r.to.Clock.Now()
	if now < b.until && b.until <= now+logEvery && !r.stopped { // else the clock is that of another bubble
		b.count += e.Count
		b.last = e
		r.armLocked(now, b.until)
		r.mu.Unlock()
		return
	}
	e.Count += b.count
	*b = backlog{until: now + logEvery}
	r.mu.Unlock()
	r.log(k, e)
}

// armLocked has a flush come at the given instant at the latest.
func (r *Reporter) armLocked(now, at int64) {
	switch {
	case !r.armed:
		r.armed = true
		r.to.Alive.Add(1)
	case r.at <= at || !r.timer.Stop(): // it comes before, or is about to run, and then arms itself again
		return
	}
	r.at = at
	r.timer = time.AfterFunc(time.Duration(at-now), r.flush)
}

// flush logs what has waited for its second. Run by the timer; the topic's end waits for
// it by Alive.
func (r *Reporter) flush() {
	defer r.to.Alive.Release()
	r.flushDue(false)
}

func (r *Reporter) flushDue(all bool) {
	var due [Kinds]backlog
	r.mu.Lock()
	now := r.to.Clock.Now()
	next := int64(-1)
	for k := range Kinds {
		if r.kinds == nil {
			break
		}
		b := &r.kinds[k]
		switch {
		case b.count == 0:
		case all || b.until <= now:
			due[k] = *b
			*b = backlog{until: now + logEvery}
		case next < 0 || b.until < next:
			next = b.until
		}
	}
	if !all {
		r.armed = false
		if next >= 0 && !r.stopped { // else Stop logs the rest
			r.armLocked(now, next)
		}
	}
	r.mu.Unlock()
	callback.Each(len(due), func(k int) {
		if b := &due[k]; b.count > 0 {
			b.last.Count = b.count
			r.log(Kind(k), b.last)
		}
	})
}

// Stop logs what is left, and from now on everything at once. It ends the timer.
func (r *Reporter) Stop() {
	r.mu.Lock()
	r.stopped = true
	ended := r.armed && r.timer.Stop()
	if ended {
		r.armed = false
	}
	r.mu.Unlock()
	if ended {
		defer r.to.Alive.Release()
	}
	r.flushDue(true)
}

// Armed reports whether a timer is to log something.
func (r *Reporter) Armed() bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.armed
}

func (r *Reporter) log(k Kind, e Event) {
	r.to.logWith(logContext(&e), lines[k], e.attrs())
}
