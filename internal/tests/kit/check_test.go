package kit

import (
	"context"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/gofanout/fanout"
)

// miscounted is a queue of which one counter is wrong.
type miscounted struct {
	fanout.QueueView
	change func(*fanout.Stats)
}

func (m miscounted) Stats() fanout.Stats {
	s := m.QueueView.Stats()
	m.change(&s)
	return s
}

func TestCheckFindsEachCounterThatIsWrong(t *testing.T) {
	Bubble(t, func(t *testing.T, ctx context.Context) {
		top := NewTopic[int](t)
		q := OpenQueue(t, top, "q", fanout.WithCapacity(8), fanout.WithMaxAttempts(1))
		Publish(t, top, 1, 2, 3, 4)
		for range 2 {
			require.NoError(t, Receive(t, q).Settle(ctx, ErrBusy)) // both are dead
		}
		Receive(t, q)
		moved, err := q.Redrive(ctx)
		require.NoError(t, err)
		require.Equal(t, 2, moved)
		require.NoError(t, Receive(t, q).Settle(ctx, ErrBusy))
		Check(t, top)
		CheckDeadLetters(t, q.DeadLetters())
		for name, change := range map[string]func(*fanout.Stats){
			"ready":         func(s *fanout.Stats) { s.Ready++ },
			"delayed":       func(s *fanout.Stats) { s.Delayed++ },
			"retrying":      func(s *fanout.Stats) { s.Retrying++ },
			"in flight":     func(s *fanout.Stats) { s.InFlight++ },
			"parked":        func(s *fanout.Stats) { s.Parked++ },
			"released":      func(s *fanout.Stats) { s.Released++ },
			"blocked":       func(s *fanout.Stats) { s.Blocked++ },
			"published":     func(s *fanout.Stats) { s.Published-- },
			"acknowledged":  func(s *fanout.Stats) { s.Acked++ },
			"dropped":       func(s *fanout.Stats) { s.Dropped++ },
			"dead-lettered": func(s *fanout.Stats) { s.DeadLettered++ },
			"redriven":      func(s *fanout.Stats) { s.Redriven++ },
			"one for another": func(s *fanout.Stats) {
				s.Ready--
				s.Delayed++
			},
			"capacity": func(s *fanout.Stats) { s.Capacity = 0 },
		} {
			require.Error(t, checkBooks(t, miscounted{q.View(), change}, false), name)
			require.Error(t, checkBooks(t, miscounted{q.View().DeadLetters(), change}, true), name)
		}
		require.NoError(t, top.Close())
	})
}
