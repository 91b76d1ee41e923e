package notice

import (
	"context"
	"log/slog"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/gofanout/fanout/internal/intercept"
	"github.com/gofanout/fanout/internal/message"
)

// A kept is a logger that keeps what it is given.
type kept struct {
	mu      sync.Mutex // guards the fields below
	records []slog.Record
	about   []intercept.About
}

// lines are what was logged so far.
func (k *kept) lines() []slog.Record {
	k.mu.Lock()
	defer k.mu.Unlock()
	return k.records
}

// messages are what these lines are about.
func (k *kept) messages() []intercept.About {
	k.mu.Lock()
	defer k.mu.Unlock()
	return k.about
}

func (k *kept) Enabled(context.Context, slog.Level) bool { return true }
func (k *kept) WithAttrs([]slog.Attr) slog.Handler       { return k }
func (k *kept) WithGroup(string) slog.Handler            { return k }
func (k *kept) Handle(ctx context.Context, r slog.Record) error {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.records, k.about = append(k.records, r), append(k.about, MessageOf(ctx))
	return nil
}

// count is the attribute of that name of a record.
func count(r slog.Record) (n int64) {
	r.Attrs(func(a slog.Attr) bool {
		if a.Key == "count" {
			n = a.Value.Int64()
		}
		return true
	})
	return n
}

func reporter(t *testing.T) (*Reporter, *kept) {
	clock, err := message.NewClock()
	require.NoError(t, err)
	k := new(kept)
	r := new(Reporter)
	r.Init(&Listeners{Topic: "payments", Clock: clock, Alive: new(alive), Logger: slog.New(k)}, "q")
	return r, k
}

// The context of a log line knows the message that it is about.
func TestALogLineKnowsItsMessage(t *testing.T) {
	r, k := reporter(t)
	at, x := time.Unix(7, 0), &message.Extra{ID: "order-1"}
	r.Tell(Parked, Event{MessageID: "order-1", PublishedAt: at, Attempt: 3, Count: 1, Message: x})
	r.Tell(Dropped, Event{Count: 2})
	r.Tell(Stuck, Event{MessageID: "order-2", Count: 1})
	a := k.messages()[0]
	require.Equal(t, []any{1, "order-1", 3, x, nil}, []any{a.Count(), a.ID(0), a.Attempt(0), a.Ext(0), a.Body(0)})
	require.True(t, at.Equal(a.PublishedAt(0)))
	require.False(t, a.Set(0, "a", "b"))
	require.Nil(t, k.messages()[1], "it is about none")
	require.Nil(t, k.messages()[2].Ext(0))
	require.Nil(t, MessageOf(t.Context()))
}

// The first of a kind is logged at once, and what comes within a second after, with it, in
// one line that counts them.
func TestALineASecondCountsWhatCameMeanwhile(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r, k := reporter(t)
		counts := func() (ns []int64) {
			for _, rec := range k.lines() {
				ns = append(ns, count(rec))
			}
			return ns
		}
		r.Tell(Parked, Event{MessageID: "a", Count: 1})
		r.Tell(Parked, Event{MessageID: "b", Count: 2})
		time.Sleep(time.Second - 1)
		r.Tell(Parked, Event{MessageID: "c", Count: 3})
		synctest.Wait()
		require.Equal(t, []int64{1}, counts())
		time.Sleep(time.Nanosecond)
		synctest.Wait()
		require.Equal(t, []int64{1, 5}, counts())
		require.Equal(t, "c", k.messages()[1].ID(0), "of the last of them")
		require.False(t, r.Armed())
		time.Sleep(time.Second - 1)
		r.Tell(Parked, Event{Count: 7})
		require.Equal(t, []int64{1, 5}, counts())
		require.True(t, r.Armed())
		r.Stop()
		require.Equal(t, []int64{1, 5, 7}, counts())
		require.False(t, r.Armed())
		r.Tell(Parked, Event{Count: 1})
		require.Equal(t, []int64{1, 5, 7, 1}, counts(), "from now on at once")
	})
	synctest.Test(t, func(t *testing.T) {
		r, k := reporter(t)
		time.Sleep(5 * time.Second)
		other, err := message.NewClock() // as that of another bubble: it is five seconds behind
		require.NoError(t, err)
		r.Tell(Parked, Event{Count: 1})
		time.Sleep(time.Second)
		r.Tell(Parked, Event{Count: 2})
		require.Len(t, k.lines(), 2, "a second has passed")
		r.Tell(Parked, Event{Count: 3})
		require.Len(t, k.lines(), 2)
		r.to.Clock = other
		r.Tell(Parked, Event{Count: 4})
		require.EqualValues(t, 7, count(k.lines()[2]), "what another clock says is no reason to wait")
		r.Stop()
		require.Len(t, k.lines(), 3)
	})
}

// One timer serves all kinds: it comes for each at its second.
func TestOneTimerComesForEachKind(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r, k := reporter(t)
		began := time.Now()
		var at []time.Duration
		tell := func(kind Kind) { r.Tell(kind, Event{Count: 1}) }
		tell(Parked)
		time.Sleep(300 * time.Millisecond)
		tell(Dropped)
		tell(Dropped)
		tell(Parked)
		seen := len(k.lines())
		for range 200 {
			time.Sleep(10 * time.Millisecond)
			synctest.Wait()
			for ; seen < len(k.lines()); seen++ {
				at = append(at, time.Since(began))
			}
		}
		require.Equal(t, []time.Duration{1000 * time.Millisecond, 1300 * time.Millisecond}, at)
		r.Stop()
	})
}

// A tap that stops leaves the others.
func TestATapThatStopsLeavesTheOthers(t *testing.T) {
	r, _ := reporter(t)
	var told []string
	stopA := r.to.Tap(tapOf(Parked, func(*Event) { told = append(told, "a") }))
	stopB := r.to.Tap(tapOf(Parked, func(*Event) { told = append(told, "b") }))
	r.Tell(Parked, Event{})
	stopA()
	r.Tell(Parked, Event{})
	require.Equal(t, []string{"a", "b", "b"}, told)
	stopB()
	r.Tell(Parked, Event{})
	require.Len(t, told, 3)
	r.Stop()
}

// Without a logger of its own a topic logs where everybody does.
func TestTheDefaultLoggerIsAskedForWhenItIsUsed(t *testing.T) {
	r, _ := reporter(t)
	r.to.Logger = nil
	k, before := new(kept), slog.Default()
	slog.SetDefault(slog.New(k))
	defer slog.SetDefault(before)
	r.Tell(Parked, Event{Count: 1})
	require.Len(t, k.lines(), 1)
	require.Equal(t, Parked.Line(), k.lines()[0].Message)
}

// A stack is found among those of all goroutines, however many there are.
func TestAStackIsFoundAmongMany(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r, _ := reporter(t)
		var stacks []string
		r.to.Hook(StuckStack, func(e *Event) { stacks = append(stacks, e.Stack) })
		headers, end := make(chan *string, 1000), make(chan struct{})
		defer close(end)
		for range cap(headers) {
			go hangs(r, headers, end)
		}
		synctest.Wait()
		require.Greater(t, len(headers)*150, 64<<10, "their stacks are more than is asked for at first")
		for n := range 5 {
			for range 150 {
				<-headers
			}
			header := <-headers
			require.Regexp(t, `^goroutine \d+ $`, *header)
			r.Tell(StuckStack, Event{Goroutine: header})
			require.Len(t, stacks, n+1)
			require.True(t, strings.HasPrefix(stacks[n], *header))
			require.Contains(t, stacks[n], "notice.hangs")
			require.NotContains(t, stacks[n], "TestAStackIsFoundAmongMany(")
			time.Sleep(time.Minute)
		}
		r.Stop()
	})
}

// hangs tells which goroutine it runs in, and then hangs.
func hangs(r *Reporter, headers chan *string, end chan struct{}) {
	headers <- r.to.Goroutine()
	<-end
}

// Kinds that are not logged are only told to their hooks.
func TestAHookAloneIsTold(t *testing.T) {
	r, k := reporter(t)
	var told []Event
	r.to.Hook(Settled, func(e *Event) { told = append(told, *e) })
	e := Event{MessageID: "a"}
	r.CallHook(Settled, &e)
	r.CallHook(Delivered, &e)
	require.Equal(t, []Event{{Topic: "payments", Queue: "q", MessageID: "a"}}, told)
	require.Empty(t, k.lines())
}
