package lease

import (
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/gofanout/fanout/internal/block"
	"github.com/gofanout/fanout/internal/due"
	"github.com/gofanout/fanout/internal/message"
)

// A queue is as much of one as it takes to run consumers side by side: a lock, a
// backlog and a clock that counts.
type queue struct {
	mu      sync.Mutex
	table   *Table[int]
	stamps  counter
	backlog []Out[int]
	now     int64
	ranging atomic.Pointer[Lease[int]]
}

func newQueue(t *testing.T, n int) *queue {
	q := &queue{}
	q.table = New[int](&q.stamps, new(block.Pool), origin(t))
	for k := range n {
		q.backlog = append(q.backlog, Out[int]{Item: message.Item[int]{Seq: uint64(k), Body: k}})
	}
	return q
}

// take adds up to most messages of the backlog to a lease.
func (q *queue) take(l *Lease[int], most int) []Run[int] {
	n := min(most, len(q.backlog))
	q.now++
	for k := range q.backlog[:n] {
		o := &q.backlog[k]
		if o.Past.Hist == nil {
			q.table.Add(l, []message.Item[int]{o.Item}, q.now)
		} else {
			q.table.AddPast(l, o.Item, o.Past, q.now)
		}
	}
	q.backlog = q.backlog[n:]
	var runs []Run[int]
	for k := 0; k < l.Len(); {
		r := q.table.Run(l, k)
		r.Items = append([]message.Item[int](nil), r.Items...) // a consumer has its own
		runs = append(runs, r)
		k += len(r.Items)
	}
	return runs
}

// takeBatch takes up to most messages of the backlog, into a lease whose consumer keeps
// them if none has a past.
func (q *queue) takeBatch(most int, vis int64) (*Lease[int], []Run[int]) {
	n := min(most, len(q.backlog))
	c := &keeper{}
	for k := range q.backlog[:n] {
		if q.backlog[k].Past.Hist != nil {
			l := q.table.Gather(c, most, vis)
			return l, q.take(l, most)
		}
		c.items = append(c.items, q.backlog[k].Item)
	}
	q.backlog = q.backlog[n:]
	q.now++
	l := q.table.Whole(c, n, q.now, vis)
	return l, []Run[int]{{Items: c.items, First: q.table.First(l)}}
}

// A keeper keeps what a consumer has taken. The queue's lock guards it.
type keeper struct{ items []message.Item[int] }

func (c *keeper) Message(_ *Lease[int], k int) message.Item[int] { return c.items[k] }
func (c *keeper) At(_ *Lease[int], k int) int64                  { return c.items[k].At }
func (c *keeper) Began(now int64) int64                          { return now }

// keep takes up to most messages of the backlog, none of which has a past, for c, and
// names their deliveries. It uses l again if it can, else it ends it.
func (q *queue) keep(c *keeper, l *Lease[int], most int) (*Lease[int], []message.Item[int], []message.Ref) {
	n := min(most, len(q.backlog))
	q.now++
	var items []message.Item[int]
	for k := range q.backlog[:n] {
		items = append(items, q.backlog[k].Item)
	}
	q.backlog = q.backlog[n:]
	if l != nil && !q.table.Again(l, n, q.now) {
		q.table.End(l, q.now)
		l = nil
	}
	if l == nil {
		l = q.table.InStep(c, n, q.now, 1<<40)
	}
	c.items = items
	var refs []message.Ref
	for k := range items {
		refs = append(refs, q.table.First(l).Next(k))
	}
	return l, items, refs
}

// look is the timer's: it detaches what is current, takes back what waits, times
// out, counts and cleans.
func (q *queue) look(expire bool) {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.now++
	for _, l := range q.table.Leases() {
		q.table.Detach(l, q.now)
		q.table.TakeBack(l, func(o Out[int]) { q.backlog = append(q.backlog, o) })
	}
	for expire {
		e, ok := q.table.TimeOut(q.now, due.Never, 1<<20)
		if !ok {
			break
		}
		if !e.Several {
			q.backlog = append(q.backlog, e.Out)
		}
	}
	for out, ok := q.table.PopTimedOut(); ok; out, ok = q.table.PopTimedOut() {
		q.backlog = append(q.backlog, out)
	}
	q.table.Counts()
	q.table.Trim()
}

func (q *queue) ack(r message.Ref) bool {
	if l := q.ranging.Load(); l != nil && l.Word.AckCurrent(r.Stamp) {
		return true
	}
	q.mu.Lock()
	defer q.mu.Unlock()
	return q.table.Ack(r)
}

// always runs f over and over beside others, until the returned function is called.
func always(f func()) (stop func()) {
	done := make(chan struct{})
	var wg sync.WaitGroup
	wg.Go(func() {
		for {
			select {
			case <-done:
				return
			default:
				f()
			}
		}
	})
	return func() { close(done); wg.Wait() }
}

// Every message is acknowledged exactly once, whatever the timer takes over or back
// and others give back while the workers step.
func TestWorkersThatAreLookedAtAllTheTime(t *testing.T) {
	n := 40_000
	if testing.Short() {
		n = 10_000
	}
	q := newQueue(t, n)
	seen := make([]atomic.Int32, n)
	stop := always(func() { q.look(false) })
	var nacked atomic.Int64
	var wg sync.WaitGroup
	for w := range 2 {
		wg.Go(func() { worker(q, uint64(w), seen, &nacked) })
	}
	wg.Wait()
	stop()
	worker(q, 7, seen, &nacked) // what was taken back last
	for k := range seen {
		if c := seen[k].Load(); c != 1 {
			t.Fatalf("message %d was acknowledged %d times", k, c)
		}
	}
	_, acked := q.table.Tally()
	require.Equal(t, n, acked)
	require.Zero(t, q.table.Held())
	require.NoError(t, q.table.Check())
	require.Positive(t, nacked.Load())
}

// worker takes and handles messages until there are none. Now and then it gives one
// back, or settles it in another goroutine.
// over has the bits of a place that say that its message is over.
const over = 3

func worker(q *queue, seed uint64, seen []atomic.Int32, nacked *atomic.Int64) {
	rng := rand.New(rand.NewPCG(seed, 5))
	var l *Lease[int]
	c := &keeper{}
	for {
		q.mu.Lock()
		if len(q.backlog) == 0 {
			if l != nil {
				q.table.End(l, q.now)
			}
			q.mu.Unlock()
			return
		}
		var items []message.Item[int]
		var refs []message.Ref
		l, items, refs = q.keep(c, l, 1+rng.IntN(64))
		q.mu.Unlock()
		base := refs[0].Stamp
		for more := true; more; {
			p := l.Word.Place()
			k := int(p.Stamp() - base)
			switch how := rng.IntN(50); how {
			case 0: // it fails
				q.mu.Lock()
				if out, ok := q.table.Extract(refs[k], q.now); ok {
					q.backlog = append(q.backlog, out)
					nacked.Add(1)
				}
				more = q.table.Next(l)
				q.mu.Unlock()
			case 1: // somebody else settles it
				done := make(chan bool)
				go func() { done <- q.ack(refs[k]) }()
				if <-done {
					seen[items[k].Body].Add(1)
				}
				q.mu.Lock()
				more = q.table.Next(l)
				q.mu.Unlock()
			default:
				if _, ok := l.Word.Step(p &^ over); ok {
					seen[items[k].Body].Add(1)
					continue
				}
				q.mu.Lock()
				if q.table.Ack(refs[k]) {
					seen[items[k].Body].Add(1)
				}
				more = q.table.Next(l)
				q.mu.Unlock()
			}
		}
		q.mu.Lock()
		q.table.TakeBack(l, func(o Out[int]) { q.backlog = append(q.backlog, o) })
		if rng.IntN(2) == 0 {
			q.table.End(l, q.now)
			l = nil
		}
		q.mu.Unlock()
	}
}

// A range whose messages are acknowledged by others, early, late, twice or never,
// while the timer looks: each once, and what never was is in flight to the end.
func TestARangeWhoseMessagesOthersAcknowledge(t *testing.T) {
	n := 40_000
	if testing.Short() {
		n = 10_000
	}
	q := newQueue(t, n)
	var acks, twice atomic.Int64
	ch := make(chan message.Ref, 200)
	var wg sync.WaitGroup
	for range 3 {
		wg.Go(func() {
			for r := range ch {
				if q.ack(r) {
					acks.Add(1)
				}
				if q.ack(r) {
					twice.Add(1)
				}
			}
		})
	}
	looks := 0
	stop := always(func() {
		if looks++; looks%8 == 0 { // else it would always be first
			q.look(false)
		}
		q.mu.Lock()
		q.table.Counts()
		q.mu.Unlock()
	})
	kept := map[message.Ref]bool{}
	got := 0
	var l *Lease[int]
	c := &keeper{}
	for {
		q.mu.Lock()
		if len(q.backlog) == 0 {
			if l != nil {
				q.table.End(l, q.now)
			}
			q.mu.Unlock()
			break
		}
		var refs []message.Ref
		l, _, refs = q.keep(c, l, 64)
		q.ranging.Store(l)
		q.mu.Unlock()
		for k := 0; ; {
			got++
			switch rand.IntN(8) {
			case 0:
				kept[refs[k]] = true
			case 1, 2:
				ch <- refs[k]
			default:
				if !q.ack(refs[k]) {
					t.Error("it does not own what it was just given")
				}
				acks.Add(1)
			}
			p, ok := l.Word.Advance()
			if !ok {
				q.mu.Lock()
				q.table.Detach(l, q.now)
				ok = q.table.Next(l)
				p = l.Word.Place()
				q.mu.Unlock()
			}
			if !ok {
				break
			}
			k = int(p.Stamp() - refs[0].Stamp)
		}
	}
	close(ch)
	wg.Wait()
	stop()
	_, acked := q.table.Tally()
	require.Equal(t, n, got)
	require.Equal(t, n-len(kept), acked)
	require.EqualValues(t, n-len(kept), acks.Load())
	require.Zero(t, twice.Load())
	require.Equal(t, Counts{InFlight: len(kept)}, q.table.Counts())
	require.NoError(t, q.table.Check())
	for r := range kept {
		require.True(t, q.ack(r))
	}
	require.NoError(t, q.table.Check())
}

// Batches that are acknowledged as a whole, in part, or too late, by handlers and
// others, while they time out: each message is acknowledged once in the end.
func TestBatchesThatTimeOutWhileTheyAreHandled(t *testing.T) {
	n := 40_000
	if testing.Short() {
		n = 10_000
	}
	q := newQueue(t, n)
	seen := make([]atomic.Int32, n)
	stop := always(func() { q.look(true) })
	var late atomic.Int64
	var wg sync.WaitGroup
	for w := range 2 {
		wg.Go(func() {
			rng := rand.New(rand.NewPCG(uint64(w), 6))
			for empty := 0; empty < 100; {
				q.mu.Lock()
				if len(q.backlog) == 0 {
					empty++
					q.mu.Unlock()
					continue
				}
				l, runs := q.takeBatch(50, int64(1+rng.IntN(4)))
				q.mu.Unlock()
				one := func(k int) {
					for _, r := range runs {
						if k < len(r.Items) {
							if q.ack(r.First.Next(k)) {
								seen[r.Items[k].Body].Add(1)
							} else {
								late.Add(1)
							}
							return
						}
						k -= len(r.Items)
					}
				}
				if rng.IntN(2) == 0 {
					one(rng.IntN(l.Len()))
				}
				q.mu.Lock()
				whole := q.table.AckWhole(l)
				q.mu.Unlock()
				for k := range l.Len() {
					if !whole {
						one(k)
						continue
					}
					for _, r := range runs {
						if k < len(r.Items) {
							seen[r.Items[k].Body].Add(1)
							break
						}
						k -= len(r.Items)
					}
				}
				q.mu.Lock()
				q.table.End(l, q.now)
				q.mu.Unlock()
			}
		})
	}
	wg.Wait()
	stop()
	q.now += 1000
	q.look(true)
	var left int
	for _, o := range q.backlog {
		seen[o.Item.Body].Add(1)
		left++
	}
	for k := range seen {
		if c := seen[k].Load(); c != 1 {
			t.Fatalf("message %d ended %d times", k, c)
		}
	}
	_, acked := q.table.Tally()
	require.Equal(t, n, acked+left)
	require.Zero(t, q.table.Held())
	require.NoError(t, q.table.Check())
	require.Positive(t, late.Load())
}
