package notice

import (
	"fmt"
	"runtime"
	"sync"
	"testing"

	"github.com/stretchr/testify/require"
)

func tapOf(k Kind, f func(*Event)) (hooks [Kinds]func(*Event)) {
	hooks[k] = f
	return hooks
}

func TestTapsAreCalledAfterTheHookHoweverOneEnds(t *testing.T) {
	r, book, _ := newReporter(t)
	var called []int
	r.to.Hook(Redriven, func(*Event) { called = append(called, 0); panic("the hook") })
	for k, end := range []func(){func() { panic("first") }, runtime.Goexit, func() {}} {
		r.to.Tap(tapOf(Redriven, func(e *Event) {
			require.Equal(t, "q", e.Queue)
			called = append(called, k+1)
			end()
		}))
	}
	apart(func() { r.Tell(Redriven, Event{Count: 1}) })
	require.Equal(t, []int{0, 1, 2, 3}, called)
	require.Len(t, book.lines, 2, "of both panics")
	called = nil
	r.Tell(Settled, Event{Count: 1})
	require.Empty(t, called)
}

func TestOnlyWhatIsSeldomIsNotedForATap(t *testing.T) {
	r, _, _ := newReporter(t)
	wants := func() (all []Kind) {
		for k := range Kinds {
			if r.to.Wants(k) {
				all = append(all, k)
			}
		}
		return all
	}
	logged := []Kind{DeadLettered, Parked, Dropped, Stuck, Stalled, EngineFailed, Late, Panicked, Exited}
	require.Equal(t, logged, wants())
	stop := r.to.Tap([Kinds]func(*Event){})
	require.Equal(t, []Kind{DeadLettered, Parked, Redriven, Dropped, Stuck, Stalled, EngineFailed, Late, LateCancelled, Panicked, Exited}, wants())
	for k := range Kinds {
		require.False(t, r.to.Hooked(k))
	}
	stop()
	require.Equal(t, logged, wants())
	require.Nil(t, r.to.taps.Load(), "nobody taps")
}

func TestTapsComeAndGoWhileEventsAreTold(t *testing.T) {
	r, _, _ := newReporter(t)
	var heard [8]int
	var all sync.WaitGroup
	for k := range heard {
		all.Go(func() {
			for range 100 {
				var mu sync.Mutex
				n := 0
				stop := r.to.Tap(tapOf(Redriven, func(*Event) {
					mu.Lock()
					n++
					mu.Unlock()
				}))
				r.Tell(Redriven, Event{Count: 1})
				stop()
				mu.Lock()
				if n > 0 {
					heard[k]++
				}
				mu.Unlock()
			}
		})
	}
	all.Wait()
	require.Nil(t, r.to.taps.Load())
	require.Equal(t, "[100 100 100 100 100 100 100 100]", fmt.Sprint(heard), "each has heard of its own")
}
