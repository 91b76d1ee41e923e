package topic

import (
	"cmp"
	"context"
	"fmt"
	"slices"
	"strconv"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/gofanout/fanout/internal/consumers"
	"github.com/gofanout/fanout/internal/delivery"
	"github.com/gofanout/fanout/internal/message"
	"github.com/gofanout/fanout/internal/queue"
	"github.com/gofanout/fanout/internal/settings"
	"github.com/gofanout/fanout/internal/view"
	"github.com/gofanout/fanout/internal/workers"
)

// starts takes down the starts of a queue's deliveries, in the order of their numbers.
type starts struct {
	mu  sync.Mutex
	all []started
}

type started struct {
	number uint64
	body   int
}

func (s *starts) add(number uint64, body int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.all = append(s.all, started{number, body})
}

// claimed takes down a delivery by the stamp that it got when it was claimed: several
// consumers may begin in another order than that in which they claimed.
func (s *starts) claimed(d delivery.Delivery[int]) { s.add(d.Ref.Stamp, d.Body) }

// inTurn checks starts of bodies of which the first n were due and the next n were the
// backlog, all of which waited at the first start.
func (s *starts) inTurn(t *testing.T, n int) {
	t.Helper()
	s.mu.Lock()
	defer s.mu.Unlock()
	require.Len(t, s.all, 2*n)
	slices.SortStableFunc(s.all, func(a, b started) int { return cmp.Compare(a.number, b.number) })
	var got []int
	both := 0 // starts while both waited
	for left := [2]int{n, n}; left[0] > 0 && left[1] > 0; both++ {
		left[s.all[both].body/n]--
	}
	next := [2]int{0, n} // each keeps its order
	for _, start := range s.all[:both] {
		got = append(got, start.body)
		require.Equal(t, next[start.body/n], start.body, "started: %v", got)
		next[start.body/n]++
	}
	for from := range both {
		ofDue := 0
		for to := from; to < both; to++ {
			if got[to] < n {
				ofDue++
			}
			k := to - from + 1
			require.GreaterOrEqual(t, min(ofDue, k-ofDue), k/2-1, "starts %d to %d of %v", from, to, got)
		}
	}
}

// ways to make messages due at the instant that is a second after they were published,
// while none of them is in flight.
var waysToBeDue = map[string]struct {
	message message.Published[int]
	make    func(t *testing.T, ctx context.Context, q *queue.Queue[int], n int)
}{
	"retried": {make: func(t *testing.T, ctx context.Context, q *queue.Queue[int], n int) {
		for range n {
			require.NoError(t, receive(t, q).NackAfter(ctx, time.Second))
		}
	}},
	"snoozed": {make: func(t *testing.T, ctx context.Context, q *queue.Queue[int], n int) {
		s, err := subscribeTo(q, ctx, func(ctx context.Context, d delivery.Delivery[int]) error { return message.Snooze(time.Second) })
		require.NoError(t, err)
		elapse(0)
		require.NoError(t, s.Shutdown(ctx))
	}},
	"timed out": {make: func(t *testing.T, ctx context.Context, q *queue.Queue[int], n int) {
		ds, err := receiveBatch(q, ctx, n)
		require.NoError(t, err)
		require.Len(t, ds, n)
	}},
	"delayed": {message: message.Published[int]{Delay: time.Second}},
}

// waysToConsume return when all messages have been started, or arrange for it.
var waysToConsume = map[string]func(t *testing.T, ctx context.Context, q *queue.Queue[int], n int, start func(d delivery.Delivery[int])){
	"Receive": func(t *testing.T, ctx context.Context, q *queue.Queue[int], n int, start func(d delivery.Delivery[int])) {
		for range n {
			d := receive(t, q)
			start(d)
			require.NoError(t, d.Ack(ctx))
		}
	},
	"ReceiveBatch": func(t *testing.T, ctx context.Context, q *queue.Queue[int], n int, start func(d delivery.Delivery[int])) {
		for got := 0; got < n; {
			ds, err := receiveBatch(q, ctx, 7)
			require.NoError(t, err)
			for _, d := range ds {
				start(d)
			}
			require.NoError(t, ackBatchOf(q, ctx, ds...))
			got += len(ds)
		}
	},
	"range": func(t *testing.T, ctx context.Context, q *queue.Queue[int], n int, start func(d delivery.Delivery[int])) {
		rangeOver(t, ctx, q, n, start)
	},
	"range without acknowledgements": func(t *testing.T, ctx context.Context, q *queue.Queue[int], n int, start func(d delivery.Delivery[int])) {
		for d, err := range deliveriesOf(q, ctx) {
			require.NoError(t, err)
			start(d)
			if n--; n == 0 {
				return
			}
		}
	},
	"handler":                   handled(0),
	"slow handler":              handled(10 * time.Millisecond),
	"3 handlers":                handled(0, WithConcurrency(3)),
	"3 slow handlers":           handled(10*time.Millisecond, WithConcurrency(3)),
	"batch handler":             handledInBatches(0, WithBatchSize(7)),
	"3 slow batch handlers":     handledInBatches(10*time.Millisecond, WithBatchSize(7), WithConcurrency(3)),
	"batch handler for all":     handledInBatches(0, WithBatchSize(1000)),
	"handler with a rate limit": handled(0, WithRateLimit(1000)),
}

func rangeOver(t *testing.T, ctx context.Context, q *queue.Queue[int], n int, start func(d delivery.Delivery[int])) {
	for d, err := range deliveriesOf(q, ctx) {
		require.NoError(t, err)
		start(d)
		require.NoError(t, d.Ack(ctx))
		if n--; n == 0 {
			return
		}
	}
}

func handled(takes time.Duration, options ...WorkerOption) func(t *testing.T, ctx context.Context, q *queue.Queue[int], n int, start func(d delivery.Delivery[int])) {
	return func(t *testing.T, ctx context.Context, q *queue.Queue[int], n int, start func(d delivery.Delivery[int])) {
		_, err := subscribeTo(q, ctx, func(ctx context.Context, d delivery.Delivery[int]) error {
			start(d)
			time.Sleep(takes)
			return nil
		}, options...)
		require.NoError(t, err)
	}
}

func handledInBatches(takes time.Duration, options ...WorkerOption) func(t *testing.T, ctx context.Context, q *queue.Queue[int], n int, start func(d delivery.Delivery[int])) {
	return func(t *testing.T, ctx context.Context, q *queue.Queue[int], n int, start func(d delivery.Delivery[int])) {
		_, err := subscribeBatchTo(q, ctx, func(ctx context.Context, ds []delivery.Delivery[int]) error {
			for _, d := range ds {
				start(d)
			}
			time.Sleep(takes)
			return nil
		}, options...)
		require.NoError(t, err)
	}
}

// closeAndWait is for the end of a test whose handlers may run still.
func closeAndWait(top *Topic[int]) {
	_ = top.Close()
	<-top.Done()
}

// numbered returns messages with the bodies from from on.
func numbered(from, n int, keys bool, like message.Published[int]) []message.Published[int] {
	ms := make([]message.Published[int], n)
	for k := range ms {
		ms[k] = like
		ms[k].Body, ms[k].ID = from+k, strconv.Itoa(from+k)
		if keys {
			ms[k].OrderingKey = ms[k].ID
		}
	}
	return ms
}

// While both what is due and the backlog wait, of any k consecutive starts of a
// queue at least k/2 - 1 come from each, however its messages are consumed.
func TestWhatIsDueAndTheBacklogTakeTurns(t *testing.T) {
	const n = 40 // of each
	for became, way := range waysToBeDue {
		for consumed, consume := range waysToConsume {
			for _, keys := range []bool{false, true} {
				if keys && way.message.Delay > 0 {
					continue
				}
				t.Run(fmt.Sprintf("%s, %s, keys %v", became, consumed, keys), func(t *testing.T) {
					bubble(t, func(t *testing.T, ctx context.Context) {
						top := newTopic[int](t, WithOrdering())
						q := openQueue(t, top, "q", WithVisibilityTimeout(time.Second))
						publishAll(t, top, numbered(0, n, keys, way.message)...)
						if way.make != nil {
							way.make(t, ctx, q, n)
						}
						publishAll(t, top, numbered(n, n, keys, message.Published[int]{})...)
						elapse(time.Second)
						require.Equal(t, 2*n, view.StatsOf(q).Ready)
						var s starts
						consume(t, ctx, q, 2*n, s.claimed)
						elapse(900 * time.Millisecond) // before any times out again
						s.inTurn(t, n)
						require.NoError(t, top.Close())
					})
				})
			}
		}
	}
}

// Consumers of all kinds take from one queue, which tells in what order.
func TestConsumersOfAllKindsTogetherTakeTurns(t *testing.T) {
	bubble(t, func(t *testing.T, ctx context.Context) {
		const n = 200
		var s starts
		top := newTopic[int](t, WithHooks(Hooks{Delivered: func(e Event) {
			body, err := strconv.Atoi(e.MessageID)
			if err == nil && (e.Attempt == 2) == (body < n) { // not what made them due
				s.add(e.Seq, body)
			}
		}}))
		q := openQueue(t, top, "q", WithVisibilityTimeout(time.Hour))
		publishAll(t, top, numbered(0, n, false, message.Published[int]{})...)
		waysToBeDue["retried"].make(t, ctx, q, n)
		publishAll(t, top, numbered(n, n, false, message.Published[int]{})...)
		elapse(time.Second)
		var wg sync.WaitGroup
		for range 2 {
			wg.Go(func() { rangeOver(t, ctx, q, 10, func(delivery.Delivery[int]) { time.Sleep(time.Millisecond) }) })
			wg.Go(func() {
				for range 10 {
					ds, err := receiveBatch(q, ctx, 3)
					if err != nil || ackBatchOf(q, ctx, ds...) != nil {
						t.Error("a batch was not received and acknowledged")
					}
					time.Sleep(time.Millisecond)
				}
			})
			handled(time.Millisecond, WithConcurrency(2))(t, ctx, q, 0, func(delivery.Delivery[int]) {})
			handledInBatches(time.Millisecond, WithBatchSize(5))(t, ctx, q, 0, func(delivery.Delivery[int]) {})
		}
		wg.Wait()
		elapse(time.Minute)
		s.inTurn(t, n)
		require.NoError(t, top.Close())
	})
}

// What a worker or a range took and has not begun is backlog again when something
// becomes due: it takes turns as the rest does, in the order of publication.
func TestWhatWasGivenBackUnstartedIsBacklog(t *testing.T) {
	const (
		due, busy, n = 20, 110, 200
		pause        = 300 * time.Microsecond // a lease is taken back after a millisecond only
	)
	for name, consume := range map[string]func(t *testing.T, ctx context.Context, q *queue.Queue[int], n int, start func(d delivery.Delivery[int])){
		"handler": waysToConsume["handler"], "range": waysToConsume["range"],
	} {
		t.Run(name, func(t *testing.T) {
			bubble(t, func(t *testing.T, ctx context.Context) {
				top := newTopic[int](t)
				q := openQueue(t, top, "q", WithVisibilityTimeout(time.Hour))
				publishAll(t, top, numbered(n, due, false, message.Published[int]{})...)
				for range due {
					require.NoError(t, receive(t, q).NackAfter(ctx, time.Second))
				}
				comes := time.Now().Add(time.Second)
				publishAll(t, top, numbered(0, n, false, message.Published[int]{})...)
				var got []int
				waited := 0 // in leases, when something became due
				consume(t, ctx, q, n+due, func(d delivery.Delivery[int]) {
					got = append(got, d.Body)
					switch d.Body {
					case busy - 100: // so that leases have become large again by the next pause
						time.Sleep(time.Until(comes) - pause/2)
					case busy:
						q.Locked(func() { waited = q.Store.Leases.Waiting() })
						time.Sleep(pause)
					}
				})
				elapse(time.Minute)
				require.Greater(t, waited, 1)
				var want []int
				for k := range n {
					want = append(want, k)
					if of := k - busy; 0 <= of && of < due {
						want = append(want, n+of)
					}
				}
				require.Equal(t, want, got)
				require.NoError(t, top.Close())
			})
		})
	}
}

// The queue remembers whose turn it is, as long as nothing has started.
func TestATurnIsNotLostByLookingForMessages(t *testing.T) {
	bubble(t, func(t *testing.T, ctx context.Context) {
		top := newTopic[int](t, WithOrdering())
		q := openQueue(t, top, "q", WithVisibilityTimeout(time.Hour))
		keyed := func(body int) message.Published[int] { return message.Published[int]{Body: body, OrderingKey: "k"} }
		publishAll(t, top, keyed(1), message.Published[int]{Body: 2}, message.Published[int]{Body: 3})
		head := receive(t, q)
		for range 2 {
			require.NoError(t, receive(t, q).NackAfter(ctx, time.Second))
		}
		elapse(time.Second)
		require.Equal(t, 2, receive(t, q).Body) // it was due
		publishAll(t, top, keyed(4))
		require.Equal(t, 3, receive(t, q).Body, "what is of a key that is in flight can't start")
		publishAll(t, top, keyed(5))
		requireEmpty(t, q) // 5 is looked at
		require.NoError(t, head.NackAfter(ctx, time.Second))
		elapse(time.Second)
		publishAll(t, top, message.Published[int]{Body: 6})
		require.Equal(t, 6, receive(t, q).Body, "what started last was due")
		require.Equal(t, 1, receive(t, q).Body)
		require.NoError(t, top.Close())
	})
}

// A hundred messages that come back every second and keep their handler busy
// do not starve a fresh one, and a flood of fresh ones does not starve a retry.
func TestNeitherRetriesNorTheBacklogStarveTheOther(t *testing.T) {
	bubble(t, func(t *testing.T, ctx context.Context) {
		top := newTopic[int](t)
		defer closeAndWait(top)
		q := openQueue(t, top, "q")
		publishAll(t, top, numbered(1, 100, false, message.Published[int]{})...)
		var got []int
		_, err := subscribeTo(q, ctx, func(ctx context.Context, d delivery.Delivery[int]) error {
			got = append(got, d.Body)
			time.Sleep(20 * time.Millisecond)
			if d.Body == 0 {
				return nil
			}
			return message.Snooze(time.Second)
		})
		require.NoError(t, err)
		elapse(time.Minute)
		before := len(got)
		publish(t, top, 0)
		elapse(time.Second)
		require.LessOrEqual(t, slices.Index(got[before:], 0), 1, "starts before the fresh message: %v", got[before:])
		require.Contains(t, got[before:], 0)
	})
	bubble(t, func(t *testing.T, ctx context.Context) {
		top := newTopic[int](t)
		defer closeAndWait(top)
		q := openQueue(t, top, "q", WithBackoff(settings.Constant(time.Second)))
		publishAll(t, top, numbered(0, 1000, false, message.Published[int]{})...)
		var got []int
		_, err := subscribeTo(q, ctx, func(ctx context.Context, d delivery.Delivery[int]) error {
			got = append(got, d.Body)
			time.Sleep(20 * time.Millisecond)
			if d.Body == 0 && d.Attempt() == 1 {
				return context.DeadlineExceeded
			}
			return nil
		})
		require.NoError(t, err)
		elapse(time.Minute)
		// It failed at 20 ms and is due at 1,020 ms: when message 50 ends, or begins.
		require.LessOrEqual(t, 1+slices.Index(got[1:], 0), 53)
		require.Contains(t, got[1:], 0)
	})
}

// What is started in bulk, by a worker, a range or a receiver, counts as a start.
func TestAStartInBulkSaysWhoseTurnIsNext(t *testing.T) {
	const due, last = 100, 7
	for _, name := range []string{"handler", "range", "Receive", "ReceiveBatch"} {
		t.Run("of the backlog, by "+name, func(t *testing.T) {
			bubble(t, func(t *testing.T, ctx context.Context) {
				top := newTopic[int](t)
				q := openQueue(t, top, "q", WithVisibilityTimeout(time.Hour))
				publish(t, top, due, 0)
				require.NoError(t, receive(t, q).NackAfter(ctx, time.Minute))
				require.NoError(t, receive(t, q).NackAfter(ctx, time.Second))
				elapse(time.Second)
				publish(t, top, 1, 2, 3, 4, 5, 6)
				var got []int
				short, cancel := context.WithCancel(ctx)
				waysToConsume[name](t, short, q, 7, func(d delivery.Delivery[int]) { got = append(got, d.Body) })
				elapse(time.Second)
				cancel()
				var subs []*consumers.Pool[int]
				q.Locked(func() { subs = slices.Clone(q.Group.Subs) })
				for _, s := range subs {
					require.NoError(t, s.Workers.(*workers.Subscriber[int]).Shutdown(ctx))
				}
				require.Equal(t, []int{0, 1, 2, 3, 4, 5, 6}, got)
				elapse(time.Minute)
				publish(t, top, last)
				require.Equal(t, due, receive(t, q).Body)
				require.Equal(t, last, receive(t, q).Body)
				require.NoError(t, top.Close())
			})
		})
	}
	t.Run("of what timed out", func(t *testing.T) {
		bubble(t, func(t *testing.T, ctx context.Context) {
			top := newTopic[int](t)
			q := openQueue(t, top, "q", WithVisibilityTimeout(time.Second))
			publish(t, top, 1, 2, 3)
			ds, err := receiveBatch(q, ctx, 3)
			require.NoError(t, err)
			require.Len(t, ds, 3)
			elapse(time.Second)
			require.Equal(t, 1, receive(t, q).Body)
			publish(t, top, 4)
			require.Equal(t, 4, receive(t, q).Body)
			require.Equal(t, 2, receive(t, q).Body) // while no backlog waits
			publish(t, top, 5)
			require.Equal(t, 5, receive(t, q).Body)
			require.Equal(t, 3, receive(t, q).Body)
			require.NoError(t, top.Close())
		})
	})
}
