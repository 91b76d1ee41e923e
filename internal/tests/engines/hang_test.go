// A handler that has returned is not stuck, and Close does not wait, while calls to the engine hang.

package engines_test

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/gofanout/fanout"
	"github.com/gofanout/fanout/engine"
	"github.com/gofanout/fanout/internal/fakeengine"
)

// A hearing is what hooks were told of stuck handlers, of settlements, and of the engine.
type hearing struct {
	mu      sync.Mutex
	stuck   int
	settled []string
	failed  []string
}

func (h *hearing) hooks() fanout.TopicOption {
	note := func(f func(e fanout.Event)) func(fanout.Event) {
		return func(e fanout.Event) {
			h.mu.Lock()
			defer h.mu.Unlock()
			f(e)
		}
	}
	return fanout.WithHooks(fanout.Hooks{
		Stuck: note(func(fanout.Event) { h.stuck++ }),
		Settled: note(func(e fanout.Event) {
			h.settled = append(h.settled, fmt.Sprintf("%s %v: %v", e.MessageID, e.Cause, e.Err))
		}),
		EngineFailed: note(func(e fanout.Event) { h.failed = append(h.failed, e.Err.Error()) }),
	})
}

func (h *hearing) told() (stuck int, settled, failed []string) {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.stuck, append([]string{}, h.settled...), append([]string{}, h.failed...)
}

func message(id string) fanout.Message[string] { return fanout.Message[string]{ID: id, Body: id} }

func TestAHandlerThatHasReturnedIsNotStuckWhileItsEngineHangs(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		e := fakeengine.New(fakeengine.Config{})
		var h hearing
		top := onEngine(t, e, h.hooks())
		e.Inject(fakeengine.Fault{Op: fakeengine.Ack, Nth: 1, Latency: time.Hour})
		var histories [][]fanout.Attempt
		_, err := top.Subscribe(t.Context(), "q", func(_ context.Context, d fanout.Delivery[string]) error {
			histories = append(histories, d.History())
			return nil
		}, fanout.WithVisibilityTimeout(5*time.Second))
		require.NoError(t, err)
		require.NoError(t, top.PublishMessages(t.Context(), message("a")))
		time.Sleep(5*time.Second + time.Millisecond)
		stuck, settled, _ := h.told()
		require.Zero(t, stuck)
		require.Empty(t, settled, "the engine has not answered")
		require.Zero(t, top.Queue("q").Stats().Stuck)
		time.Sleep(time.Minute)
		stuck, settled, failed := h.told()
		require.Zero(t, stuck)
		require.Len(t, failed, 1, "%q", failed)
		require.Contains(t, failed[0], "deadline exceeded")
		require.Len(t, settled, 2, "%q", settled)
		require.Contains(t, settled[0], "a timed out: settle: ")
		require.Contains(t, settled[0], "deadline exceeded")
		require.Equal(t, "a acked: <nil>", settled[1])
		require.Len(t, histories, 2)
		endTopic(t, top)
	})
}

func TestABatchHandlerThatHasReturnedIsNotStuckWhileItsEngineHangs(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		e := fakeengine.New(fakeengine.Config{})
		var h hearing
		top := onEngine(t, e, h.hooks())
		q, err := top.OpenQueue(t.Context(), "q", fanout.WithVisibilityTimeout(5*time.Second))
		require.NoError(t, err)
		require.NoError(t, top.PublishMessages(t.Context(), message("a"), message("b")))
		e.Inject(fakeengine.Fault{Op: fakeengine.Ack, Nth: 1, Latency: time.Hour})
		s, err := q.SubscribeBatch(t.Context(), func(context.Context, []fanout.Delivery[string]) error { return nil }, fanout.WithBatchSize(2))
		require.NoError(t, err)
		time.Sleep(5*time.Second + time.Millisecond)
		stuck, settled, _ := h.told()
		require.Zero(t, stuck)
		require.Equal(t, []string{"b timed out: fanout: the handler has returned, and its delivery was not settled in time"}, settled)

		soon, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		err = s.Shutdown(soon)
		require.ErrorIs(t, err, context.DeadlineExceeded)
		require.ErrorContains(t, err, "a worker still running")
		soon, cancel = context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		var left *fanout.ShutdownError
		require.ErrorAs(t, top.Shutdown(soon), &left)
		require.Len(t, left.Queues, 1)
		require.Zero(t, left.Queues[0].Running, "%v", left)
		<-top.Done()
	})
}

// In memory a hook can keep a batch from being settled.
func TestABatchHandlerThatHasReturnedIsNotStuckWhileAHookBlocks(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var h hearing
		blocks := make(chan bool)
		top, err := fanout.NewTopic[string]("t", h.hooks(), fanout.WithHooks(fanout.Hooks{Settled: func(e fanout.Event) {
			if e.Cause == fanout.Failed {
				<-blocks
			}
		}}))
		require.NoError(t, err)
		q, err := top.OpenQueue(t.Context(), "q", fanout.WithVisibilityTimeout(5*time.Second), fanout.WithBackoff(fanout.Constant(time.Hour)))
		require.NoError(t, err)
		require.NoError(t, top.PublishMessages(t.Context(), message("a"), message("b")))
		_, err = q.SubscribeBatch(t.Context(), func(context.Context, []fanout.Delivery[string]) error { return errors.New("no") }, fanout.WithBatchSize(2))
		require.NoError(t, err)
		time.Sleep(5*time.Second + time.Millisecond)
		stuck, settled, _ := h.told()
		require.Zero(t, stuck)
		require.Equal(t, []string{"a failed: no", "b timed out: fanout: the handler has returned, and its delivery was not settled in time"}, settled)
		require.NoError(t, top.Close())
		close(blocks)
		<-top.Done()
	})
}

// What others have received, and nobody has run a handler on as far as is known, is no
// dead letter yet where an engine keeps no state.
func TestOnlyKnownAttemptsMakeAMessageDeadOnArrival(t *testing.T) {
	for name, without := range map[string][]engine.Feature{"with state": nil, "without state": {engine.State}} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				e := fakeengine.New(fakeengine.Config{Without: without})
				other, err := e.Sibling().OpenTopic(t.Context(), engine.TopicSpec{Name: "payments"})
				require.NoError(t, err)
				there, err := other.OpenQueue(t.Context(), engine.QueueSpec{Name: "q", Visibility: 30 * time.Second})
				require.NoError(t, err)
				top := onEngine(t, e)
				q, err := top.OpenQueue(t.Context(), "q", fanout.WithMaxAttempts(1), fanout.WithVisibilityTimeout(30*time.Second))
				require.NoError(t, err)
				require.NoError(t, top.PublishMessages(t.Context(), message("good"), message("bad")))
				for range 3 { // somebody else looks, and goes
					rs, err := there.Receive(t.Context(), 2, time.Second)
					require.NoError(t, err)
					require.Len(t, rs, 2)
					time.Sleep(time.Second)
				}
				require.NoError(t, q.Pause(t.Context()))
				var runs []string
				s, err := q.Subscribe(t.Context(), func(_ context.Context, d fanout.Delivery[string]) error {
					runs = append(runs, fmt.Sprint(d.Body, " ", d.Attempt(), " ", len(d.History())))
					if d.Body == "bad" {
						return errors.New("no")
					}
					return nil
				})
				require.NoError(t, err)
				require.NoError(t, q.Resume(t.Context()))
				synctest.Wait()
				if without == nil { // what ends without a word there was an attempt
					require.Empty(t, runs)
					require.EqualValues(t, 2, q.Stats().DeadLettered)
				} else {
					require.Equal(t, []string{"good 4 3", "bad 4 3"}, runs)
					require.EqualValues(t, 1, q.Stats().DeadLettered)
					letters, err := q.DeadLetters().Peek(t.Context(), 10)
					require.NoError(t, err)
					require.Len(t, letters, 1)
					require.Len(t, letters[0].History(), 4)
				}
				require.NoError(t, s.Shutdown(t.Context()))
				endTopic(t, top)
			})
		})
	}
}

// What was received and given back without a run stays alive, and what could not be
// moved to the dead letters stays dead.
func TestAnEngineWithoutStateAndWhatIsDeadHere(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		e := fakeengine.New(fakeengine.Config{Without: []engine.Feature{engine.State}})
		other, err := e.Sibling().OpenTopic(t.Context(), engine.TopicSpec{Name: "payments"})
		require.NoError(t, err)
		there, err := other.OpenQueue(t.Context(), engine.QueueSpec{Name: "q", Visibility: 30 * time.Second})
		require.NoError(t, err)
		top := onEngine(t, e)
		q, err := top.OpenQueue(t.Context(), "q", fanout.WithMaxAttempts(2), fanout.WithVisibilityTimeout(30*time.Second))
		require.NoError(t, err)
		require.NoError(t, top.PublishMessages(t.Context(), message("a")))
		for range 3 {
			_, err := there.Receive(t.Context(), 1, time.Second)
			require.NoError(t, err)
			time.Sleep(time.Second)
		}
		d, err := q.Receive(t.Context())
		require.NoError(t, err)
		require.Equal(t, 4, d.Attempt())
		require.NoError(t, d.Settle(t.Context(), fanout.Snooze(time.Minute)), "spends none")
		d, err = q.Receive(t.Context())
		require.NoError(t, err)
		require.Equal(t, 4, d.Attempt())

		e.Inject(fakeengine.Fault{Op: fakeengine.DeadLetter, Nth: 1, Err: errors.New("no such queue")})
		require.NoError(t, d.Settle(t.Context(), errors.New("no")))
		require.EqualValues(t, 1, q.Stats().TimesParked)
		runs := 0
		_, err = q.Subscribe(t.Context(), func(context.Context, fanout.Delivery[string]) error { runs++; return nil })
		require.NoError(t, err)
		time.Sleep(time.Minute)
		require.Zero(t, runs, "it was dead")
		require.EqualValues(t, 1, q.Stats().DeadLettered)
		endTopic(t, top)
	})
}

// A slowToClose engine's topic takes its time to let go.
type slowToClose struct {
	*fakeengine.Engine
	closed chan struct{}
}

type slowTopic struct {
	engine.Topic
	closed chan struct{}
}

func (e slowToClose) OpenTopic(ctx context.Context, spec engine.TopicSpec) (engine.Topic, error) {
	top, err := e.Engine.OpenTopic(ctx, spec)
	return slowTopic{top, e.closed}, err
}

func (t slowTopic) Close() error {
	time.Sleep(3 * time.Second)
	close(t.closed)
	return t.Topic.Close()
}

func TestCloseDoesNotWaitForTheEngineButDoneDoes(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		for _, shutdown := range []bool{false, true} {
			e := slowToClose{fakeengine.New(fakeengine.Config{}), make(chan struct{})}
			top, err := fanout.NewTopic[string]("t", fanout.WithEngine(e))
			require.NoError(t, err)
			_, err = top.OpenQueue(t.Context(), "q")
			require.NoError(t, err)
			start := time.Now()
			if shutdown {
				require.NoError(t, top.Shutdown(t.Context()))
				require.Equal(t, 3*time.Second, time.Since(start))
			}
			require.NoError(t, top.Close())
			if !shutdown {
				require.Zero(t, time.Since(start))
			}
			<-top.Done()
			require.Equal(t, 3*time.Second, time.Since(start))
			<-e.closed
		}
	})
}
