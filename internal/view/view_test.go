package view

import (
	"context"
	"io"
	"log/slog"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/gofanout/fanout/internal/core"
	"github.com/gofanout/fanout/internal/delivery"
	"github.com/gofanout/fanout/internal/lifecycle"
	"github.com/gofanout/fanout/internal/log"
	"github.com/gofanout/fanout/internal/message"
	"github.com/gofanout/fanout/internal/notice"
	"github.com/gofanout/fanout/internal/queue"
	"github.com/gofanout/fanout/internal/settings"
)

// A home stands for the topic above one queue.
type home[T any] struct {
	queue.Home[T]
	log *log.Log[message.Item[T]]
	seq uint64
}

func newQueue[T any](t *testing.T, set func(l *settings.Limits)) (*home[T], *queue.Queue[T]) {
	c, err := core.New("payments", settings.Topic{Logger: slog.New(slog.NewTextHandler(io.Discard, nil))})
	require.NoError(t, err)
	h := &home[T]{Home: queue.Home[T]{Core: c}, log: log.New[message.Item[T]](64)}
	h.Admission, h.Owner = h, h
	s := settings.DefaultQueue()
	set(&s.Limits)
	q := queue.NewQueue(c, &h.Home, "q", &s.Limits)
	q.Store.Log, q.Idle, q.Store.Cursor = h.log, &h.Idle, h.log.Cursor()
	h.Live.Add(1)
	t.Cleanup(func() {
		h.Mu.Lock()
		if d := q.Dead; d != nil {
			lifecycle.CloseNow(d, true)
		}
		lifecycle.CloseNow(q, true)
		h.Unlock()
	})
	return h, q
}

func (h *home[T]) LetIn(*queue.Queue[T]) notice.Pending    { return notice.Pending{} }
func (h *home[T]) HasTurnsLocked() bool                    { return false }
func (h *home[T]) TurnsOfLocked(*queue.Queue[T])           {}
func (h *home[T]) TakeOrphanLocked(string) *queue.Queue[T] { return nil }
func (h *home[T]) EndQueue(*queue.Queue[T], bool) error    { return nil }
func (h *home[T]) RedriveLetters(context.Context, *queue.Queue[T], []queue.Letter) (int, error) {
	return 0, nil
}

func (h *home[T]) publish(bodies ...T) {
	h.Mu.Lock()
	for _, b := range bodies {
		h.seq++
		h.log.Append(message.Item[T]{Seq: h.seq, At: h.Now(), Body: b})
	}
	h.log.Publish()
	h.Mu.Unlock()
}

func take[T any](t *testing.T, q *queue.Queue[T], n int) []delivery.Delivery[T] {
	ds, err := delivery.TakeBatch(t.Context(), q, n, q.Visibility())
	require.NoError(t, err)
	require.Len(t, ds, n)
	return ds
}

func bodies(page []MessageView) (all []string) {
	for _, m := range page {
		all = append(all, m.State+" "+m.Body)
	}
	return all
}

// What waits is seen, in the order of publication, wherever it stands, and what is in flight
// is not. Nothing is taken by that.
func TestWhatWaitsIsSeenWhereverItStands(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h, q := newQueue[string](t, func(l *settings.Limits) { l.Backoff = settings.Constant(time.Minute) })
		h.publish("a", "b", "c", "d", "e")
		ds := take(t, q, 3)
		require.NoError(t, ds[1].Nack(t.Context())) // b is retried in a minute
		require.NoError(t, ds[2].Release(t.Context()))

		for most, want := range map[int][]string{9: {"b", "c", "d", "e"}, 2: {"b", "c"}} {
			seen, err := Peek(t.Context(), q, most)
			require.NoError(t, err)
			var got []string
			for _, d := range seen {
				got = append(got, d.Body)
			}
			require.Equal(t, want, got)
		}
		page, next, err := PeekAt(t.Context(), q, PeekOptions{Most: 9, Body: 10})
		require.NoError(t, err)
		require.Empty(t, next)
		require.Equal(t, []string{"retrying b", "ready c", "ready d", "ready e"}, bodies(page))
		require.Equal(t, time.Now().Add(time.Minute).UnixNano(), page[0].DueAt.UnixNano())
		require.Zero(t, page[1].DueAt)
		require.Equal(t, message.Nacked, page[0].History[0].Cause)

		s := StatsOf(q)
		require.Equal(t, []int{3, 1, 1}, []int{s.Ready, s.Retrying, s.InFlight})
		require.Equal(t, 5, s.Unsettled())
	})
}

// Each page begins behind the one before, whatever happened to its messages meanwhile, and a
// message's own cursor makes a page that begins with it.
func TestPagesFollowEachOther(t *testing.T) {
	h, q := newQueue[int](t, func(l *settings.Limits) { l.Capacity = 5000 })
	var all []int
	for k := range 3*LookLen + 7 {
		all = append(all, k)
	}
	h.publish(all...)
	o, got := PeekOptions{Most: 100, Body: 10}, 0
	for pages := 0; ; pages++ {
		page, next, err := PeekAt(t.Context(), q, o)
		require.NoError(t, err)
		for k, m := range page {
			require.Equal(t, textOf(got+k), m.Body)
		}
		again, _, err := PeekAt(t.Context(), q, PeekOptions{Most: 1, Body: 10, After: page[len(page)/2].Cursor})
		require.NoError(t, err)
		require.Equal(t, page[len(page)/2].Body, again[0].Body)
		got += len(page)
		if next == "" {
			require.Equal(t, (len(all)+99)/100, pages+1)
			break
		}
		o.After = next
		for _, d := range take(t, q, 3) { // the first go
			require.NoError(t, d.Ack(t.Context()))
		}
	}
	require.Equal(t, len(all), got)
}

func TestBadOptionsOfAPageAreNamed(t *testing.T) {
	_, q := newQueue[int](t, func(*settings.Limits) {})
	for want, o := range map[string]PeekOptions{
		`PeekOptions.Most: 0`:                {},
		`PeekOptions.Body: -1`:               {Most: 1, Body: -1},
		`PeekOptions.After: "x"`:             {Most: 1, After: "x"},
		`PeekOptions.After: "1.y"`:           {Most: 1, After: "1.y"},
		`PeekOptions.After: "1.99999999999"`: {Most: 1, After: "1.99999999999"},
	} {
		_, _, err := PeekAt(t.Context(), q, o)
		require.ErrorIs(t, err, message.ErrInvalidOption)
		option, value, _ := strings.Cut(want, ": ")
		require.ErrorContains(t, err, option)
		require.ErrorContains(t, err, value)
	}
	var none context.Context
	_, _, err := PeekAt(none, q, PeekOptions{Most: 1})
	require.ErrorIs(t, err, message.ErrNilContext)
	ended, cancel := context.WithCancel(t.Context())
	cancel()
	_, _, err = PeekAt(ended, q, PeekOptions{Most: 1})
	require.ErrorIs(t, err, context.Canceled)
}

type secret struct{ Word string }

func (secret) MarshalJSON() ([]byte, error) { panic("not for you") }

// A body's text is short, of valid UTF-8, and no body can break the page.
func TestABodysTextIsShort(t *testing.T) {
	textIn := func(q *queue.Queue[any], body any, most int) string {
		return text(&delivery.Delivery[any]{Body: body, Receipt: delivery.Receipt[any]{Q: q}}, most)
	}
	_, q := newQueue[any](t, func(*settings.Limits) {})
	require.Equal(t, "short", textIn(q, "short", 5))
	require.Equal(t, `{"A":1}`, textIn(q, struct{ A int }{1}, 100))
	require.Equal(t, "?", textIn(q, "\xff", 5))
	require.Contains(t, textIn(q, secret{"x"}, 100), "view.secret, whose text could not be had")
	require.Equal(t, "(1+2i)", textIn(q, 1+2i, 100), "what JSON can't say")
	for _, long := range []any{strings.Repeat("0123456789", 100), []byte(strings.Repeat("0123456789", 100))} {
		got := textIn(q, long, 100)
		require.Contains(t, got, "0123456789")
		require.Contains(t, got, "948 bytes left out")
		require.LessOrEqual(t, len(got), 100)
	}
}
