package instep

import (
	"go/parser"
	"go/token"
	"runtime"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/stretchr/testify/require"
)

func TestThereIsNoLockClockOrGoroutine(t *testing.T) {
	file, err := parser.ParseFile(token.NewFileSet(), "instep.go", nil, parser.ImportsOnly)
	require.NoError(t, err)
	require.Len(t, file.Imports, 1)
	require.Equal(t, `"sync/atomic"`, file.Imports[0].Path.Value)
}

// requirePlace checks all that a word says.
func requirePlace(t *testing.T, w *Word, stamp uint64, waiting int, acked, detached bool) {
	t.Helper()
	p := w.Place()
	require.Equal(t, stamp, p.Stamp())
	require.Equal(t, waiting, p.Waiting())
	require.Equal(t, acked, p.Acked())
	require.Equal(t, detached, p.Detached())
	require.Equal(t, acked || detached, p.Over())
	require.Equal(t, stamp, p.Last().Stamp())
	require.Zero(t, p.Last().Waiting())
	require.Equal(t, p.Over(), p.Last().Over())
}

func TestAConsumerStepsFromMessageToMessage(t *testing.T) {
	var w Word
	w.Begin(1<<53, 255)
	p := w.Place()
	for k := range 255 {
		requirePlace(t, &w, 1<<53+uint64(k), 255-k, false, false)
		old := p
		var ok bool
		p, ok = w.Step(p)
		require.True(t, ok)
		require.Equal(t, w.Place(), p)
		_, ok = w.Step(old)
		require.False(t, ok, "it has stepped on from there")
	}
	_, ok := w.Step(p)
	require.False(t, ok, "nothing waits")
	requirePlace(t, &w, 1<<53+255, 0, false, false)
	require.True(t, w.Ack(1<<53+255))
	require.False(t, w.Ack(1<<53+255))
	requirePlace(t, &w, 1<<53+255, 0, true, false)
	require.False(t, w.Next())
	w.Leave()
	require.Zero(t, w.Place())
}

func TestAMessageThatIsOverIsLeftByAdvance(t *testing.T) {
	var w Word
	w.Begin(7, 3)
	_, ok := w.Advance()
	require.False(t, ok, "it is not over")
	require.False(t, w.Next())
	require.False(t, w.AckCurrent(8))
	require.False(t, w.Ack(8))
	require.False(t, w.DetachOf(8))
	require.True(t, w.AckCurrent(7))
	requirePlace(t, &w, 7, 3, true, false)
	require.False(t, w.AckCurrent(7))
	require.False(t, w.DetachOf(7))
	before := w.Place()
	p, ok := w.Detach()
	require.False(t, ok)
	require.Equal(t, before, p)
	_, ok = w.Step(w.Place())
	require.False(t, ok, "an acknowledged message is left by Advance")
	p, ok = w.Advance()
	require.True(t, ok)
	require.Equal(t, w.Place(), p)
	requirePlace(t, &w, 8, 2, false, false)

	before = p
	p, ok = w.Detach()
	require.True(t, ok)
	require.Equal(t, before, p)
	requirePlace(t, &w, 8, 2, false, true)
	require.False(t, w.AckCurrent(8))
	_, ok = w.Step(w.Place())
	require.False(t, ok)
	_, ok = w.Advance()
	require.False(t, ok, "what is detached is settled under the lock")
	require.True(t, w.Next())
	requirePlace(t, &w, 9, 1, false, false)

	require.True(t, w.DetachOf(9))
	requirePlace(t, &w, 9, 1, false, true)
	require.Equal(t, w.Place(), w.TakeBack())
	requirePlace(t, &w, 9, 0, false, true)
	require.False(t, w.Next())
}

func TestTheLastMessageIsNotAcknowledgedWithoutTheLock(t *testing.T) {
	var w Word
	w.Begin(1, 1)
	require.Equal(t, w.Place(), w.TakeBack())
	requirePlace(t, &w, 1, 0, false, false)
	require.Equal(t, w.Place(), w.TakeBack())
	require.False(t, w.AckCurrent(1))
	require.True(t, w.Ack(1))
	_, ok := w.Advance()
	require.False(t, ok)
}

func TestNobodyIsDetachedFromAWordThatIsLeft(t *testing.T) {
	var w Word
	p, ok := w.Detach()
	require.Zero(t, p)
	require.False(t, ok)
	require.Zero(t, w.Place())
}

// TestEachMessageHasOneOwner: a consumer goes on without the lock, while others acknowledge,
// detach and take back. Each message is got by exactly one of them.
func TestEachMessageHasOneOwner(t *testing.T) {
	const rounds, n = 300, 64
	for range rounds {
		var w Word
		var mu sync.Mutex
		var got [n + 1]atomic.Int32 // by stamp
		w.Begin(1, n-1)
		done := make(chan struct{})
		var all sync.WaitGroup
		others := func(locked bool, f func(p Place) int) {
			all.Go(func() {
				for {
					select {
					case <-done:
						return
					default:
					}
					runtime.Gosched()
					if locked {
						mu.Lock()
					}
					if stamp := f(w.Place()); stamp > 0 {
						got[stamp].Add(1)
					}
					if locked {
						mu.Unlock()
					}
				}
			})
		}
		others(false, func(p Place) int {
			if w.AckCurrent(p.Stamp()) {
				return int(p.Stamp())
			}
			return 0
		})
		others(true, func(Place) int {
			if p, ok := w.Detach(); ok {
				return int(p.Stamp())
			}
			return 0
		})
		others(true, func(p Place) int {
			if w.DetachOf(p.Stamp()) {
				return int(p.Stamp())
			}
			return 0
		})
		all.Go(func() {
			defer close(done)
			for p := w.Place(); ; p = w.Place() {
				runtime.Gosched()
				if _, ok := w.Step(p); ok {
					got[p.Stamp()].Add(1)
					continue
				}
				if _, ok := w.Advance(); ok {
					continue
				}
				mu.Lock()
				if p.Stamp() > n/2 {
					p = w.TakeBack()
					for k := range p.Waiting() {
						got[int(p.Stamp())+1+k].Add(1)
					}
				}
				if w.Ack(p.Stamp()) {
					got[p.Stamp()].Add(1)
				}
				more := w.Next()
				mu.Unlock()
				if !more {
					return
				}
			}
		})
		all.Wait()
		for stamp := 1; stamp <= n; stamp++ {
			require.Equal(t, int32(1), got[stamp].Load(), "message %d", stamp)
		}
	}
}
