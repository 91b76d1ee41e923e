// What an engine accepts can die there: histories are shortened until it has room for them.

package engines_test

import (
	"context"
	"errors"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/gofanout/fanout"
	"github.com/gofanout/fanout/engine"
	"github.com/gofanout/fanout/internal/fakeengine"
)

// TestWhatIsPublishedCanDie: histories are shortened until the engine has room for them.
func TestWhatIsPublishedCanDie(t *testing.T) {
	long := strings.Repeat("it failed. ", 200)
	for name, without := range map[string][]engine.Feature{"with state": nil, "without": {engine.State}} {
		for _, room := range []int{3500, 1000, 400, 330} {
			t.Run(name, func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) {
					failures := 0
					top := onEngine(t, fakeengine.New(fakeengine.Config{Without: without, MaxMessage: 4096}),
						fanout.WithHooks(fanout.Hooks{EngineFailed: func(fanout.Event) { failures++ }}))
					q := engineQueue(t, top, fanout.WithMaxAttempts(3))
					err := top.Publish(t.Context(), strings.Repeat("x", 4094-100))
					require.ErrorIs(t, err, fanout.ErrInvalidMessage, "it could not die")
					_, err = q.Subscribe(t.Context(), func(context.Context, fanout.Delivery[string]) error { return errors.New(long) })
					require.NoError(t, err)
					require.NoError(t, top.Publish(t.Context(), strings.Repeat("x", 4094-room)))
					time.Sleep(time.Minute)
					require.Equal(t, uint64(1), q.Stats().DeadLettered)
					require.Zero(t, q.Stats().TimesParked)
					require.Zero(t, failures)
					letters, err := q.DeadLetters().Peek(t.Context(), 10)
					require.NoError(t, err)
					require.Len(t, letters, 1)
					as := letters[0].History()
					require.NotEmpty(t, as)
					require.Equal(t, 3, as[len(as)-1].Number, "the newest stays")
					require.Error(t, as[len(as)-1].Err, "what was left out is said")
					n, err := q.Redrive(t.Context())
					require.NoError(t, err)
					require.Equal(t, 1, n)
					endTopic(t, top)
				})
			})
		}
	}
}

// told is what hooks have heard of failures of the engine.
type told struct {
	mu    sync.Mutex
	texts []string
}

func (s *told) failed(e fanout.Event) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.texts = append(s.texts, e.Err.Error())
}

func (s *told) all() []string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.Clone(s.texts)
}

// TestAMessageThatCannotDieIsToldOnce: of a foreign publisher, say. It comes as seldom as
// the backoff lets it, until the engine's own limit ends it.
func TestAMessageThatCannotDieIsToldOnce(t *testing.T) {
	for name, without := range map[string][]engine.Feature{"with state": nil, "without": {engine.State}} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				var said told
				var dead, runs atomic.Int64
				e := fakeengine.New(fakeengine.Config{Without: without})
				top := onEngine(t, e, fanout.WithHooks(fanout.Hooks{
					EngineFailed: said.failed,
					DeadLettered: func(fanout.Event) { dead.Add(1) },
				}))
				q := engineQueue(t, top, fanout.WithMaxAttempts(2), fanout.WithBackoff(fanout.Exponential(time.Second, 10*time.Minute)))
				require.NoError(t, top.Publish(t.Context(), strings.Repeat("x", 5000)))
				e.SetMaxMessage(4096)
				_, err := q.Subscribe(t.Context(), func(context.Context, fanout.Delivery[string]) error { runs.Add(1); return errors.New("no") })
				require.NoError(t, err)
				before := e.Calls(fakeengine.Receive)
				time.Sleep(5 * time.Hour)
				synctest.Wait()
				require.EqualValues(t, 2, runs.Load())
				require.Zero(t, q.Stats().DeadLettered)
				require.Zero(t, dead.Load())
				require.Equal(t, uint64(1), q.Stats().TimesParked)
				calls := e.Calls(fakeengine.Receive) - before
				require.True(t, 30 <= calls && calls <= 75, "it waits 5 to 10 minutes: %d", calls)
				require.Len(t, said.all(), 1, "%q", said.all())
				require.Contains(t, said.all()[0], "4096")
				e.SetMaxMessage(0)
				time.Sleep(10 * time.Minute)
				require.Equal(t, uint64(1), q.Stats().DeadLettered)
				endTopic(t, top)
			})
		})
	}
}

// TestADeadLetterIsCountedWhenTheEngineHasIt: not when it is on its way.
func TestADeadLetterIsCountedWhenTheEngineHasIt(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		e := fakeengine.New(fakeengine.Config{})
		var said told
		top := onEngine(t, e, fanout.WithHooks(fanout.Hooks{EngineFailed: said.failed}))
		q := engineQueue(t, top, fanout.WithMaxAttempts(1), fanout.WithVisibilityTimeout(time.Minute))
		_, err := q.Subscribe(t.Context(), func(ctx context.Context, d fanout.Delivery[string]) error {
			if d.Body == "slow" {
				<-ctx.Done()
			}
			return errors.New("no")
		}, fanout.WithConcurrency(2))
		require.NoError(t, err)
		e.Inject(fakeengine.Fault{Op: fakeengine.DeadLetter, Err: errors.New("the disk is full")})
		require.NoError(t, top.Publish(t.Context(), "quick"))
		require.NoError(t, top.Publish(t.Context(), "slow"))
		time.Sleep(10 * time.Minute)
		require.Zero(t, q.Stats().DeadLettered)
		require.Equal(t, uint64(2), q.Stats().TimesParked)
		require.Contains(t, said.all()[0], "the disk is full")
		e.Heal()
		time.Sleep(time.Minute)
		require.Equal(t, uint64(2), q.Stats().DeadLettered)
		endTopic(t, top)
	})
}
