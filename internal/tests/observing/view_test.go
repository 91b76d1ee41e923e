// Topics and queues can be seen, and worked on, without their T.

package observing_test

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"runtime"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/gofanout/fanout"
	"github.com/gofanout/fanout/engine"
	"github.com/gofanout/fanout/internal/fakeengine"
	"github.com/gofanout/fanout/internal/tests/kit"
)

// What is seen of topics and queues without their T, and what can be done to them.

var quiet = fanout.WithLogger(slog.New(slog.DiscardHandler))

func viewed[T any](t *testing.T, options ...fanout.TopicOption) *fanout.Topic[T] {
	t.Helper()
	top, err := fanout.NewTopic[T]("orders", append(options, quiet)...)
	require.NoError(t, err)
	return top
}

func opened[T any](t *testing.T, top *fanout.Topic[T], name string, options ...fanout.QueueOption) *fanout.Queue[T] {
	t.Helper()
	q, err := top.OpenQueue(t.Context(), name, options...)
	require.NoError(t, err)
	return q
}

// inBoth runs f in memory and on an engine, in virtual time.
func inBoth(t *testing.T, f func(t *testing.T, on fanout.TopicOption, e *fakeengine.Engine)) {
	t.Run("in memory", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) { f(t, fanout.TopicOptions(), nil) })
	})
	t.Run("on an engine", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			e := fakeengine.New(fakeengine.Config{})
			f(t, fanout.WithEngine(e), e)
		})
	})
}

// kill makes dead letters of messages with these IDs, a millisecond apart.
func kill(t *testing.T, top *fanout.Topic[string], q *fanout.Queue[string], ids ...string) {
	t.Helper()
	for _, id := range ids {
		m := fanout.Message[string]{Body: "body of " + id, ID: id, Attributes: map[string]string{"of": id}}
		require.NoError(t, top.PublishMessages(t.Context(), m))
		d, err := q.Receive(t.Context())
		require.NoError(t, err)
		require.NoError(t, d.Settle(t.Context(), fanout.Permanent(errors.New("poison "+id))))
		time.Sleep(time.Millisecond)
	}
}

// allOf reads all pages of a queue.
func allOf(t *testing.T, v fanout.QueueView, o fanout.PeekOptions) (all []fanout.MessageView) {
	t.Helper()
	for {
		page, next, err := v.Peek(t.Context(), o)
		require.NoError(t, err)
		all = append(all, page...)
		if next == "" {
			return all
		}
		require.Len(t, page, o.Most, "only the last page is shorter")
		o.After = next
	}
}

func idsOf(ms []fanout.MessageView) []string {
	ids := []string{}
	for _, m := range ms {
		ids = append(ids, m.ID)
	}
	return ids
}

func letterIDs(t *testing.T, q fanout.QueueView) []string {
	t.Helper()
	ms, _, err := q.DeadLetters().Peek(t.Context(), fanout.PeekOptions{Most: fanout.Unlimited})
	require.NoError(t, err)
	ids := idsOf(ms)
	slices.Sort(ids)
	return ids
}

func TestAViewIsTheTopicAndItsQueues(t *testing.T) {
	inBoth(t, func(t *testing.T, on fanout.TopicOption, e *fakeengine.Engine) {
		top := viewed[string](t, on)
		var any fanout.AnyTopic = top
		v := any.View()
		require.Equal(t, "orders", v.Name())
		require.Empty(t, v.Queues())
		require.Nil(t, v.Queue("billing"))
		if e == nil {
			require.Empty(t, v.Engine())
		} else {
			require.Equal(t, "fake", v.Engine())
		}
		b, a := opened(t, top, "billing", fanout.WithMaxAttempts(1)), opened(t, top, "audit")
		views := v.Queues()
		require.Len(t, views, 2)
		require.True(t, views[0] == a.View() && views[1] == b.View() && v.Queue("billing") == views[1], "views of one queue are equal")
		require.Equal(t, "audit", views[0].Name())

		require.NoError(t, top.Publish(t.Context(), "o-17"))
		require.Equal(t, top.Stats(), v.Stats())
		require.EqualValues(t, 1, v.Stats().Published)
		for _, q := range views {
			depth, err := q.Depth(t.Context())
			require.NoError(t, err)
			require.Equal(t, 1, depth.Ready)
		}
		list, err := v.ListQueues(t.Context())
		require.NoError(t, err)
		require.Len(t, list, 2)

		q := views[1]
		require.NoError(t, q.Pause(t.Context()))
		require.True(t, b.Stats().Paused)
		require.NoError(t, q.Resume(t.Context()))
		require.Equal(t, b.Stats(), q.Stats())
		dropped, err := q.Purge(t.Context())
		require.NoError(t, err)
		require.Equal(t, 1, dropped)

		kill(t, top, b, "dead")
		require.Equal(t, b.DeadLetters().View(), q.DeadLetters())
		require.Equal(t, "billing/dead", q.DeadLetters().Name())
		require.Nil(t, q.DeadLetters().DeadLetters(), "it has none itself")
		moved, err := q.Redrive(t.Context(), fanout.RedriveIDs("dead"))
		require.NoError(t, err)
		require.Equal(t, 1, moved)

		require.NoError(t, top.Close())
		<-v.Done()
		require.Equal(t, views, v.Queues(), "those that there were")
		require.ErrorIs(t, q.Pause(t.Context()), fanout.ErrClosed)
		_, err = q.DeleteLetters(t.Context())
		require.ErrorIs(t, err, fanout.ErrClosed)
		require.ErrorContains(t, err, `fanout: delete letters of "billing"`)
	})
}

func TestNothingIsMadeToBeLookedAt(t *testing.T) {
	top := viewed[string](t)
	q := opened(t, top, "billing").View()
	require.Nil(t, q.DeadLetters(), "nothing has died")
	n, err := q.DeleteLetters(t.Context())
	require.NoError(t, err)
	require.Zero(t, n)
	_, err = q.DeleteLetters(t.Context(), fanout.RedriveIDs("a"))
	require.ErrorIs(t, err, fanout.ErrUnknownID)
	require.Equal(t, 1024, q.Settings().DeadLetterCapacity)
	require.Nil(t, q.DeadLetters())
	require.NoError(t, top.Close())
}

func TestTheOptionsInForceAreSeen(t *testing.T) {
	shared, err := fanout.NewDeadLetterQueue[string]("dead", fanout.WithDeadLetterCapacity(7), fanout.WithDeadLetterOverflow(fanout.DropOldest))
	require.NoError(t, err)
	top := viewed[string](t)
	defaults := fanout.QueueSettings{
		Capacity: 1024, Overflow: fanout.Block, VisibilityTimeout: 30 * time.Second, MaxAttempts: 5, Backoff: "Exponential(100ms, 30s)",
		DeadLetterCapacity: 1024, DeadLetterOverflow: fanout.Block,
	}
	q := opened(t, top, "defaults")
	require.Equal(t, defaults, q.View().Settings())
	require.Equal(t, fanout.QueueSettings{
		Capacity: 1024, Overflow: fanout.Block, VisibilityTimeout: 30 * time.Second, MaxAttempts: fanout.Unlimited, Backoff: "Exponential(100ms, 30s)",
	}, q.DeadLetters().View().Settings())
	require.Equal(t, fanout.QueueSettings{
		Capacity: 3, Overflow: fanout.DropNewest, VisibilityTimeout: time.Minute, MaxAttempts: 2, Backoff: "Constant(1s)", Delay: time.Hour,
		TimeToLive: 2 * time.Hour, Filtered: true, DeadLetterQueue: "dead", DeadLetterCapacity: 7, DeadLetterOverflow: fanout.DropOldest,
	}, opened(t, top, "all", fanout.WithCapacity(3), fanout.WithOverflow(fanout.DropNewest), fanout.WithVisibilityTimeout(time.Minute),
		fanout.WithMaxAttempts(2), fanout.WithBackoff(fanout.Constant(time.Second)), fanout.WithDelay(time.Hour), fanout.WithTimeToLive(2*time.Hour),
		fanout.WithFilter(func(string) bool { return true }), fanout.WithDeadLetterQueue(shared)).View().Settings())
	require.NoError(t, top.Close())
	require.NoError(t, shared.Close())

	top = viewed[string](t, fanout.WithEngine(fakeengine.New(fakeengine.Config{})))
	defaults.Capacity, defaults.DeadLetterCapacity = fanout.Unknown, fanout.Unknown // the engine's
	require.Equal(t, defaults, opened(t, top, "defaults").View().Settings())
	q = opened(t, top, "bounded", fanout.WithCapacity(3), fanout.WithDeadLetterCapacity(4), fanout.WithBackoff(fanout.BackoffFunc(func(int) time.Duration { return time.Second })))
	require.Equal(t, 3, q.View().Settings().Capacity)
	require.Equal(t, 4, q.View().Settings().DeadLetterCapacity)
	require.Equal(t, 4, q.DeadLetters().View().Settings().Capacity)
	require.Equal(t, "BackoffFunc", q.View().Settings().Backoff)
	require.NoError(t, top.Close())
	require.Equal(t, "Backoff{}", fanout.Backoff{}.String())
	require.Equal(t, "BackoffFunc(nil)", fanout.BackoffFunc(nil).String())
}

func TestSubscribersAreSeenAndWhichOfThemIsStuck(t *testing.T) {
	inBoth(t, func(t *testing.T, on fanout.TopicOption, _ *fakeengine.Engine) {
		top := viewed[string](t, on)
		q := opened(t, top, "billing", fanout.WithVisibilityTimeout(time.Second), fanout.WithMaxAttempts(1))
		require.Empty(t, q.View().Subscribers())
		release := make(chan struct{})
		_, file, line, _ := runtime.Caller(0)
		_, err := q.Subscribe(t.Context(), func(context.Context, fanout.Delivery[string]) error { <-release; return nil },
			fanout.WithConcurrency(2), fanout.WithAutoExtend(3*time.Second), fanout.WithHandlerTimeout(time.Minute))
		require.NoError(t, err)
		require.NoError(t, top.Publish(t.Context(), "o-17"))
		synctest.Wait()
		want := fanout.SubscriberView{
			Subscriber:  fmt.Sprintf("%s:%d", file[strings.LastIndexByte(file[:strings.LastIndexByte(file, '/')], '/')+1:], line+1),
			Concurrency: 2, BatchSize: 1, AutoExtend: 3 * time.Second, HandlerTimeout: time.Minute, Workers: 1,
		}
		require.Equal(t, []fanout.SubscriberView{want}, q.View().Subscribers())
		time.Sleep(3 * time.Second)
		synctest.Wait()
		want.Stuck = 1
		require.Equal(t, []fanout.SubscriberView{want}, q.View().Subscribers())

		batches, err := q.SubscribeBatch(t.Context(), func(context.Context, []fanout.Delivery[string]) error { return nil },
			fanout.WithBatchSize(7), fanout.WithRateLimit(4))
		require.NoError(t, err)
		views := q.View().Subscribers()
		require.Len(t, views, 2)
		require.Equal(t, 7, views[1].BatchSize)
		require.Equal(t, 4.0, views[1].RateLimit)
		require.NoError(t, batches.Shutdown(t.Context()))
		require.Len(t, q.View().Subscribers(), 1)
		require.NoError(t, q.Close())
		want.Stopping = true
		require.Equal(t, []fanout.SubscriberView{want}, q.View().Subscribers())
		close(release)
		synctest.Wait()
		require.Empty(t, q.View().Subscribers())
		require.NoError(t, top.Close())
	})
}

func TestTheQueueThatPublishersWaitForIsSeen(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		top := viewed[string](t)
		full, roomy := opened(t, top, "full", fanout.WithCapacity(1)), opened(t, top, "roomy")
		require.NoError(t, top.Publish(t.Context(), "first"))
		require.False(t, full.View().Blocking(), "nobody waits yet")
		published := make(chan error, 2)
		for range 2 {
			go func() { published <- top.Publish(t.Context(), "next") }()
			synctest.Wait()
		}
		require.True(t, full.View().Blocking())
		require.False(t, roomy.View().Blocking())
		require.Equal(t, 2, top.View().Stats().Waiting)
		for range 2 {
			_, err := full.View().Purge(t.Context())
			require.NoError(t, err)
			require.NoError(t, <-published)
		}
		require.False(t, full.View().Blocking())
		require.NoError(t, top.Close())
	})
}

// TestAPageShowsEachMessageWithItsState: what is in the log, in the window in every state,
// taken back from workers, and not what is in flight.
func TestAPageShowsEachMessageWithItsState(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		start := time.Now()
		top := viewed[string](t, fanout.WithOrdering())
		q := opened(t, top, "billing", fanout.WithMaxAttempts(2), fanout.WithBackoff(fanout.Constant(time.Minute)), fanout.WithDeadLetterCapacity(1))
		v := q.View()
		kill(t, top, q, "letter", "parked")
		publish := func(m fanout.Message[string]) {
			t.Helper()
			m.Body = "body of " + m.ID
			require.NoError(t, top.PublishMessages(t.Context(), m))
		}
		publish(fanout.Message[string]{ID: "retrying", Attributes: map[string]string{"a": "b"}})
		d, err := q.Receive(t.Context())
		require.NoError(t, err)
		require.NoError(t, d.Settle(t.Context(), errors.New("busy")))
		publish(fanout.Message[string]{ID: "delayed", Delay: time.Hour})
		publish(fanout.Message[string]{ID: "head", OrderingKey: "k"})
		publish(fanout.Message[string]{ID: "blocked", OrderingKey: "k"})
		publish(fanout.Message[string]{ID: "in flight"})
		for range 2 { // the head, and what is not behind it
			_, err = q.Receive(t.Context())
			require.NoError(t, err)
		}
		publish(fanout.Message[string]{ID: "ready"})
		at := time.Now()

		for most := 1; most <= 7; most++ {
			var got []string
			for _, m := range allOf(t, v, fanout.PeekOptions{Most: most, Body: 1000}) {
				require.Equal(t, "body of "+m.ID, m.Body)
				got = append(got, m.ID+": "+m.State)
			}
			require.Equal(t, []string{"parked: parked", "retrying: retrying", "delayed: delayed", "blocked: blocked", "ready: ready"}, got, "pages of %d", most)
		}
		page, next, err := v.Peek(t.Context(), fanout.PeekOptions{Most: 3})
		require.NoError(t, err)
		require.NotEmpty(t, next)
		require.Equal(t, fanout.MessageView{
			ID: "retrying", PublishedAt: at, State: "retrying", DueAt: at.Add(time.Minute), Attempt: 2, Attributes: map[string]string{"a": "b"},
			History: []fanout.Attempt{{Number: 1, Cause: fanout.Failed, Queue: "billing", Start: at, Err: errors.New("busy")}},
		}, rounded(page[1]), "bodies are shown only if they are asked for")
		require.True(t, page[2].DueAt.Equal(at.Add(time.Hour)))

		letters, next, err := v.DeadLetters().Peek(t.Context(), fanout.PeekOptions{Most: 1, Body: 7})
		require.NoError(t, err)
		require.Empty(t, next, "there is no more")
		require.Equal(t, fanout.MessageView{
			ID: "letter", PublishedAt: start, State: "ready", Attempt: 1, Attributes: map[string]string{"of": "letter"}, DiedAt: start, Source: "billing", Body: "body of letter",
			History: []fanout.Attempt{{Number: 1, Cause: fanout.PermanentlyFailed, Queue: "billing", Start: start, Err: fanout.Permanent(errors.New("poison letter"))}},
		}, rounded(letters[0]))
		require.NoError(t, top.Close())
		all, next, err := v.Peek(t.Context(), fanout.PeekOptions{Most: 9})
		require.NoError(t, err)
		require.Empty(t, all, "Leftovers has them")
		require.Empty(t, next)
		require.Equal(t, []string{"letter"}, letterIDs(t, v), "a dead-letter queue can be looked at still")
	})
}

// rounded is m without the monotonic clock and the topic's time zone.
func rounded(m fanout.MessageView) fanout.MessageView {
	for _, at := range []*time.Time{&m.PublishedAt, &m.DueAt, &m.DiedAt} {
		if !at.IsZero() {
			*at = time.Now().Add(time.Until(*at))
		}
	}
	for k := range m.History {
		a := &m.History[k]
		a.Start = time.Now().Add(time.Until(a.Start))
	}
	m.Cursor = "" // see cursor_test.go
	return m
}

// TestPagesShowEachLetterOnceWhileOthersComeAndGo, of more than are looked at under one
// lock, in the order of publication, and take no letter from a consumer.
func TestPagesShowEachLetterOnceWhileOthersComeAndGo(t *testing.T) {
	const n = 5000
	synctest.Test(t, func(t *testing.T) {
		top := viewed[int](t)
		q := opened(t, top, "billing", fanout.WithCapacity(fanout.Unlimited), fanout.WithDeadLetterCapacity(fanout.Unlimited), fanout.WithMaxAttempts(1))
		die := func(bodies ...int) {
			ms := make([]fanout.Message[int], len(bodies))
			for k, b := range bodies {
				ms[k] = fanout.Message[int]{Body: b, ID: fmt.Sprint(b)}
			}
			require.NoError(t, top.PublishMessages(t.Context(), ms...))
			ds, err := q.ReceiveBatch(t.Context(), len(bodies))
			require.NoError(t, err)
			require.Len(t, ds, len(bodies))
			for k := range ds { // they die in another order than that of their publication
				require.NoError(t, ds[(k*7919+3)%len(ds)].Settle(t.Context(), errors.New("poison")))
			}
		}
		all := make([]int, n)
		for k := range all {
			all[k] = k
		}
		die(all...)
		dead := q.DeadLetters()
		taken, err := dead.ReceiveBatch(t.Context(), 10)
		require.NoError(t, err)
		hidden := make(map[string]bool)
		for _, d := range taken {
			hidden[d.ID()] = true
		}
		goes := make(map[string]bool) // these may be seen or not
		seen := make(map[string]bool)
		last := time.Time{}
		o := fanout.PeekOptions{Most: 701}
		for more := n; ; more++ {
			page, next, err := dead.View().Peek(t.Context(), o)
			require.NoError(t, err)
			for _, m := range page {
				require.False(t, seen[m.ID], "letter %s comes twice", m.ID)
				require.False(t, hidden[m.ID], "letter %s is in flight", m.ID)
				require.False(t, m.PublishedAt.Before(last))
				seen[m.ID], last = true, m.PublishedAt
			}
			if o.After = next; next == "" {
				break
			}
			die(more)
			goes[fmt.Sprint(more)] = true
			gone := []string{fmt.Sprint(more % 97), fmt.Sprint(n - 1 - more%97)}
			deleted, err := q.View().DeleteLetters(t.Context(), fanout.RedriveIDs(gone...))
			require.True(t, err == nil && deleted == 2 || errors.Is(err, fanout.ErrUnknownID))
			for _, id := range gone {
				goes[id] = true
			}
		}
		for k := range n {
			id := fmt.Sprint(k)
			require.True(t, seen[id] || goes[id] || hidden[id], "letter %s was not seen", id)
		}
		require.NoError(t, top.Close())
	})
}

// TestPagesOfABacklogAreCutFromTheLog, of more than is looked at under one lock.
func TestPagesOfABacklogAreCutFromTheLog(t *testing.T) {
	const n = 3000
	top := viewed[int](t)
	q := opened(t, top, "billing", fanout.WithCapacity(fanout.Unlimited))
	ms := make([]fanout.Message[int], n)
	want := make([]string, n)
	for k := range ms {
		want[k] = fmt.Sprint(k)
		ms[k] = fanout.Message[int]{Body: k, ID: want[k]}
	}
	require.NoError(t, top.PublishMessages(t.Context(), ms...))
	for _, most := range []int{999, 1024, 2999, 3000, 3001, fanout.Unlimited} {
		require.Equal(t, want, idsOf(allOf(t, q.View(), fanout.PeekOptions{Most: most})), "pages of %d", most)
	}
	page, next, err := q.View().Peek(t.Context(), fanout.PeekOptions{Most: 10})
	require.NoError(t, err)
	require.Equal(t, want[:10], idsOf(page))
	ds, err := q.ReceiveBatch(t.Context(), 12) // the next page begins where the log does no more
	require.NoError(t, err)
	for _, d := range ds {
		require.NoError(t, d.NackAfter(t.Context(), time.Hour))
	}
	page, _, err = q.View().Peek(t.Context(), fanout.PeekOptions{Most: 4, After: next})
	require.NoError(t, err)
	require.Equal(t, want[10:14], idsOf(page))
	require.Equal(t, "retrying", page[0].State)
	require.Equal(t, "ready", page[2].State)
	require.NoError(t, top.Close())
}

// TestWhatTimedOutTogetherIsSeen, though it shares its memory until then.
func TestWhatTimedOutTogetherIsSeen(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		top := viewed[int](t)
		q := opened(t, top, "billing", fanout.WithCapacity(fanout.Unlimited), fanout.WithVisibilityTimeout(time.Second))
		for k := range 2000 {
			require.NoError(t, top.Publish(t.Context(), k))
		}
		ds, err := q.ReceiveBatch(t.Context(), 2000)
		require.NoError(t, err)
		require.Len(t, ds, 2000)
		page, _, err := q.View().Peek(t.Context(), fanout.PeekOptions{Most: 1})
		require.NoError(t, err)
		require.Empty(t, page)
		time.Sleep(time.Second)
		synctest.Wait()
		all := allOf(t, q.View(), fanout.PeekOptions{Most: 300, Body: 9})
		require.Len(t, all, 2000)
		for k, m := range all {
			require.Equal(t, fmt.Sprint(k), m.Body)
			require.Equal(t, fanout.TimedOut, m.History[0].Cause)
		}
		require.NoError(t, top.Close())
	})
}

type loud struct{ end func() }

func (l loud) MarshalJSON() ([]byte, error) { l.end(); return []byte(`"said"`), nil }

func TestBodiesAreText(t *testing.T) {
	top := viewed[any](t)
	q := opened(t, top, "billing")
	long := strings.Repeat("long ", 100)
	for _, row := range []struct {
		body any
		want string
	}{
		{"a <text>", "a <text>"},
		{long, "long long " + "lo... (488 bytes left out)"},
		{[]byte(long), "long long " + "lo... (488 bytes left out)"},
		{[]byte("bytes"), "bytes"},
		{"not \xff\xfe UTF-8", "not ? UTF-8"},
		{struct{ Cents int }{4999}, `{"Cents":4999}`},
		{map[string]any{"long": long}, `{"long":"lon... (499 bytes left out)`},
		{nil, "null"},
		{make(chan int), "0x"},
		{loud{func() {}}, `"said"`},
		{loud{func() { panic("no") }}, "a observing_test.loud, whose text could not be had"},
		{loud{runtime.Goexit}, "a observing_test.loud, whose text could not be had"},
	} {
		require.NoError(t, top.Publish(t.Context(), row.body))
		page, _, err := q.View().Peek(t.Context(), fanout.PeekOptions{Most: 1, Body: 60})
		require.NoError(t, err)
		if _, ok := row.body.(chan int); ok {
			require.Contains(t, page[0].Body, row.want)
		} else {
			require.Equal(t, row.want, page[0].Body)
		}
		_, err = q.Purge(t.Context())
		require.NoError(t, err)
	}
	require.NoError(t, top.Close())
}

func TestPeekRefusesWhatCannotBe(t *testing.T) {
	inBoth(t, func(t *testing.T, on fanout.TopicOption, e *fakeengine.Engine) {
		top := viewed[string](t, on)
		q := opened(t, top, "billing")
		kill(t, top, q, "a", "b")
		v := q.View().DeadLetters()
		for _, row := range []struct {
			o    fanout.PeekOptions
			want string
		}{
			{fanout.PeekOptions{}, "PeekOptions.Most(0): want at least 1"},
			{fanout.PeekOptions{Most: 1, Body: -1}, "PeekOptions.Body(-1): want"},
			{fanout.PeekOptions{Most: 1, After: "x"}, `PeekOptions.After("x"): want what Peek returned`},
			{fanout.PeekOptions{Most: 1, After: "-1.1"}, `PeekOptions.After("-1.1"): want`},
			{fanout.PeekOptions{Most: 1, After: "1.99999999999"}, "want what Peek returned"},
		} {
			page, next, err := v.Peek(t.Context(), row.o)
			require.ErrorIs(t, err, fanout.ErrInvalidOption)
			require.ErrorContains(t, err, row.want)
			require.Empty(t, page)
			require.Empty(t, next)
		}
		_, _, err := v.Peek(kit.NoContext, fanout.PeekOptions{Most: 1})
		require.ErrorIs(t, err, fanout.ErrInvalidOption)
		_, err = v.DeleteLetters(t.Context())
		require.ErrorIs(t, err, fanout.ErrUnsupported)
		require.ErrorContains(t, err, `DeleteLetters of "billing/dead": call it on the queue that the dead letters come from`)
		_, err = q.View().DeleteLetters(kit.NoContext)
		require.ErrorIs(t, err, fanout.ErrInvalidOption)
		_, err = q.View().DeleteLetters(t.Context(), fanout.RedriveUntil(time.Time{}))
		require.ErrorIs(t, err, fanout.ErrInvalidOption)
		require.ErrorContains(t, err, "RedriveUntil(")
		_, err = q.View().DeleteLetters(t.Context(), fanout.RedriveIf(func(fanout.Delivery[int]) bool { return true }))
		require.ErrorIs(t, err, fanout.ErrInvalidOption)
		ended, cancel := context.WithCancelCause(t.Context())
		cancel(errors.New("bored"))
		_, _, err = v.Peek(ended, fanout.PeekOptions{Most: 1})
		require.ErrorContains(t, err, `fanout: peek at "billing/dead": context canceled: bored`)
		_, err = q.View().DeleteLetters(ended)
		require.ErrorIs(t, err, context.Canceled)
		require.Equal(t, 2, q.Stats().Dead+len(letterIDs(t, q.View()))-q.Stats().Dead)
		if e != nil {
			_, _, err = v.Peek(t.Context(), fanout.PeekOptions{Most: 1, After: "1.1"})
			require.ErrorIs(t, err, fanout.ErrUnsupported)
			_, _, err = q.View().Peek(t.Context(), fanout.PeekOptions{Most: 1})
			require.ErrorIs(t, err, fanout.ErrUnsupported)
		}
		require.NoError(t, top.Close())
	})
	var zero fanout.Queue[string]
	_, _, err := zero.View().Peek(t.Context(), fanout.PeekOptions{Most: 1})
	require.ErrorIs(t, err, fanout.ErrInvalidOption)
	_, err = zero.View().DeleteLetters(t.Context())
	require.ErrorIs(t, err, fanout.ErrInvalidOption)
}

// TestOnAnEngineLettersAreShownAsTheCodecEncodedThem, those too that it can't decode.
func TestOnAnEngineLettersAreShownAsTheCodecEncodedThem(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		e := fakeengine.New(fakeengine.Config{})
		top := viewed[any](t, fanout.WithEngine(e))
		q := opened(t, top, "billing")
		foreign, err := e.Sibling().OpenTopic(t.Context(), engine.TopicSpec{Name: "orders"})
		require.NoError(t, err)
		published := time.Now()
		for id, body := range map[string]string{"good": `{ "Cents": 4999 }`, "bad": `<cents/>`} {
			require.NoError(t, foreign.Publish(t.Context(), []engine.Message{{ID: id, Body: []byte(body), PublishedAt: published}}))
		}
		d, err := q.Receive(t.Context())
		require.NoError(t, err)
		require.NoError(t, d.Settle(t.Context(), fanout.Permanent(errors.New("poison"))))
		_, ok, err := q.TryReceive(t.Context()) // decodes the other, which fails
		require.NoError(t, err)
		require.False(t, ok)
		page, next, err := q.View().DeadLetters().Peek(t.Context(), fanout.PeekOptions{Most: 9, Body: 100})
		require.NoError(t, err)
		require.Empty(t, next)
		bodies := map[string]string{}
		for _, m := range page {
			bodies[m.ID] = m.Body
			require.Equal(t, "billing", m.Source)
			require.Equal(t, "ready", m.State)
			require.False(t, m.DiedAt.Before(published))
		}
		require.Equal(t, map[string]string{"good": `{ "Cents": 4999 }`, "bad": `<cents/>`}, bodies)
		require.NoError(t, foreign.Close())
		require.NoError(t, top.Close())
	})
}

func TestLettersAreDeletedByTheirIDs(t *testing.T) {
	inBoth(t, func(t *testing.T, on fanout.TopicOption, e *fakeengine.Engine) {
		var told []string
		top := viewed[string](t, on, fanout.WithHooks(fanout.Hooks{Dropped: func(e fanout.Event) {
			told = append(told, fmt.Sprintf("%s %s %d %v", e.Queue, e.MessageID, e.Count, e.Reason))
		}}))
		q := opened(t, top, "billing")
		v := q.View()
		kill(t, top, q, "a", "b", "c", "c", "d", "e")
		held, err := q.DeadLetters().Receive(t.Context()) // "a", which is left there
		require.NoError(t, err)
		require.Equal(t, "a", held.ID())
		deleted, err := v.DeleteLetters(t.Context(), fanout.RedriveIDs("b", "c", "a", "z"))
		require.ErrorIs(t, err, fanout.ErrUnknownID)
		require.ErrorContains(t, err, `fanout: delete letters of "billing": fanout: invalid option: unknown ID: RedriveIDs("a", "z")`)
		require.Equal(t, 3, deleted, "the ID that two have, too")
		slices.Sort(told)
		require.Equal(t, []string{"billing/dead b 1 delete", "billing/dead c 1 delete", "billing/dead c 1 delete"}, told)
		require.EqualValues(t, 3, q.DeadLetters().Stats().Dropped)
		require.Zero(t, q.Stats().Dropped)
		require.NoError(t, held.NackAfter(t.Context(), 0))
		time.Sleep(time.Minute)
		require.Equal(t, []string{"a", "d", "e"}, letterIDs(t, v))
		deleted, err = v.DeleteLetters(t.Context(), fanout.RedriveIf(func(d fanout.Delivery[string]) bool { return d.ID() == "d" }))
		require.NoError(t, err)
		require.Equal(t, 1, deleted)
		deleted, err = v.DeleteLetters(t.Context())
		require.NoError(t, err)
		require.Equal(t, 2, deleted)
		require.Empty(t, letterIDs(t, v))
		moved, err := v.Redrive(t.Context())
		require.NoError(t, err)
		require.Zero(t, moved)
		require.NoError(t, top.Close())
	})
}

func TestWhatDiesAfterTheNewestIsNotTouched(t *testing.T) {
	inBoth(t, func(t *testing.T, on fanout.TopicOption, e *fakeengine.Engine) {
		top := viewed[string](t, on)
		q := opened(t, top, "billing")
		v := q.View()
		kill(t, top, q, "a", "b", "c")
		page, _, err := v.DeadLetters().Peek(t.Context(), fanout.PeekOptions{Most: 9})
		require.NoError(t, err)
		newest := page[2].DiedAt
		require.Equal(t, time.Millisecond, newest.Sub(page[1].DiedAt))

		moved, err := v.Redrive(t.Context(), fanout.RedriveIDs("b")) // and it dies again
		require.NoError(t, err)
		require.Equal(t, 1, moved)
		d, err := q.Receive(t.Context())
		require.NoError(t, err)
		require.NoError(t, d.Settle(t.Context(), fanout.Permanent(errors.New("again"))))
		kill(t, top, q, "d")

		deleted, err := v.DeleteLetters(t.Context(), fanout.RedriveUntil(newest), fanout.RedriveIDs("b", "c"))
		require.NoError(t, err, "b is known")
		require.Equal(t, 1, deleted)
		require.Equal(t, []string{"a", "b", "d"}, letterIDs(t, v))
		moved, err = v.Redrive(t.Context(), fanout.RedriveUntil(newest.Add(time.Hour)), fanout.RedriveUntil(newest))
		require.NoError(t, err)
		require.Equal(t, 1, moved, "the last option counts")
		require.Equal(t, []string{"b", "d"}, letterIDs(t, v))
		require.NoError(t, top.Close())
	})
}

// TestOfASharedDeadLetterQueueEachQueueDeletesItsOwn, and what the others have is seen
// with the queue that it comes from.
func TestOfASharedDeadLetterQueueEachQueueDeletesItsOwn(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		shared, err := fanout.NewDeadLetterQueue[string]("dead", quiet)
		require.NoError(t, err)
		top := viewed[string](t)
		a := opened(t, top, "a", fanout.WithDeadLetterQueue(shared))
		kill(t, top, a, "1", "2")
		b := opened(t, top, "b", fanout.WithDeadLetterQueue(shared))
		kill(t, top, b, "3")
		kill(t, top, a, "3")
		_, err = a.Purge(t.Context())
		require.NoError(t, err)
		sources := []string{}
		for _, m := range allOf(t, shared.View(), fanout.PeekOptions{Most: 2}) {
			sources = append(sources, m.ID+" of "+m.Source)
		}
		require.Equal(t, []string{"1 of a", "2 of a", "3 of b", "3 of a"}, sources)
		deleted, err := a.View().DeleteLetters(t.Context(), fanout.RedriveIDs("3"))
		require.NoError(t, err)
		require.Equal(t, 1, deleted)
		deleted, err = b.View().DeleteLetters(t.Context())
		require.NoError(t, err)
		require.Equal(t, 1, deleted)
		require.Equal(t, []string{"1", "2"}, letterIDs(t, a.View()))
		require.NoError(t, top.Close())
		require.NoError(t, shared.Close())
	})
}

// TestRoomThatADeletedLetterMakesIsForWhatIsParked.
func TestRoomThatADeletedLetterMakesIsForWhatIsParked(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		top := viewed[string](t)
		q := opened(t, top, "billing", fanout.WithDeadLetterCapacity(1))
		kill(t, top, q, "first", "parked")
		require.Equal(t, 1, q.Stats().Parked)
		_, err := q.View().DeleteLetters(t.Context(), fanout.RedriveIDs("first"))
		require.NoError(t, err)
		require.Zero(t, q.Stats().Parked)
		require.Equal(t, []string{"parked"}, letterIDs(t, q.View()))
		require.NoError(t, top.Close())
	})
}

// TestLettersThatCannotBeDeletedStay on an engine that fails.
func TestLettersThatCannotBeDeletedStay(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		e := fakeengine.New(fakeengine.Config{})
		top := viewed[string](t, fanout.WithEngine(e))
		q := opened(t, top, "billing")
		kill(t, top, q, "a", "b", "c")
		e.Inject(fakeengine.Fault{Op: fakeengine.Ack, Nth: 2, Err: errors.New("no answer")})
		deleted, err := q.View().DeleteLetters(t.Context())
		require.ErrorContains(t, err, "1 letters were not deleted: no answer")
		require.Equal(t, 2, deleted)
		require.Len(t, letterIDs(t, q.View()), 1)
		deleted, err = q.View().DeleteLetters(t.Context())
		require.NoError(t, err)
		require.Equal(t, 1, deleted)
		require.NoError(t, top.Close())
	})
}

// TestATapHearsOfTroubleOnly, after the topic's hooks, until it is stopped.
func TestATapHearsOfTroubleOnly(t *testing.T) {
	inBoth(t, func(t *testing.T, on fanout.TopicOption, e *fakeengine.Engine) {
		var told []string
		say := func(who, what string) func(fanout.Event) {
			return func(e fanout.Event) { told = append(told, strings.TrimSpace(who+" "+what+" "+e.Queue+" "+e.MessageID)) }
		}
		said := func() []string {
			all := told
			told = nil
			return all
		}
		top := viewed[string](t, on, fanout.WithHooks(fanout.Hooks{DeadLettered: say("hook", "dead")}))
		q := opened(t, top, "billing")
		v := top.View()
		all := func(who string) fanout.Hooks {
			return fanout.Hooks{
				DeadLettered: say(who, "dead"), Parked: say(who, "parked"), Redriven: say(who, "redriven"), Dropped: say(who, "dropped"),
				Stuck: say(who, "stuck"), Stalled: say(who, "stalled"), EngineFailed: say(who, "failed"), Late: say(who, "late"),
			}
		}
		kill(t, top, q, "before")
		require.Equal(t, []string{"hook dead billing before"}, said())
		stopA, err := v.Tap(all("a"))
		require.NoError(t, err)
		stopB, err := v.Tap(fanout.Hooks{Redriven: say("b", "redriven")})
		require.NoError(t, err)
		stopNone, err := v.Tap(fanout.Hooks{})
		require.NoError(t, err)
		kill(t, top, q, "after")
		require.Equal(t, []string{"hook dead billing after", "a dead billing after"}, said())
		_, err = q.Redrive(t.Context(), fanout.RedriveIDs("before"))
		require.NoError(t, err)
		require.Equal(t, []string{"a redriven billing before", "b redriven billing before"}, said())
		_, err = q.View().DeleteLetters(t.Context())
		require.NoError(t, err)
		require.Equal(t, []string{"a dropped billing/dead after"}, said())
		_, err = q.Purge(t.Context())
		require.NoError(t, err)
		require.Equal(t, []string{"a dropped billing"}, said())
		stopA()
		stopA()
		stopNone()
		kill(t, top, q, "later")
		_, err = q.Redrive(t.Context())
		require.NoError(t, err)
		require.Equal(t, []string{"hook dead billing later", "b redriven billing later"}, said())
		stopB()
		_, err = q.Purge(t.Context())
		require.NoError(t, err)
		require.Empty(t, said())

		for name, h := range map[string]fanout.Hooks{
			"Published": {Published: say("", "")}, "Delivered": {Delivered: say("", "")}, "Settled": {Settled: say("", "")}, "StuckStack": {StuckStack: say("", "")},
		} {
			stop, err := v.Tap(h)
			require.Nil(t, stop)
			require.ErrorIs(t, err, fanout.ErrUnsupported)
			require.ErrorContains(t, err, `Tap of topic "orders" with Hooks.`+name+": give it to NewTopic by WithHooks")
		}
		require.NoError(t, top.Close())
	})
	var zero fanout.Topic[string]
	_, err := zero.View().Tap(fanout.Hooks{})
	require.ErrorIs(t, err, fanout.ErrInvalidOption)
}

func TestATapHearsOfHandlersThatAreStuckOrLate(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var (
			mu   sync.Mutex // the timer and the worker may call their hooks at the same time
			told []string
		)
		tell := func(what string) func(fanout.Event) {
			return func(e fanout.Event) {
				mu.Lock()
				defer mu.Unlock()
				told = append(told, what+" "+e.Subscriber)
			}
		}
		top := viewed[string](t)
		q := opened(t, top, "billing", fanout.WithVisibilityTimeout(time.Second), fanout.WithMaxAttempts(1))
		_, err := q.Subscribe(t.Context(), func(ctx context.Context, d fanout.Delivery[string]) error {
			<-ctx.Done()
			if d.Body == "cancelled" {
				return context.Cause(ctx)
			}
			return errors.New("busy")
		})
		require.NoError(t, err)
		site := q.View().Subscribers()[0].Subscriber
		stop, err := top.View().Tap(fanout.Hooks{Stuck: tell("stuck"), Late: tell("late")})
		require.NoError(t, err)
		for _, body := range []string{"failed", "cancelled"} {
			require.NoError(t, top.Publish(t.Context(), body))
			time.Sleep(2 * time.Second)
			synctest.Wait()
			require.ElementsMatch(t, []string{"stuck " + site, "late " + site}, told)
			told = nil
		}
		stop()
		require.NoError(t, top.Publish(t.Context(), "cancelled"))
		time.Sleep(2 * time.Second)
		require.Empty(t, told)
		require.NoError(t, top.Close())
	})
}
