package topic

import (
	"context"
	"errors"
	"fmt"
	"io"
	"runtime"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/gofanout/fanout/internal/delivery"
	"github.com/gofanout/fanout/internal/fakeengine"
	"github.com/gofanout/fanout/internal/message"
	"github.com/gofanout/fanout/internal/settings"
	"github.com/gofanout/fanout/internal/view"
)

// TestAnAttemptInADeadLetterQueueCutsNoHistory: what a message has been through in
// the queue that it died in stays, whatever is done in the dead-letter queue.
func TestAnAttemptInADeadLetterQueueCutsNoHistory(t *testing.T) {
	bubble(t, func(t *testing.T, ctx context.Context) {
		for _, attempts := range []int{2, 64, 200, 999} {
			top := newTopic[int](t)
			q := openQueue(t, top, "q", WithMaxAttempts(attempts), WithBackoff(settings.Constant(time.Millisecond)))
			publish(t, top, 1)
			for range attempts {
				require.NoError(t, receive(t, q).Settle(ctx, errBusy))
				elapse(time.Millisecond)
			}
			for range 1500 {
				require.NoError(t, receive(t, q.DeadLetters()).Nack(ctx))
				elapse(time.Millisecond)
			}
			h := receive(t, q.DeadLetters()).History()
			require.Len(t, h, 1000)
			for k, a := range h[:attempts] {
				require.Equal(t, []any{k + 1, "q", message.Failed}, []any{a.Number, a.Queue, a.Cause})
			}
			for k, a := range h[attempts:] {
				require.Equal(t, []any{attempts + 1500 - (1000 - attempts) + k + 1, "q/dead"}, []any{a.Number, a.Queue})
			}
		}
	})
}

// TestAHistoryIsThatOfOneCutAtEachAttempt: it is cut only at times, which can't be seen.
func TestAHistoryIsThatOfOneCutAtEachAttempt(t *testing.T) {
	for _, letterEach := range []int{1, 2, 3, 7, 400, 1 << 30} {
		var h *message.History
		var want []message.Kept
		for n := 1; n <= 3*1000; n++ {
			a := message.Kept{Attempt: message.Attempt{Cause: message.Nacked}, Letter: n%letterEach == 0}
			h = h.With(a)
			a.Number = n
			want = append(want, a)
			if len(want) > 1000 {
				k := slices.IndexFunc(want[:1000], func(a message.Kept) bool { return a.Letter })
				if k < 0 {
					k = 1000 / 2
				}
				want = slices.Delete(want, k, k+1)
			}
			if n%97 == 0 || n == 1000+1 {
				var got []int
				for _, a := range want {
					got = append(got, a.Number)
				}
				require.Equal(t, got, numbersOf(h), "letters each %d, attempt %d", letterEach, n)
			}
		}
	}
}

func TestShortText(t *testing.T) {
	long := strings.Repeat("x", 300)
	require.Equal(t, long, message.ShortText(long, 300))
	require.Equal(t, strings.Repeat("x", 152)+"... (148 bytes left out)", message.ShortText(long, 200))
	require.Equal(t, "... (300 bytes left out)", message.ShortText(long, 0))
	require.Equal(t, "... (300 bytes left out)", message.ShortText(message.ShortText(long, 200), 0), "the note counts all")
	require.Equal(t, strings.Repeat("x", 48), message.ShortText(strings.Repeat("x", 48), 0), "a note would be no shorter")
	euros := message.ShortText(strings.Repeat("€", 100), 150)
	require.Equal(t, strings.Repeat("€", 34)+"... (198 bytes left out)", euros, "no rune is cut")
	require.LessOrEqual(t, len(message.ShortText(strings.Repeat("x", 1<<20), message.MostText)), message.MostText)
}

// A wordy error has a long text and is of a type that a user looks for.
type wordy struct{ cause error }

func (w wordy) Error() string { return strings.Repeat("w", 1<<20) + w.cause.Error() }
func (w wordy) Unwrap() error { return w.cause }

// TestTextsInHistoriesAreBounded, wherever they come from.
func TestTextsInHistoriesAreBounded(t *testing.T) {
	huge := strings.Repeat("x", 1<<20)
	for name, row := range map[string]struct {
		handle Handler[int]
		is     error
	}{
		"an error":  {func(context.Context, delivery.Delivery[int]) error { return fmt.Errorf("%s: %w", huge, io.EOF) }, io.EOF},
		"of a type": {func(context.Context, delivery.Delivery[int]) error { return wordy{io.EOF} }, io.EOF},
		"deep":      {func(context.Context, delivery.Delivery[int]) error { return fmt.Errorf("%w", wordy{wordy{io.EOF}}) }, io.EOF},
		"joined":    {func(context.Context, delivery.Delivery[int]) error { return errors.Join(errors.New(huge), io.EOF) }, io.EOF},
		"to be retried": {func(context.Context, delivery.Delivery[int]) error {
			return message.RetryAfter(wordy{io.EOF}, time.Second)
		}, io.EOF},
		"a panic":                  {func(context.Context, delivery.Delivery[int]) error { panic(huge) }, nil},
		"a panic with an error":    {func(context.Context, delivery.Delivery[int]) error { panic(wordy{io.EOF}) }, io.EOF},
		"a panic with a structure": {func(context.Context, delivery.Delivery[int]) error { panic(struct{ text string }{huge}) }, nil},
		"a deep stack":             {func(context.Context, delivery.Delivery[int]) error { deep(200); return nil }, nil},
		"a release": {func(context.Context, delivery.Delivery[int]) error {
			return fmt.Errorf("%s: %w", huge, message.ErrClosed)
		}, message.ErrClosed},
	} {
		t.Run(name, func(t *testing.T) {
			bubble(t, func(t *testing.T, ctx context.Context) {
				for _, options := range [][]TopicOption{nil, {WithEngine(fakeengine.New(fakeengine.Config{}))}} {
					top := newTopic[int](t, append(options, WithHooks(Hooks{Settled: func(e Event) {
						if e.Err != nil {
							require.LessOrEqual(t, len(e.Err.Error()), message.MostText)
						}
					}}))...)
					n := 0
					_, err := top.Subscribe(ctx, "q", func(ctx context.Context, d delivery.Delivery[int]) error {
						if n++; n > 2 {
							return message.Permanent(errBusy)
						}
						return row.handle(ctx, d)
					})
					require.NoError(t, err)
					publish(t, top, 1)
					elapse(time.Hour)
					q := top.Queue("q")
					ds, err := view.Peek(ctx, q.DeadLetters(), 1)
					require.NoError(t, err)
					require.Len(t, ds, 1)
					h := ds[0].History()
					require.Len(t, h, 3)
					for _, a := range h[:2] {
						require.Contains(t, a.Err.Error()+a.Stack, "bytes left out)")
						require.LessOrEqual(t, len(a.Err.Error()), message.MostText)
						require.LessOrEqual(t, len(a.Stack), message.MostText)
						if row.is != nil && options == nil {
							require.ErrorIs(t, a.Err, row.is, "what is short is still found")
						}
					}
					require.NoError(t, top.Close())
				}
			})
		})
	}
}

func deep(n int) {
	if n == 0 {
		panic("deep")
	}
	deep(n - 1)
}

// TestTheOldestTextsAreLeftOutFirst, and only as many as must be.
func TestTheOldestTextsAreLeftOutFirst(t *testing.T) {
	var h *message.History
	long := errors.New(strings.Repeat("e", message.MostText))
	for n := 1; n <= 100; n++ {
		h = h.With(message.Kept{Attempt: message.Attempt{Cause: message.Panicked, Err: long, Stack: strings.Repeat("s", message.MostText)}, Text: long.Error()})
		texts := 0
		for _, a := range h.Kept() {
			texts += len(a.Text) + len(a.Stack)
			require.Equal(t, a.Text, a.Err.Error())
		}
		require.LessOrEqual(t, texts, (256 << 10))
		if n > 16 {
			require.Greater(t, texts, (256<<10)-2*message.MostText, "no more than must be")
		}
	}
	first, last := h.Kept()[0], h.Last()
	require.Equal(t, "... (8192 bytes left out)", first.Stack)
	require.EqualError(t, first.Err, "... (8192 bytes left out)")
	require.Same(t, long, last.Err)
	require.Len(t, last.Stack, message.MostText)
}

// TestLettersOfLoudPanicsPinLittle: 20 letters of 20 panics with 1 MiB of text each
// pinned 432 MB.
func TestLettersOfLoudPanicsPinLittle(t *testing.T) {
	bubble(t, func(t *testing.T, ctx context.Context) {
		before := heapInUse()
		top := newTopic[int](t)
		q := openQueue(t, top, "q", WithMaxAttempts(20))
		_, err := subscribeTo(q, ctx, func(context.Context, delivery.Delivery[int]) error { panic(strings.Repeat("x", 1<<20)) })
		require.NoError(t, err)
		for n := range 20 {
			publish(t, top, n)
		}
		elapse(24 * time.Hour)
		require.Equal(t, 20, view.StatsOf(q.DeadLetters()).Unsettled())
		require.Len(t, receive(t, q.DeadLetters()).History(), 20)
		require.Less(t, heapInUse()-before, int64(20*2*(256<<10)))
		runtime.KeepAlive(top)
	})
}

// numbers returns the numbers of a history's attempts.
func numbersOf(h *message.History) []int {
	var ns []int
	for _, a := range h.Attempts(0) {
		ns = append(ns, a.Number)
	}
	return ns
}

func TestAHistoryNumbersItsAttempts(t *testing.T) {
	var h *message.History
	for i := 1; i <= 5; i++ {
		h = h.With(message.Kept{Attempt: message.Attempt{Number: 99, Cause: message.Failed, Elapsed: time.Duration(i)}})
		require.Len(t, h.Kept(), i)
	}
	require.Equal(t, []int{1, 2, 3, 4, 5}, numbersOf(h))
	for i, a := range h.Kept() {
		require.Equal(t, time.Duration(i+1), a.Elapsed)
	}
}

func TestAHistoryThatADeliveryCarriesDoesNotChange(t *testing.T) {
	var hs []*message.History
	var h *message.History
	for range 3 * 1000 {
		h = h.With(message.Kept{Attempt: message.Attempt{Cause: message.Failed}})
		hs = append(hs, h)
	}
	for i, h := range hs {
		ns := numbersOf(h)
		require.Equal(t, i+1, ns[len(ns)-1])
		require.Equal(t, 1, ns[0])
	}
}

func TestAMessageThatIsRetriedWithoutLimitKeepsAHistoryOfLimitedLength(t *testing.T) {
	bubble(t, func(t *testing.T, ctx context.Context) {
		top := newTopic[int](t)
		q := openQueue(t, top, "audit", WithMaxAttempts(message.Unlimited), WithBackoff(settings.Constant(time.Second)))
		publish(t, top, 1)
		for range 1500 {
			d, err := receiveFrom(q, ctx)
			require.NoError(t, err)
			require.NoError(t, d.Nack(ctx))
		}
		d, err := receiveFrom(q, ctx)
		require.NoError(t, err)
		require.Equal(t, 1501, d.Attempt())
		ns := numbersOf(d.Hist)
		require.Len(t, ns, 1000)
		require.Equal(t, 1, ns[0])
		require.Equal(t, 1500, ns[len(ns)-1])
	})
}
