package main

import (
	"encoding/binary"
	"errors"
	"fmt"
	"math/rand/v2"
	"sync/atomic"
	"time"
)

// A payload is a message: 64 bytes, handed over by pointer.
type payload struct {
	word uint64 // random, so that a sum over words tells which messages came
	raw  []byte // the message for systems that carry bytes: 64 of them, the word first
	_    [32]byte
}

// wordOf reads a message that came as bytes; 0, which no sum survives, if it
// isn't whole.
func wordOf(raw []byte) uint64 {
	if len(raw) != 64 {
		return 0
	}
	return binary.NativeEndian.Uint64(raw)
}

const (
	chunk    = 64   // messages handed to a system at a time, and how often progress is told
	ringSize = 4096 // different messages; a multiple of chunk
	capacity = 1024 // of every queue
	window   = 1024 // messages outstanding in systems that have no bound
)

// ring holds the messages, which are published over and over. Nobody writes to
// them after this, so a system may hold on to one for as long as it likes.
var ring = func() []*payload {
	random := rand.New(rand.NewPCG(1, 2))
	ps := make([]payload, ringSize)
	out := make([]*payload, ringSize)
	for k := range ps {
		ps[k].word = random.Uint64()
		ps[k].raw = binary.NativeEndian.AppendUint64(make([]byte, 0, 64), ps[k].word)[:64]
		out[k] = &ps[k]
	}
	return out
}()

// sumOf is the sum over the first n messages published.
func sumOf(n int) (sum uint64) {
	var all uint64
	for _, m := range ring {
		all += m.word
	}
	sum = all * uint64(n/ringSize)
	for _, m := range ring[:n%ringSize] {
		sum += m.word
	}
	return sum
}

// A tally counts what one worker of one queue was given. take is the whole
// handler, of every system: an addition, an increment and a comparison. Only
// the worker touches the plain fields, until it has been joined.
type tally struct {
	sum, count uint64
	next       uint64 // the count at which reach is called
	reach      func(t *tally)
	_          [32]byte // the rest is read by others: another cache line

	progress atomic.Uint64 // count, as of the last reach
	_        [120]byte     // two lines: the neighbour is fetched too
}

// take accounts for the message with this word.
func (t *tally) take(word uint64) {
	t.sum += word
	t.count++
	if t.count >= t.next {
		t.reach(t)
	}
}

// An account is what all queues of one measurement were given. Each queue has
// one worker or several; take of a tally is called by one goroutine at a time.
type account struct {
	queues, workers int
	want            int // messages for each queue
	sum             uint64
	tallies         []tally // queue-major

	left  atomic.Int64  // queues that have not got all
	done  chan struct{} // closed when left is 0; only for single workers
	wrong atomic.Int64  // queues whose sum was wrong when they had got all
	extra atomic.Int64  // messages beyond what was published

	// Who waits for progress: publishers that are throttled, and who waits for
	// the end. A token in wake means that there may have been some.
	waiting atomic.Int32
	wake    []chan struct{}
}

// newAccount returns an account for n messages in each queue, of which at most
// waiters wait for progress at a time. With several
// workers nobody knows alone when its queue has got all: they then tell their
// progress at every message, or, if exact is false, the caller reads the
// tallies after it has joined the workers.
func newAccount(queues, workers, n, waiters int, exact bool) *account {
	a := &account{queues: queues, workers: workers, want: n, sum: sumOf(n),
		tallies: make([]tally, queues*workers), done: make(chan struct{})}
	a.left.Store(int64(queues))
	for range waiters {
		a.wake = append(a.wake, make(chan struct{}, 1))
	}
	for k := range a.tallies {
		t := &a.tallies[k]
		switch {
		case workers == 1:
			t.next, t.reach = min(chunk, uint64(n)), a.single
		case exact:
			t.next, t.reach = 1, a.several(1)
		default:
			t.next, t.reach = chunk, a.several(chunk)
		}
	}
	return a
}

// tally returns the tally of a worker.
func (a *account) tally(queue, worker int) *tally { return &a.tallies[queue*a.workers+worker] }

// single is the reach of a queue's only worker.
func (a *account) single(t *tally) {
	t.progress.Store(t.count)
	a.tell()
	switch want := uint64(a.want); {
	case t.count > want:
		a.extra.Add(1)
		t.next = t.count + 1
	case t.count == want:
		if t.sum != a.sum {
			a.wrong.Add(1)
		}
		t.next = t.count + 1
		if a.left.Add(-1) == 0 {
			close(a.done)
		}
	default:
		t.next = min(t.count+chunk, want)
	}
}

// several returns the reach of one of several workers, which tells its progress
// every n messages. It wakes those who wait less often, as each is a switch.
func (a *account) several(n uint64) func(*tally) {
	return func(t *tally) {
		t.progress.Store(t.count)
		t.next = t.count + n
		if t.count%16 == 0 {
			a.tell()
		}
	}
}

// tell wakes those who wait for progress.
func (a *account) tell() {
	if a.waiting.Load() == 0 {
		return
	}
	for _, w := range a.wake {
		select {
		case w <- struct{}{}:
		default:
		}
	}
}

// await waits, as waiter, until enough holds, which is so after some progress.
func (a *account) await(waiter int, patience time.Duration, enough func() bool) error {
	if enough() {
		return nil
	}
	a.waiting.Add(1)
	defer a.waiting.Add(-1)
	look := time.NewTicker(time.Millisecond) // not all progress is told
	defer look.Stop()
	for giveUp := time.Now().Add(patience); !enough(); {
		select {
		case <-a.wake[waiter]:
		case now := <-look.C:
			if now.After(giveUp) {
				return a.lost(patience)
			}
		}
	}
	return nil
}

// behind is how many messages the slowest queue has told to have got.
func (a *account) behind() uint64 {
	least := uint64(a.want)
	for q := range a.queues {
		var got uint64
		for w := range a.workers {
			got += a.tally(q, w).progress.Load()
		}
		least = min(least, got)
	}
	return least
}

// errLost says that a system did not deliver every message exactly once, though
// nothing failed or timed out.
var errLost = errors.New("LOST")

// wait waits until every queue has got all, and gives up after patience.
func (a *account) wait(patience time.Duration) error {
	if a.workers > 1 {
		return a.await(0, patience, func() bool { return a.behind() >= uint64(a.want) })
	}
	giveUp := time.NewTimer(patience)
	defer giveUp.Stop()
	select {
	case <-a.done:
		return nil
	case <-giveUp.C:
		return a.lost(patience)
	}
}

func (a *account) lost(patience time.Duration) error {
	return fmt.Errorf("%w: a queue had got about %d of %d messages after %v", errLost, a.behind(), a.want, patience.Round(time.Millisecond))
}

// check says whether each queue got each message once. The workers have been
// joined, or have nothing to do.
func (a *account) check() error {
	if n := a.wrong.Load(); n > 0 {
		return fmt.Errorf("%w: %d queues got the right number of messages, but not the right ones", errLost, n)
	}
	if n := a.extra.Load(); n > 0 {
		return fmt.Errorf("%w: %d messages came twice", errLost, n)
	}
	if a.workers == 1 && a.left.Load() == 0 {
		return nil // sums were compared by the workers
	}
	for q := range a.queues {
		var count, sum uint64
		for w := range a.workers {
			count += a.tally(q, w).count
			sum += a.tally(q, w).sum
		}
		if count != uint64(a.want) || sum != a.sum {
			return fmt.Errorf("%w: queue %d got %d of %d messages (sum right: %t)", errLost, q, count, a.want, sum == a.sum)
		}
	}
	return nil
}
