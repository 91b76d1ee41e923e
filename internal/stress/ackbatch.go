package main

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"github.com/gofanout/fanout"
)

// An ackBatch is a call of AckBatch: what is given to it, and what must become
// of each.
type ackBatch struct {
	b      *book
	worker uint32
	ds     []fanout.Delivery[ticket]
	must   []fate
}

// A fate is what AckBatch must make of a delivery.
type fate struct {
	kind   fateKind
	before int // of again: where the delivery stands first
}

type fateKind uint8

const (
	free     fateKind = iota // acknowledged, or too late
	hadEnded                 // it was stale before the call
	hadAcked                 // it was acknowledged before the call
	again                    // it stands earlier in the same call
	strange                  // it is another queue's
)

func (a *ackBatch) add(d fanout.Delivery[ticket], must fate) {
	a.ds, a.must = append(a.ds, d), append(a.must, must)
}

// addAgain adds a delivery once more that stands at before, unless another of
// its message's does already.
func (a *ackBatch) addAgain(before int) {
	for k, must := range a.must {
		if must.kind == again && a.ds[k].Body == a.ds[before].Body {
			return
		}
	}
	a.add(a.ds[before], fate{kind: again, before: before})
}

// together is the call of a batch handler that acknowledges by AckBatch what it
// can, nil if this run of it does not.
func (b *book) together(worker uint32, ds []fanout.Delivery[ticket]) *ackBatch {
	dc := dice(mix(b.a.w.seed, forBatch, b.a.n, b.n, uint64(ds[0].Body), uint64(ds[0].Attempt()), uint64(len(ds))))
	if b.spec.inOrder || dc.roll(3) > 0 {
		return nil
	}
	return &ackBatch{b: b, worker: worker}
}

// call acknowledges, and enters what became of each.
func (a *ackBatch) call() []uint8 { return a.enter(a.b.q.AckBatch(context.Background(), a.ds...)) }

// enter enters each delivery's own outcome: what it was refused as, or 0.
func (a *ackBatch) enter(err error) []uint8 {
	w, b := a.b.a.w, a.b
	as, what := a.outcomes(err)
	if what != "" {
		w.complain("fenced", "AckBatch of queue %s, topic %s: %s: %v", b.name, b.a.name, what, err)
	}
	for k, r := range as {
		switch must := a.must[k]; {
		case must.kind == strange:
			if r != foreign {
				w.complain("fenced", "AckBatch of queue %s: %s of another queue: %s", b.name, a.ds[k].ID(), refusalNames[r])
			}
		case must.kind == free:
			b.noted(a.worker, &a.ds[k], r, fanout.Acked)
		case a.allowed(must, r, as):
			b.enter(a.worker, &a.ds[k], refusedAs, r)
		default:
			b.enter(a.worker, &a.ds[k], wronglyDone, r)
		}
	}
	w.sum.batchAcked(as)
	return as
}

// allowed reports whether a delivery that must be refused may be refused as r.
func (a *ackBatch) allowed(must fate, r uint8, as []uint8) bool {
	if r == closed {
		return true
	}
	switch must.kind {
	case hadEnded:
		return r == stale
	case hadAcked:
		return r == settled
	case again:
		if before := as[must.before]; before != 0 {
			return r == before
		}
		return r == settled
	}
	return false
}

// outcomes reads the error: what each delivery was refused as, or 0. It says what
// is wrong with the error, if anything is.
func (a *ackBatch) outcomes(err error) (as []uint8, what string) {
	as = make([]uint8, len(a.ds))
	if err == nil {
		return as, ""
	}
	var failed *fanout.BatchError
	if !errors.As(err, &failed) || len(failed.Failed) == 0 {
		return as, "the error names nothing"
	}
	for k, err := range failed.Failed {
		switch {
		case k < 0 || k >= len(a.ds):
			what = fmt.Sprintf("an error for delivery %d of %d", k, len(a.ds))
		case !strings.Contains(err.Error(), a.ds[k].ID()):
			what = fmt.Sprintf("the error of delivery %d does not name %s", k, a.ds[k].ID())
		default:
			as[k] = refusal(err)
		}
	}
	return as, what
}
