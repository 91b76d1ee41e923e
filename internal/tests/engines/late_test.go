// What happens between what an engine does and its response, and what a queue keeps of
// a message for its engine, or has it keep.

package engines_test

import (
	"context"
	"errors"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/gofanout/fanout"
	"github.com/gofanout/fanout/engine"
	"github.com/gofanout/fanout/internal/fakeengine"
)

func TestATopicThatIsClosedBeforeTheEngineResponds(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		e := fakeengine.New(fakeengine.Config{})
		for _, op := range []fakeengine.Op{fakeengine.OpenQueue, fakeengine.Receive, fakeengine.Ack} {
			top := onEngine(t, e)
			var q *fanout.Queue[string]
			if op != fakeengine.OpenQueue {
				q = engineQueue(t, top)
				require.NoError(t, top.Publish(t.Context(), "a"))
			}
			var d fanout.Delivery[string]
			if op == fakeengine.Ack {
				d = next(t, q)
			}
			e.Inject(fakeengine.Fault{Op: op, Nth: 1, Late: time.Second})
			ended := make(chan error)
			go func() {
				ended <- map[fakeengine.Op]func() error{
					fakeengine.OpenQueue: func() error { _, err := top.OpenQueue(context.Background(), "q"); return err },
					fakeengine.Receive:   func() error { _, err := q.Receive(context.Background()); return err },
					fakeengine.Ack:       func() error { return d.Ack(context.Background()) },
				}[op]()
			}()
			synctest.Wait()
			require.NoError(t, top.Close())
			if op == fakeengine.Ack {
				require.NoError(t, <-ended, "it was done")
			} else {
				require.ErrorIs(t, <-ended, fanout.ErrClosed, op)
			}
			<-top.Done()
		}
		// What was received, and given to nobody, comes again when its lease ends.
		top := onEngine(t, e)
		q := engineQueue(t, top)
		start := time.Now()
		d := next(t, q)
		require.Equal(t, "a", d.Body)
		require.LessOrEqual(t, time.Since(start), 32*time.Second)
		require.NoError(t, d.Ack(t.Context()))
		n, err := q.Depth(t.Context())
		require.NoError(t, err)
		require.Zero(t, n.Unsettled())
		endTopic(t, top)
	})
}

func TestAnExtensionWhoseResponseComesTooLateIsStale(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		e := fakeengine.New(fakeengine.Config{})
		top := onEngine(t, e)
		q := engineQueue(t, top)
		require.NoError(t, top.Publish(t.Context(), "a"))
		d := next(t, q)
		e.Inject(fakeengine.Fault{Op: fakeengine.Extend, Nth: 1, Late: 31 * time.Second})
		require.ErrorIs(t, d.Extend(t.Context(), time.Minute), fanout.ErrStale)
		require.EqualValues(t, 1, q.Stats().TimedOut)
		d = next(t, q)
		require.Equal(t, 2, d.Attempt())
		require.NoError(t, d.Ack(t.Context()))
		endTopic(t, top)
	})
}

// TestAPurgeWhileAnAcknowledgementIsOnItsWay: what is settled meanwhile is nobody's.
func TestAPurgeWhileAnAcknowledgementIsOnItsWay(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		e := fakeengine.New(fakeengine.Config{})
		top := onEngine(t, e)
		q := engineQueue(t, top)
		require.NoError(t, top.Publish(t.Context(), "a"))
		require.NoError(t, top.Publish(t.Context(), "b"))
		a, b := next(t, q), next(t, q)
		for _, late := range []fakeengine.Fault{{Late: time.Second}, {Latency: time.Second}} {
			late.Op, late.Nth = fakeengine.Ack, 1
			e.Inject(late)
			ended := make(chan error)
			go func() { ended <- a.Ack(context.Background()) }()
			synctest.Wait()
			_, err := q.Purge(t.Context())
			require.NoError(t, err)
			s := q.Stats()
			require.Zero(t, s.InFlight)
			if late.Late > 0 {
				require.NoError(t, <-ended, "the engine did it")
			} else {
				require.ErrorIs(t, <-ended, fanout.ErrStale)
			}
			require.Equal(t, s, q.Stats(), "nothing is counted twice")
			a, b = b, a
		}
		endTopic(t, top)
	})
}

// TestAHandlerThatTakesLongKeepsItsLease on the engine, until it has had its time.
func TestAHandlerThatTakesLongKeepsItsLease(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		e := fakeengine.New(fakeengine.Config{})
		var failed []error
		top := onEngine(t, e, fanout.WithHooks(fanout.Hooks{EngineFailed: func(ev fanout.Event) { failed = append(failed, ev.Err) }}))
		q := engineQueue(t, top)
		release := make(chan struct{})
		_, err := q.Subscribe(t.Context(), func(context.Context, fanout.Delivery[string]) error {
			<-release
			return nil
		}, fanout.WithAutoExtend(5*time.Minute))
		require.NoError(t, err)
		require.NoError(t, top.Publish(t.Context(), "a"))
		time.Sleep(time.Second)

		other := onEngine(t, e.Sibling())
		ctx, cancel := context.WithTimeout(t.Context(), 4*time.Minute)
		defer cancel()
		_, err = engineQueue(t, other).Receive(ctx)
		require.ErrorIs(t, err, context.DeadlineExceeded, "it is in flight")
		require.Equal(t, 8, e.Calls(fakeengine.Extend), "each 30 seconds")

		e.Inject(fakeengine.Fault{Op: fakeengine.Extend, Nth: 1, Err: errBroken})
		time.Sleep(29 * time.Second)
		synctest.Wait()
		require.Len(t, failed, 1)
		require.ErrorIs(t, failed[0], errBroken)
		require.ErrorContains(t, failed[0], "extend: ")
		close(release)
		synctest.Wait()
		n, err := q.Depth(t.Context())
		require.NoError(t, err)
		require.Zero(t, n.Unsettled())
		endTopic(t, other)
		endTopic(t, top)
	})
}

// TestWhatAnEngineDoesNotKeepIsRemembered: the attempts and the history of a message
// are those of this process.
func TestWhatAnEngineDoesNotKeepIsRemembered(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		top := onEngine(t, fakeengine.New(fakeengine.Config{Without: []engine.Feature{engine.State}}))
		q := engineQueue(t, top, fanout.WithMaxAttempts(3))
		require.NoError(t, top.Publish(t.Context(), "a"))
		require.NoError(t, next(t, q).Settle(t.Context(), fanout.Snooze(time.Minute)))
		for attempt := 1; attempt <= 3; attempt++ {
			d := next(t, q)
			require.Equal(t, attempt, d.Attempt())
			require.NoError(t, d.Settle(t.Context(), errBroken))
		}
		letter := next(t, q.DeadLetters())
		var causes []fanout.Cause
		for _, a := range letter.History() {
			causes = append(causes, a.Cause)
		}
		require.Equal(t, []fanout.Cause{fanout.Snoozed, fanout.Failed, fanout.Failed, fanout.Failed}, causes)
		require.NoError(t, letter.Ack(t.Context()))
		endTopic(t, top)
	})
}

// TestAMessageThatIsSnoozedForEverIsDead on an engine as in memory: after a thousand
// times, none of which is an attempt.
func TestAMessageThatIsSnoozedForEverIsDead(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		top := onEngine(t, fakeengine.New(fakeengine.Config{}))
		q := engineQueue(t, top, fanout.WithMaxAttempts(2))
		require.NoError(t, top.Publish(t.Context(), "a"))
		start := time.Now()
		for n := range 1000 {
			d := next(t, q)
			require.Equal(t, 1, d.Attempt())
			require.Equal(t, time.Duration(n)*time.Minute, time.Since(start))
			require.Zero(t, q.Stats().DeadLettered)
			require.NoError(t, d.Settle(t.Context(), fanout.Snooze(time.Minute)))
		}
		require.EqualValues(t, 1, q.Stats().DeadLettered)
		require.NoError(t, next(t, q.DeadLetters()).Ack(t.Context()))
		endTopic(t, top)
	})
}

func TestAShutdownThatEndsEarlySaysWhatTheEngineHolds(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		top := onEngine(t, fakeengine.New(fakeengine.Config{}))
		engineQueue(t, top)
		require.NoError(t, top.Publish(t.Context(), "a"))
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		defer cancel()
		start := time.Now()
		err := top.Shutdown(ctx)
		require.Equal(t, time.Minute, time.Since(start))
		require.ErrorIs(t, err, context.DeadlineExceeded)
		var left *fanout.ShutdownError
		require.True(t, errors.As(err, &left))
		require.Equal(t, []fanout.Left{{Queue: "q", Ready: 1}}, left.Queues)
		<-top.Done()
	})
}

func TestWhatIsPublishedOnAnEngineIsTold(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var told []string
		e := fakeengine.New(fakeengine.Config{})
		top := onEngine(t, e, fanout.WithHooks(fanout.Hooks{Published: func(ev fanout.Event) { told = append(told, ev.MessageID) }}))
		q := engineQueue(t, top)
		require.NoError(t, top.PublishMessages(t.Context(), fanout.Message[string]{ID: "mine"}, fanout.Message[string]{}, fanout.Message[string]{}))
		e.Inject(fakeengine.Fault{Op: fakeengine.Publish, Nth: 1, Err: errBroken})
		require.ErrorIs(t, top.Publish(t.Context(), "not this one"), errBroken)
		require.Len(t, told, 3)
		require.Equal(t, "mine", told[0])
		for _, id := range told {
			require.Equal(t, id, next(t, q).ID())
		}
		require.NotEqual(t, told[1], told[2])
		endTopic(t, top)
	})
}

// lingering is an engine whose queues are closed only when their topic is.
type lingering struct{ engine.Engine }

type lingeringTopic struct{ engine.Topic }

type lingeringQueue struct{ engine.Queue }

func (l lingering) OpenTopic(ctx context.Context, spec engine.TopicSpec) (engine.Topic, error) {
	t, err := l.Engine.OpenTopic(ctx, spec)
	return lingeringTopic{t}, err
}

func (l lingeringTopic) OpenQueue(ctx context.Context, spec engine.QueueSpec) (engine.Queue, error) {
	q, err := l.Topic.OpenQueue(ctx, spec)
	return lingeringQueue{q}, err
}

func (lingeringQueue) Close() error { return nil }

// TestWhatComesToAQueueThatIsClosedGoesBack at once.
func TestWhatComesToAQueueThatIsClosedGoesBack(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		e := fakeengine.New(fakeengine.Config{})
		top := onEngine(t, lingering{e})
		q := engineQueue(t, top)
		require.NoError(t, top.Publish(t.Context(), "a"))
		e.Inject(fakeengine.Fault{Op: fakeengine.Receive, Nth: 1, Late: time.Second})
		ended := make(chan error)
		go func() { _, err := q.Receive(context.Background()); ended <- err }()
		synctest.Wait()
		require.NoError(t, q.Close())
		require.ErrorIs(t, <-ended, fanout.ErrClosed)
		again := engineQueue(t, top)
		d, ok, err := again.TryReceive(t.Context())
		require.NoError(t, err)
		require.True(t, ok)
		require.Equal(t, 1, d.Attempt())
		require.NoError(t, d.Ack(t.Context()))
		endTopic(t, top)
	})
}

// TestWorkersThatAreNotServedAskForNothing: what is published while a queue is paused,
// or after its last subscriber has gone, is for others at once.
func TestWorkersThatAreNotServedAskForNothing(t *testing.T) {
	for name, end := range map[string]func(ctx context.Context, q *fanout.Queue[string], s *fanout.Subscriber[string]) error{
		"paused": func(ctx context.Context, q *fanout.Queue[string], _ *fanout.Subscriber[string]) error {
			return q.Pause(ctx)
		},
		"unsubscribed": func(ctx context.Context, _ *fanout.Queue[string], s *fanout.Subscriber[string]) error {
			return s.Shutdown(ctx)
		},
		"closed": func(_ context.Context, q *fanout.Queue[string], _ *fanout.Subscriber[string]) error { return q.Close() },
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				e := fakeengine.New(fakeengine.Config{})
				top := onEngine(t, lingering{e})
				q := engineQueue(t, top)
				s, err := q.Subscribe(t.Context(), func(context.Context, fanout.Delivery[string]) error { return nil })
				require.NoError(t, err)
				synctest.Wait() // the workers' receive waits
				require.NoError(t, end(t.Context(), q, s))
				synctest.Wait()
				require.NoError(t, top.Publish(t.Context(), "a"))
				synctest.Wait()
				et, err := e.Sibling().OpenTopic(t.Context(), engine.TopicSpec{Name: "payments"})
				require.NoError(t, err)
				eq, err := et.OpenQueue(t.Context(), engine.QueueSpec{Name: "q"})
				require.NoError(t, err)
				start := time.Now()
				got, err := eq.Receive(t.Context(), 1, 0)
				require.NoError(t, err)
				require.Equal(t, 1, got[0].Deliveries)
				require.Zero(t, time.Since(start))
				endTopic(t, top)
			})
		})
	}
}

// TestAWorkersSettlementThatTheEngineRefusesIsTold, and the message comes again when its
// visibility timeout has passed. Its handler was not late.
func TestAWorkersSettlementThatTheEngineRefusesIsTold(t *testing.T) {
	for op, result := range map[fakeengine.Op]error{fakeengine.Ack: nil, fakeengine.Return: errors.New("no")} {
		t.Run(string(op), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				e := fakeengine.New(fakeengine.Config{})
				var failed []error
				top := onEngine(t, e, fanout.WithHooks(fanout.Hooks{
					EngineFailed: func(ev fanout.Event) { failed = append(failed, ev.Err) },
					Late:         func(ev fanout.Event) { t.Errorf("late: %v", ev.Err) },
				}))
				start := time.Now()
				handled := make(chan time.Duration, 2)
				_, err := top.Subscribe(t.Context(), "q", func(_ context.Context, d fanout.Delivery[string]) error {
					handled <- time.Since(start)
					if d.Attempt() == 1 {
						return result
					}
					return nil
				}, fanout.WithBackoff(fanout.Constant(time.Millisecond)))
				require.NoError(t, err)
				e.Inject(fakeengine.Fault{Op: op, Nth: 1, Err: errBroken})
				require.NoError(t, top.Publish(t.Context(), "a"))
				require.Zero(t, <-handled)
				require.Equal(t, 30*time.Second, <-handled)
				require.Len(t, failed, 1)
				require.ErrorIs(t, failed[0], errBroken)
				require.ErrorContains(t, failed[0], "settle: ")
				require.NoError(t, top.Shutdown(t.Context()))
			})
		})
	}
}

// TestWhatAQueueOnAnEngineTells: each attempt with its number, how long it took, and
// how long until the next.
func TestWhatAQueueOnAnEngineTells(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		type told struct {
			what          string
			attempt       int
			cause         fanout.Cause
			elapsed, wait time.Duration
		}
		var events []told
		tell := func(what string) func(fanout.Event) {
			return func(ev fanout.Event) {
				events = append(events, told{what, ev.Attempt, ev.Cause, ev.Elapsed, ev.Wait})
			}
		}
		var dropped []int
		top := onEngine(t, fakeengine.New(fakeengine.Config{}), fanout.WithHooks(fanout.Hooks{
			Settled: tell("settled"), DeadLettered: tell("dead"), Parked: tell("parked"),
			Dropped: func(ev fanout.Event) { dropped = append(dropped, ev.Count) },
		}))
		q := engineQueue(t, top, fanout.WithDeadLetterCapacity(1), fanout.WithBackoff(fanout.Constant(time.Minute)))
		settle := func(took time.Duration, err error) {
			d := next(t, q)
			time.Sleep(took)
			require.NoError(t, d.Settle(t.Context(), err))
		}
		const s = time.Second
		require.NoError(t, top.Publish(t.Context(), "a"))
		settle(s, fanout.Snooze(4*s))
		settle(2*s, fanout.RetryAfter(errBroken, 5*s))
		settle(3*s, fanout.Permanent(errBroken))
		require.NoError(t, top.Publish(t.Context(), "b"))
		next(t, q)
		time.Sleep(30 * s)
		synctest.Wait()
		settle(7*s, errBroken)
		settle(8*s, fanout.Permanent(errBroken)) // there is no room for it
		require.NoError(t, next(t, q.DeadLetters()).Ack(t.Context()))
		time.Sleep(5 * s)
		_, ok, err := q.TryReceive(t.Context())
		require.NoError(t, err)
		require.False(t, ok, "it went where there is room now")
		require.NoError(t, top.Publish(t.Context(), "c"))
		settle(9*s, nil)
		require.Equal(t, []told{
			{"settled", 1, fanout.Snoozed, s, 4 * s},
			{"settled", 1, fanout.Failed, 2 * s, 5 * s},
			{"settled", 2, fanout.PermanentlyFailed, 3 * s, 0},
			{"dead", 2, fanout.PermanentlyFailed, 3 * s, 0},
			{"settled", 1, fanout.TimedOut, 30 * s, 0}, // it is ready again
			{"settled", 2, fanout.Failed, 7 * s, 60 * s},
			{"settled", 3, fanout.PermanentlyFailed, 8 * s, 0},
			{"parked", 3, fanout.PermanentlyFailed, 8 * s, 0},
			{"settled", 1, fanout.Acked, 0, 0}, // the letter of a
			{"dead", 3, fanout.PermanentlyFailed, 8 * s, 0},
			{"settled", 1, fanout.Acked, 9 * s, 0},
		}, events)

		require.NoError(t, top.PublishMessages(t.Context(), make([]fanout.Message[string], 3)...))
		for want := range 2 {
			n, err := q.Purge(t.Context())
			require.NoError(t, err)
			require.Equal(t, 3-3*want, n)
			require.EqualValues(t, 3, q.Stats().Dropped)
			require.Equal(t, []int{3}, dropped)
		}
		endTopic(t, top)
	})
}

// TestWorkersOnAnEngineKeepTheOrderOfAKey, however its attempts end.
func TestWorkersOnAnEngineKeepTheOrderOfAKey(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		top := onEngine(t, fakeengine.New(fakeengine.Config{}), fanout.WithOrdering(), fanout.WithHooks(fanout.Hooks{
			EngineFailed: func(ev fanout.Event) { t.Errorf("not the engine, but the handler was late: %v", ev.Err) },
		}))
		handled := make(chan string, 10)
		_, err := top.Subscribe(t.Context(), "q", func(ctx context.Context, d fanout.Delivery[string]) error {
			handled <- d.Body
			switch {
			case d.Body == "times out" && d.Attempt() == 1:
				<-ctx.Done()
			case d.Body == "fails" && d.Attempt() == 1:
				return errBroken
			}
			return nil
		}, fanout.WithConcurrency(4))
		require.NoError(t, err)
		for _, body := range []string{"times out", "fails", "is fine", "too"} {
			require.NoError(t, top.PublishMessages(t.Context(), fanout.Message[string]{Body: body, OrderingKey: "key"}))
		}
		time.Sleep(time.Hour)
		for _, want := range []string{"times out", "times out", "fails", "fails", "is fine", "too"} {
			require.Equal(t, want, <-handled)
		}
		endTopic(t, top)
	})
}
