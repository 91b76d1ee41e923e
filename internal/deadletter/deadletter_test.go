package deadletter

import (
	"context"
	"errors"
	"io"
	"log/slog"
	"slices"
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
	"github.com/gofanout/fanout/internal/view"
)

var errFull = errors.New("no room")

// A home stands for the topic above one queue whose messages die at once. It redrives what
// there is room for, and does not wait for more.
type home struct {
	queue.Home[string]
	q *queue.Queue[string]
}

// newHome has all of these messages dead, in this order.
func newHome(t *testing.T, capacity int, bodies ...string) *home {
	c, err := core.New("payments", settings.Topic{Logger: slog.New(slog.NewTextHandler(io.Discard, nil))})
	require.NoError(t, err)
	h, s := &home{Home: queue.Home[string]{Core: c}}, settings.DefaultQueue()
	h.Admission, h.Owner = h, h
	s.Capacity, s.MaxAttempts = len(bodies), 1
	h.q = queue.NewQueue(c, &h.Home, "q", &s.Limits)
	l := log.New[message.Item[string]](64)
	h.q.Store.Log, h.q.Idle, h.q.Store.Cursor = l, &h.Idle, l.Cursor()
	h.Live.Add(1)
	for k, b := range bodies {
		l.Append(message.Item[string]{Seq: uint64(k) + 1, At: h.Now(), Body: b})
	}
	l.Publish()
	ds := make([]delivery.Delivery[string], len(bodies))
	for k := range ds {
		ok, err := delivery.TryTake(t.Context(), h.q, &ds[k], h.q.Visibility())
		require.NoError(t, err)
		require.True(t, ok)
	}
	for _, d := range ds {
		time.Sleep(time.Second)
		require.NoError(t, d.Nack(t.Context()))
	}
	h.q.Store.Set.Capacity = capacity
	h.q.Store.Allow.Add(int64(capacity - len(bodies)))
	return h
}

func (h *home) end() {
	h.Mu.Lock()
	if d := h.q.Dead; d != nil {
		lifecycle.CloseNow(d, true)
	}
	lifecycle.CloseNow(h.q, true)
	h.Unlock()
}

func (h *home) LetIn(*queue.Queue[string]) notice.Pending    { return notice.Pending{} }
func (h *home) HasTurnsLocked() bool                         { return false }
func (h *home) TurnsOfLocked(*queue.Queue[string])           {}
func (h *home) TakeOrphanLocked(string) *queue.Queue[string] { return nil }
func (h *home) EndQueue(*queue.Queue[string], bool) error    { return nil }
func (h *home) RedriveLetters(_ context.Context, q *queue.Queue[string], letters []queue.Letter) (int, error) {
	h.Mu.Lock()
	defer h.Unlock()
	rest, moved := RedriveLocked(q, letters)
	if len(rest) > 0 {
		return moved, errFull
	}
	return moved, nil
}

func seen(t *testing.T, q *queue.Queue[string]) (bodies []string) {
	ds, err := view.Peek(t.Context(), q, 100)
	require.NoError(t, err)
	for _, d := range ds {
		bodies = append(bodies, d.Body)
	}
	return bodies
}

func chosen(keep ...string) *Choice[string] {
	return &Choice[string]{Keep: []func(*delivery.Delivery[string]) bool{func(d *delivery.Delivery[string]) bool { return slices.Contains(keep, d.Body) }}}
}

// What is chosen moves, in the order of publication, and nothing else.
func TestLettersThatAreChosenGoBack(t *testing.T) {
	for name, x := range map[string]struct {
		choose func(h *home, began time.Time) *Choice[string]
		want   []string
	}{
		"all":        {func(*home, time.Time) *Choice[string] { return new(Choice[string]) }, []string{"a", "b", "c", "d"}},
		"none":       {func(*home, time.Time) *Choice[string] { return chosen("e") }, nil},
		"those kept": {func(*home, time.Time) *Choice[string] { return chosen("d", "b") }, []string{"b", "d"}},
		"by ID": {func(h *home, _ time.Time) *Choice[string] {
			ds, _ := view.Peek(context.Background(), h.q.Dead, 100)
			return &Choice[string]{Letters: settings.Letters{IDs: map[string]bool{ds[2].ID(): false}}}
		}, []string{"c"}},
		"until an instant": {func(_ *home, began time.Time) *Choice[string] {
			return &Choice[string]{Letters: settings.Letters{Until: began.Add(2 * time.Second)}}
		}, []string{"a", "b"}},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				began := time.Now()
				all := []string{"a", "b", "c", "d"}
				left := slices.DeleteFunc(slices.Clone(all), func(b string) bool { return slices.Contains(x.want, b) })

				h := newHome(t, 10, all...)
				moved, err := Redrive(t.Context(), h.q, x.choose(h, began))
				require.NoError(t, err)
				require.Equal(t, len(x.want), moved)
				require.Equal(t, x.want, seen(t, h.q))
				require.ElementsMatch(t, left, seen(t, h.q.Dead))
				require.Equal(t, uint64(moved), view.StatsOf(h.q).Redriven)
				h.end()

				h = newHome(t, 10, all...)
				deleted, err := Delete(t.Context(), h.q, x.choose(h, began.Add(4*time.Second)))
				require.NoError(t, err)
				require.Equal(t, len(x.want), deleted)
				require.Empty(t, seen(t, h.q))
				require.ElementsMatch(t, left, seen(t, h.q.Dead))
				h.end()
			})
		})
	}
}

// What there is no room for stays a letter.
func TestARedriveStopsWhereThereIsNoRoom(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newHome(t, 2, "a", "b", "c")
		defer h.end()
		moved, err := Redrive(t.Context(), h.q, new(Choice[string]))
		require.ErrorIs(t, err, errFull)
		require.Equal(t, 2, moved)
		require.Equal(t, []string{"a", "b"}, seen(t, h.q))
		require.Equal(t, []string{"c"}, seen(t, h.q.Dead))
	})
}

// A letter that was looked at and is gone since is not moved.
func TestALetterThatIsGoneIsNotMoved(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newHome(t, 10, "a", "b", "c")
		defer h.end()
		letters, err := selectFrom(h.q, &Choice[string]{dead: h.q.Dead})
		require.NoError(t, err)
		var d delivery.Delivery[string]
		ok, err := delivery.TryTake(t.Context(), h.q.Dead, &d, time.Minute) // a is in flight
		require.True(t, ok)
		require.NoError(t, err)
		_, err = Delete(t.Context(), h.q, chosen("b"))
		require.NoError(t, err)
		moved, err := h.RedriveLetters(t.Context(), h.q, lettersOf(letters))
		require.NoError(t, err)
		require.Equal(t, 1, moved)
		require.Equal(t, []string{"c"}, seen(t, h.q))
	})
}

func TestWhatCannotBeChosenIsSaid(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newHome(t, 10, "a")
		for name, call := range map[string]func(c *Choice[string]) (int, error){
			"redrive": func(c *Choice[string]) (int, error) { return Redrive(t.Context(), h.q, c) },
			"delete":  func(c *Choice[string]) (int, error) { return Delete(t.Context(), h.q, c) },
		} {
			n, err := call(&Choice[string]{Letters: settings.Letters{IDs: map[string]bool{"nobody": false}}})
			require.Zero(t, n)
			require.ErrorContains(t, err, "nobody", name)
			n, err = call(&Choice[string]{Keep: []func(*delivery.Delivery[string]) bool{func(*delivery.Delivery[string]) bool { panic("boom") }}})
			require.Zero(t, n)
			require.ErrorContains(t, err, "boom", name)
		}
		require.Equal(t, []string{"a"}, seen(t, h.q.Dead))
		h.end()
		_, err := Redrive(t.Context(), h.q, new(Choice[string]))
		require.ErrorIs(t, err, message.ErrClosed)
	})
}
