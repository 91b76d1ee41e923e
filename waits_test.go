package fanout

import (
	"context"
	"runtime"
	"slices"
	"strconv"
	"testing"
	"testing/synctest"
	"time"
	"weak"

	"github.com/stretchr/testify/require"
)

// Who waits for room, who waits behind them, and what wakes them.

// Who finds no room says that it waits, and then looks once more. Here it
// can't look, because the test has the queue. So the room that is made meanwhile is
// seen by its look, and whoever makes some after that is told that it waits.
func TestNoPublishMissesTheRoomThatIsMadeAsItBeginsToWait(t *testing.T) {
	for _, before := range []bool{true, false} {
		bubble(t, func(t *testing.T, ctx context.Context) {
			top := newTopic[int](t)
			q := openQueue(t, top, "q", WithCapacity(1))
			publish(t, top, 1)
			d := receive(t, q)
			q.mu.Lock()
			room := make(chan bool, 1)
			go func() {
				top.mu.Lock()
				defer top.mu.Unlock()
				room <- q.hasRoomOrGate(&offer[int]{waits: true}, top.log.Head(), 1)
			}()
			for n := 0; n < 10_000_000 && q.gate.Load() == 0; n++ {
				runtime.Gosched()
			}
			told := q.gate.Load() != 0
			if before { // as by one who saw no gate
				q.leases.Ack(d.ref)
				q.ackedLocked()
			}
			q.mu.Unlock()
			require.True(t, told, "it looks for room, and nobody would tell it of what is made then")
			require.Equal(t, before, <-room)
			if before {
				require.Zero(t, q.gate.Load(), "nobody waits")
			} else {
				require.NoError(t, d.Ack(ctx))
				require.Zero(t, q.gate.Load(), "who waits was not told")
			}
			check(t, top)
			require.NoError(t, top.Close())
		})
	}
}

// A batch waits for a whole queue, and others wait behind it. It gives up.
func TestWhoWaitsBehindABatchThatGaveUpGetsItsTurn(t *testing.T) {
	type scene struct {
		ctx  context.Context
		top  *Topic[int]
		q, o *Queue[int] // o gets only what is even
		ds   []Delivery[int]
	}
	publishing := func(body int) func(s *scene) error {
		return func(s *scene) error { return s.top.Publish(s.ctx, body) }
	}
	for _, row := range []struct {
		name   string
		held   int // in q, of a capacity of 3
		behind []func(s *scene) error
		// once counts those that go on as the batch gives up, the others do one by one
		// as a message is acknowledged.
		once int
	}{
		{"for one of whom there is room", 2, []func(s *scene) error{publishing(10)}, 1},
		{"all of whom there is room for", 1, []func(s *scene) error{publishing(10), publishing(12)}, 2},
		{"some of whom there is room for", 2, []func(s *scene) error{publishing(10), publishing(12), publishing(14)}, 1},
		{"who need one place, which is made later", 3, []func(s *scene) error{publishing(10), publishing(12)}, 0},
		{"who only wanted another queue of its", 3, []func(s *scene) error{func(s *scene) error {
			n, err := s.o.Redrive(s.ctx)
			if n != 1 {
				return errBusy
			}
			return err
		}}, 1},
		{"who redrives", 2, []func(s *scene) error{func(s *scene) error {
			n, err := s.q.Redrive(s.ctx)
			if n != 1 {
				return errBusy
			}
			return err
		}}, 1},
		{"who is a smaller batch", 1, []func(s *scene) error{func(s *scene) error {
			return s.top.PublishMessages(s.ctx, Message[int]{Body: 10}, Message[int]{Body: 12})
		}}, 1},
	} {
		t.Run(row.name, func(t *testing.T) {
			bubble(t, func(t *testing.T, ctx context.Context) {
				s := &scene{ctx: ctx, top: newTopic[int](t)}
				s.q = openQueue(t, s.top, "q", WithCapacity(3))
				s.o = openQueue(t, s.top, "o", WithFilter(func(n int) bool { return n%2 == 0 }))
				publish(t, s.top, 0) // a letter of both
				for _, q := range []*Queue[int]{s.q, s.o} {
					require.NoError(t, receive(t, q).Settle(ctx, Permanent(errBusy)))
				}
				for n := range row.held {
					publish(t, s.top, 2*n+1)
					s.ds = append(s.ds, receive(t, s.q))
				}
				start := time.Now()
				short, cancel := context.WithTimeout(ctx, time.Second)
				defer cancel()
				gaveUp := make(chan error, 1)
				go func() {
					gaveUp <- s.top.PublishMessages(short, Message[int]{Body: 2}, Message[int]{Body: 4}, Message[int]{Body: 6})
				}()
				synctest.Wait()
				went := make(chan error, len(row.behind))
				for _, f := range row.behind {
					go func() { went <- f(s) }()
					synctest.Wait()
				}
				require.Empty(t, went, "one overtook the batch")
				require.ErrorIs(t, <-gaveUp, context.DeadlineExceeded)
				synctest.Wait()
				require.Equal(t, time.Second, time.Since(start))
				require.Len(t, went, row.once)
				for k := row.once; k < len(row.behind); k++ {
					require.NoError(t, s.ds[k-row.once].Ack(ctx))
					synctest.Wait()
					require.Len(t, went, k+1)
				}
				for range row.behind {
					require.NoError(t, <-went)
				}
				check(t, s.top)
				require.NoError(t, s.top.Close())
			})
		})
	}
}

// A batch waits for room in one queue, and a handler's publish to another one
// behind it. The topic shuts down: the batch is refused, the handler is not.
func TestAHandlerBehindABatchThatAShutdownRefusedGetsItsTurn(t *testing.T) {
	bubble(t, func(t *testing.T, ctx context.Context) {
		top := newTopic[int](t)
		full := openQueue(t, top, "full", WithCapacity(2), WithFilter(func(n int) bool { return n%2 == 0 }))
		begin, published := make(chan struct{}), make(chan error, 1)
		s := subscribe(t, top, "q", func(hctx context.Context, d Delivery[int]) error {
			if d.Body == 0 {
				<-begin
				published <- top.Publish(hctx, 1)
			}
			return nil
		})
		publish(t, top, 0)
		d := receive(t, full)
		refused := make(chan error, 1)
		go func() { refused <- top.PublishMessages(ctx, Message[int]{Body: 2}, Message[int]{Body: 4}) }()
		synctest.Wait()
		close(begin)
		synctest.Wait()
		require.Empty(t, published)
		ended := make(chan error, 1)
		go func() { ended <- top.Shutdown(ctx) }()
		synctest.Wait()
		require.Len(t, published, 1)
		require.NoError(t, <-published)
		require.ErrorIs(t, <-refused, ErrClosed)
		require.NoError(t, d.Ack(ctx))
		require.NoError(t, <-ended)
		require.EqualValues(t, 2, s.Queue().Stats().Acked)
	})
}

// The list of sleepers holds queues that wait for a message, and no others.
func TestAClosedQueueIsNoneOfTheSleepers(t *testing.T) {
	waitIn := map[string]func(ctx context.Context, t *testing.T, q *Queue[int]){
		"receiver": func(ctx context.Context, t *testing.T, q *Queue[int]) {
			go func() {
				_, _ = q.Receive(ctx)
			}()
		},
		"subscriber": func(ctx context.Context, t *testing.T, q *Queue[int]) {
			_, err := q.Subscribe(ctx, func(context.Context, Delivery[int]) error { return nil })
			require.NoError(t, err)
		},
		"both": func(ctx context.Context, t *testing.T, q *Queue[int]) {
			_, err := q.Subscribe(ctx, func(context.Context, Delivery[int]) error { return nil })
			require.NoError(t, err)
			go func() {
				_, _ = q.Receive(ctx)
			}()
		},
	}
	const n = 5
	// closeOne closes the queue of a name, so that no variable of the caller's keeps it.
	closeOne := func(t *testing.T, top *Topic[int], name string) weak.Pointer[Queue[int]] {
		q := top.Queue(name)
		require.NoError(t, q.Close())
		require.NoError(t, q.Close())
		_, err := q.Receive(context.Background())
		require.ErrorIs(t, err, ErrClosed)
		return weak.Make(q)
	}
	for consumer, wait := range waitIn {
		for _, order := range [][]int{{0, 1, 2, 3, 4}, {4, 3, 2, 1, 0}, {2, 0, 4, 1, 3}} {
			t.Run(consumer, func(t *testing.T) {
				bubble(t, func(t *testing.T, ctx context.Context) {
					top := newTopic[int](t)
					for k := range n {
						wait(ctx, t, openQueue(t, top, strconv.Itoa(k)))
					}
					synctest.Wait()
					require.EqualValues(t, n, top.sleep.n.Load())
					for k, name := range order {
						closed := closeOne(t, top, strconv.Itoa(name))
						synctest.Wait()
						require.EqualValues(t, n-k-1, top.sleep.n.Load())
						require.Len(t, top.sleep.list, n-k-1)
						require.False(t, slices.ContainsFunc(top.sleep.list, func(q *Queue[int]) bool { return q.closed }))
						runtime.GC()
						runtime.GC()
						require.Nil(t, closed.Value(), "the topic keeps a closed queue")
					}
					require.NoError(t, top.Close())
				})
			})
		}
		t.Run(consumer+", with the topic", func(t *testing.T) {
			for _, end := range []func(ctx context.Context, top *Topic[int]) error{
				func(_ context.Context, top *Topic[int]) error { return top.Close() },
				func(ctx context.Context, top *Topic[int]) error { return top.Shutdown(ctx) },
			} {
				bubble(t, func(t *testing.T, ctx context.Context) {
					top := newTopic[int](t)
					for k := range n {
						wait(ctx, t, openQueue(t, top, strconv.Itoa(k)))
					}
					synctest.Wait()
					require.NoError(t, end(ctx, top))
					synctest.Wait()
					require.Zero(t, top.sleep.n.Load())
					require.Empty(t, top.sleep.list)
				})
			}
		})
	}
}

// Two queues of a topic get a message in turn. Whichever Shutdown looks at first,
// it finds it drained before the other.
func TestShutdownLooksAgainAtQueuesItFoundDrained(t *testing.T) {
	onBoth(t, func(t *testing.T, ctx context.Context, on func() TopicOption) {
		top := newTopic[int](t, on())
		var seen []int
		for k, name := range []string{"even", "odd"} {
			subscribe(t, top, name, func(hctx context.Context, d Delivery[int]) error {
				time.Sleep(time.Second)
				seen = append(seen, d.Body)
				if d.Body == 20 {
					return nil
				}
				return top.Publish(hctx, d.Body+1)
			}, WithFilter(func(n int) bool { return n%2 == k }))
		}
		publish(t, top, 0)
		require.NoError(t, top.Shutdown(ctx))
		require.Equal(t, to(0, 20), seen)
	})
}

// Nobody publishes, but what was delayed is due in a queue that was drained when
// Shutdown looked at it.
func TestShutdownLooksAgainAtQueuesWhereMessagesBecameDue(t *testing.T) {
	type work struct {
		queue string
		until time.Duration
	}
	bubble(t, func(t *testing.T, ctx context.Context) {
		top := newTopic[work](t)
		start := time.Now()
		for _, name := range []string{"a", "b"} {
			subscribe(t, top, name, func(_ context.Context, d Delivery[work]) error {
				time.Sleep(d.Body.until - time.Since(start))
				return nil
			}, WithVisibilityTimeout(time.Hour), WithFilter(func(w work) bool { return w.queue == name }))
		}
		require.NoError(t, top.PublishMessages(ctx,
			Message[work]{Body: work{"b", 2 * time.Second}},
			Message[work]{Body: work{"a", 10 * time.Second}, Delay: time.Second},
			Message[work]{Body: work{"b", 20 * time.Second}, Delay: 5 * time.Second},
			Message[work]{Body: work{"a", 100 * time.Second}, Delay: 15 * time.Second},
		))
		require.NoError(t, top.Shutdown(ctx))
		require.Equal(t, 100*time.Second, time.Since(start))
	})
}
