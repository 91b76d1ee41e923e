package consumers

import (
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/gofanout/fanout/internal/settings"
)

// A busy worker has stamps, and its handler runs or has returned.
type busy struct {
	Holder[int]
	stamps []uint64
	runs   bool
	asked  int
}

func (b *busy) HandlesLocked() bool    { return b.runs }
func (b *busy) StampsLocked() []uint64 { b.asked++; return b.stamps }

func TestTheHandlersThatRunAreCounted(t *testing.T) {
	g, all := group(t, settings.SubscriberLimits{Concurrency: 3}, settings.SubscriberLimits{Concurrency: 3})
	require.Zero(t, g.HandlersLocked())
	all[0].Busy = []Holder[int]{&busy{runs: true}, &busy{}, &busy{runs: true}}
	all[1].Busy = []Holder[int]{&busy{runs: true}}
	require.Equal(t, 2, all[0].HandlersLocked())
	require.Equal(t, 3, g.HandlersLocked())
}

// A worker is found by any of its deliveries, and all are asked once.
func TestAWorkerIsFoundByItsDeliveries(t *testing.T) {
	g, all := group(t, settings.SubscriberLimits{Concurrency: 3}, settings.SubscriberLimits{Concurrency: 3})
	a, b, c := &busy{stamps: []uint64{1, 2}}, &busy{stamps: []uint64{7}}, &busy{}
	all[0].Busy, all[1].Busy = []Holder[int]{a, c}, []Holder[int]{b}
	find := g.Finder()
	require.Zero(t, a.asked)
	for stamp, want := range map[uint64]*busy{1: a, 2: a, 7: b} {
		require.Same(t, want, find(stamp))
	}
	require.Nil(t, find(3))
	require.Equal(t, []int{1, 1, 1}, []int{a.asked, b.asked, c.asked})
}

// A limit lets one delivery start in every while, or so many that are said to have started.
func TestARateLimitSpacesDeliveries(t *testing.T) {
	_, all := group(t, settings.SubscriberLimits{Concurrency: 1, Every: time.Second}, settings.SubscriberLimits{Concurrency: 1})
	p, free := &all[0].Pool, &all[1].Pool
	p.Most = 10
	now := p.Clock.Now()
	every := int64(time.Second)
	require.True(t, p.Pass(now))
	require.False(t, p.Pass(now+every-1))
	require.True(t, p.Pass(now+every))
	p.PassMore(3)
	require.False(t, p.Pass(now+5*every-1))
	require.True(t, p.Pass(now+5*every))
	p.Unpass(now + 5*every)
	require.True(t, p.Pass(now+5*every), "the one before has not started")
	p.Unpass(now) // of another instant: nothing comes of it
	require.False(t, p.Pass(now+5*every))

	p.nextAt.Store(now + 11*every)
	require.True(t, p.Pass(now), "it is of the clock of another bubble")
	p.nextAt.Store(now + 10*every)
	require.False(t, p.Pass(now))

	for range 3 {
		require.True(t, free.Pass(now))
	}
	free.Unpass(now)
	require.Zero(t, free.nextAt.Load())
	require.Zero(t, free.LimitedLocked())
}

// Pools come and go: whoever may start is in the ring, once, and the turns go on.
func TestTheRingIsWholeWhoeverComesAndGoes(t *testing.T) {
	limits := settings.SubscriberLimits{Concurrency: 1}
	_, all := group(t, limits, limits, limits, limits)
	var f Ring[int]
	for _, c := range all {
		c.nextFree, c.previousFree = nil, nil
	}
	order := func() (ks []int) {
		for range all {
			s, _ := f.First()
			if s == nil {
				break
			}
			for k, c := range all {
				if s == &c.Pool {
					ks = append(ks, k)
				}
			}
			f.last = s
		}
		return ks
	}
	s, limited := f.First()
	require.Nil(t, s)
	require.Zero(t, limited)
	f.Add(&all[0].Pool)
	require.Equal(t, []int{0, 0, 0, 0}, order())
	f.Remove(&all[0].Pool)
	require.Empty(t, order())
	require.Nil(t, f.last)
	for _, c := range all {
		f.Add(&c.Pool)
		f.Add(&c.Pool)
	}
	require.Equal(t, []int{0, 1, 2, 3}, order())
	f.Remove(&all[3].Pool) // the one that was last
	require.Same(t, &all[2].Pool, f.last)
	require.Equal(t, []int{0, 1, 2, 0}, order())
	all[1].Running = 1 // it may not start: it leaves the ring when it is met
	require.Equal(t, []int{2, 0, 2, 0}, order())
	require.Nil(t, all[1].nextFree)
	all[1].Running = 0
	f.Add(&all[1].Pool)
	require.Equal(t, []int{2, 0, 1, 2}, order())
}

// Nobody is started beyond what all may have.
func TestNoWorkerIsStartedBeyondAll(t *testing.T) {
	g, _ := group(t, settings.SubscriberLimits{Concurrency: 1})
	g.Serving = 1
	sub, _, ok := g.NextLocked()
	require.Nil(t, sub)
	require.False(t, ok)
	g.Subs[0].Running = 1
	g.Free.Remove(g.Subs[0])
	require.NoError(t, g.CheckConsumers(), "who may not start need not be in the ring")
}

// The line is whole from both ends.
func TestALineIsWholeFromBothEnds(t *testing.T) {
	var l Line
	a, b, c := l.Make(), l.Make(), l.Make()
	l.AddFirst(a)
	l.Add(b)
	l.AddFirst(c) // c, a, b
	l.Remove(b)
	l.Add(b)
	l.Remove(a)
	require.Same(t, c, l.first)
	require.Same(t, b, c.behind)
	require.Same(t, c, b.before)
	require.Same(t, b, l.last)
	l.Remove(c)
	l.AddFirst(c) // before b alone
	l.Remove(b)
	require.Same(t, c, l.last)
	l.Remove(c)
	require.Nil(t, l.first)
	require.Nil(t, l.last)
	require.Zero(t, l.N)
	l.AddFirst(a)
	require.Same(t, a, l.last)
	require.True(t, l.Wake())
	l.Done(a)
	require.Nil(t, a.woken, "its channel may be of a bubble that has ended")
}
