package topic

import (
	"context"
	"errors"
	"fmt"
	"math"
	"math/rand/v2"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/gofanout/fanout/internal/delivery"
	"github.com/gofanout/fanout/internal/ending"
	"github.com/gofanout/fanout/internal/lifecycle"
	"github.com/gofanout/fanout/internal/message"
	"github.com/gofanout/fanout/internal/queue"
	"github.com/gofanout/fanout/internal/settings"
	"github.com/gofanout/fanout/internal/view"
	"github.com/gofanout/fanout/internal/workers"
)

// Everything at once, in real time and at random: publishers of all kinds with
// contexts that end at any moment, queues of all kinds that come and go,
// handlers that do all that handlers may, redrives, and an end by Shutdown or
// Close. Four queues stay open all along and never drop: for these each message
// is accounted for.
func TestPromise03AStressedTopicLosesNothing(t *testing.T) {
	rounds, length := 6, 600*time.Millisecond
	if testing.Short() {
		rounds, length = 1, 300*time.Millisecond
	}
	for range rounds {
		seed := rand.Uint64()
		t.Run(fmt.Sprintf("seed %#x", seed), func(t *testing.T) { stress(t, seed, length) })
	}
}

const (
	stressIDs        = 1 << 17
	stressVisibility = 15 * time.Millisecond
)

// A ledger is what a test knows of one queue that stays open: for each message
// how often it was acknowledged by a call that returned nil, and whether a
// handler returned nil for it.
type ledger struct {
	q       *queue.Queue[int]
	accepts func(int) bool
	acked   []atomic.Int32
	nils    []atomic.Bool
}

type stressTest struct {
	t       *testing.T
	seed    uint64
	top     *Topic[int]
	ledgers []*ledger

	ids       atomic.Int64
	seen      []atomic.Bool // delivered by any queue
	confirmed []atomic.Bool // its publish returned nil
	problems  chan string

	stopPublishing, stop    chan struct{}
	publishers, churn, rest sync.WaitGroup
}

func (s *stressTest) problem(format string, args ...any) {
	select {
	case s.problems <- fmt.Sprintf(format, args...):
	default:
	}
}

func (s *stressTest) rand(a, b, c int) *rand.Rand {
	return rand.New(rand.NewPCG(s.seed, uint64(a)<<48^uint64(b)<<16^uint64(c)))
}

func stopped(ch chan struct{}) bool {
	select {
	case <-ch:
		return true
	default:
		return false
	}
}

func stress(t *testing.T, seed uint64, length time.Duration) {
	before := runtime.NumGoroutine()
	s := &stressTest{
		t: t, seed: seed, top: newTopic[int](t),
		seen: make([]atomic.Bool, stressIDs), confirmed: make([]atomic.Bool, stressIDs),
		problems: make(chan string, 10), stopPublishing: make(chan struct{}), stop: make(chan struct{}),
	}
	all := func(int) bool { return true }
	s.open("push", 32, all)
	s.open("pull", 16, all)
	s.open("filtered", 8, func(n int) bool { return n%3 == 0 }, WithFilter(func(n int) bool { return n%3 == 0 }))
	s.open("delayed", 24, all, WithDelay(2*time.Millisecond))
	for k, l := range s.ledgers {
		if l.q.Name() == "pull" {
			for n := range 3 {
				s.rest.Go(func() { s.receive(l, k, n) })
			}
		} else {
			s.rest.Go(func() { s.work(l, k) })
		}
		s.rest.Go(func() { s.redrive(l, k) })
		s.rest.Go(func() { s.takeLetters(l, k) })
	}
	for n := range 6 {
		s.publishers.Go(func() { s.publish(n) })
	}
	for n := range 8 {
		s.churn.Go(func() { s.comeAndGo(n) })
	}

	r := s.rand(0, 0, 0)
	for end := time.Now().Add(length); time.Now().Before(end); {
		s.check()
		time.Sleep(time.Duration(r.IntN(4)) * time.Millisecond)
	}
	shutdown := r.IntN(2) == 0
	if shutdown {
		close(s.stopPublishing)
		s.join(&s.publishers, "publishers, while consumers go on")
		s.join(&s.churn, "queues that come and go")
		s.check()
		ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
		defer cancel()
		var left *ending.ShutdownError
		if err := s.top.Shutdown(ctx); errors.As(err, &left) {
			require.NoError(t, left.Err, "%s", dump(s.top))
		}
		close(s.stop)
	} else {
		var both sync.WaitGroup
		for range 2 {
			both.Go(func() { _ = s.top.Close() })
			patience := time.Duration(r.IntN(3)) * time.Millisecond
			both.Go(func() {
				ctx, cancel := context.WithTimeout(context.Background(), patience)
				defer cancel()
				_ = s.top.Shutdown(ctx)
			})
		}
		s.join(&both, "Close and Shutdown")
		close(s.stopPublishing)
		close(s.stop)
		s.join(&s.publishers, "publishers")
		s.join(&s.churn, "queues that come and go")
	}
	within(t, s.top, s.top.Done(), "Done")
	s.join(&s.rest, "consumers") // handlers start some, and are home now
	s.settleUp()
	for end := time.Now().Add(10 * time.Second); runtime.NumGoroutine() > before; {
		require.True(t, time.Now().Before(end), "goroutines remain: %s", dump(s.top))
		time.Sleep(time.Millisecond)
	}
}

func (s *stressTest) join(wg *sync.WaitGroup, who string) {
	s.t.Helper()
	done := make(chan struct{})
	go func() {
		wg.Wait()
		close(done)
	}()
	within(s.t, s.top, done, who)
}

func (s *stressTest) open(name string, capacity int, accepts func(int) bool, options ...QueueOption) {
	options = append(options, WithCapacity(capacity), WithVisibilityTimeout(stressVisibility), WithMaxAttempts(3),
		WithBackoff(settings.Exponential(time.Millisecond, 3*time.Millisecond)), WithDeadLetterCapacity(4))
	s.ledgers = append(s.ledgers, &ledger{
		q: openQueue(s.t, s.top, name, options...), accepts: accepts,
		acked: make([]atomic.Int32, stressIDs), nils: make([]atomic.Bool, stressIDs),
	})
}

// check looks at the invariants of all queues while everything runs.
func (s *stressTest) check() {
	s.t.Helper()
	select {
	case p := <-s.problems:
		require.Fail(s.t, p)
	default:
	}
	for tries := 0; ; tries++ {
		err := s.tryCheck()
		if err == nil {
			break
		}
		// A timer that has fired may not have got the lock yet.
		if !strings.Contains(err.Error(), "timer") || tries > 1000 {
			require.NoError(s.t, err, "%s", dump(s.top))
		}
		time.Sleep(time.Millisecond)
	}
	for _, q := range s.top.Queues() {
		st := view.StatsOf(q)
		require.LessOrEqual(s.t, st.Unsettled(), st.Capacity, "%+v", st)
		require.Equal(s.t, uint64(st.Published)+st.Redriven,
			st.Acked+st.DeadLettered+st.Dropped+st.Left+uint64(st.Unsettled()), "%+v", st)
	}
}

func (s *stressTest) tryCheck() error {
	top := s.top
	top.In.Mu.Lock()
	defer top.In.Mu.Unlock()
	for _, q := range top.queues {
		q.Mu.Lock()
		err := q.CheckLocked()
		if d := q.Dead; d != nil && err == nil {
			d.Mu.Lock()
			err = d.CheckLocked()
			d.Mu.Unlock()
		}
		if err == nil {
			err = top.In.CheckLimitLocked(q)
		}
		q.Mu.Unlock()
		if err != nil {
			return fmt.Errorf("queue %q: %w", q.Name(), err)
		}
	}
	return nil
}

// --- publishers ---

func (s *stressTest) context(r *rand.Rand) (context.Context, context.CancelFunc) {
	switch r.IntN(6) {
	case 0:
		ctx, cancel := context.WithCancel(context.Background())
		cancel()
		return ctx, cancel
	case 1, 2, 3:
		return context.WithTimeout(context.Background(), time.Duration(r.IntN(3000))*time.Microsecond)
	}
	return context.WithCancel(context.Background())
}

func (s *stressTest) publish(n int) {
	r := s.rand(1, n, 0)
	for !stopped(s.stopPublishing) {
		size := 1
		if r.IntN(3) == 0 {
			size = 1 + r.IntN(6)
			if r.IntN(50) == 0 {
				size = 40 // more than any queue that doesn't drop would take
			}
		}
		first := int(s.ids.Add(int64(size))) - size
		if first+size > stressIDs {
			return
		}
		ms := make([]message.Published[int], size)
		for k := range ms {
			ms[k].Body = first + k
			if r.IntN(20) == 0 {
				ms[k].Delay = time.Duration(r.IntN(3000)) * time.Microsecond
			}
		}
		ctx, cancel := s.context(r)
		var err error
		switch r.IntN(4) {
		case 0:
			err = s.top.TryPublishMessages(ctx, ms...)
		case 1:
			err = s.top.PublishMessages(ctx, ms...)
		default:
			for k := range ms {
				if r.IntN(2) == 0 {
					err = s.top.In.Publish(ctx, ms[k].Body)
				} else {
					err = s.top.In.TryPublish(ctx, ms[k].Body)
				}
				s.confirmed[first+k].Store(err == nil)
			}
			err = nil
			size = 0 // each told for itself
		}
		cancel()
		for k := range size {
			s.confirmed[first+k].Store(err == nil)
		}
		if r.IntN(8) == 0 {
			time.Sleep(time.Duration(r.IntN(500)) * time.Microsecond)
		}
	}
}

// --- consumers ---

// saw notes a delivery, and that it does not come after the message's end. A
// delivery that was late to start may no longer own its message: then it is none.
func (s *stressTest) saw(l *ledger, d delivery.Delivery[int]) {
	s.seen[d.Body].Store(true)
	if l == nil {
		return
	}
	if !l.accepts(d.Body) {
		s.problem("queue %q got %d, which it doesn't accept", d.Queue(), d.Body)
	}
	if l.acked[d.Body].Load() > 0 && !d.Deadline().IsZero() {
		s.problem("queue %q delivers %d after its acknowledgement", d.Queue(), d.Body)
	}
}

func (s *stressTest) ack(l *ledger, d delivery.Delivery[int]) error {
	err := d.Ack(context.Background())
	if err == nil && l != nil && l.acked[d.Body].Add(1) > 1 {
		s.problem("queue %q: %d was acknowledged twice", d.Queue(), d.Body)
	}
	return err
}

// handler does what handlers do. l is nil for a queue that comes and goes.
func (s *stressTest) handler(l *ledger, salt int) Handler[int] {
	var runs atomic.Int64
	return func(ctx context.Context, d delivery.Delivery[int]) error {
		s.saw(l, d)
		r := s.rand(2, salt, int(runs.Add(1)))
		done := func() error {
			if l != nil {
				l.nils[d.Body].Store(true)
			}
			return nil
		}
		switch n := r.IntN(100); {
		case n < 40:
			_ = s.ack(l, d)
			return done()
		case n < 60:
			return done()
		case n < 66:
			return errBusy
		case n < 70:
			panic(errBusy)
		case n < 73:
			runtime.Goexit()
		case n < 76:
			return message.Permanent(errBusy)
		case n < 79:
			return message.Snooze(time.Duration(r.IntN(3)) * time.Millisecond)
		case n < 82:
			return message.RetryAfter(errBusy, time.Duration(r.IntN(3))*time.Millisecond)
		case n < 84: // times out, or is cancelled
			<-ctx.Done()
			if err := s.ack(l, d); err == nil && !errors.Is(context.Cause(ctx), message.ErrClosed) { // after a shutdown it has it still
				s.problem("queue %q: %d was acknowledged after its context had ended: %v", d.Queue(), d.Body, context.Cause(ctx))
			}
			return context.Cause(ctx)
		case n < 86: // settles late
			time.Sleep(stressVisibility + time.Millisecond)
			_ = s.ack(l, d)
			return errBusy
		case n < 88: // settles as its handler returns, or later
			late := time.Duration(r.IntN(20)) * time.Millisecond
			s.rest.Go(func() {
				time.Sleep(late)
				_ = s.ack(l, d)
			})
			return errBusy
		case n < 92: // settles twice, and not as it says
			_ = s.ack(l, d)
			if err := d.Nack(ctx); err == nil {
				s.problem("queue %q: %d was settled twice", d.Queue(), d.Body)
			}
			return errBusy
		case n < 94:
			_ = d.Extend(ctx, 2*stressVisibility)
			time.Sleep(time.Duration(r.IntN(2)) * stressVisibility)
			_ = s.ack(l, d)
			return done()
		case n < 96:
			var e *deref
			return e
		case n < 98:
			_ = d.NackAfter(ctx, 0)
			return done()
		}
		if id := int(s.ids.Add(1)) - 1; id < stressIDs {
			s.confirmed[id].Store(s.top.In.TryPublish(ctx, id) == nil)
		}
		return errBusy
	}
}

// work runs subscribers over a queue, one or two at a time, as long as it is open.
func (s *stressTest) work(l *ledger, k int) {
	r := s.rand(3, k, 0)
	for n := 0; !stopped(s.stop); n++ {
		steady, err := subscribeTo(l.q, context.Background(), s.handler(l, k<<8|n), WithConcurrency(1+r.IntN(3)))
		if err != nil {
			return
		}
		other, err := subscribeTo(l.q, context.Background(), s.handler(l, k<<8|n|1<<15), WithConcurrency(1+r.IntN(2)))
		if err != nil {
			return
		}
		s.pause(time.Duration(r.IntN(20)) * time.Millisecond)
		for _, sub := range []*workers.Subscriber[int]{steady, other} {
			if stopped(s.stopPublishing) {
				return // leave some for the end
			}
			ctx, cancel := context.WithTimeout(context.Background(), time.Duration(r.IntN(10))*time.Millisecond)
			_ = sub.Shutdown(ctx)
			cancel()
		}
	}
}

func (s *stressTest) pause(d time.Duration) {
	select {
	case <-s.stop:
	case <-time.After(d):
	}
}

// receive takes messages from a queue in all ways until it is closed.
func (s *stressTest) receive(l *ledger, k, n int) {
	r := s.rand(4, k, n)
	for {
		ctx, cancel := context.WithTimeout(context.Background(), time.Duration(r.IntN(2000))*time.Microsecond)
		var ds []delivery.Delivery[int]
		var err error
		switch r.IntN(4) {
		case 0:
			ds, err = receiveBatch(l.q, ctx, 1+r.IntN(5))
		case 1:
			d, ok, e := tryReceiveFrom(l.q, ctx)
			if err = e; ok {
				ds = append(ds, d)
			} else {
				runtime.Gosched()
			}
		default:
			d, e := receiveFrom(l.q, ctx)
			if err = e; err == nil {
				ds = append(ds, d)
			}
		}
		cancel()
		if errors.Is(err, message.ErrClosed) {
			return
		}
		for _, d := range ds {
			s.saw(l, d)
			switch m := r.IntN(20); {
			case m < 14:
				_ = s.ack(l, d)
			case m == 14:
				_ = d.Nack(ctx)
			case m == 15:
				_ = d.Settle(ctx, message.Permanent(errBusy))
			case m == 16:
				_ = d.Settle(ctx, message.Snooze(time.Millisecond))
			case m == 17: // two at once
				s.rest.Go(func() { _ = s.ack(l, d) })
				_ = d.Nack(ctx)
			case m == 18:
				s.rest.Go(func() { // as it times out
					time.Sleep(time.Until(d.Deadline()))
					if d.Extend(context.Background(), time.Millisecond) == nil {
						_ = s.ack(l, d)
					}
				})
			} // else it is forgotten
		}
	}
}

func (s *stressTest) redrive(l *ledger, k int) {
	r := s.rand(5, k, 0)
	for !stopped(s.stop) {
		ctx, cancel := s.context(r)
		var err error
		if ds, _ := view.Peek(ctx, l.q.DeadLetters(), 1); len(ds) > 0 && r.IntN(4) == 0 {
			_, err = redriveTo(l.q, ctx, RedriveIDs(ds[0].ID()))
		} else {
			_, err = redriveTo(l.q, ctx)
		}
		cancel()
		if errors.Is(err, message.ErrClosed) {
			return
		}
		s.pause(time.Duration(r.IntN(2000)) * time.Microsecond)
	}
}

// takeLetters competes with the redrives for the dead letters.
func (s *stressTest) takeLetters(l *ledger, k int) {
	r := s.rand(6, k, 0)
	for {
		ctx, cancel := context.WithTimeout(context.Background(), time.Duration(r.IntN(5000))*time.Microsecond)
		d, err := receiveFrom(l.q.DeadLetters(), ctx)
		cancel()
		switch {
		case errors.Is(err, message.ErrClosed):
			return
		case err != nil:
			continue
		}
		s.saw(l, d)
		switch n := r.IntN(10); {
		case n < 2:
			_ = s.ack(l, d)
		case n < 8:
			_ = d.Nack(ctx)
		}
	}
}

// comeAndGo opens queues of all kinds, consumes them more or less, and closes them.
func (s *stressTest) comeAndGo(n int) {
	r := s.rand(7, n, 0)
	var consumers sync.WaitGroup
	defer consumers.Wait()
	for k := 0; !stopped(s.stopPublishing); k++ {
		options := []QueueOption{
			WithCapacity(1 + r.IntN(20)), WithOverflow(settings.Block + settings.Overflow(r.IntN(4))), WithVisibilityTimeout(stressVisibility),
			WithMaxAttempts(1 + r.IntN(3)), WithBackoff(settings.Constant(time.Millisecond)), WithDeadLetterCapacity(1 + r.IntN(3)),
		}
		if r.IntN(3) == 0 {
			options = append(options, WithDeadLetterOverflow(settings.DropOldest))
		}
		if r.IntN(3) == 0 {
			mod := 2 + r.IntN(5)
			options = append(options, WithFilter(func(n int) bool { return n%mod == 0 }))
		}
		if r.IntN(4) == 0 {
			options = append(options, WithDelay(time.Duration(r.IntN(2000))*time.Microsecond))
		}
		q, err := s.top.OpenQueue(context.Background(), fmt.Sprint("queue ", n), options...)
		if err != nil {
			if !errors.Is(err, message.ErrClosed) {
				s.problem("open: %v", err)
			}
			return
		}
		for m := range r.IntN(3) {
			salt := n<<12 | k<<4 | m
			if r.IntN(3) == 0 {
				consumers.Go(func() {
					for d, err := range deliveriesOf(q, context.Background()) {
						if err != nil {
							s.problem("range: %v", err)
							return
						}
						s.saw(nil, d)
						if s.rand(8, salt, d.Body).IntN(3) > 0 {
							_ = d.Ack(context.Background())
						}
					}
				})
			} else if _, err := subscribeTo(q, context.Background(), s.handler(nil, salt), WithConcurrency(1+r.IntN(4))); err != nil && !errors.Is(err, message.ErrClosed) {
				s.problem("subscribe: %v", err)
			}
		}
		if r.IntN(3) == 0 {
			consumers.Go(func() {
				ctx, cancel := context.WithTimeout(context.Background(), 3*time.Millisecond)
				defer cancel()
				_, _ = redriveTo(q, ctx)
			})
		}
		s.pause(time.Duration(r.IntN(12000)) * time.Microsecond)
		for range 1 + r.IntN(2) {
			consumers.Go(func() { _ = lifecycle.Close(q) })
		}
		_ = lifecycle.Close(q)
		if r.IntN(2) == 0 {
			_ = lifecycle.Close(q.DeadLetters())
		}
		st := view.StatsOf(q)
		if uint64(st.Published)+st.Redriven != st.Acked+st.DeadLettered+st.Dropped+st.Left+uint64(st.Unsettled()) {
			s.problem("the books of a closed queue don't balance: %+v", st)
		}
	}
}

// --- the end ---

// settleUp accounts for every message in every queue that was open all along.
func (s *stressTest) settleUp() {
	t := s.t
	t.Helper()
	select {
	case p := <-s.problems:
		require.Fail(t, p)
	default:
	}
	ids := min(int(s.ids.Load()), stressIDs)
	confirmed := 0
	for id := range ids {
		if s.confirmed[id].Load() {
			confirmed++
		} else {
			require.False(t, s.seen[id].Load(), "%d was delivered, and its publish failed", id)
		}
	}
	require.Equal(t, uint64(confirmed), s.top.Stats().Published)
	for _, l := range s.ledgers {
		st := view.StatsOf(l.q)
		dead := l.q.DeadLetters()
		where := make([]int, ids) // how often the message is somewhere
		for _, m := range lifecycle.Leftovers(l.q) {
			where[m.Body]++
		}
		letters, err := view.Peek(context.Background(), dead, math.MaxInt)
		require.NoError(t, err)
		for _, d := range letters {
			where[d.Body]++
		}
		wanted, returned := 0, uint64(0)
		for id := range ids {
			where[id] += int(l.acked[id].Load())
			if !s.confirmed[id].Load() || !l.accepts(id) {
				require.Zero(t, where[id], "%d is not in queue %q", id, l.q.Name())
				continue
			}
			wanted++
			if where[id] == 0 {
				require.True(t, l.nils[id].Load(), "%d is lost in queue %q: %+v", id, l.q.Name(), st)
				returned++
				where[id]++
			}
			require.Equal(t, 1, where[id], "%d in queue %q", id, l.q.Name())
		}
		require.Equal(t, wanted, st.Published, "%+v", st)
		sum := uint64(0)
		for id := range ids {
			sum += uint64(l.acked[id].Load())
		}
		require.Equal(t, st.Acked+view.StatsOf(dead).Acked, sum+returned, "acknowledged by a call or by a handler that returned nil: %+v", st)
		require.Equal(t, uint64(st.Published)+st.Redriven, st.Acked+st.DeadLettered+st.Dropped+st.Left, "%+v", st)
		t.Logf("%s: %d published, %d acked, %d dead, %d redriven, %d left, %d timed out, %d parked",
			l.q.Name(), st.Published, st.Acked, st.Dead, st.Redriven, st.Left, st.TimedOut, st.TimesParked)
	}
}
