package main

import (
	"context"
	"errors"
	"math/rand/v2"
	"time"

	"github.com/gofanout/fanout"
)

// A letterReader takes messages from a dead-letter queue, a little at a time, so
// that it is full now and then.
type letterReader struct {
	q    *fanout.Queue[ticket]
	a    *arena
	b    *book // nil for a shared queue
	r    *rand.Rand
	stop <-chan struct{}
}

// run takes letters until the queue is closed or stop is. Started by live and
// populate; joined by play.
func (l *letterReader) run() {
	for !ended(l.stop) {
		wait(micros(l.r, 4000), l.stop)
		ctx, cancel := context.WithTimeout(context.Background(), micros(l.r, 20_000))
		d, err := l.q.Receive(ctx)
		cancel()
		switch {
		case errors.Is(err, fanout.ErrClosed):
			return
		case err == nil:
			l.read(&d)
		}
		if l.b != nil && l.b.finished.Load() && l.r.IntN(8) == 0 {
			return // what remains is found at the end
		}
	}
}

// read does what is done with letters.
func (l *letterReader) read(d *fanout.Delivery[ticket]) {
	b := l.b
	if b == nil {
		if b = l.a.source(*d); b == nil {
			return
		}
	}
	worker := uint32(0xffff) << 8
	b.got(worker, d, letterGot)
	switch n := l.r.IntN(10); {
	case n < 6:
		l.note(b, worker, d, d.Ack(context.Background()), letterAcked)
	case n < 7:
		l.note(b, worker, d, d.Nack(context.Background()), letterBack)
	case n < 8:
		l.note(b, worker, d, d.Settle(context.Background(), fanout.Permanent(errFatal)), letterBack)
	case n < 9:
		wait(time.Until(d.Deadline())+time.Millisecond, l.stop)
		l.note(b, worker, d, d.Ack(context.Background()), letterAcked)
	} // else it is forgotten
}

func (l *letterReader) note(b *book, worker uint32, d *fanout.Delivery[ticket], err error, what deed) {
	switch r := refusal(err); r {
	case 0:
		b.enter(worker, d, what, 0)
	case stale, closed:
		b.enter(worker, d, refusedAs, r)
	default:
		b.enter(worker, d, wronglyDone, r)
	}
}
