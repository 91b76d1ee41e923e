package publishing_test

import (
	"context"
	"fmt"
	"runtime"
	"strconv"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"weak"

	"github.com/stretchr/testify/require"

	"github.com/gofanout/fanout"
	"github.com/gofanout/fanout/internal/raced"
	"github.com/gofanout/fanout/internal/tests/kit"
)

// heapInUse is what the heap holds once garbage is gone.
func heapInUse() int64 {
	for range 3 { // what pools held is gone after two
		runtime.GC()
	}
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return int64(m.HeapAlloc)
}

func TestAMessageThatWaitsBehindAFilterIsSmall(t *testing.T) {
	const queues, n = 16, 160_000
	ctx := context.Background()
	top := kit.NewTopic[int](t)
	for k := range queues {
		kit.OpenQueue(t, top, strconv.Itoa(k), fanout.WithFilter(func(body int) bool { return body%queues == k }), fanout.WithCapacity(n))
	}
	before := heapInUse()
	for k := range n {
		require.NoError(t, top.Publish(ctx, k))
	}
	each := float64(heapInUse()-before) / n
	t.Logf("%.1f bytes a waiting message", each)
	require.LessOrEqual(t, each, 60.0, "bytes a message")
	require.Equal(t, n/queues, top.Queue("7").Stats().Ready)
	require.NoError(t, top.Close())
}

// What a queue has accepted and not delivered is kept, and nothing of what others get.
func TestAPausedQueueWithAFilterKeepsWhatItAccepted(t *testing.T) {
	type large struct {
		number int
		_      [1 << 10]byte
	}
	for _, accepted := range []int{1, 500} {
		for _, options := range [][]fanout.QueueOption{
			{fanout.WithFilter(func(body *large) bool { return body.number < accepted })},
			{fanout.WithFilterPolicy(`{"for": ["paused"]}`)},
		} {
			ctx := context.Background()
			top := kit.NewTopic[*large](t)
			paused := kit.OpenQueue(t, top, "paused", options...)
			require.NoError(t, paused.Pause(ctx))
			busy := kit.OpenQueue(t, top, "busy")
			other := kit.OpenQueue(t, top, "other", fanout.WithFilter(func(body *large) bool { return body.number%2 == 0 }))
			var bodies []weak.Pointer[large]
			pass := func(n int) {
				for range n {
					body := &large{number: len(bodies)}
					bodies = append(bodies, weak.Make(body))
					m := fanout.Message[*large]{Body: body, Attributes: map[string]string{"for": "others"}}
					if body.number < accepted {
						m.Attributes["for"] = "paused"
					}
					require.NoError(t, top.PublishMessages(ctx, m))
					for _, q := range []*fanout.Queue[*large]{busy, other} {
						if d, ok, err := q.TryReceive(ctx); ok {
							require.NoError(t, d.Ack(ctx))
						} else {
							require.NoError(t, err)
						}
					}
				}
			}
			pass(1000)
			before := heapInUse()
			pass(9000)
			require.Less(t, heapInUse()-before, int64(1<<20), "the heap stays as it is: 9,000 more would be 9 MB")
			alive := 0
			for _, b := range bodies {
				if b.Value() != nil {
					alive++
				}
			}
			require.Equal(t, accepted, paused.Stats().Ready)
			// What the others have taken last stands in a segment of the topic's log, and in one
			// of their own, until they have looked at it.
			require.LessOrEqual(t, alive, accepted+2*256)
			kit.Check(t, top)
			require.NoError(t, top.Close())
		}
	}
}

type part struct{ publisher, batch, k int }

// A batch is in a queue with all of what its filter accepts, in its order, and nothing in
// between, or not at all.
func TestABatchIsOneStepForQueuesWithFilters(t *testing.T) {
	const publishers, batches, size = 4, 300, 12
	top := kit.NewTopic[part](t)
	third := func(p part) bool { return p.k%3 == 0 }
	queues := []struct {
		q    *fanout.Queue[part]
		most int // of a batch
	}{
		{kit.OpenQueue(t, top, "plain", fanout.WithCapacity(size*5)), size},
		{kit.OpenQueue(t, top, "third", fanout.WithFilter(third), fanout.WithCapacity(size)), size / 3},
		{kit.OpenQueue(t, top, "message", fanout.WithMessageFilter(func(m fanout.Message[part]) bool { return m.Attributes["half"] == "1" }), fanout.WithCapacity(size*2)), size / 2},
		{kit.OpenQueue(t, top, "policy", fanout.WithFilterPolicy(`{"half": ["1", 7]}`), fanout.WithFilter(third), fanout.WithCapacity(size*2)), size / 3 / 2},
		{kit.OpenQueue(t, top, "all", fanout.WithFilter(func(part) bool { return true }), fanout.WithCapacity(size*3)), size},
	}
	var running sync.WaitGroup
	for p := range publishers {
		running.Go(func() {
			for b := range batches {
				ms := make([]fanout.Message[part], size)
				for k := range ms {
					ms[k] = fanout.Message[part]{Body: part{p, b, k}, Attributes: map[string]string{"half": strconv.Itoa(k % 2)}}
				}
				if err := top.PublishMessages(context.Background(), ms...); err != nil {
					t.Error(err)
				}
			}
		})
	}
	for _, x := range queues {
		running.Go(func() {
			next := [publishers]int{}
			for n := 0; n < publishers*batches; {
				ds, err := x.q.ReceiveBatch(context.Background(), 1000)
				if err != nil || len(ds)%x.most != 0 {
					t.Errorf("%s: %d messages are not whole batches of %d: %v", x.q.Name(), len(ds), x.most, err)
					return
				}
				for len(ds) > 0 {
					first := ds[0].Body
					if first.batch != next[first.publisher] {
						t.Errorf("%s: batch %v, want number %d", x.q.Name(), first, next[first.publisher])
						return
					}
					next[first.publisher]++
					n++
					for k, d := range ds[:x.most] {
						if d.Body.publisher != first.publisher || d.Body.batch != first.batch || k > 0 && d.Body.k <= ds[k-1].Body.k {
							t.Errorf("%s: %v stands in batch %v", x.q.Name(), d.Body, first)
							return
						}
					}
					if err := x.q.AckBatch(context.Background(), ds[:x.most]...); err != nil {
						t.Error(err)
						return
					}
					ds = ds[x.most:]
				}
			}
		})
	}
	running.Wait()
	kit.Check(t, top)
	require.NoError(t, top.Close())
}

func TestABatchWithoutRoomInOneQueueIsInNone(t *testing.T) {
	ctx := context.Background()
	top := kit.NewTopic[int](t)
	even := kit.OpenQueue(t, top, "even", fanout.WithFilter(func(k int) bool { return k%2 == 0 }), fanout.WithCapacity(4))
	all := kit.OpenQueue(t, top, "all", fanout.WithFilter(func(int) bool { return true }), fanout.WithCapacity(100))
	plain := kit.OpenQueue(t, top, "plain")
	require.NoError(t, top.PublishMessages(ctx, messagesOf(0, 1, 2, 3, 4, 5)...))
	err := top.TryPublishMessages(ctx, messagesOf(7, 8, 9, 10)...)
	require.ErrorIs(t, err, fanout.ErrQueueFull)
	require.ErrorContains(t, err, `"even"`)
	require.NoError(t, top.TryPublishMessages(ctx, messagesOf(11, 12, 13)...), "one more has room")
	require.Equal(t, []int{0, 2, 4, 12}, kit.Bodies(t, even))
	require.Equal(t, []int{0, 1, 2, 3, 4, 5, 11, 12, 13}, kit.Bodies(t, all))
	require.Equal(t, []int{0, 1, 2, 3, 4, 5, 11, 12, 13}, kit.Bodies(t, plain))
	kit.Check(t, top)
	require.NoError(t, top.Close())
}

func messagesOf(bodies ...int) (ms []fanout.Message[int]) {
	for _, b := range bodies {
		ms = append(ms, fanout.Message[int]{Body: b})
	}
	return ms
}

// Who has a message from a queue without filters finds it in the others.
func TestAMessageOfAQueueWithoutFiltersIsInTheOthers(t *testing.T) {
	const n, filtered = 2000, 200
	ctx := context.Background()
	top := kit.NewTopic[int](t)
	plain := kit.OpenQueue(t, top, "plain", fanout.WithCapacity(n))
	var last *fanout.Queue[int]
	for k := range filtered {
		last = kit.OpenQueue(t, top, strconv.Itoa(k), fanout.WithFilter(func(int) bool { return true }), fanout.WithCapacity(n))
	}
	go func() {
		for k := range n {
			if err := top.Publish(ctx, k); err != nil {
				t.Error(err)
			}
		}
	}()
	for k := 0; k < n; {
		d, ok, err := plain.TryReceive(ctx)
		require.NoError(t, err)
		if !ok {
			runtime.Gosched()
			continue
		}
		other, ok, err := last.TryReceive(ctx)
		require.NoError(t, err)
		require.True(t, ok, "message %d", d.Body)
		require.Equal(t, d.Body, other.Body)
		k++
	}
	require.NoError(t, top.Close())
}

// A queue with a filter does with what it accepts what a queue does whose topic gets nothing
// else.
func TestAFullQueueWithAFilterDropsAsOthersDo(t *testing.T) {
	for _, o := range []fanout.Overflow{fanout.DropOldest, fanout.DropNewest} {
		for _, delay := range []bool{false, true} {
			t.Run(fmt.Sprintf("%v, a delayed message among them: %t", o, delay), func(t *testing.T) {
				kit.Bubble(t, func(t *testing.T, ctx context.Context) {
					options := []fanout.QueueOption{fanout.WithCapacity(10), fanout.WithOverflow(o)}
					alone, mixed := kit.NewTopic[int](t, kit.Silent), kit.NewTopic[int](t, kit.Silent)
					want := kit.OpenQueue(t, alone, "q", options...)
					got := kit.OpenQueue(t, mixed, "q", append(options, fanout.WithFilter(func(k int) bool { return k%3 == 0 }))...)
					flying := [2]fanout.Delivery[int]{}
					for b := range 20 {
						var every, some []fanout.Message[int]
						for k := range 8 {
							m := fanout.Message[int]{Body: 8*b + k}
							if delay && b == 7 {
								m.Delay = 1
							}
							every = append(every, m)
							if m.Body%3 == 0 {
								some = append(some, m)
							}
						}
						kit.PublishAll(t, mixed, every...)
						kit.PublishAll(t, alone, some...)
						if b%4 == 1 {
							for k, q := range []*fanout.Queue[int]{want, got} {
								if flying[k].Attempt() > 0 {
									require.NoError(t, flying[k].Ack(ctx))
								}
								flying[k] = kit.Receive(t, q)
							}
							require.Equal(t, flying[0].Body, flying[1].Body)
						}
						kit.Check(t, mixed)
						w, g := want.Stats(), got.Stats()
						w.OldestAge, g.OldestAge = 0, 0
						g.Topic = w.Topic
						require.Equal(t, w, g)
					}
					synctest.Wait()
					kit.Elapse(10)
					require.Equal(t, kit.Bodies(t, want), kit.Bodies(t, got))
					require.NoError(t, mixed.Close())
					require.NoError(t, alone.Close())
				})
			})
		}
	}
}

func TestFiltersOfWholeMessagesSeeOneMessage(t *testing.T) {
	top := kit.NewTopic[int](t)
	var seen []string
	for k := range 3 {
		kit.OpenQueue(t, top, strconv.Itoa(k), fanout.WithMessageFilter(func(m fanout.Message[int]) bool {
			seen = append(seen, fmt.Sprintf("%d %d %s %s", k, m.Body, m.ID, m.Attributes["name"]))
			return m.Body > k
		}))
	}
	kit.PublishAll(t, top, fanout.Message[int]{Body: 1, ID: "i", Attributes: map[string]string{"name": "a"}}, fanout.Message[int]{Body: 2})
	require.Equal(t, []string{"0 1 i a", "0 2  ", "1 1 i a", "1 2  ", "2 1 i a", "2 2  "}, seen)
	seen = nil
	kit.PublishAll(t, top, fanout.Message[int]{Body: 3, Attributes: map[string]string{"name": "b"}})
	require.Equal(t, []string{"0 3  b", "1 3  b", "2 3  b"}, seen, "not what an earlier publish was about")
	require.NoError(t, top.Close())
}

// What a publish allocates that does not wait: what queues keep of it, and nothing else.
func TestAPublishAllocatesWhatIsKept(t *testing.T) {
	ctx := context.Background()
	attributes := map[string]string{"name": "v7"}
	next := func(ctx context.Context, _ fanout.Info, next func(context.Context) error) error { return next(ctx) }
	even := func(k int) fanout.QueueOption { return fanout.WithFilter(func(body int) bool { return body%4 == k }) }
	policy := func(k int) fanout.QueueOption { return fanout.WithFilterPolicy(fmt.Sprintf(`{"name": ["v%d"]}`, k)) }
	named := func(k int) fanout.QueueOption {
		want := fmt.Sprint("v", k)
		return fanout.WithMessageFilter(func(m fanout.Message[int]) bool { return m.Attributes["name"] == want })
	}
	id := 0
	for name, x := range map[string]struct {
		topic   []fanout.TopicOption
		queue   func(k int) fanout.QueueOption
		message func() fanout.Message[int]
		most    float64
	}{
		"predicates": {queue: even, message: func() fanout.Message[int] { return fanout.Message[int]{Body: 3} }},
		"an own ID":  {message: func() fanout.Message[int] { return fanout.Message[int]{ID: "mine"} }, most: 1},
		// The map has a header and a group of places.
		"an attribute":    {message: func() fanout.Message[int] { return fanout.Message[int]{Attributes: attributes} }, most: 3},
		"policies":        {queue: policy, message: func() fanout.Message[int] { return fanout.Message[int]{Attributes: attributes} }, most: 3},
		"message filters": {queue: named, message: func() fanout.Message[int] { return fanout.Message[int]{Attributes: attributes} }, most: 3},
		// The remembered IDs are a map and a list.
		"a deduplication ID": {topic: []fanout.TopicOption{fanout.WithDeduplication(1<<40, 100)}, most: 2.2, message: func() fanout.Message[int] {
			id++
			return fanout.Message[int]{DeduplicationID: strconv.Itoa(1000 + id)}
		}},
		"an interceptor": {topic: []fanout.TopicOption{fanout.WithPublishInterceptor(next)}, message: func() fanout.Message[int] { return fanout.Message[int]{} }, most: 2},
	} {
		t.Run(name, func(t *testing.T) {
			const n = 200
			top := kit.NewTopic[int](t, append(x.topic, kit.Silent)...)
			for k := range 8 {
				options := []fanout.QueueOption{fanout.WithCapacity(fanout.Unlimited)}
				if x.queue != nil {
					options = append(options, x.queue(k))
				}
				kit.OpenQueue(t, top, strconv.Itoa(k), options...)
			}
			publish := func() {
				for range n {
					if err := top.PublishMessages(ctx, x.message()); err != nil {
						t.Error(err)
					}
				}
			}
			publish() // the first segments are short
			each := testing.AllocsPerRun(10, publish) / n
			t.Logf("%.2f allocations", each)
			slack := 0.1
			if raced.On {
				slack = 8 // pools forget at random
			}
			require.LessOrEqual(t, each, x.most+slack)
			require.NoError(t, top.Close())
		})
	}
}

func TestQueuesWithFiltersComeAndGoWhileOthersPublish(t *testing.T) {
	const publishers, n = 3, 400
	ctx := context.Background()
	top := kit.NewTopic[int](t, kit.Silent)
	stays := kit.OpenQueue(t, top, "stays", fanout.WithFilterPolicy(`{"to": ["all", "stays"]}`), fanout.WithCapacity(publishers*n))
	var publishing, coming sync.WaitGroup
	var done atomic.Bool
	for k := range 4 {
		coming.Go(func() {
			for round := 0; !done.Load(); round++ {
				options := [][]fanout.QueueOption{
					{fanout.WithFilterPolicy(`{"to": ["all"]}`)},
					{fanout.WithFilterPolicy(`{"to": [{"prefix": "a"}]}`), fanout.WithFilter(func(k int) bool { return k%2 == 0 })},
					{fanout.WithFilter(func(k int) bool { return k%2 == 0 })},
				}[(k+round)%3]
				q, err := top.OpenQueue(ctx, fmt.Sprint("guest", k), append(options, fanout.WithOverflow(fanout.DropOldest), fanout.WithCapacity(10))...)
				if err != nil {
					t.Error(err)
					return
				}
				runtime.Gosched()
				if err := q.Close(); err != nil {
					t.Error(err)
				}
			}
		})
	}
	for range publishers {
		publishing.Go(func() {
			for k := range n {
				to := []string{"all", "stays", "nobody"}[k%3]
				if err := top.PublishMessages(ctx, fanout.Message[int]{Body: k, Attributes: map[string]string{"to": to}}); err != nil {
					t.Error(err)
				}
			}
		})
	}
	publishing.Wait()
	done.Store(true)
	coming.Wait()
	want := 0
	for k := range n {
		if k%3 < 2 {
			want += publishers
		}
	}
	require.Equal(t, want, stays.Stats().Ready)
	kit.Check(t, top)
	require.NoError(t, top.Close())
}
