package main

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"time"

	"github.com/gofanout/fanout"
)

// A slot opens one queue after the other, and does to each what is done to
// queues.
type slot struct {
	a *arena
	n uint64
	r *rand.Rand
	// constant: its first queue is there until the end.
	constant bool

	b     *book
	subs  []*fanout.Subscriber[ticket]
	leave context.CancelFunc // for those who receive
}

// run is a slot's life. Started by populate; ends when stop is closed; joined
// by play and by the ending.
func (s *slot) run() {
	for n := uint64(0); !ended(s.a.stop); n++ {
		if !s.live(n) {
			return
		}
	}
}

// live is the life of a queue. It reports whether there may be another.
func (s *slot) live(n uint64) bool {
	a, r := s.a, s.r
	sp := randomSpec(r, a.traits)
	// No name comes twice: a queue that is opened again has the dead letters of the
	// one before, and the ledger tells queues apart by their names.
	name := fmt.Sprintf("q%d.%d", s.n, n)
	s.b = a.newBook(name, sp, s.n<<20|n)
	q, err := a.top.OpenQueue(context.Background(), name, sp.options(a.shared)...)
	if err != nil {
		a.forget(s.b)
		if !errors.Is(err, fanout.ErrClosed) {
			a.w.complain("errors", "OpenQueue %s: %v", name, err)
		}
		return false
	}
	s.b.openRet = a.w.now()
	s.b.q = q
	s.b.opened.Store(true)
	a.w.sum.opened.Add(1)
	ctx, cancel := context.WithCancel(context.Background())
	s.leave = cancel
	defer cancel()
	s.subs = s.subs[:0]
	for range sp.push {
		s.subscribe()
	}
	for k := range sp.pull {
		p := &puller{c: s.consumer(1), r: stream(a.w.seed, forPuller, a.n, s.b.n, uint64(k)), ctx: context.Background(), most: 8}
		if sp.inOrder && a.traits.keys {
			p.most = 1 // of a batch the second with the same key comes later
		}
		a.consumers.Go(p.run)
	}
	if sp.letters && !sp.shared {
		l := &letterReader{q: q.DeadLetters(), a: a, b: s.b, r: stream(a.w.seed, forLetters, a.n, s.b.n), stop: a.done}
		a.consumers.Go(l.run)
	}
	until := a.next.Load() + int64(1+r.IntN(len(a.messages)))
	// A queue full of parked messages, with nobody who reads the letters, would
	// stop all.
	patience := time.Now().Add(micros(r, 1_000_000))
	constant := s.constant && sp.letters
	for (constant || a.next.Load() < until && time.Now().Before(patience)) && !ended(a.stop) {
		wait(micros(r, 12_000), a.stop)
		s.meddle(ctx)
	}
	if ended(a.stop) {
		s.resume()
		return false
	}
	s.close()
	return true
}

func (s *slot) consumer(limit int) *consumer {
	return &consumer{b: s.b, number: s.b.consumers.Add(1), limit: limit}
}

// subscribe adds a subscriber.
func (s *slot) subscribe() {
	sp := s.b.spec
	c := s.consumer(sp.concurrency)
	var sub *fanout.Subscriber[ticket]
	var err error
	o := sp.subscriberOptions()
	if sp.around {
		o = append(o, fanout.WithHandlerInterceptor(c.around))
	}
	if sp.rate > 0 {
		s.b.limited = append(s.b.limited, c)
	}
	if sp.batch > 0 {
		sub, err = s.b.q.SubscribeBatch(context.Background(), c.several, append(o, fanout.WithBatchSize(sp.batch))...)
	} else {
		sub, err = s.b.q.Subscribe(context.Background(), c.one, o...)
	}
	switch {
	case err == nil:
		s.subs = append(s.subs, sub)
	case !errors.Is(err, fanout.ErrClosed):
		s.a.w.complain("errors", "Subscribe to %s: %v", s.b.name, err)
	}
}

// meddle does one thing to the queue, if its kind allows.
func (s *slot) meddle(ctx context.Context) {
	b, r, sp := s.b, s.r, s.b.spec
	switch n := r.IntN(4); {
	case n == 0 && sp.pauses:
		if b.q.Pause(ctx) == nil {
			wait(micros(r, 3000), s.a.stop)
			s.resume()
		}
	case n == 1 && sp.purges && r.IntN(4) == 0:
		b.purges = true
		n, err := b.q.Purge(ctx)
		if err == nil {
			b.purged += n
		}
	case n == 2 && sp.redrives:
		s.redrive()
	case n == 3 && sp.unsubscribe && len(s.subs) > 0:
		k := r.IntN(len(s.subs))
		short, cancel := context.WithTimeout(context.Background(), micros(r, 3000))
		_ = s.subs[k].Shutdown(short)
		cancel()
		s.subs = append(s.subs[:k], s.subs[k+1:]...)
		s.subscribe()
	}
}

func (s *slot) resume() { _ = s.b.q.Resume(context.Background()) }

// redrive sends dead letters back, all or some.
func (s *slot) redrive() {
	r := s.r
	ctx, cancel := context.WithTimeout(s.a.publishing, micros(r, 5000))
	defer cancel()
	var o []fanout.RedriveOption
	if half := r.IntN(2); r.IntN(2) == 0 {
		o = append(o, fanout.RedriveIf(func(d fanout.Delivery[ticket]) bool { return int(d.Body)%2 == half }))
	}
	n, err := s.b.q.Redrive(ctx, o...)
	s.b.moved += n
	if err != nil && !expected(err) {
		s.a.w.complain("errors", "Redrive of %s: %v", s.b.name, err)
	}
}

// close closes the queue and waits until its subscribers are home.
func (s *slot) close() {
	b := s.b
	call := s.a.w.now()
	if err := b.q.Close(); err != nil {
		s.a.w.complain("errors", "Close of %s: %v", b.name, err)
	}
	b.closeCall, b.closeRet = call, s.a.w.now()
	b.finished.Store(true)
	s.a.w.sum.closed.Add(1)
	for _, sub := range s.subs {
		<-sub.Done()
	}
}

// forget takes back the book of a queue that was not opened.
func (a *arena) forget(b *book) {
	a.mu.Lock()
	defer a.mu.Unlock()
	for k := range a.books {
		if a.books[k] == b {
			a.books = append(a.books[:k], a.books[k+1:]...)
			break
		}
	}
}
