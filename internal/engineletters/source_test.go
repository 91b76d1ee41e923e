package engineletters

import (
	"context"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/gofanout/fanout/engine"
	"github.com/gofanout/fanout/internal/core"
	"github.com/gofanout/fanout/internal/deadletter"
	"github.com/gofanout/fanout/internal/delivery"
	"github.com/gofanout/fanout/internal/fakeengine"
	"github.com/gofanout/fanout/internal/message"
	"github.com/gofanout/fanout/internal/queue"
	"github.com/gofanout/fanout/internal/settings"
)

// buried returns a queue with n letters in the engine, and their source. Visibility timeouts
// are a second.
func buried(t *testing.T, e *fakeengine.Engine, n int) (*Source[string], *queue.Queue[string], engine.Queue) {
	t.Helper()
	ctx := t.Context()
	top, err := e.OpenTopic(ctx, engine.TopicSpec{Name: "payments"})
	require.NoError(t, err)
	eq, err := top.OpenQueue(ctx, engine.QueueSpec{Name: "q", Visibility: time.Second, MaxAttempts: 5})
	require.NoError(t, err)
	for k := range n {
		name := fmt.Sprintf("%03d", k)
		require.NoError(t, top.Publish(ctx, []engine.Message{{ID: name, Body: []byte(name), PublishedAt: time.Now()}}))
		time.Sleep(time.Millisecond)
		got, err := eq.Receive(ctx, 1, time.Second)
		require.NoError(t, err)
		require.NoError(t, eq.DeadLetter(ctx, got[0].Receipt, got[0].Message))
	}
	c, err := core.New("payments", settings.Topic{Logger: slog.New(slog.DiscardHandler)})
	require.NoError(t, err)
	home := &queue.Home[string]{Core: c}
	set := settings.DefaultQueue()
	set.Visibility = time.Second
	q := queue.NewQueue(c, home, "q", &set.Limits)
	d := queue.NewDeadLetterQueue(c, home, "q"+queue.DeadSuffix, set.Limits)
	d.Source = q
	return &Source[string]{
		Q: d, Engine: eq.DeadLetters(),
		Lease: func(visibility time.Duration) time.Duration { return visibility + 2*time.Second },
		Decode: func(got []engine.Received) []Letter[string] {
			ls := make([]Letter[string], len(got))
			for k := range got {
				ls[k].Body, ls[k].At = string(got[k].Body), c.Clock.At(got[k].PublishedAt)
				ls[k].Ext = &message.Extra{ID: got[k].ID}
			}
			return ls
		},
	}, q, eq
}

// The model is which letters there are. Whatever the engine's batches, and whichever moves
// fail, each letter is asked about once, is where it has to be, and is ready afterwards.
func TestEachLetterIsMetOnceAndNoneIsLost(t *testing.T) {
	for seed := range uint64(60) {
		synctest.Test(t, func(t *testing.T) {
			ctx := t.Context()
			r := rand.New(rand.NewPCG(seed, 1))
			n := r.IntN(150)
			e := fakeengine.New(fakeengine.Config{MaxReceive: 1 + r.IntN(20)})
			s, q, eq := buried(t, e, n)
			there := map[string]bool{}
			for k := range n {
				there[fmt.Sprintf("%03d", k)] = true
			}
			moved, deleted := 0, 0
			for range 3 {
				want := map[string]bool{}
				for name := range there {
					want[name] = r.IntN(3) == 0
				}
				asked := map[string]int{}
				c := &deadletter.Choice[string]{Keep: []func(*delivery.Delivery[string]) bool{func(d *delivery.Delivery[string]) bool {
					asked[d.Body]++
					return want[d.Body]
				}}}
				fails := r.IntN(2) == 0
				if fails {
					e.Inject(fakeengine.Fault{Op: fakeengine.Redrive, Nth: 1 + r.IntN(3), Err: fmt.Errorf("failure")})
				}
				if r.IntN(2) == 0 {
					e.Inject(fakeengine.Fault{Op: fakeengine.Receive, Latency: time.Duration(r.IntN(300)) * time.Millisecond})
				}
				how, counted := s.Redrive, &moved
				if r.IntN(3) == 0 {
					how, counted = s.Delete, &deleted
				}
				ended, err := how(ctx, q, c)
				e.Heal()
				*counted += ended
				for name, times := range asked {
					require.Equal(t, 1, times, name)
				}
				if err == nil {
					require.Len(t, asked, len(there))
				} else {
					require.True(t, fails, "%v", err)
					require.ErrorContains(t, err, "letters were not moved: failure")
				}
				ds, err := s.Peek(ctx, n+1)
				require.NoError(t, err)
				require.Len(t, ds, len(there)-ended)
				left := map[string]bool{}
				for k, d := range ds {
					left[d.Body] = true
					require.True(t, there[d.Body], "it comes from nowhere")
					require.True(t, k == 0 || ds[k-1].At <= d.At, "in the order of publication")
				}
				for name := range there {
					require.True(t, left[name] || want[name], "one that was not chosen is gone")
					require.True(t, err != nil || fails || left[name] != want[name], "one that was chosen is there")
				}
				there = left
			}
			letters, err := s.Engine.Stats(ctx)
			require.NoError(t, err)
			require.Equal(t, [2]int{len(there), 0}, [2]int{letters.Ready, letters.InFlight}, "none is hidden")
			messages, err := eq.Stats(ctx)
			require.NoError(t, err)
			require.Equal(t, moved, messages.Ready)
			require.Equal(t, n, len(there)+moved+deleted)
			require.EqualValues(t, moved, q.Store.Counters().Redriven)
			require.EqualValues(t, deleted, s.Q.Store.Counters().Dropped)
			require.NoError(t, eq.Close())
		})
	}
}

// What the user's code ends is given back.
func TestLettersAreGivenBackHoweverTheChoiceEnds(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s, q, eq := buried(t, fakeengine.New(fakeengine.Config{}), 5)
		_, err := s.Redrive(t.Context(), q, &deadletter.Choice[string]{Keep: []func(*delivery.Delivery[string]) bool{func(*delivery.Delivery[string]) bool { panic("boom") }}})
		require.ErrorContains(t, err, "boom")
		letters, err := s.Engine.Stats(context.Background())
		require.NoError(t, err)
		require.Equal(t, [2]int{5, 0}, [2]int{letters.Ready, letters.InFlight})
		require.NoError(t, eq.Close())
	})
}
