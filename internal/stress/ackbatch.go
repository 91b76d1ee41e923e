package main

import (
	"context"
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

// wanted are the refusals that each fate is taken for, the likeliest first.
var wanted = [...][]uint8{
	strange:  {foreign},
	hadEnded: {stale, closed},
	hadAcked: {settled, closed},
	again:    {settled, closed, stale},
	free:     {closed, stale, settled, otherwise, foreign},
}

// outcomes reads the joined error. It names IDs only, and there may be several
// deliveries of one message: then those that must be refused get the refusals
// that they must get first, which is certain if not more than one of a message's
// stands there again. It says what is wrong with the error, if anything is.
func (a *ackBatch) outcomes(err error) (as []uint8, what string) {
	named := map[string][]uint8{}
	for _, e := range parts(err) {
		id, ok := idIn(e)
		if !ok {
			return make([]uint8, len(a.ds)), fmt.Sprintf("%q names nothing", e)
		}
		named[id] = append(named[id], refusal(e))
	}
	as = make([]uint8, len(a.ds))
	for _, kind := range []fateKind{strange, hadEnded, hadAcked, again, free} {
		for k := range a.ds {
			if a.must[k].kind != kind {
				continue
			}
			id := a.ds[k].ID()
			as[k], named[id] = pick(named[id], wanted[kind])
		}
	}
	for id, more := range named {
		if len(more) > 0 {
			what = fmt.Sprintf("%d errors too many name %q", len(more), id)
		}
	}
	return as, what
}

// pick takes the refusal out of have that stands first in want, 0 if none does.
func pick(have, want []uint8) (r uint8, rest []uint8) {
	for _, r := range want {
		for k := range have {
			if have[k] == r {
				return r, append(have[:k], have[k+1:]...)
			}
		}
	}
	return 0, have
}

// parts returns the errors that were joined.
func parts(err error) []error {
	if err == nil {
		return nil
	}
	if j, ok := err.(interface{ Unwrap() []error }); ok {
		return j.Unwrap()
	}
	return []error{err}
}

// idIn returns the message's ID that an error of AckBatch names.
func idIn(err error) (id string, ok bool) {
	text, ok := strings.CutPrefix(err.Error(), "fanout: acknowledge ")
	if !ok {
		return "", false
	}
	id, _, ok = strings.Cut(text, ": ")
	return id, ok
}
