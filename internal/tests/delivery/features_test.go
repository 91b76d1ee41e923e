// What users turn on takes the same steps as a plain message: here is what must hold when
// messages with features are prefetched.

package delivery_test

import (
	"context"
	"fmt"
	"runtime"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/gofanout/fanout"
	"github.com/gofanout/fanout/internal/raced"
	"github.com/gofanout/fanout/internal/tests/kit"
)

const micro = time.Microsecond

// flood publishes n messages with the bodies 0 to n-1 before any is delivered.
func flood(t *testing.T, top *fanout.Topic[int], n int) {
	t.Helper()
	messages := make([]fanout.Message[int], n)
	for k := range messages {
		messages[k].Body = k
	}
	require.NoError(t, top.PublishMessages(t.Context(), messages...))
}

// Hooks hear of each message at its instant and in its turn, whatever becomes of it.
func TestHooksHearOfPrefetchedMessagesOneByOne(t *testing.T) {
	for _, heard := range []string{"delivered", "settled", "delivered settled"} {
		t.Run(heard, func(t *testing.T) {
			kit.Bubble(t, func(t *testing.T, ctx context.Context) {
				var told, want []string
				var last uint64
				var q *fanout.Queue[int]
				hook := func(what string) func(fanout.Event) {
					if !strings.Contains(heard, what) {
						return nil
					}
					return func(e fanout.Event) {
						require.Less(t, last, e.Seq)
						last = e.Seq
						require.True(t, e.Time.Equal(time.Now()), "%v, and it is %v", e.Time, time.Now())
						require.Equal(t, 1, e.Count)
						q.Stats() // takes the queue's lock
						told = append(told, fmt.Sprintf("%s %s %d %v %v %v", what, e.MessageID, e.Attempt, e.Cause, e.Elapsed, e.Err))
					}
				}
				top := kit.NewTopic[int](t, fanout.WithHooks(fanout.Hooks{Delivered: hook("delivered"), Settled: hook("settled")}))
				q = kit.OpenQueue(t, top, "q", fanout.WithMaxAttempts(1), fanout.WithVisibilityTimeout(20*time.Millisecond))
				const n = 120
				flood(t, top, n)
				_, err := q.Subscribe(ctx, func(ctx context.Context, d fanout.Delivery[int]) (err error) {
					work, cause := 3*micro, fanout.Acked
					switch d.Body % 10 {
					case 5:
						work, err, cause = 7*micro, kit.ErrBusy, fanout.Failed
					case 7:
						work = 3 * time.Millisecond // the timer looks at it
					case 8:
						if d.Body == 88 {
							work, err, cause = 9*micro, kit.ErrBusy, fanout.Nacked
						}
					}
					if strings.Contains(heard, "delivered") {
						want = append(want, fmt.Sprintf("delivered %s 1 none 0s <nil>", d.ID()))
					}
					time.Sleep(work)
					if strings.Contains(heard, "settled") {
						text := err
						if cause == fanout.Nacked {
							text = nil
						}
						want = append(want, fmt.Sprintf("settled %s 1 %v %v %v", d.ID(), cause, work, text))
					}
					switch {
					case cause == fanout.Nacked:
						require.NoError(t, d.Nack(ctx))
					case d.Body%10 == 9:
						require.NoError(t, d.Ack(ctx))
					}
					return err
				})
				require.NoError(t, err)
				synctest.Wait()
				time.Sleep(time.Second)
				synctest.Wait()
				require.Equal(t, want, told)
				require.NotEmpty(t, want)
				s := q.Stats()
				require.Equal(t, []uint64{n, n - 13, 12, 1}, []uint64{s.Delivered, s.Acked, s.Failed, s.Nacked})
				require.NoError(t, top.Close())
			})
		})
	}
}

// While a hook hears that a message was settled, the worker has no other one.
func TestABlockingHookKeepsNoMessage(t *testing.T) {
	kit.Bubble(t, func(t *testing.T, ctx context.Context) {
		var q *fanout.Queue[int]
		settled, goOn := 0, make(chan struct{})
		top := kit.NewTopic[int](t, fanout.WithHooks(fanout.Hooks{Settled: func(fanout.Event) {
			if settled++; settled == 10 {
				require.Zero(t, q.Stats().InFlight)
				<-goOn
			}
		}}))
		q = kit.OpenQueue(t, top, "q")
		flood(t, top, 20)
		_, err := q.Subscribe(ctx, func(context.Context, fanout.Delivery[int]) error { return nil })
		require.NoError(t, err)
		synctest.Wait()
		require.Equal(t, 10, settled)
		require.Equal(t, 10, q.Stats().Ready)
		for k := range 5 {
			d, ok, err := q.TryReceive(ctx)
			require.NoError(t, err)
			require.True(t, ok)
			require.Equal(t, 10+k, d.Body)
			require.Equal(t, 1, d.Attempt())
		}
		close(goOn)
		synctest.Wait()
		require.Equal(t, 15, settled)
		require.Equal(t, 5, q.Stats().InFlight)
		require.NoError(t, top.Close())
	})
}

// A hook that ends the worker's goroutine ends no more than that.
func TestAHookThatExitsBetweenPrefetchedMessages(t *testing.T) {
	kit.Bubble(t, func(t *testing.T, ctx context.Context) {
		told := map[string]int{}
		hook := func(what string) func(fanout.Event) {
			return func(e fanout.Event) {
				told[what]++
				require.Equal(t, 1, e.Attempt)
				if told[what]%7 == 0 {
					runtime.Goexit()
				}
			}
		}
		top := kit.NewTopic[int](t, fanout.WithHooks(fanout.Hooks{
			Delivered: hook("delivered"), Settled: hook("settled"),
			Late: func(fanout.Event) { told["late"]++ },
		}))
		q := kit.OpenQueue(t, top, "q")
		const n = 100
		flood(t, top, n)
		var seen [n]int
		_, err := q.Subscribe(ctx, func(_ context.Context, d fanout.Delivery[int]) error {
			seen[d.Body]++
			return nil
		})
		require.NoError(t, err)
		synctest.Wait()
		for k, times := range seen {
			require.Equal(t, 1, times, "message %d", k)
		}
		require.Equal(t, map[string]int{"delivered": n, "settled": n}, told)
		require.NoError(t, top.Close())
	})
}

// Who hears of each delivery knows when it began: so it times out at its instant, though it
// was prefetched.
func TestATimedDeliveryTimesOutAtItsInstant(t *testing.T) {
	const vis = 5 * time.Millisecond
	for name, options := range map[string][]fanout.TopicOption{
		"hooks":         {fanout.WithHooks(fanout.Hooks{Settled: func(fanout.Event) {}})},
		"all the hooks": {fanout.WithHooks(fanout.Hooks{Settled: func(fanout.Event) {}, Delivered: func(fanout.Event) {}})},
		"a rate limit":  nil,
	} {
		t.Run(name, func(t *testing.T) {
			kit.Bubble(t, func(t *testing.T, ctx context.Context) {
				top := kit.NewTopic[int](t, options...)
				q := kit.OpenQueue(t, top, "q", fanout.WithVisibilityTimeout(vis), fanout.WithMaxAttempts(1))
				flood(t, top, 30)
				hung := false
				var limit []fanout.WorkerOption
				if options == nil {
					limit = append(limit, fanout.WithRateLimit(1e9))
				}
				_, err := q.Subscribe(ctx, func(ctx context.Context, d fanout.Delivery[int]) error {
					if d.Body < 20 {
						time.Sleep(13 * micro)
						return nil
					}
					if d.Body > 20 {
						return nil
					}
					began := time.Now()
					<-ctx.Done()
					require.ErrorIs(t, context.Cause(ctx), fanout.ErrStale)
					require.Equal(t, vis, time.Since(began))
					hung = true
					return nil
				}, limit...)
				require.NoError(t, err)
				time.Sleep(time.Second)
				synctest.Wait()
				require.True(t, hung)
				require.Equal(t, uint64(29), q.Stats().Acked)
				require.Equal(t, uint64(1), q.Stats().TimedOut)
				letters, err := q.DeadLetters().Peek(ctx, 10)
				require.NoError(t, err)
				require.Len(t, letters, 1)
				require.Equal(t, vis, letters[0].History()[0].Elapsed)
				require.NoError(t, top.Close())
			})
		})
	}
}

// A rate limit spaces the starts evenly, and costs no time if it does not bite.
func TestARateLimitSpacesPrefetchedMessages(t *testing.T) {
	const every = 5 * micro
	kit.Bubble(t, func(t *testing.T, ctx context.Context) {
		top := kit.NewTopic[int](t)
		const n = 200
		work := func(k int) time.Duration {
			switch {
			case k < 60:
				return every + micro // it does not bite
			case k < 100:
				return micro
			case k < 140:
				return time.Duration(k%11) * micro
			}
			return 2 * every
		}
		flood0 := time.Now()
		var starts []time.Duration
		q := kit.OpenQueue(t, top, "q")
		flood(t, top, n)
		_, err := q.Subscribe(ctx, func(_ context.Context, d fanout.Delivery[int]) error {
			require.Equal(t, len(starts), d.Body)
			starts = append(starts, time.Since(flood0))
			time.Sleep(work(d.Body))
			return nil
		}, fanout.WithRateLimit(float64(time.Second/every)))
		require.NoError(t, err)
		time.Sleep(time.Second)
		synctest.Wait()
		require.Len(t, starts, n)
		for k := 1; k < n; k++ {
			require.Equal(t, starts[k-1]+max(work(k-1), every), starts[k], "message %d", k)
		}
		require.NoError(t, top.Close())
	})
}

// A start that the rate limit has given is not lost if somebody else takes the message.
func TestARateLimitLosesNoStart(t *testing.T) {
	const every, work = 5 * micro, 6 * micro
	kit.Bubble(t, func(t *testing.T, ctx context.Context) {
		var q *fanout.Queue[int]
		var starts []time.Time
		taken := 0
		top := kit.NewTopic[int](t, fanout.WithHooks(fanout.Hooks{Settled: func(e fanout.Event) {
			if len(starts)%9 == 5 {
				_, ok, err := q.TryReceive(ctx) // it takes back what waits
				require.NoError(t, err)
				require.True(t, ok)
				taken++
			}
		}}))
		q = kit.OpenQueue(t, top, "q")
		const n = 100
		flood(t, top, n)
		_, err := q.Subscribe(ctx, func(context.Context, fanout.Delivery[int]) error {
			starts = append(starts, time.Now())
			time.Sleep(work)
			return nil
		}, fanout.WithRateLimit(float64(time.Second/every)))
		require.NoError(t, err)
		time.Sleep(time.Second)
		synctest.Wait()
		require.Len(t, starts, n-taken)
		for k := 1; k < len(starts); k++ {
			require.Equal(t, work, starts[k].Sub(starts[k-1]), "start %d", k)
		}
		require.NoError(t, top.Close())
	})
}

// Workers of one subscriber share its rate limit.
func TestWorkersShareARateLimit(t *testing.T) {
	const every = 50 * micro
	kit.Bubble(t, func(t *testing.T, ctx context.Context) {
		top := kit.NewTopic[int](t)
		q := kit.OpenQueue(t, top, "q")
		const n = 300
		flood(t, top, n)
		var mu sync.Mutex
		var starts []time.Time
		_, err := q.Subscribe(ctx, func(_ context.Context, d fanout.Delivery[int]) error {
			mu.Lock()
			starts = append(starts, time.Now())
			mu.Unlock()
			time.Sleep(time.Duration(30+d.Body%90) * micro)
			return nil
		}, fanout.WithConcurrency(4), fanout.WithRateLimit(float64(time.Second/every)))
		require.NoError(t, err)
		time.Sleep(time.Second)
		synctest.Wait()
		require.Len(t, starts, n)
		for k := 1; k < n; k++ {
			require.Equal(t, every, starts[k].Sub(starts[k-1]), "message %d", k)
		}
		require.NoError(t, top.Close())
	})
}

// A handler's timeout counts from its own start, and touches no other run.
func TestAHandlerTimeoutOfAPrefetchedMessage(t *testing.T) {
	const limit = 400 * micro
	for name, hooks := range map[string]fanout.Hooks{
		"alone":            {},
		"with hooks":       {Settled: func(fanout.Event) { time.Sleep(micro) }},
		"before slow ones": {Settled: func(fanout.Event) { time.Sleep(150 * micro) }}, // its time would pass in one
		"behind slow ones": {Delivered: func(fanout.Event) { time.Sleep(300 * micro) }},
	} {
		t.Run(name, func(t *testing.T) {
			kit.Bubble(t, func(t *testing.T, ctx context.Context) {
				top := kit.NewTopic[int](t, fanout.WithHooks(hooks))
				q := kit.OpenQueue(t, top, "q", fanout.WithMaxAttempts(2), fanout.WithBackoff(fanout.Constant(time.Second)))
				const n = 100
				flood(t, top, n)
				var returned []context.Context
				late := 0
				_, err := q.Subscribe(ctx, func(ctx context.Context, d fanout.Delivery[int]) error {
					began := time.Now()
					if d.Body%9 != 8 {
						time.Sleep(time.Duration(d.Body%4) * 100 * micro)
						returned = append(returned, ctx)
						if d.Body%5 == 1 && d.Attempt() == 1 {
							return kit.ErrBusy
						}
						return nil
					}
					<-ctx.Done()
					require.Equal(t, limit, time.Since(began))
					require.ErrorIs(t, context.Cause(ctx), context.DeadlineExceeded)
					late++
					return context.Cause(ctx)
				}, fanout.WithHandlerTimeout(limit))
				require.NoError(t, err)
				time.Sleep(time.Minute)
				synctest.Wait()
				require.Equal(t, 2*11, late)
				for _, ctx := range returned {
					require.NoError(t, ctx.Err(), "it has returned")
				}
				require.NoError(t, top.Close())
				synctest.Wait()
			})
		})
	}
}

// A message that waits behind others in a lease is not begun once its time to live has
// passed, and not given up before.
func TestAPrefetchedMessageExpiresAtItsInstant(t *testing.T) {
	const n = 40
	for _, ttl := range []time.Duration{100 * micro, time.Millisecond, time.Millisecond + 1, 1900 * micro, 5 * time.Millisecond} {
		for name, own := range map[string]bool{"of the queue": false, "its own": true} {
			for _, work := range []time.Duration{10 * micro, 130 * micro, 700 * micro} {
				t.Run(fmt.Sprint(name, " ", ttl, " ", work), func(t *testing.T) {
					kit.Bubble(t, func(t *testing.T, ctx context.Context) {
						top := kit.NewTopic[int](t)
						options := []fanout.QueueOption{fanout.WithTimeToLive(ttl)}
						if own {
							options = nil
						}
						q := kit.OpenQueue(t, top, "q", options...)
						messages := make([]fanout.Message[int], n)
						for k := range messages {
							messages[k].Body = k
							if own {
								messages[k].TimeToLive = ttl
							}
						}
						require.NoError(t, top.PublishMessages(ctx, messages...))
						published := time.Now()
						handled := 0
						_, err := q.Subscribe(ctx, func(_ context.Context, d fanout.Delivery[int]) error {
							require.Less(t, time.Since(published), ttl, "message %d", d.Body)
							require.Equal(t, handled, d.Body)
							handled++
							time.Sleep(work)
							return nil
						})
						require.NoError(t, err)
						time.Sleep(time.Minute)
						synctest.Wait()
						require.Equal(t, min(n, int((ttl+work-1)/work)), handled)
						require.Equal(t, uint64(n-handled), q.Stats().Expired)
						require.NoError(t, top.Close())
					})
				})
			}
		}
	}
}

// What lives longer by itself does not hide that those behind it have expired.
func TestAMessageThatLivesLongerStandsBeforeOthers(t *testing.T) {
	for name, handle := range map[string]func(ctx context.Context, q *fanout.Queue[int], f func(int)) error{
		"one": func(ctx context.Context, q *fanout.Queue[int], f func(int)) error {
			_, err := q.Subscribe(ctx, func(_ context.Context, d fanout.Delivery[int]) error { f(d.Body); return nil })
			return err
		},
		"batches": func(ctx context.Context, q *fanout.Queue[int], f func(int)) error {
			_, err := q.SubscribeBatch(ctx, func(_ context.Context, ds []fanout.Delivery[int]) error {
				for k := range ds {
					f(ds[k].Body)
				}
				return nil
			}, fanout.WithBatchSize(5))
			return err
		},
		"a call": func(ctx context.Context, q *fanout.Queue[int], f func(int)) error {
			ds, err := q.ReceiveBatch(ctx, 10)
			for k := range ds {
				f(ds[k].Body)
			}
			return err
		},
		"a range": func(ctx context.Context, q *fanout.Queue[int], f func(int)) error {
			ctx, cancel := context.WithTimeout(ctx, time.Second)
			defer cancel()
			for d, err := range q.Deliveries(ctx) {
				if err == nil {
					f(d.Body)
				}
			}
			return nil
		},
	} {
		t.Run(name, func(t *testing.T) {
			kit.Bubble(t, func(t *testing.T, ctx context.Context) {
				top := kit.NewTopic[int](t)
				q := kit.OpenQueue(t, top, "q", fanout.WithTimeToLive(10*time.Millisecond))
				message := func(k int, ttl time.Duration) fanout.Message[int] {
					return fanout.Message[int]{Body: k, TimeToLive: ttl}
				}
				require.NoError(t, top.PublishMessages(ctx, message(1, time.Hour), message(2, 0), message(3, 0), message(4, time.Hour), message(5, 11*time.Millisecond)))
				time.Sleep(10 * time.Millisecond)
				require.NoError(t, top.PublishMessages(ctx, message(6, 0)))
				var got []int
				require.NoError(t, handle(ctx, q, func(k int) { got = append(got, k) }))
				synctest.Wait()
				require.Equal(t, []int{1, 4, 5, 6}, got)
				require.Equal(t, uint64(2), q.Stats().Expired)
				require.NoError(t, top.Close())
			})
		})
	}
}

// A publish that waits for room gets that of a message at the instant at which its time to
// live passes: where it stands in the log, or where it waited in a lease.
func TestAPublishWaitsForAMessageToExpire(t *testing.T) {
	const ttl = 7 * time.Millisecond
	for name, own := range map[string]bool{"of the queue": false, "its own": true} {
		t.Run(name, func(t *testing.T) {
			kit.Bubble(t, func(t *testing.T, ctx context.Context) {
				top := kit.NewTopic[int](t)
				options := []fanout.QueueOption{fanout.WithCapacity(50), fanout.WithTimeToLive(ttl)}
				message := func(k int) fanout.Message[int] { return fanout.Message[int]{Body: k} }
				if own {
					options = options[:1]
					message = func(k int) fanout.Message[int] { return fanout.Message[int]{Body: k, TimeToLive: ttl} }
				}
				q := kit.OpenQueue(t, top, "q", options...)
				began := time.Now()
				for k := range 50 {
					require.NoError(t, top.PublishMessages(ctx, message(k)))
				}
				_, err := q.Subscribe(ctx, func(ctx context.Context, d fanout.Delivery[int]) error {
					if d.Body == 10 { // it has prefetched some
						<-ctx.Done()
					}
					return nil
				})
				require.NoError(t, err)
				synctest.Wait()
				for k := range 10 {
					require.NoError(t, top.PublishMessages(ctx, message(50+k)))
				}
				require.LessOrEqual(t, time.Since(began), time.Millisecond, "the room of what is done")
				require.NoError(t, top.PublishMessages(ctx, message(60)))
				require.Equal(t, ttl, time.Since(began))
				kit.OpenQueue(t, top, "nobody's", options...)
				began = time.Now()
				for k := range 51 {
					require.NoError(t, top.PublishMessages(ctx, message(k)))
				}
				require.Equal(t, ttl, time.Since(began))
				require.NoError(t, top.Close())
			})
		})
	}
}

// Messages with features cost no allocation beside what their events need. That is counted
// in a bubble, where time stands still: so the timer never looks at a lease, however long a
// busy machine takes over it.
func TestPrefetchedMessagesWithFeaturesAllocateLittle(t *testing.T) {
	quiet := func(fanout.Event) {}
	type key struct{}
	for name, row := range map[string]struct {
		most    float64
		topic   []fanout.TopicOption
		options []fanout.SubscribeOption
		asks    func(ctx context.Context)
		keys    []string
		pooled  bool // something of each message is of a pool, which forgets with the race detector
	}{
		"plain":        {most: 0.02},
		"ordering key": {most: 1.02, topic: []fanout.TopicOption{fanout.WithOrdering()}, keys: []string{"a", "b", "c"}, pooled: true}, // what the message has beside its body
		"published":    {most: 0.06, topic: []fanout.TopicOption{fanout.WithHooks(fanout.Hooks{Published: quiet})}, pooled: true},
		"settled":      {most: 0.06, topic: []fanout.TopicOption{fanout.WithHooks(fanout.Hooks{Settled: quiet})}},
		"delivered":    {most: 0.06, topic: []fanout.TopicOption{fanout.WithHooks(fanout.Hooks{Delivered: quiet})}},
		"time to live": {most: 0.02, options: []fanout.SubscribeOption{fanout.WithTimeToLive(time.Hour)}},
		"rate limit": {most: 0.02, options: []fanout.SubscribeOption{fanout.WithRateLimit(1e9)}, asks: func(context.Context) {
			time.Sleep(time.Nanosecond) // as much as the limit wants
		}},
		"handler timeout": {most: 0.02, options: []fanout.SubscribeOption{fanout.WithHandlerTimeout(time.Hour)}},
		"the context's error": {most: 0.02, asks: func(ctx context.Context) {
			if ctx.Err() != nil || ctx.Value(key{}) != nil {
				panic("cancelled")
			}
		}},
	} {
		t.Run(name, func(t *testing.T) {
			kit.Bubble(t, func(t *testing.T, ctx context.Context) {
				const messages = 1000
				top := kit.NewTopic[int](t, row.topic...)
				handled, n := make(chan struct{}, 1), 0
				_, err := top.Subscribe(ctx, "q", func(ctx context.Context, _ fanout.Delivery[int]) error {
					if row.asks != nil {
						row.asks(ctx)
					}
					if n++; n == messages {
						n = 0
						handled <- struct{}{}
					}
					return nil
				}, row.options...)
				require.NoError(t, err)
				each := testing.AllocsPerRun(20, func() {
					for k := range messages {
						m := fanout.Message[int]{Body: k}
						if len(row.keys) > 0 {
							m.OrderingKey = row.keys[k%len(row.keys)]
						}
						if top.PublishMessages(ctx, m) != nil {
							panic("not published")
						}
					}
					<-handled
				}) / messages
				t.Logf("%v allocations a delivery", each)
				if raced.On && row.pooled {
					row.most++
				}
				require.LessOrEqual(t, each, row.most)
				require.NoError(t, top.Close())
			})
		})
	}
}
