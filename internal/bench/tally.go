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

	// What filters look at: one of sixteen classes, and one of a hundred kinds as the
	// only attribute.
	kind  string
	attrs map[string]string
	class uint32
	fails uint32 // how many attempts fail, where attempts do
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
	classes  = 16
	kinds    = 100
	attempts = 3 // that a message has where handlers fail

	kindAttribute = "kind"
)

// ring holds the messages, which are published over and over. Nobody writes to
// them after this, so a system may hold on to one for as long as it likes.
var ring = func() []*payload {
	random := rand.New(rand.NewPCG(1, 2))
	ps := make([]payload, ringSize)
	out := make([]*payload, ringSize)
	for k := range ps {
		ps[k].word = random.Uint64()
		ps[k].class = random.Uint32N(classes)
		ps[k].kind = kindOf(random.IntN(kinds))
		ps[k].attrs = map[string]string{kindAttribute: ps[k].kind}
		switch {
		case k%100 == 50:
			ps[k].fails = 2
		case k%1000 == 1:
			ps[k].fails = attempts
		}
		ps[k].raw = binary.NativeEndian.AppendUint64(make([]byte, 0, 64), ps[k].word)[:64]
		out[k] = &ps[k]
	}
	return out
}()

func kindOf(k int) string { return fmt.Sprintf("kind-%02d", k) }

// A choice says which queues get a message; nil is all of them.
type choice func(queue int, m *payload) bool

// chosen is how many of the first n messages published a queue gets, and their
// sum.
func (c choice) chosen(queue, n int) (count int, sum uint64) {
	if c == nil {
		return n, sumOf(n)
	}
	for k, m := range ring {
		if c(queue, m) {
			times := n / ringSize
			if k < n%ringSize {
				times++
			}
			count += times
			sum += uint64(times) * m.word
		}
	}
	return count, sum
}

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
	want            []int    // messages for each queue
	sums            []uint64 // of those
	deliveries      int      // messages for all queues together
	tallies         []tally  // queue-major

	left  atomic.Int64  // queues that have not got all
	done  chan struct{} // closed when left is 0; only for single workers
	wrong atomic.Int64  // queues whose sum was wrong when they had got all
	extra atomic.Int64  // messages beyond what was published

	// Who waits for progress: publishers that are throttled, and who waits for
	// the end. A token in wake means that there may have been some.
	waiting atomic.Int32
	wake    []chan struct{}
}

// newAccount returns an account for n messages that are published to a shape, of
// which at most waiters wait for progress at a time. With several
// workers nobody knows alone when its queue has got all: they then tell their
// progress at every message, or, if exact is false, the caller reads the
// tallies after it has joined the workers.
func newAccount(s shape, n, waiters int, exact bool) *account {
	queues, workers := s.queues, s.workers
	a := &account{queues: queues, workers: workers, tallies: make([]tally, queues*workers), done: make(chan struct{})}
	for q := range queues {
		want, sum := s.takes.chosen(q, n)
		a.want, a.sums = append(a.want, want), append(a.sums, sum)
		a.deliveries += want
		if want > 0 {
			a.left.Add(1)
		}
	}
	if a.deliveries == 0 {
		close(a.done)
	}
	for range waiters {
		a.wake = append(a.wake, make(chan struct{}, 1))
	}
	for k := range a.tallies {
		t := &a.tallies[k]
		switch {
		case workers == 1:
			want := uint64(a.want[k])
			t.next, t.reach = min(chunk, max(want, 1)), a.single(want, a.sums[k])
		case exact:
			t.next, t.reach = 1, a.several(1)
		default:
			t.next, t.reach = chunk, a.several(chunk)
		}
		if s.work != nil {
			t.next, t.reach = 1, working(s.work, t.next, t.reach)
		}
	}
	return a
}

// tally returns the tally of a worker.
func (a *account) tally(queue, worker int) *tally { return &a.tallies[queue*a.workers+worker] }

// single returns the reach of a queue's only worker.
func (a *account) single(want, sum uint64) func(*tally) {
	return func(t *tally) {
		t.progress.Store(t.count)
		a.tell()
		switch {
		case t.count > want:
			a.extra.Add(1)
			t.next = t.count + 1
		case t.count == want:
			if t.sum != sum {
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
}

// working returns a reach that works at each message, and is otherwise reach,
// which is to be called first at next.
func working(work func(), next uint64, reach func(*tally)) func(*tally) {
	return func(t *tally) {
		work()
		if t.count >= next {
			reach(t)
			next = t.next
		}
		t.next = t.count + 1
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
				return a.unfinished(patience)
			}
		}
	}
	return nil
}

// got is how many messages a queue has told to have got.
func (a *account) got(queue int) (got uint64) {
	for w := range a.workers {
		got += a.tally(queue, w).progress.Load()
	}
	return got
}

// behind is how many messages the slowest queue has told to have got, where each
// gets all.
func (a *account) behind() uint64 {
	least := uint64(a.want[0])
	for q := range a.queues {
		least = min(least, a.got(q))
	}
	return least
}

// complete says whether each queue has told to have got all.
func (a *account) complete() bool {
	for q, want := range a.want {
		if a.got(q) < uint64(want) {
			return false
		}
	}
	return true
}

// errLost says that a system delivered other messages than were published, or not
// exactly once, though nothing failed or timed out. errNotFinished says that it had
// not delivered all when the patience for it was over: whether it would have done
// so is not known.
var (
	errLost        = errors.New("LOST")
	errNotFinished = errors.New("NOT FINISHED")
)

// wait waits until every queue has got all, and gives up after patience.
func (a *account) wait(patience time.Duration) error {
	if a.workers > 1 {
		return a.await(0, patience, a.complete)
	}
	giveUp := time.NewTimer(patience)
	defer giveUp.Stop()
	select {
	case <-a.done:
		return nil
	case <-giveUp.C:
		return a.unfinished(patience)
	}
}

func (a *account) unfinished(patience time.Duration) error {
	for q, want := range a.want {
		if got := a.got(q); got < uint64(want) {
			return fmt.Errorf("%w: queue %d had got about %d of %d messages after %v", errNotFinished, q, got, want, patience.Round(time.Millisecond))
		}
	}
	return fmt.Errorf("%w after %v", errNotFinished, patience.Round(time.Millisecond))
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
		if count != uint64(a.want[q]) || sum != a.sums[q] {
			return fmt.Errorf("%w: queue %d got %d of %d messages (sum right: %t)", errLost, q, count, a.want[q], sum == a.sums[q])
		}
	}
	return nil
}
