package fanoutweb

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"net/url"
	"runtime"
	"strings"
	"testing"
	"testing/synctest"

	"github.com/stretchr/testify/require"

	"github.com/gofanout/fanout"
)

// How much memory a request takes where there are many letters. That is not the heap's size, which
// depends on when the collector runs: it is all that a request allocates, or what is
// reachable while it runs.

// mostMemory is the promise.
const mostMemory = 32 << 20

// full returns a topic whose queue billing has many dead letters.
func full(t testing.TB, letters int) *fanout.Topic[string] {
	t.Helper()
	topic, _ := tested(t, Options{})
	t.Cleanup(func() { _ = topic.Close(); <-topic.Done() })
	q, err := topic.OpenQueue(t.Context(), "billing", fanout.WithCapacity(fanout.Unlimited), fanout.WithDeadLetterCapacity(fanout.Unlimited))
	require.NoError(t, err)
	poison := fanout.Permanent(errors.New("no such order"))
	for k := range letters {
		require.NoError(t, topic.Publish(t.Context(), fmt.Sprintf("order o-%d of a customer", k)))
		d, err := q.Receive(t.Context())
		require.NoError(t, err)
		require.NoError(t, d.Settle(t.Context(), poison))
	}
	return topic
}

// allocated is how many bytes f allocates, whether or not they are collected meanwhile.
func allocated(f func()) int {
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	f()
	runtime.ReadMemStats(&after)
	return int(after.TotalAlloc - before.TotalAlloc)
}

// A scales is a topic that weighs the heap while its letters are looked at: what is reachable
// then, that is with all garbage collected.
type scales struct {
	fanout.TopicView
	every          int // how many looks there are between two weighings
	looks          int
	empty, highest uint64
}

func (s *scales) weigh() uint64 {
	var m runtime.MemStats
	runtime.GC()
	runtime.ReadMemStats(&m)
	return m.HeapAlloc
}

// of returns how many bytes more there are at most while f runs.
func (s *scales) of(f func()) int {
	s.empty, s.highest, s.looks = s.weigh(), 0, 0
	f()
	return int(s.highest) - int(s.empty)
}

func (s *scales) Queue(name string) fanout.QueueView {
	return weighed{s.TopicView.Queue(name), s}
}

type weighed struct {
	fanout.QueueView
	s *scales
}

func (w weighed) DeadLetters() fanout.QueueView { return weighed{w.QueueView.DeadLetters(), w.s} }

func (w weighed) Peek(ctx context.Context, o fanout.PeekOptions) (page []fanout.MessageView, next string, err error) {
	page, next, err = w.QueueView.Peek(ctx, o)
	if w.s.looks++; w.s.looks%w.s.every == 1 {
		w.s.highest = max(w.s.highest, w.s.weigh())
	}
	runtime.KeepAlive(page)
	return page, next, err
}

// DeleteLetters doesn't: what was collected to delete is weighed.
func (w weighed) DeleteLetters(context.Context, ...fanout.RedriveOption) (int, error) {
	w.s.highest = max(w.s.highest, w.s.weigh())
	return 0, errors.New("only weighed")
}

func post(t *testing.T, h http.Handler, path string, form url.Values) {
	t.Helper()
	r := httptest.NewRequestWithContext(t.Context(), http.MethodPost, path, strings.NewReader(form.Encode()))
	r.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	r.Header.Set("Accept", "application/json")
	w := httptest.NewRecorder()
	h.ServeHTTP(w, r)
	require.Equal(t, http.StatusOK, w.Code, w.Body)
}

func TestAHundredThousandLettersTakeLittleMemory(t *testing.T) {
	synctest.Test(t, heavyLetters) // where a search is never ended by the time that it takes
}

func heavyLetters(t *testing.T) {
	topic := full(t, 100_000)
	h, err := New(Options{Allow: AllowAll}, topic)
	require.NoError(t, err)
	t.Cleanup(h.Close)
	const at = "?topic=orders&queue=billing"
	// What a page allocates is bounded, so the heap does not grow by more, whenever the collector runs.
	for name, path := range map[string]string{
		"the first page, with the sums":        "/letters" + at,
		"a search that finds 50 at once":       "/letters" + at + "&text=order",
		"a search that finds nothing":          "/letters" + at + "&text=nowhere",
		"a search by a cause that none has":    "/letters" + at + "&cause=panicked",
		"a search by an attribute":             "/letters" + at + "&attr=none",
		"the confirmation of a redrive of all": "/confirm" + at + "&do=redrive",
	} {
		bytes := allocated(func() { get(t, h, path) })
		t.Logf("%s allocates %.1f MB", name, float64(bytes)/1e6)
		require.Less(t, bytes, mostMemory, name)
	}

	// A search goes on where it stopped.
	searched, requests := 0, 0
	for next := ""; requests == 0 || next != ""; requests++ {
		var page lettersPage
		getJSON(t, h, "/letters"+at+"&text=nowhere&after="+url.QueryEscape(next), &page)
		require.Equal(t, 100_000, page.Total)
		require.Empty(t, page.Letters)
		searched, next = searched+page.Searched, page.Next
	}
	require.Equal(t, 100_000, searched)
	require.Equal(t, 4, requests)

	// Some requests look at all letters. They hold a slice of them at a time.
	heavy := &scales{TopicView: topic.View(), every: 8}
	h.topics = []fanout.TopicView{heavy}
	for name, path := range map[string]string{
		"the newest first":                "/letters" + at + "&order=newest",
		"the confirmation of a filter":    "/confirm" + at + "&do=delete&cause=permanent",
		"the confirmation of a selection": "/confirm" + at + "&do=delete&scope=selected&id=o-1",
	} {
		bytes := heavy.of(func() { get(t, h, path) })
		require.Greater(t, heavy.looks, 20, name)
		t.Logf("%s holds %.1f MB more", name, float64(bytes)/1e6)
		require.Less(t, bytes, mostMemory, name)
	}
	form := url.Values{"topic": {"orders"}, "queue": {"billing"}, "do": {"delete"}, "cause": {"permanent"}, "count": {"100000"}, "until": {"2100-01-01T00:00:00Z"}}
	bytes := heavy.of(func() { post(t, h, "/act", form) })
	t.Logf("an action on all that match holds %.1f MB more", float64(bytes)/1e6)
	require.Less(t, bytes, mostMemory)
}

// Bodies are as large as they are: there are fewer of them in a slice.
func TestALargeBodyMakesASliceShort(t *testing.T) { synctest.Test(t, largeBodies) }

func largeBodies(t *testing.T) {
	topic, h := tested(t, Options{Allow: AllowAll}, "billing")
	defer topic.Close()
	defer h.Close()
	body := strings.Repeat("x", searchBody)
	q := topic.Queue("billing")
	for range 1000 {
		require.NoError(t, topic.Publish(t.Context(), body))
		d, err := q.Receive(t.Context())
		require.NoError(t, err)
		require.NoError(t, d.Settle(t.Context(), fanout.Permanent(io.EOF)))
	}
	sizes := &sized{TopicView: topic.View()}
	h.topics = []fanout.TopicView{sizes}
	get(t, h, "/letters?topic=orders&queue=billing&text=nowhere")
	require.Equal(t, 1000, sizes.n)
	require.LessOrEqual(t, sizes.longest, sliceBytes+searchBody)
}

// A sized is a topic that measures the slices of its letters.
type sized struct {
	fanout.TopicView
	n, longest int
}

func (s *sized) Queue(name string) fanout.QueueView { return slice{s.TopicView.Queue(name), s} }

type slice struct {
	fanout.QueueView
	s *sized
}

func (q slice) DeadLetters() fanout.QueueView { return slice{q.QueueView.DeadLetters(), q.s} }

func (q slice) Peek(ctx context.Context, o fanout.PeekOptions) (page []fanout.MessageView, next string, err error) {
	page, next, err = q.QueueView.Peek(ctx, o)
	bytes := 0
	for _, m := range page {
		bytes += len(m.Body)
	}
	q.s.n, q.s.longest = q.s.n+len(page), max(q.s.longest, bytes)
	return page, next, err
}
