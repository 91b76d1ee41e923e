package consumers

import (
	"context"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/gofanout/fanout/internal/message"
	"github.com/gofanout/fanout/internal/settings"
)

func TestReceiversAreWokenInTheOrderOfTheirArrival(t *testing.T) {
	var l Line
	require.False(t, l.Wake())
	a, b, c, d := l.Make(), l.Make(), l.Make(), l.Make()
	l.Add(a)
	l.Add(b)
	l.Add(c)
	l.AddFirst(d)
	l.Remove(b)
	l.Remove(b)
	require.EqualValues(t, 3, l.N)
	for _, r := range []*Receiver{d, a, c} {
		require.True(t, l.Wake())
		require.Len(t, r.woken, 1)
		r.Wait(t.Context())
	}
	require.False(t, l.Wake())
	require.Zero(t, l.N)
	l.Done(b)
	require.Same(t, b, l.Make(), "it is used again")
	require.NotSame(t, b, l.Make())
}

func TestAReceiverThatIsNotWokenWaitsForItsContext(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		began := time.Now()
		new(Line).Make().Wait(ctx)
		require.Equal(t, time.Second, time.Since(began))
		r := new(Line).Make()
		time.AfterFunc(time.Second, func() { r.woken <- struct{}{} })
		r.Wait(context.Background()) // which never ends
		require.Equal(t, 2*time.Second, time.Since(began))
	})
}

// counted are workers that are only counted.
type counted struct {
	Pool[int]
	started int
}

func (c *counted) StartLocked() { c.started++; c.Running++ }
func (c *counted) StopLocked()  {}

func group(t *testing.T, limits ...settings.SubscriberLimits) (g *Group[int], all []*counted) {
	clock, err := message.NewClock()
	require.NoError(t, err)
	g = new(Group[int])
	for k := range limits {
		c := new(counted)
		c.Pool = Pool[int]{Workers: c, Clock: clock, Most: 1, Set: &limits[k]}
		all = append(all, c)
		g.Subs = append(g.Subs, &c.Pool)
		g.Free.Add(&c.Pool)
		g.Consumers += limits[k].Concurrency
	}
	require.NoError(t, g.CheckConsumers())
	return g, all
}

func TestSubscribersTakeTurnsUntilAllTheirWorkersRun(t *testing.T) {
	g, all := group(t, settings.SubscriberLimits{Concurrency: 1}, settings.SubscriberLimits{Concurrency: 3}, settings.SubscriberLimits{Concurrency: 2})
	var order []int
	for {
		sub, limited, ok := g.NextLocked()
		require.Zero(t, limited)
		if !ok {
			break
		}
		require.NotNil(t, sub)
		g.StartLocked(sub)
		g.Serving++
		for k, c := range all {
			if sub == &c.Pool {
				order = append(order, k)
			}
		}
	}
	require.Equal(t, []int{0, 1, 2, 1, 2, 1}, order)
	all[2].Running-- // one ends
	g.Serving--
	g.Free.Add(&all[2].Pool)
	sub, _, ok := g.NextLocked()
	require.True(t, ok)
	require.Same(t, &all[2].Pool, sub)
	g.Free.Remove(sub)
	g.Free.Remove(sub)
	sub, _, ok = g.NextLocked()
	require.Nil(t, sub)
	require.False(t, ok)
	require.Error(t, g.CheckConsumers(), "one may start and is not in the ring")
	g.Receivers.Add(g.Receivers.Make())
	_, _, ok = g.NextLocked()
	require.True(t, ok, "somebody receives")
}

func TestARateLimitSaysUntilWhenNobodyMayStart(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g, all := group(t, settings.SubscriberLimits{Concurrency: 1, Every: 3 * time.Second}, settings.SubscriberLimits{Concurrency: 1, Every: time.Second})
		now := all[0].Clock.Now()
		for _, c := range all {
			require.True(t, c.Pass(now))
			require.False(t, c.Pass(now))
		}
		sub, limited, ok := g.NextLocked()
		require.Nil(t, sub)
		require.True(t, ok)
		require.Equal(t, now+int64(time.Second), limited)
		time.Sleep(time.Second)
		sub, limited, _ = g.NextLocked()
		require.Same(t, &all[1].Pool, sub)
		require.Zero(t, limited)
		all[0].Unpass(now)
		require.Zero(t, all[0].LimitedLocked())
	})
}

func TestAStoppingSubscriberStartsNobody(t *testing.T) {
	g, all := group(t, settings.SubscriberLimits{Concurrency: 1}, settings.SubscriberLimits{Concurrency: 1})
	all[0].Stopping = true
	require.Error(t, g.CheckConsumers(), "its workers are not counted")
	g.Consumers--
	require.NoError(t, g.CheckConsumers())
	sub, _, _ := g.NextLocked()
	require.Same(t, &all[1].Pool, sub)
}
