package admission

import (
	"time"

	"github.com/gofanout/fanout/internal/dedup"
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
func (a *Admission[T]) dropDuplicatesLocked(o *offer[T]) {
	if !o.dedup {
		return
	}
	var batch map[string]bool
	var moved []int // the new index of each item, or -1; nil while none is taken out
	kept := o.items[:0]
	for k := range o.items {
		it := &o.items[k]
		duplicate := false
		if it.Ext != nil && it.Ext.Dedup != "" {
			id := it.Ext.Dedup
			until := a.dedup.Until(id)
			duplicate = batch[id] || until > 0 && a.Now() < until
			if len(o.items) > 1 && !duplicate {
				if batch == nil {
					batch = make(map[string]bool)
				}
				batch[id] = true
			}
		}
		switch {
		case duplicate && moved == nil:
			moved = make([]int, len(o.items))
			for j := range k {
				moved[j] = j
			}
			fallthrough
		case duplicate:
			o.duplicates++
			moved[k] = -1
			continue
		case moved != nil:
			moved[k] = len(kept)
		}
		kept = append(kept, *it)
	}
	if moved == nil {
		return
	}
	clear(o.items[len(kept):])
	o.items = kept
	o.Renumber(moved)
}

// countDuplicatesLocked counts an offer's duplicates, now that the rest of it
// is published: one that is refused has changed nothing.
func (a *Admission[T]) countDuplicatesLocked(o *offer[T]) {
	if o.dedup {
		a.dedup.duplicates += o.duplicates
		o.duplicates = 0
	}
}
