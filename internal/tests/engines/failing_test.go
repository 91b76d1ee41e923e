// Nothing is lost, and nothing hangs, on an engine that refuses, fails, or is slow.

package engines_test

import (
	"context"
	"fmt"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/gofanout/fanout"
	"github.com/gofanout/fanout/engine"
	"github.com/gofanout/fanout/internal/fakeengine"
)

func TestWhatTheCodecCanNotDoIsToldAndDead(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		top := onEngine(t, fakeengine.New(fakeengine.Config{}), fanout.WithCodec(brokenCodec{fanout.JSON}))
		q := engineQueue(t, top)
		err := top.PublishMessages(t.Context(), fanout.Message[string]{Body: "fine"}, fanout.Message[string]{Body: "not encodable"})
		require.ErrorIs(t, err, fanout.ErrInvalidMessage)
		require.ErrorIs(t, err, errBroken)
		require.ErrorContains(t, err, "message 1")
		require.ErrorIs(t, top.TryPublish(t.Context(), "a"), fanout.ErrUnsupported, "it may have to wait")
		require.NoError(t, top.PublishMessages(t.Context()), "nothing is no publish")

		require.NoError(t, top.Publish(t.Context(), "not decodable"))
		require.NoError(t, top.Publish(t.Context(), "fine"))
		d := next(t, q)
		require.Equal(t, "fine", d.Body)
		require.NoError(t, d.Ack(t.Context()))
		require.EqualValues(t, 1, q.Stats().PermanentlyFailed)
		n, err := q.DeadLetters().Depth(t.Context())
		require.NoError(t, err)
		require.Equal(t, 1, n.Unsettled())
		endTopic(t, top)
	})
}

func TestAPublishSaysWhatTheEngineSaid(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		e := fakeengine.New(fakeengine.Config{Without: []engine.Feature{engine.AllOrNone}, MaxBody: 10, FullFails: true})
		top, err := fanout.NewTopic[string]("payments", fanout.WithEngine(e, fanout.Without(engine.AllOrNone)), quiet)
		require.NoError(t, err)
		e.Inject(fakeengine.Fault{Op: fakeengine.OpenTopic, Nth: 1, Err: errBroken})
		require.ErrorIs(t, top.Publish(t.Context(), "a"), errBroken)
		require.NoError(t, top.Publish(t.Context(), "a"), "the topic is opened again")
		q := engineQueue(t, top, fanout.WithCapacity(1))

		e.Inject(fakeengine.Fault{Op: fakeengine.Publish, Nth: 1, Err: errBroken})
		require.ErrorIs(t, top.Publish(t.Context(), "a"), errBroken)
		require.ErrorIs(t, top.Publish(t.Context(), "more than ten bytes"), fanout.ErrInvalidMessage)

		err = top.PublishMessages(t.Context(), fanout.Message[string]{Body: "fine"}, fanout.Message[string]{Body: "more than ten bytes"})
		var partial *fanout.PublishError
		require.ErrorAs(t, err, &partial)
		require.Equal(t, "payments", partial.Topic)
		require.Len(t, partial.Failed, 1)
		require.ErrorIs(t, partial.Failed[1], fanout.ErrInvalidMessage)
		require.ErrorIs(t, err, engine.ErrTooLarge, "it unwraps to what the engine said")
		require.ErrorContains(t, err, "most are 10")

		require.ErrorIs(t, top.Publish(t.Context(), "full"), fanout.ErrQueueFull)
		require.NoError(t, next(t, q).Ack(t.Context()))
		endTopic(t, top)
		require.ErrorIs(t, top.Publish(t.Context(), "a"), fanout.ErrClosed)
		_, err = top.OpenQueue(t.Context(), "other")
		require.ErrorIs(t, err, fanout.ErrClosed)
	})
}

func TestWhoWaitsForTheTopicToBeOpenedCanGiveUp(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		e := fakeengine.New(fakeengine.Config{})
		top := onEngine(t, e)
		e.Inject(fakeengine.Fault{Op: fakeengine.OpenTopic, Nth: 1, Latency: time.Minute})
		opened := make(chan error, 1)
		go func() { opened <- top.Publish(context.Background(), "a") }()
		synctest.Wait()
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		start := time.Now()
		require.ErrorIs(t, top.Publish(ctx, "b"), context.DeadlineExceeded)
		require.Equal(t, time.Second, time.Since(start))
		again, stop := context.WithTimeout(t.Context(), time.Second)
		defer stop()
		_, err := top.OpenQueue(again, "q")
		require.ErrorIs(t, err, context.DeadlineExceeded)
		require.Equal(t, 2*time.Second, time.Since(start))
		second := make(chan error, 1)
		go func() { second <- top.Publish(context.Background(), "c") }()
		require.NoError(t, <-opened)
		require.NoError(t, <-second)
		require.Equal(t, 1, e.Calls(fakeengine.OpenTopic))
		endTopic(t, top)
	})
}

func TestAQueueThatCanNotBeOpenedIsNotThere(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		e := fakeengine.New(fakeengine.Config{})
		top := onEngine(t, e)
		for _, op := range []fakeengine.Op{fakeengine.OpenTopic, fakeengine.OpenQueue} {
			e.Inject(fakeengine.Fault{Op: op, Nth: 1, Err: errBroken})
			_, err := top.OpenQueue(t.Context(), "q")
			require.ErrorIs(t, err, errBroken)
			require.Nil(t, top.Queue("q"))
		}
		e.Inject(fakeengine.Fault{Op: fakeengine.OpenQueue, Nth: 1, Latency: time.Minute})
		opened := make(chan error, 1)
		go func() {
			_, err := top.OpenQueue(context.Background(), "q")
			opened <- err
		}()
		synctest.Wait()
		endTopic(t, top)
		require.ErrorIs(t, <-opened, fanout.ErrClosed, "the topic was closed meanwhile")
	})
}

func TestReceivingFromAPausedEngineQueue(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		e := fakeengine.New(fakeengine.Config{})
		top := onEngine(t, e)
		q := engineQueue(t, top)
		start := time.Now()
		_, ok, err := q.TryReceive(t.Context())
		require.NoError(t, err)
		require.False(t, ok)
		require.Equal(t, time.Second, time.Since(start), "an engine is given a moment")

		require.NoError(t, top.Publish(t.Context(), "a"))
		require.NoError(t, q.Pause(t.Context()))
		start = time.Now()
		_, ok, err = q.TryReceive(t.Context())
		require.NoError(t, err)
		require.False(t, ok)
		require.Zero(t, time.Since(start), "but not while the queue is paused")
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		defer cancel()
		received := e.Calls(fakeengine.Receive)
		_, err = q.Receive(ctx)
		require.ErrorIs(t, err, context.DeadlineExceeded)
		require.Equal(t, received, e.Calls(fakeengine.Receive))

		got, ended := make(chan fanout.Delivery[string]), make(chan error)
		receive := func() {
			d, err := q.Receive(context.Background())
			if err != nil {
				ended <- err
				return
			}
			got <- d
		}
		go receive()
		go receive()
		synctest.Wait()
		require.NoError(t, q.Resume(t.Context()))
		d := <-got
		require.Equal(t, "a", d.Body)
		require.NoError(t, d.Nack(t.Context()))
		d = <-got
		require.NoError(t, d.Nack(t.Context()))
		time.Sleep(time.Minute)
		d, ok, err = q.TryReceive(t.Context())
		require.NoError(t, err)
		require.True(t, ok)
		require.NoError(t, d.Ack(t.Context()))

		require.NoError(t, q.Pause(t.Context()))
		go receive()
		synctest.Wait()
		require.NoError(t, top.Close())
		require.ErrorIs(t, <-ended, fanout.ErrClosed)
		<-top.Done()
		_, _, err = q.TryReceive(t.Context())
		require.ErrorIs(t, err, fanout.ErrClosed)
	})
}

func TestAReceiverIsToldThatTheEngineFails(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		e := fakeengine.New(fakeengine.Config{})
		top := onEngine(t, e)
		q := engineQueue(t, top)
		e.Inject(fakeengine.Fault{Op: fakeengine.Receive, Nth: 1, Err: errBroken})
		_, err := q.Receive(t.Context())
		require.ErrorIs(t, err, errBroken)
		e.Inject(fakeengine.Fault{Op: fakeengine.Receive, Nth: 1, Err: errBroken})
		_, ok, err := q.TryReceive(t.Context())
		require.ErrorIs(t, err, errBroken)
		require.False(t, ok)
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		defer cancel()
		start := time.Now()
		_, err = q.Receive(ctx)
		require.ErrorIs(t, err, context.DeadlineExceeded, "that nothing came is no failure of the engine")
		require.Equal(t, time.Minute, time.Since(start))
		e.Inject(fakeengine.Fault{Op: fakeengine.Purge, Nth: 1, Err: errBroken})
		_, err = q.Purge(t.Context())
		require.ErrorIs(t, err, errBroken)
		e.Inject(fakeengine.Fault{Op: fakeengine.Stats, Nth: 1, Err: errBroken})
		_, err = q.Depth(t.Context())
		require.ErrorIs(t, err, errBroken)
		e.Crash()
		_, err = q.Receive(t.Context())
		require.ErrorIs(t, err, fanout.ErrClosed)
		endTopic(t, top)
	})
}

// The workers' poller asks again after 100 ms, 200 ms, 400 ms and so on.
func TestWorkersOutliveAnEngineThatFails(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		e := fakeengine.New(fakeengine.Config{})
		start := time.Now()
		var failed []time.Duration
		top := onEngine(t, e, fanout.WithHooks(fanout.Hooks{EngineFailed: func(ev fanout.Event) {
			require.ErrorIs(t, ev.Err, errBroken)
			failed = append(failed, time.Since(start))
		}}))
		for n := range 4 {
			e.Inject(fakeengine.Fault{Op: fakeengine.Receive, Nth: n + 1, Err: errBroken})
		}
		handled := make(chan time.Duration)
		_, err := top.Subscribe(t.Context(), "q", func(context.Context, fanout.Delivery[string]) error {
			handled <- time.Since(start)
			return nil
		})
		require.NoError(t, err)
		require.NoError(t, top.Publish(t.Context(), "a"))
		const ms = time.Millisecond
		require.Equal(t, 1500*ms, <-handled)
		require.Equal(t, []time.Duration{0, 100 * ms, 300 * ms, 700 * ms}, failed)
		endTopic(t, top)
	})
}

func TestARateLimitAsksTheEngineForOneAtATime(t *testing.T) {
	for _, takes := range []time.Duration{0, 10 * time.Second} {
		synctest.Test(t, func(t *testing.T) {
			top := onEngine(t, fakeengine.New(fakeengine.Config{}))
			q := engineQueue(t, top)
			for range 4 {
				require.NoError(t, top.Publish(t.Context(), "a"))
			}
			start := time.Now()
			handled := make(chan time.Duration)
			_, err := q.Subscribe(t.Context(), func(context.Context, fanout.Delivery[string]) error {
				handled <- time.Since(start)
				time.Sleep(takes)
				return nil
			}, fanout.WithRateLimit(1), fanout.WithConcurrency(8))
			require.NoError(t, err)
			for n := range 4 {
				require.Equal(t, time.Duration(n)*time.Second, <-handled)
				require.LessOrEqual(t, q.Stats().InFlight, n+2, "the others are anybody's")
			}
			time.Sleep(takes)
			endTopic(t, top)
		})
	}
}

func TestWhatIsReceivedFromAnEngineIsCounted(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		top := onEngine(t, fakeengine.New(fakeengine.Config{}))
		q := engineQueue(t, top)
		require.NoError(t, top.PublishMessages(t.Context(), fanout.Message[string]{Body: "a"}, fanout.Message[string]{Body: "b"},
			fanout.Message[string]{Body: "c", Delay: time.Hour}))
		d := next(t, q)
		depth, err := q.Depth(t.Context())
		require.NoError(t, err)
		require.Equal(t, 3, depth.Unsettled(), "ready, delayed and in flight")
		require.NoError(t, d.Ack(t.Context()))
		time.Sleep(time.Hour)
		ds := make([]fanout.Delivery[string], 3)
		n, err := q.ReceiveInto(t.Context(), ds)
		require.NoError(t, err)
		require.Equal(t, 2, n)
		require.Equal(t, []string{"b", "c", ""}, []string{ds[0].Body, ds[1].Body, ds[2].Body})
		require.NoError(t, q.AckBatch(t.Context(), ds[:n]...))
		endTopic(t, top)
	})
}

func TestAMessageThatWasExtendedComesAgainSoonAfterACrash(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		e := fakeengine.New(fakeengine.Config{})
		top := onEngine(t, e)
		release := make(chan struct{})
		defer close(release)
		_, err := engineQueue(t, top).Subscribe(t.Context(), func(context.Context, fanout.Delivery[string]) error {
			<-release
			return nil
		}, fanout.WithAutoExtend(time.Hour))
		require.NoError(t, err)
		require.NoError(t, top.Publish(t.Context(), "a"))
		time.Sleep(10 * time.Minute)
		e.Crash()
		other := onEngine(t, e.Sibling())
		soon, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
		defer cancel()
		d, err := engineQueue(t, other).Receive(soon)
		require.NoError(t, err, "the lease was extended by its visibility timeout each time, not more")
		require.NoError(t, d.Ack(t.Context()))
		endTopic(t, other)
		require.NoError(t, top.Close())
	})
}

func TestWhatComesWhileTheQueueIsPausedGoesBack(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		e := fakeengine.New(fakeengine.Config{})
		top := onEngine(t, e)
		pausing := true
		var q *fanout.Queue[string]
		q = engineQueue(t, top, fanout.WithFilter(func(string) bool {
			if pausing { // between the engine's answer and the queue
				pausing = false
				return q.Pause(context.Background()) == nil
			}
			return true
		}))
		handled := make(chan int)
		_, err := q.Subscribe(t.Context(), func(_ context.Context, d fanout.Delivery[string]) error {
			handled <- d.Attempt()
			return nil
		})
		require.NoError(t, err)
		require.NoError(t, top.Publish(t.Context(), "a"))
		synctest.Wait()
		require.Zero(t, q.Stats().InFlight)
		n, err := q.Depth(t.Context())
		require.NoError(t, err)
		require.Equal(t, 1, n.Unsettled(), "others can have it at once")
		require.NoError(t, q.Resume(t.Context()))
		require.Equal(t, 1, <-handled, "it has spent no attempt")
		endTopic(t, top)
	})
}

func TestAFilterThatPanicsIsAFailedAttempt(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		top := onEngine(t, fakeengine.New(fakeengine.Config{}))
		var asked atomic.Int32
		q := engineQueue(t, top, fanout.WithBackoff(fanout.BackoffFunc(func(attempt int) time.Duration {
			return time.Duration(attempt) * time.Minute
		})), fanout.WithFilter(func(body string) bool {
			if asked.Add(1) <= 2 {
				panic("no such body")
			}
			return body != "b"
		}))
		start := time.Now()
		require.NoError(t, top.Publish(t.Context(), "a"))
		d := next(t, q)
		require.Equal(t, 3*time.Minute, time.Since(start), "one, and then two")
		require.Equal(t, 3, d.Attempt())
		for _, a := range d.History() {
			require.Equal(t, fanout.Panicked, a.Cause)
			require.ErrorContains(t, a.Err, "no such body")
			require.Contains(t, a.Stack, "failing_test.go")
		}
		require.NoError(t, d.Ack(t.Context()))
		require.NoError(t, top.Publish(t.Context(), "b"))
		_, ok, err := q.TryReceive(t.Context())
		require.NoError(t, err)
		require.False(t, ok)
		n, err := q.Depth(t.Context())
		require.NoError(t, err)
		require.Zero(t, n.Unsettled(), "what no filter wants is gone")
		endTopic(t, top)
	})
}

func TestAFilterBesideAPolicyThatTheEngineKnows(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		top := onEngine(t, fakeengine.New(fakeengine.Config{}))
		q := engineQueue(t, top, fanout.WithFilterPolicy(`{"region": ["eu"]}`), fanout.WithFilter(func(body string) bool { return body != "no" }))
		eu := map[string]string{"region": "eu"}
		require.NoError(t, top.PublishMessages(t.Context(), fanout.Message[string]{Body: "no", Attributes: eu},
			fanout.Message[string]{Body: "elsewhere"}, fanout.Message[string]{Body: "yes", Attributes: eu}))
		require.Equal(t, "yes", next(t, q).Body)
		_, ok, err := q.TryReceive(t.Context())
		require.NoError(t, err)
		require.False(t, ok)
		endTopic(t, top)
	})
}

func TestAMessageOnAnEngineThatIsTooOldIsDead(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		top := onEngine(t, fakeengine.New(fakeengine.Config{}))
		q := engineQueue(t, top, fanout.WithTimeToLive(time.Minute))
		require.NoError(t, top.Publish(t.Context(), "never looked at"))
		time.Sleep(2 * time.Minute)
		require.NoError(t, top.Publish(t.Context(), "fails late"))
		d := next(t, q)
		require.Equal(t, "fails late", d.Body)
		require.NoError(t, d.Extend(t.Context(), 10*time.Minute))
		time.Sleep(2 * time.Minute)
		require.NoError(t, d.Settle(t.Context(), errBroken))
		s := q.Stats()
		require.EqualValues(t, []uint64{2, 2, 1}, []uint64{s.DeadLettered, s.Expired, s.Failed})
		letters, err := q.DeadLetters().Peek(t.Context(), 10)
		require.NoError(t, err)
		var told []string
		for _, l := range letters {
			require.Equal(t, 1, l.Attempt())
			told = append(told, l.Body)
			for _, a := range l.History() {
				told = append(told, a.Cause.String())
			}
		}
		require.Equal(t, []string{"never looked at", "expired", "fails late", "failed", "expired"}, told)
		d = next(t, q.DeadLetters())
		require.Equal(t, 2, d.Attempt(), "it was received before")
		require.NoError(t, d.Nack(t.Context()))

		// What is redriven has all its time again, but no more.
		time.Sleep(time.Hour)
		moved, err := q.Redrive(t.Context())
		require.NoError(t, err)
		require.Equal(t, 2, moved)
		require.NoError(t, next(t, q).Ack(t.Context()))
		time.Sleep(time.Minute)
		_, ok, err := q.TryReceive(t.Context())
		require.NoError(t, err)
		require.False(t, ok)
		require.EqualValues(t, 3, q.Stats().Expired)
		endTopic(t, top)
	})
}

func TestADeadLetterThatFindsNoRoomOnAnEngineComesAgain(t *testing.T) {
	for name, row := range map[string]struct {
		attempts int
		err      error
	}{"after its last attempt": {1, errBroken}, "permanently failed": {5, fanout.Permanent(errBroken)}} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				top := onEngine(t, fakeengine.New(fakeengine.Config{}))
				q := engineQueue(t, top, fanout.WithDeadLetterCapacity(1), fanout.WithMaxAttempts(row.attempts))
				require.NoError(t, top.Publish(t.Context(), "first"))
				require.NoError(t, top.Publish(t.Context(), "second"))
				for range 2 {
					require.NoError(t, next(t, q).Settle(t.Context(), row.err))
				}
				require.EqualValues(t, 1, q.Stats().TimesParked)
				require.EqualValues(t, 1, q.Stats().DeadLettered)
				d := next(t, q.DeadLetters())
				require.Equal(t, "first", d.Body)
				require.NoError(t, d.Ack(t.Context()))
				_, ok, err := q.TryReceive(t.Context())
				require.NoError(t, err)
				require.False(t, ok, "it is dead, and waits for five seconds")
				time.Sleep(5 * time.Second)
				_, ok, err = q.TryReceive(t.Context())
				require.NoError(t, err)
				require.False(t, ok, "it is dead, and no attempt is made")
				letter := next(t, q.DeadLetters())
				require.Equal(t, "second", letter.Body)
				require.Len(t, letter.History(), 1)
				n, err := q.DeadLetters().Depth(t.Context())
				require.NoError(t, err)
				require.Equal(t, 1, n.Unsettled())
				require.NoError(t, letter.Nack(t.Context()))
				moved, err := q.Redrive(t.Context())
				require.NoError(t, err)
				require.Equal(t, 1, moved)
				require.NoError(t, next(t, q).Ack(t.Context()), "what is redriven is not dead again")
				endTopic(t, top)
			})
		})
	}
}

func TestASettlementThatTheEngineRefuses(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		e := fakeengine.New(fakeengine.Config{})
		var failed []error
		top := onEngine(t, e, fanout.WithHooks(fanout.Hooks{EngineFailed: func(ev fanout.Event) { failed = append(failed, ev.Err) }}))
		q := engineQueue(t, top)
		require.NoError(t, top.Publish(t.Context(), "a"))
		d := next(t, q)
		e.Inject(fakeengine.Fault{Op: fakeengine.Ack, Nth: 1, Err: errBroken})
		require.ErrorIs(t, d.Ack(t.Context()), errBroken)
		e.Inject(fakeengine.Fault{Op: fakeengine.Extend, Nth: 1, Err: errBroken})
		require.ErrorIs(t, d.Extend(t.Context(), time.Minute), errBroken)
		require.Equal(t, 1, q.Stats().InFlight, "the delivery is as it was")
		require.NoError(t, d.Ack(t.Context()))
		require.ErrorIs(t, d.Ack(t.Context()), fanout.ErrSettled)

		// The engine takes a message away.
		require.NoError(t, top.Publish(t.Context(), "b"))
		d = next(t, q)
		other := onEngine(t, e.Sibling())
		_, err := engineQueue(t, other).Purge(t.Context())
		require.NoError(t, err)
		require.ErrorIs(t, d.Ack(t.Context()), fanout.ErrStale)
		require.ErrorIs(t, d.Ack(t.Context()), fanout.ErrStale)
		require.Zero(t, q.Stats().InFlight)
		require.EqualValues(t, 1, q.Stats().Acked)

		// A time-out is told by nobody who could be answered.
		require.NoError(t, top.Publish(t.Context(), "c"))
		d = next(t, q)
		e.Inject(fakeengine.Fault{Op: fakeengine.Return, Nth: 1, Err: errBroken})
		time.Sleep(30 * time.Second)
		synctest.Wait()
		require.Len(t, failed, 1)
		require.ErrorIs(t, failed[0], errBroken)
		require.ErrorContains(t, failed[0], "settle: ")
		require.ErrorIs(t, d.Ack(t.Context()), fanout.ErrStale)
		d = next(t, q) // when the engine's lease has ended
		require.Equal(t, 2, d.Attempt())

		// That it is somebody else's already is no failure.
		_, err = engineQueue(t, onEngine(t, e.Sibling())).Purge(t.Context())
		require.NoError(t, err)
		time.Sleep(time.Minute)
		synctest.Wait()
		require.Len(t, failed, 1)
		endTopic(t, top)
		endTopic(t, other)
	})
}

func TestAnExtensionThatComesTooLateIsStale(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		e := fakeengine.New(fakeengine.Config{})
		top := onEngine(t, e)
		q := engineQueue(t, top)
		require.NoError(t, top.Publish(t.Context(), "a"))
		d := next(t, q)
		e.Inject(fakeengine.Fault{Op: fakeengine.Extend, Nth: 1, Latency: 31 * time.Second})
		require.ErrorIs(t, d.Extend(t.Context(), time.Minute), fanout.ErrStale, "the timeout passed while the engine thought")
		require.EqualValues(t, 1, q.Stats().TimedOut)
		endTopic(t, top)
	})
}

func TestWaitsOnAnEngineAreAsLongAsItCan(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		top := onEngine(t, fakeengine.New(fakeengine.Config{Most: map[engine.Feature]time.Duration{
			engine.Visibility: 10 * time.Second, engine.RetryDelay: time.Minute,
		}}))
		q := engineQueue(t, top)
		require.NoError(t, top.Publish(t.Context(), "a"))
		start := time.Now()
		d := next(t, q)
		require.Equal(t, start.Add(10*time.Second), d.Deadline(), "the default is longer than the engine's longest")
		require.NoError(t, d.Settle(t.Context(), fanout.RetryAfter(errBroken, time.Hour)))
		require.NoError(t, next(t, q).Ack(t.Context()))
		require.Equal(t, time.Minute, time.Since(start))
		endTopic(t, top)
	})
}

func TestAShutdownOnAnEngineEndsWithTheQueue(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		top := onEngine(t, fakeengine.New(fakeengine.Config{}))
		q := engineQueue(t, top)
		require.NoError(t, top.Publish(t.Context(), "a"))
		done := make(chan error)
		go func() { done <- top.Shutdown(context.Background()) }()
		time.Sleep(time.Minute)
		select {
		case err := <-done:
			t.Fatalf("%v, while the engine holds a message", err)
		default:
		}
		require.NoError(t, q.Close())
		require.NoError(t, <-done)
		<-top.Done()
	})
}

func TestRedriveOnAnEngineThatFailsLosesNothing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		e := fakeengine.New(fakeengine.Config{})
		var redriven []string
		top := onEngine(t, e, fanout.WithHooks(fanout.Hooks{Redriven: func(ev fanout.Event) { redriven = append(redriven, ev.MessageID) }}))
		q := engineQueue(t, top, fanout.WithMaxAttempts(1))
		for n := range 3 {
			require.NoError(t, top.Publish(t.Context(), fmt.Sprint(n)))
			require.NoError(t, next(t, q).Settle(t.Context(), errBroken))
		}
		e.Inject(fakeengine.Fault{Op: fakeengine.Redrive, Nth: 2, Err: errBroken})
		moved, err := q.Redrive(t.Context())
		require.ErrorIs(t, err, errBroken)
		require.Equal(t, 2, moved, "they are moved side by side")
		for _, fault := range []fakeengine.Fault{{Op: fakeengine.Receive}, {Op: fakeengine.Stats}} {
			if fault.Op == fakeengine.Stats { // which is asked when a receive takes long
				e.Inject(fakeengine.Fault{Op: fakeengine.Receive, Latency: 2 * time.Second})
			}
			fault.Err = errBroken
			e.Inject(fault)
			_, err = q.Redrive(t.Context())
			require.ErrorIs(t, err, errBroken)
			require.ErrorContains(t, err, "redrive")
			e.Heal()
		}
		e.Inject(fakeengine.Fault{Op: fakeengine.Receive, Latency: time.Hour})
		ctx, cancel := context.WithTimeout(t.Context(), 500*time.Millisecond)
		defer cancel()
		_, err = q.Redrive(ctx)
		require.ErrorIs(t, err, context.DeadlineExceeded)
		e.Heal()
		_, err = q.Redrive(t.Context(), fanout.RedriveIf(func(fanout.Delivery[string]) bool { panic("no such letter") }))
		require.ErrorContains(t, err, "no such letter")
		moved, err = q.Redrive(t.Context())
		require.NoError(t, err)
		require.Equal(t, 1, moved)
		require.EqualValues(t, 3, q.Stats().Redriven)
		require.Len(t, redriven, 3)
		got := map[string]int{}
		for range 3 {
			d := next(t, q)
			got[d.Body] = d.Attempt()
			require.Contains(t, redriven, d.ID())
			require.NoError(t, d.Ack(t.Context()))
		}
		require.Equal(t, map[string]int{"0": 1, "1": 1, "2": 1}, got)
		endTopic(t, top)
	})
}

func TestARangeOverAnEnginesMessagesEndsWithItsContext(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		top := onEngine(t, fakeengine.New(fakeengine.Config{}))
		q := engineQueue(t, top)
		for _, body := range []string{"a", "b"} {
			require.NoError(t, top.Publish(t.Context(), body))
		}
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		defer cancel()
		var got []string
		var ended error
		for d, err := range q.Deliveries(ctx) {
			if err != nil {
				ended = err
				break
			}
			got = append(got, d.Body)
			require.NoError(t, d.Ack(t.Context()))
		}
		require.Equal(t, []string{"a", "b"}, got)
		require.ErrorIs(t, ended, context.DeadlineExceeded)
		endTopic(t, top)
	})
}

func TestASubscriberThatWasShutDownTakesNothingFromTheEngine(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		e := fakeengine.New(fakeengine.Config{})
		top := onEngine(t, e)
		q := engineQueue(t, top)
		s, err := q.Subscribe(t.Context(), func(context.Context, fanout.Delivery[string]) error { return nil })
		require.NoError(t, err)
		synctest.Wait()
		require.Equal(t, 1, e.Calls(fakeengine.Receive), "it waits for messages there")
		require.NoError(t, s.Shutdown(t.Context()))
		synctest.Wait()
		require.NoError(t, top.Publish(t.Context(), "a"))
		synctest.Wait()
		other := onEngine(t, e.Sibling())
		d, ok, err := engineQueue(t, other).TryReceive(t.Context())
		require.NoError(t, err)
		require.True(t, ok)
		require.NoError(t, d.Ack(t.Context()))
		require.Zero(t, e.Calls(fakeengine.Return))
		endTopic(t, other)
		endTopic(t, top)
	})
}

func TestWorkersTakeNoMoreFromTheEngineThanTheyCanRun(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		top := onEngine(t, fakeengine.New(fakeengine.Config{}))
		q := engineQueue(t, top)
		release := make(chan struct{})
		_, err := q.Subscribe(t.Context(), func(context.Context, fanout.Delivery[string]) error {
			<-release
			return nil
		}, fanout.WithConcurrency(3))
		require.NoError(t, err)
		for range 10 {
			require.NoError(t, top.Publish(t.Context(), "a"))
			synctest.Wait()
			s := q.Stats()
			require.LessOrEqual(t, s.InFlight, 3, "the others are anybody's")
		}
		close(release)
		synctest.Wait()
		require.EqualValues(t, 10, q.Stats().Acked)
		endTopic(t, top)
	})
}

func TestAnEngineQueueThatIsPausedForNoTimeGoesOn(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		top := onEngine(t, fakeengine.New(fakeengine.Config{}))
		q := engineQueue(t, top)
		_, err := q.Subscribe(t.Context(), func(context.Context, fanout.Delivery[string]) error { return nil })
		require.NoError(t, err)
		synctest.Wait()
		require.NoError(t, q.Pause(t.Context()))
		require.NoError(t, q.Resume(t.Context()))
		synctest.Wait()
		require.NoError(t, top.Publish(t.Context(), "a"))
		synctest.Wait()
		require.EqualValues(t, 1, q.Stats().Acked)
		endTopic(t, top)
	})
}

func TestASettlementThatFailsAfterItsDeadlineLeavesATimeOut(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		e := fakeengine.New(fakeengine.Config{})
		top := onEngine(t, e)
		q := engineQueue(t, top)
		require.NoError(t, top.Publish(t.Context(), "a"))
		d := next(t, q)
		time.Sleep(29 * time.Second)
		e.Inject(fakeengine.Fault{Op: fakeengine.Ack, Nth: 1, Latency: 5 * time.Second, Err: errBroken})
		require.ErrorIs(t, d.Ack(t.Context()), errBroken)
		synctest.Wait()
		require.EqualValues(t, 1, q.Stats().TimedOut)
		require.Zero(t, q.Stats().InFlight)
		require.NoError(t, top.Close())
		<-top.Done()
	})
}

func TestDoneWaitsForWhatTheEngineIsTold(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		e := fakeengine.New(fakeengine.Config{})
		top := onEngine(t, e)
		q := engineQueue(t, top)
		require.NoError(t, top.Publish(t.Context(), "a"))
		next(t, q)
		e.Inject(fakeengine.Fault{Op: fakeengine.Return, Nth: 1, Latency: 4 * time.Second})
		time.Sleep(31 * time.Second) // a second after it has timed out
		require.NoError(t, top.Close())
		began := time.Now()
		<-top.Done()
		require.LessOrEqual(t, time.Since(began), 3*time.Second)
		require.NoError(t, q.DeadLetters().Close(), "it was closed with the topic")
	})
}

func TestTheNextOfAKeyOnAnEngineIsNotHeldUpByTheLast(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		top := onEngine(t, fakeengine.New(fakeengine.Config{}), fanout.WithOrdering())
		q := engineQueue(t, top)
		release := make(chan struct{})
		_, err := q.Subscribe(t.Context(), func(_ context.Context, d fanout.Delivery[string]) error {
			if d.Body == "b" {
				<-release
			}
			return nil
		}, fanout.WithConcurrency(2))
		require.NoError(t, err)
		for k, body := range []string{"a", "b", "a"} {
			require.NoError(t, top.PublishMessages(t.Context(), fanout.Message[string]{Body: body, OrderingKey: body}))
			synctest.Wait()
			require.EqualValues(t, []int{1, 1, 2}[k], q.Stats().Acked)
		}
		close(release)
		endTopic(t, top)
	})
}

func TestAShutdownWithoutTimeAsksTheEngineWhatIsLeft(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		top := onEngine(t, fakeengine.New(fakeengine.Config{}))
		engineQueue(t, top)
		for range 3 {
			require.NoError(t, top.Publish(t.Context(), "a"))
		}
		ended, end := context.WithCancel(t.Context())
		end()
		var left *fanout.ShutdownError
		require.ErrorAs(t, top.Shutdown(ended), &left)
		require.Len(t, left.Queues, 1)
		require.Equal(t, 3, left.Queues[0].Ready)
		<-top.Done()
	})
}
