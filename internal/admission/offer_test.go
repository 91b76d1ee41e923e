package admission

import (
	"context"
	"slices"
	"strconv"
	"testing"
	"testing/synctest"

	"github.com/stretchr/testify/require"

	"github.com/gofanout/fanout/internal/filter"
	"github.com/gofanout/fanout/internal/lifecycle"
	"github.com/gofanout/fanout/internal/message"
	"github.com/gofanout/fanout/internal/overflow"
	"github.com/gofanout/fanout/internal/policy"
	"github.com/gofanout/fanout/internal/routing"
	"github.com/gofanout/fanout/internal/settings"
	"github.com/gofanout/fanout/internal/view"
)

// Queues with policies and others are looked at in the order in which they were opened, in
// whatever way they are found.
func TestQueuesWithFiltersAreLookedAtInTheOrderOfTheirOpening(t *testing.T) {
	bubble(t, func(t *testing.T, ctx context.Context) {
		h := newHome[int](t)
		policyOf := func(text string) filter.Filter[int] {
			p, err := policy.Parse(text)
			require.NoError(t, err)
			return filter.Filter[int]{Policy: p}
		}
		kinds := []func(k int) []filter.Filter[int]{
			func(int) []filter.Filter[int] { return []filter.Filter[int]{policyOf(`{"name": ["a", "b"]}`)} },
			func(int) []filter.Filter[int] { return []filter.Filter[int]{{Body: all}} },
			func(k int) []filter.Filter[int] {
				return []filter.Filter[int]{policyOf(`{"name": [{"prefix": "a"}]}`), {Body: func(body int) bool { return body != k }}}
			},
			func(int) []filter.Filter[int] {
				return append([]filter.Filter[int]{{Body: all}}, policyOf(`{"name": ["a"]}`))
			},
		}
		for k := range 40 {
			h.open(strconv.Itoa(k), filtered(kinds[k*7%4](k)...), capacity(2), overflows(settings.Reject))
		}
		opened := slices.Clone(h.queues)
		for k := 3; k < 40; k += 5 {
			require.NoError(t, lifecycle.Close(opened[k]))
		}
		o, err := h.offers.OfAll([]message.Published[int]{{Body: 10, Attributes: map[string]string{"name": "a"}}, {Body: 2}, {Body: 3, Attributes: map[string]string{"name": "a"}}})
		require.NoError(t, err)
		require.NoError(t, h.routes.Ask(o.Items, &o.Answer))
		got := map[string][]int{}
		last := uint64(0)
		for _, r := range o.Rows {
			require.Greater(t, r.Q.Filters.Number, last)
			last = r.Q.Filters.Number
			got[r.Q.Name()] = r.Accepted
		}
		want := map[string][]int{}
		for _, q := range h.queues {
			for k := range o.Items {
				if q.Filters.Accepts(&o.Items[k]) {
					want[q.Name()] = append(want[q.Name()], k)
				}
			}
		}
		require.Len(t, h.queues, 32)
		require.Equal(t, want, got)
		require.Contains(t, got["10"], 2)
		require.NotContains(t, got["10"], 0)
		h.end(t)
		require.True(t, h.routes.None())
	})
}

type watched struct{ _ [1 << 10]byte }

func TestAnOfferThatIsUsedAgainIsEmpty(t *testing.T) {
	h := newHome[*watched](t)
	h.open("q", filtered(filter.Filter[*watched]{Message: func(m *message.Published[*watched]) bool { return m.Body != nil }}))
	o, err := h.offers.OfAll([]message.Published[*watched]{{Body: new(watched), Attributes: map[string]string{"a": "b"}}, {Body: new(watched)}})
	require.NoError(t, err)
	require.NoError(t, h.tryAll(context.Background(), o, false))
	require.Len(t, o.Rows, 1)
	h.offers.Done(o)
	for _, it := range o.Items[:cap(o.Items)] {
		require.Equal(t, message.Item[*watched]{}, it)
	}
	for _, r := range o.Rows[:cap(o.Rows)] {
		require.Equal(t, routing.Row[*watched]{}, r)
	}
	require.Empty(t, o.Items)
	require.Empty(t, o.Rows)
	h.end(t)
}

func TestAPublishThatWaitedIsNotUsedAgain(t *testing.T) {
	bubble(t, func(t *testing.T, ctx context.Context) {
		h := newHome[int](t)
		q := h.open("q", accepting(all), capacity(1))
		h.publish(t, 1)
		waited := h.offers.Of(2)
		go func() {
			if err := h.Admission.publish(ctx, waited, false); err != nil {
				t.Error(err)
			}
		}()
		synctest.Wait()
		d := receive(t, q)
		require.NoError(t, d.Ack(ctx))
		synctest.Wait()
		require.Equal(t, []int{2}, bodies(t, q))
		for range 10 {
			require.NotSame(t, waited, h.offers.New(), "others may look at it still")
		}
		h.end(t)
	})
}

func TestABatchIsShownOnceAllOfItIsAppended(t *testing.T) {
	h := newHome[int](t)
	plain := h.open("plain")
	even := h.open("even", accepting(func(body int) bool { return body%2 == 0 }))
	every := h.open("all", accepting(all))
	ready := func() [3]int {
		return [3]int{view.StatsOf(plain).Ready, view.StatsOf(even).Ready, view.StatsOf(every).Ready}
	}
	ms := make([]message.Published[int], 100)
	for k := range ms {
		ms[k].Body = k
	}
	o, err := h.offers.OfAll(ms)
	require.NoError(t, err)
	require.NoError(t, h.routes.Ask(o.Items, &o.Answer))
	h.Mu.Lock()
	h.stampLocked(o)
	h.appendLocked(o)
	require.Equal(t, [3]int{}, ready())
	h.showLocked(o)
	h.Mu.Unlock()
	require.Equal(t, [3]int{100, 50, 100}, ready())
	h.check(t)
	h.end(t)
}

func TestAQueueWithRoomAfterAllDropsNothing(t *testing.T) {
	// A consumer may make room between a publisher's look and its lock.
	for _, o := range []settings.Overflow{settings.DropOldest, settings.DropNewest} {
		bubble(t, func(t *testing.T, ctx context.Context) {
			h := newHome[int](t)
			q := h.open("q", capacity(2), overflows(o))
			h.publish(t, 1)
			h.Mu.Lock()
			its := []message.Item[int]{{Body: 2, Seq: 2}}
			h.log.Append(its[0])
			overflow.Drop(q, its, nil)
			require.False(t, h.Pending.Any(), "something is to be told")
			h.log.Publish()
			h.seq++
			h.Mu.Unlock()
			require.Zero(t, view.StatsOf(q).Dropped)
			require.Zero(t, q.Store.Win.Len(), "it stays in the log")
			require.Equal(t, []int{1, 2}, bodies(t, q))
			h.check(t)
			h.end(t)
		})
	}
}
