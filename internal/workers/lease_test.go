package workers

import (
	"context"
	"errors"
	"fmt"
	"runtime"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/gofanout/fanout/internal/delivery"
	"github.com/gofanout/fanout/internal/lifecycle"
	"github.com/gofanout/fanout/internal/message"
	"github.com/gofanout/fanout/internal/queue"
	"github.com/gofanout/fanout/internal/view"
)

// A lease is 1 message long, then 2, 4 and so on up to 64, as long as handlers
// take no time, which in virtual time they don't, and none goes beyond a segment
// of the log: of 300 messages, 0 and 1 begin a lease, 2 ends one, and the others
// stand here and there in leases of every length.
const ofPrefetched = 300

var inPrefetched = []int{0, 1, 2, 6, 7, 20, 62, 63, 64, 126, 127, 150, 190, 191, 299}

// got collects what handlers were given, and when.
type got struct {
	mutex chan struct{}
	began time.Time
	what  []int
	when  map[int][]time.Duration
}

func newGot() *got {
	return &got{mutex: make(chan struct{}, 1), began: time.Now(), when: map[int][]time.Duration{}}
}

func (g *got) add(body int) {
	g.mutex <- struct{}{}
	g.what = append(g.what, body)
	g.when[body] = append(g.when[body], time.Since(g.began))
	<-g.mutex
}

// homeOf is what stands for the topic of a queue.
func homeOf[T any](q *queue.Queue[T]) *home[T] { return q.T.Owner.(*home[T]) }

func TestNoMessageWaitsBehindASlowHandlerWhileAnotherWorkerIsIdle(t *testing.T) {
	for _, slow := range inPrefetched {
		for _, workers := range []int{2, 3, 8} {
			bubble(t, func(t *testing.T, ctx context.Context) {
				h := newHome[int](t)
				g := newGot()
				h.subscribe(t, func(_ context.Context, d delivery.Delivery[int]) error {
					g.add(d.Body)
					if d.Body == slow {
						time.Sleep(10 * time.Second)
					}
					return nil
				}, concurrency(workers))
				h.publish(from(0, ofPrefetched)...)
				elapse(time.Minute)
				require.Len(t, g.when, ofPrefetched)
				for body, when := range g.when {
					require.Equal(t, []time.Duration{0}, when, "message %d, while %d was slow", body, slow)
				}
				h.end(t)
			})
		}
	}
}

func TestWhoComesWhileALeaseWaitsTakesFromIt(t *testing.T) {
	for _, slow := range inPrefetched {
		for name, come := range map[string]func(t *testing.T, q *queue.Queue[int], g *got){
			"a subscriber": func(t *testing.T, q *queue.Queue[int], g *got) {
				start(t, q, func(_ context.Context, d delivery.Delivery[int]) error { g.add(d.Body); return nil }, nil)
			},
			"one who receives": func(t *testing.T, q *queue.Queue[int], g *got) {
				for range ofPrefetched - 1 - slow {
					d := receive(t, q)
					g.add(d.Body)
					require.NoError(t, d.Ack(t.Context()))
				}
				require.Zero(t, view.StatsOf(q).Ready)
			},
			"one who receives batches": func(t *testing.T, q *queue.Queue[int], g *got) {
				for left := ofPrefetched - 1 - slow; left > 0; {
					ds, err := delivery.TakeBatch(t.Context(), q, 17, q.Visibility())
					require.NoError(t, err)
					for _, d := range ds {
						g.add(d.Body)
					}
					require.Empty(t, delivery.AckAll(t.Context(), q, ds))
					left -= len(ds)
				}
				require.Zero(t, view.StatsOf(q).Ready)
			},
		} {
			bubble(t, func(t *testing.T, ctx context.Context) {
				h := newHome[int](t)
				g := newGot()
				h.subscribe(t, func(_ context.Context, d delivery.Delivery[int]) error {
					g.add(d.Body)
					if d.Body == slow {
						time.Sleep(20 * time.Second)
					}
					return nil
				})
				h.publish(from(0, ofPrefetched)...)
				elapse(10 * time.Second)
				require.Equal(t, from(0, slow+1), g.what)
				come(t, h.q, g)
				synctest.Wait()
				require.Equal(t, from(0, ofPrefetched), g.what, "%s comes while %d is slow", name, slow)
				for body, when := range g.when {
					want := 10 * time.Second
					if body <= slow {
						want = 0
					}
					require.Equal(t, []time.Duration{want}, when, "message %d", body)
				}
				elapse(time.Minute)
				h.end(t)
			})
		}
	}
}

func TestWhatHappensInTheMiddleOfALease(t *testing.T) {
	const n = ofPrefetched
	for _, at := range inPrefetched {
		type scene struct {
			q *queue.Queue[int]
			s *Subscriber[int]
			g *got
		}
		for name, row := range map[string]struct {
			inHandler func(t *testing.T, c *scene, d delivery.Delivery[int]) error // with message at
			after     func(t *testing.T, c *scene)                                 // when nothing moves any more
		}{
			"stats": {
				func(t *testing.T, c *scene, _ delivery.Delivery[int]) error {
					s := view.StatsOf(c.q)
					require.Equal(t, []int{at, 1, n - at - 1}, []int{int(s.Acked), s.InFlight, s.Ready})
					require.EqualValues(t, at+1, s.Delivered)
					return nil
				},
				func(t *testing.T, c *scene) { require.Equal(t, from(0, n), c.g.what) },
			},
			"peek": {
				func(t *testing.T, c *scene, _ delivery.Delivery[int]) error {
					require.Equal(t, append([]int{}, from(at+1, n)...), waiting(t, c.q))
					return nil
				},
				func(t *testing.T, c *scene) { require.Equal(t, from(0, n), c.g.what) },
			},
			"pause": {
				func(t *testing.T, c *scene, _ delivery.Delivery[int]) error { return lifecycle.Pause(t.Context(), c.q) },
				func(t *testing.T, c *scene) {
					require.Equal(t, from(0, at+1), c.g.what)
					require.Equal(t, n-at-1, view.StatsOf(c.q).Ready)
					require.NoError(t, lifecycle.Resume(t.Context(), c.q))
					synctest.Wait()
					require.Equal(t, from(0, n), c.g.what)
				},
			},
			"purge": {
				func(t *testing.T, c *scene, d delivery.Delivery[int]) error {
					dropped, err := lifecycle.Purge(t.Context(), c.q)
					require.Equal(t, n-at, dropped)
					require.ErrorIs(t, d.Ack(t.Context()), message.ErrStale)
					return err
				},
				func(t *testing.T, c *scene) {
					require.Equal(t, from(0, at+1), c.g.what)
					homeOf(c.q).publish(n)
					synctest.Wait()
					require.Equal(t, append(from(0, at+1), n), c.g.what)
				},
			},
			"close": {
				func(t *testing.T, c *scene, d delivery.Delivery[int]) error {
					require.NoError(t, lifecycle.Close(c.q))
					require.ErrorIs(t, d.Ack(t.Context()), message.ErrClosed)
					return nil
				},
				func(t *testing.T, c *scene) {
					require.Equal(t, from(0, at+1), c.g.what)
					var left []int
					for _, m := range lifecycle.Leftovers(c.q) {
						left = append(left, m.Body)
					}
					require.Equal(t, from(at, n), left)
				},
			},
			"shutdown of the subscriber": {
				func(t *testing.T, c *scene, d delivery.Delivery[int]) error {
					ended, end := context.WithCancel(t.Context())
					end()
					require.ErrorIs(t, c.s.Shutdown(ended), context.Canceled)
					return context.Canceled
				},
				func(t *testing.T, c *scene) {
					require.Equal(t, from(0, at+1), c.g.what)
					require.False(t, isOpen(c.s.Done()))
					for k := at; k < n; k++ {
						d := receive(t, c.q)
						require.Equal(t, k, d.Body)
						require.Equal(t, 1, d.Attempt(), "a release spends none")
						require.NoError(t, d.Ack(t.Context()))
					}
				},
			},
			"a panic":   {func(*testing.T, *scene, delivery.Delivery[int]) error { panic("boom") }, nil},
			"Goexit":    {func(*testing.T, *scene, delivery.Delivery[int]) error { runtime.Goexit(); return nil }, nil},
			"a failure": {func(*testing.T, *scene, delivery.Delivery[int]) error { return errBusy }, nil},
			"a nack":    {func(t *testing.T, _ *scene, d delivery.Delivery[int]) error { return d.Nack(t.Context()) }, nil},
			"an ack, and a failure too late": {
				func(t *testing.T, _ *scene, d delivery.Delivery[int]) error {
					require.NoError(t, d.Ack(t.Context()))
					require.ErrorIs(t, d.Ack(t.Context()), message.ErrSettled)
					return errBusy
				},
				func(t *testing.T, c *scene) { require.Equal(t, from(0, n), c.g.what) },
			},
			"an extension": {
				func(t *testing.T, c *scene, d delivery.Delivery[int]) error {
					deadline := d.Deadline()
					require.WithinRange(t, deadline, time.Now().Add(time.Second), time.Now().Add(time.Second+time.Millisecond))
					require.NoError(t, d.Extend(t.Context(), time.Minute))
					require.Equal(t, time.Now().Add(time.Minute), d.Deadline())
					time.Sleep(59 * time.Second)
					require.Equal(t, 1, view.StatsOf(c.q).InFlight)
					return nil
				},
				func(t *testing.T, c *scene) { require.Equal(t, from(0, n), c.g.what) },
			},
			"another goroutine that settles": {
				func(t *testing.T, c *scene, d delivery.Delivery[int]) error {
					ended := make(chan error)
					go func() {
						ended <- errors.Join(d.Extend(t.Context(), time.Hour), d.Ack(t.Context()))
					}()
					require.NoError(t, <-ended)
					require.True(t, d.Deadline().IsZero())
					return nil
				},
				func(t *testing.T, c *scene) { require.Equal(t, from(0, n), c.g.what) },
			},
		} {
			t.Run(fmt.Sprintf("%s/%d", name, at), func(t *testing.T) {
				bubble(t, func(t *testing.T, ctx context.Context) {
					h := newHome[int](t, visible(time.Second), backoff(time.Second))
					c := &scene{g: newGot()}
					before := delivery.Delivery[int]{}
					c.s = h.subscribe(t, func(ctx context.Context, d delivery.Delivery[int]) error {
						c.g.add(d.Body)
						if d.Body != at || d.Attempt() > 1 {
							before = d
							return nil
						}
						if at > 0 {
							require.ErrorIs(t, before.Ack(ctx), message.ErrSettled, "the one before is done")
							require.True(t, before.Deadline().IsZero())
						}
						return row.inHandler(t, c, d)
					})
					c.q = c.s.Queue()
					h.publish(from(0, n)...)
					elapse(2 * time.Minute)
					if row.after != nil {
						row.after(t, c)
					} else {
						require.Equal(t, append(from(0, n), at), c.g.what, "it comes again, and holds up no other")
						require.Equal(t, []time.Duration{0, time.Second}, c.g.when[at])
						require.EqualValues(t, n, view.StatsOf(c.q).Acked)
					}
					synctest.Wait()
					h.end(t)
				})
			})
		}
	}
}
