package topic

import (
	"context"
	"strconv"
	"testing"
	"testing/synctest"

	"github.com/stretchr/testify/require"

	"github.com/gofanout/fanout/internal/filter"
	"github.com/gofanout/fanout/internal/message"
	"github.com/gofanout/fanout/internal/policy"
	"github.com/gofanout/fanout/internal/queue"
	"github.com/gofanout/fanout/internal/routing"
	"github.com/gofanout/fanout/internal/settings"
	"github.com/gofanout/fanout/internal/view"
)

func withPolicy(t *testing.T, text string) option {
	p, err := policy.Parse(text)
	require.NoError(t, err)
	return func(s *allSettings) {
		fs, _ := s.filters.([]filter.Filter[int])
		s.filters = append(fs, filter.Filter[int]{Policy: p})
	}
}

func TestAPublishWakesOnlyTheQueuesThatGetIt(t *testing.T) {
	bubble(t, func(t *testing.T, ctx context.Context) {
		const n = 100
		top := newTopic[int](t)
		handled := make([]int, n)
		for k := range n {
			subscribe(t, top, strconv.Itoa(k), func(context.Context, queue.Delivery[int]) error {
				handled[k]++
				return nil
			}, WithFilter(func(body int) bool { return body == k }))
		}
		plain := subscribe(t, top, "plain", func(context.Context, queue.Delivery[int]) error { return nil })
		synctest.Wait()
		sleeping := func() (names []string) {
			for _, q := range top.Queues() {
				q.Idle.Mu.Lock()
				if q.IdleAt >= q.Idle.First {
					names = append(names, q.QueueName)
				}
				q.Idle.Mu.Unlock()
			}
			return names
		}
		require.Len(t, sleeping(), n+1)
		publish(t, top, 7)
		synctest.Wait()
		require.Equal(t, 1, handled[7])
		require.EqualValues(t, 1, view.StatsOf(plain.Queue()).Acked)
		for k := range n {
			q := top.Queue(strconv.Itoa(k))
			q.Idle.Mu.Lock()
			if k == 7 {
				require.Positive(t, q.Idle.First, "it was woken")
			} else {
				require.Zero(t, q.Idle.First, "queue %d was not", k)
			}
			q.Idle.Mu.Unlock()
		}
		require.Len(t, sleeping(), n+1)
		check(t, top)
		require.NoError(t, top.Close())
	})
}

func TestAnIdleQueueWithAFilterIsSmall(t *testing.T) {
	const queues = 10_000
	ctx := context.Background()
	top := newTopic[*int](t)
	names := make([]string, queues)
	for k := range names {
		names[k] = strconv.Itoa(k)
	}
	before := heapInUse()
	for k, name := range names {
		_, err := top.Subscribe(ctx, name, func(context.Context, queue.Delivery[*int]) error { return nil }, WithFilter(func(body *int) bool { return *body == k }))
		require.NoError(t, err)
	}
	each := (heapInUse() - before) / queues
	t.Logf("%d bytes", each)
	require.Less(t, each, int64(1600), "bytes of an idle queue with a filter and a subscriber")
	for k := range 100 {
		publish(t, top, &k)
	}
	require.NoError(t, top.Close())
}

// Queues with policies and others are looked at in the order in which they were opened, in
// whatever way they are found.
func TestQueuesWithFiltersAreLookedAtInTheOrderOfTheirOpening(t *testing.T) {
	bubble(t, func(t *testing.T, ctx context.Context) {
		top := newTopic[int](t)
		kinds := []func(k int) []option{
			func(int) []option { return []option{withPolicy(t, `{"name": ["a", "b"]}`)} },
			func(int) []option { return []option{WithFilter(func(int) bool { return true })} },
			func(k int) []option {
				return []option{withPolicy(t, `{"name": [{"prefix": "a"}]}`), WithFilter(func(body int) bool { return body != k })}
			},
			func(int) []option {
				return []option{WithFilter(func(int) bool { return true }), withPolicy(t, `{"name": ["a"]}`)}
			},
		}
		for k := range 40 {
			openQueue(t, top, strconv.Itoa(k), append(kinds[k*7%4](k), WithCapacity(2), WithOverflow(settings.Reject))...)
		}
		for k := 3; k < 40; k += 5 {
			require.NoError(t, top.Queue(strconv.Itoa(k)).Close())
		}
		o, err := top.offerOfAll([]message.Published[int]{{Body: 10, Attributes: map[string]string{"name": "a"}}, {Body: 2}, {Body: 3, Attributes: map[string]string{"name": "a"}}})
		require.NoError(t, err)
		require.NoError(t, top.routes.Ask(o.items, &o.Answer))
		got := map[string][]int{}
		last := uint64(0)
		for _, r := range o.Rows {
			require.Greater(t, r.Q.Filters.Number, last)
			last = r.Q.Filters.Number
			got[r.Q.QueueName] = r.Accepted
		}
		want := map[string][]int{}
		for name, q := range top.queues {
			for k := range o.items {
				if q.Filters.Accepts(&o.items[k]) {
					want[name] = append(want[name], k)
				}
			}
		}
		require.Equal(t, want, got)
		require.Contains(t, got["10"], 2)
		require.NotContains(t, got["10"], 0)
		require.NoError(t, top.Close())
		require.True(t, top.routes.None())
	})
}

func TestAnOfferThatIsUsedAgainIsEmpty(t *testing.T) {
	top := newTopic[*watched](t)
	openQueue(t, top, "q", WithMessageFilter(func(m message.Published[*watched]) bool { return m.Body != nil }))
	o, err := top.offerOfAll([]message.Published[*watched]{{Body: new(watched), Attributes: map[string]string{"a": "b"}}, {Body: new(watched)}})
	require.NoError(t, err)
	require.NoError(t, top.tryAll(context.Background(), o, false))
	require.Len(t, o.Rows, 1)
	top.doneWith(o)
	for _, it := range o.items[:cap(o.items)] {
		require.Equal(t, message.Item[*watched]{}, it)
	}
	for _, r := range o.Rows[:cap(o.Rows)] {
		require.Equal(t, routing.Row[*watched]{}, r)
	}
	require.Empty(t, o.items)
	require.Empty(t, o.Rows)
	require.NoError(t, top.Close())
}

func TestAPublishThatWaitedIsNotUsedAgain(t *testing.T) {
	bubble(t, func(t *testing.T, ctx context.Context) {
		top := newTopic[int](t)
		q := openQueue(t, top, "q", WithCapacity(1), WithFilter(func(int) bool { return true }))
		publish(t, top, 1)
		waited := top.offerOf(2)
		go func() {
			if err := top.publish(ctx, waited, false); err != nil {
				t.Error(err)
			}
		}()
		synctest.Wait()
		d := receive(t, q)
		require.NoError(t, d.Ack(ctx))
		synctest.Wait()
		require.Equal(t, []int{2}, bodies(t, q))
		for range 10 {
			require.NotSame(t, waited, top.newOffer(), "others may look at it still")
		}
		require.NoError(t, top.Close())
	})
}

func TestABatchIsShownOnceAllOfItIsAppended(t *testing.T) {
	top := newTopic[int](t)
	plain := openQueue(t, top, "plain")
	even := openQueue(t, top, "even", WithFilter(func(body int) bool { return body%2 == 0 }))
	all := openQueue(t, top, "all", WithFilter(func(int) bool { return true }))
	ready := func() [3]int {
		return [3]int{view.StatsOf(plain).Ready, view.StatsOf(even).Ready, view.StatsOf(all).Ready}
	}
	ms := make([]message.Published[int], 100)
	for k := range ms {
		ms[k].Body = k
	}
	o, err := top.offerOfAll(ms)
	require.NoError(t, err)
	require.NoError(t, top.routes.Ask(o.items, &o.Answer))
	top.Mu.Lock()
	top.stampLocked(o)
	top.appendLocked(o)
	require.Equal(t, [3]int{}, ready())
	top.showLocked(o)
	top.Mu.Unlock()
	require.Equal(t, [3]int{100, 50, 100}, ready())
	check(t, top)
	require.NoError(t, top.Close())
}

func TestAnIdleQueueWithAFilterHasNoRoomForBodies(t *testing.T) {
	type large [1 << 16]byte
	ctx := context.Background()
	top := newTopic[large](t)
	before := heapInUse()
	for k := range 100 {
		_, err := top.OpenQueue(ctx, strconv.Itoa(k), WithFilter(func(large) bool { return true }))
		require.NoError(t, err)
	}
	require.Less(t, heapInUse()-before, int64(1<<18), "before the first message")
	require.NoError(t, top.Close())
}
