package notice

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"runtime"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/gofanout/fanout/internal/message"
)

var errBusy = errors.New("busy")

// alive counts as a topic does.
type alive struct{ n atomic.Int64 }

func (a *alive) Add(n int64) { a.n.Add(n) }
func (a *alive) Release()    { a.n.Add(-1) }

// A book is a log.
type book struct {
	slog.Handler
	began time.Time

	mu    sync.Mutex
	lines []string
	fail  func() // called for each line, if it is set
}

func (b *book) Enabled(context.Context, slog.Level) bool { return true }

func (b *book) Handle(_ context.Context, r slog.Record) error {
	line := fmt.Sprintf("%v %s", r.Time.Sub(b.began), r.Message)
	r.Attrs(func(a slog.Attr) bool {
		if a.Key == "count" {
			line += fmt.Sprintf(" %v", a.Value)
		}
		return true
	})
	b.mu.Lock()
	b.lines = append(b.lines, line)
	b.mu.Unlock()
	if b.fail != nil {
		b.fail()
	}
	return nil
}

func newReporter(t *testing.T) (*Reporter, *book, *alive) {
	t.Helper()
	clock, err := message.NewClock()
	require.NoError(t, err)
	b, a := &book{Handler: slog.DiscardHandler, began: time.Now()}, new(alive)
	r := new(Reporter)
	r.Init(&Listeners{Topic: "payments", Clock: clock, Alive: a, Logger: slog.New(b)}, "q")
	return r, b, a
}

func apart(f func()) {
	done := make(chan struct{})
	go func() {
		defer close(done)
		f()
	}()
	<-done
}

func TestEachKindIsLoggedAtItsOwnSecond(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r, book, alive := newReporter(t)
		for _, step := range []struct {
			at   time.Duration
			kind Kind
		}{
			{0, Late}, {50, Late},
			{200, Dropped}, {250, Dropped}, {300, Dropped},
			{500, Parked}, {600, Parked},
		} {
			time.Sleep(time.Until(book.began.Add(step.at * time.Millisecond)))
			r.Tell(step.kind, Event{Count: 1})
		}
		require.True(t, r.Armed())
		require.EqualValues(t, 1, alive.n.Load())
		time.Sleep(time.Minute)
		synctest.Wait()
		require.Equal(t, []string{
			"0s " + Late.Line() + " 1",
			"200ms " + Dropped.Line() + " 1",
			"500ms " + Parked.Line() + " 1",
			"1s " + Late.Line() + " 1",
			"1.2s " + Dropped.Line() + " 2",
			"1.5s " + Parked.Line() + " 1",
		}, book.lines)
		require.False(t, r.Armed())
		require.Zero(t, alive.n.Load())
		r.Tell(Late, Event{Count: 1})
		r.Tell(Late, Event{Count: 1})
		r.Stop()
		require.Len(t, book.lines, 8, "what is left is logged at the end")
		require.Zero(t, alive.n.Load())
		r.Tell(Late, Event{Count: 1})
		require.Len(t, book.lines, 9, "and from then on everything at once")
		require.False(t, r.Armed())
	})
}

func TestAReportThatEndsArmsNoTimer(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r, _, alive := newReporter(t)
		r.Tell(Dropped, Event{Count: 1})
		time.Sleep(time.Second / 2)
		r.Tell(Stuck, Event{Count: 1})
		r.Tell(Stuck, Event{Count: 1}) // to be told at 1.5 s
		// The timer is about to run as the queue closes.
		r.mu.Lock()
		r.stopped = true
		r.armed = !r.timer.Stop()
		r.mu.Unlock()
		r.flush()
		require.False(t, r.Armed())
		r.Stop()
		require.Zero(t, alive.n.Load())
	})
}

func TestALineSaysAll(t *testing.T) {
	e := Event{
		Topic: "t", Queue: "q", Count: 2, Reason: DroppedByPurge, MessageID: "id", Subscriber: "file:1", Attempt: 3, Cause: message.Nacked,
		Elapsed: time.Second, Logged: []slog.Attr{slog.Int("depth", 4)}, Err: errBusy, Stack: "stack",
	}
	require.Equal(t, []slog.Attr{
		slog.String("topic", "t"), slog.String("queue", "q"), slog.Int("count", 2), slog.String("reason", "purge"), slog.String("message_id", "id"),
		slog.String("subscriber", "file:1"), slog.Int("attempt", 3), slog.String("cause", "nacked"), slog.Duration("elapsed", time.Second),
		slog.Int("depth", 4), slog.Any("error", errBusy), slog.String("stack", "stack"),
	}, e.attrs())
	e = Event{Topic: "t", Queue: "q", Count: 1}
	require.Len(t, e.attrs(), 3)
}

func TestNames(t *testing.T) {
	for r := DroppedOldest; r <= LastReason; r++ {
		require.NotContains(t, r.String(), "(")
	}
	require.Equal(t, "none", Reason(0).String())
	require.Equal(t, "DropReason(6)", (LastReason + 1).String())
	require.Empty(t, Settled.Line())
}

func TestHooksAreCalledInTheirOrderHoweverOneEnds(t *testing.T) {
	r, book, _ := newReporter(t)
	var called []int
	for k, end := range []func(){func() { panic("first") }, runtime.Goexit, func() {}} {
		r.to.Hook(Dropped, func(e *Event) {
			require.Equal(t, [2]string{"payments", "q"}, [2]string{e.Topic, e.Queue})
			called = append(called, k)
			end()
		})
	}
	require.True(t, r.to.Hooked(Dropped))
	require.False(t, r.to.Hooked(Delivered))
	require.True(t, r.to.Wants(Stuck), "it is logged")
	require.False(t, r.to.Wants(Delivered))
	apart(func() { r.Tell(Dropped, Event{Count: 1}) })
	require.Equal(t, []int{0, 1, 2}, called)
	require.Len(t, book.lines, 2, "the panic, and the event")
	r.Stop()
}

func TestALoggerMayDoAnything(t *testing.T) {
	r, book, _ := newReporter(t)
	book.fail = func() { panic("no disk") }
	r.Tell(Dropped, Event{Count: 1})
	book.fail = runtime.Goexit
	r.to.LogApart("apart")
	for _, k := range []Kind{Stuck, Parked} {
		apart(func() { r.Tell(k, Event{Count: 1}) }) // now
		r.Tell(k, Event{Count: 1})                   // later
	}
	apart(r.Stop) // both are logged though the logger exits
	require.Len(t, book.lines, 6)
	require.False(t, r.Armed())
}

func TestThePendingIsPerformedOnceAndInOrder(t *testing.T) {
	r, _, _ := newReporter(t)
	var told []string
	r.to.Hook(Settled, func(e *Event) { told = append(told, e.MessageID) })
	var p, more Pending
	require.False(t, p.Any())
	p.Join(more)
	require.False(t, p.Any(), "nothing and nothing is nothing")
	p.Perform()
	p.CancelAll()
	more.Add(r, Settled, Event{MessageID: "a"})
	p.Join(more.Take())
	require.False(t, more.Any())
	more.Add(r, Settled, Event{MessageID: "b"})
	more.Call(func() { told = append(told, "call") })
	more.Cancel(func(cause error) { told = append(told, cause.Error()) }, errBusy)
	p.Join(more)
	p.Join(Pending{})
	p.Perform()
	require.Equal(t, []string{"busy", "call", "a", "b"}, told)
	require.False(t, p.Any())
	p.Perform()
	require.Len(t, told, 4)

	p.Cancel(func(cause error) { told = append(told, cause.Error()) }, errBusy)
	p.CancelAll()
	require.Len(t, told, 5)
	p.Perform()
	require.Len(t, told, 5, "a context is cancelled once")
}

func TestAllIsToldThoughAHookExits(t *testing.T) {
	r, _, _ := newReporter(t)
	n := 0
	r.to.Hook(Settled, func(*Event) {
		n++
		runtime.Goexit()
	})
	var p Pending
	for range 3 {
		p.Add(r, Settled, Event{})
	}
	apart(p.Perform)
	require.Equal(t, 3, n)
}

func TestStacks(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r, _, _ := newReporter(t)
		require.Nil(t, r.to.Goroutine(), "nobody wants stacks")
		var stacks []string
		r.to.Hook(StuckStack, func(e *Event) { stacks = append(stacks, e.Stack) })
		header := r.to.Goroutine()
		r.Tell(StuckStack, Event{Goroutine: header})
		require.Len(t, stacks, 1)
		require.Contains(t, stacks[0], "TestStacks")
		r.Tell(StuckStack, Event{Goroutine: header})
		time.Sleep(time.Minute - 1)
		r.Tell(StuckStack, Event{Goroutine: header})
		require.Len(t, stacks, 1, "once a minute")
		time.Sleep(time.Nanosecond)
		gone := "goroutine 18446744073709551615 "
		r.Tell(StuckStack, Event{Goroutine: &gone})
		require.Len(t, stacks, 1, "it has ended")
		time.Sleep(time.Minute)
		r.Tell(StuckStack, Event{})
		r.Tell(StuckStack, Event{Goroutine: header})
		require.Len(t, stacks, 2)
	})
}
