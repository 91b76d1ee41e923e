package admission

import (
	"time"

	"github.com/gofanout/fanout/internal/dedup"
	"github.com/gofanout/fanout/internal/offer"
)

// A deduplicator is a topic's deduplication IDs, and the timer that gives back the memory
// of a topic that gets nothing more: it is armed while anything is remembered. The topic's
// Mu guards it.
type deduplicator struct {
	*dedup.IDs
	duplicates uint64

	timer *time.Timer
	armed bool
}

// armDedupLocked sees to it that what is remembered will be forgotten.
func (a *Admission[T]) armDedupLocked(now int64) {
	d := a.dedup
	wait, ok := d.Wait(now)
	if d.armed || !ok || a.state == topicClosed {
		return
	}
	d.armed = true
	a.Live.Add(1)
	d.timer = time.AfterFunc(wait, a.forgetIDs)
}

// forgetIDs is the timer's function. Done waits for it.
func (a *Admission[T]) forgetIDs() {
	a.Mu.Lock()
	a.dedup.armed = false
	now := a.Now()
	a.dedup.Expire(now)
	a.armDedupLocked(now)
	a.Mu.Unlock()
	a.Release()
}

// stopDedupLocked forgets everything.
func (a *Admission[T]) stopDedupLocked() {
	d := a.dedup
	if d == nil {
		return
	}
	d.Clear()
	if d.armed && d.timer.Stop() {
		d.armed = false
		a.Release() // not the last: the topic itself is still counted
	}
}

// dropDuplicatesLocked takes out of an offer what was published before, or
// stands earlier in the same batch. They count once the offer is published.
func (a *Admission[T]) dropDuplicatesLocked(o *offer.Offer[T]) {
	if !o.Dedup {
		return
	}
	o.DropDuplicates(func(id string) bool {
		until := a.dedup.Until(id)
		return until > 0 && a.Now() < until
	})
}

// countDuplicatesLocked counts an offer's duplicates, now that the rest of it
// is published: one that is refused has changed nothing.
func (a *Admission[T]) countDuplicatesLocked(o *offer.Offer[T]) {
	if o.Dedup {
		a.dedup.duplicates += o.Duplicates
	}
}
