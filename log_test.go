package fanout

import (
	"context"
	"fmt"
	"log"
	"log/slog"
	"runtime"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"
)

// logged runs test with a topic in memory, and with one on an engine.
func logged(t *testing.T, test func(t *testing.T, ctx context.Context, top *Topic[int], book *logBook)) {
	onBoth(t, func(t *testing.T, ctx context.Context, on func() TopicOption) {
		book := newLogBook()
		top := newTopic[int](t, on(), WithLogger(slog.New(book)))
		defer top.Close()
		test(t, ctx, top, book)
	})
}

// written returns the book's lines.
func (b *logBook) written() []string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return append([]string(nil), b.lines...)
}

// at waits until so long after the book's beginning, and for all that happens then.
func (b *logBook) at(d time.Duration) {
	time.Sleep(time.Until(b.began.Add(d)))
	synctest.Wait()
}

func TestTheFirstDeadLetterIsLoggedAtOnceAndTheOthersByCount(t *testing.T) {
	logged(t, func(t *testing.T, ctx context.Context, top *Topic[int], book *logBook) {
		line := func(at time.Duration, n int) string {
			return fmt.Sprintf("%v fanout: messages went to the dead-letter queue %d", at, n)
		}
		subscribe(t, top, "q", func(context.Context, Delivery[int]) error { return Permanent(errBusy) })
		book.at(0)
		publish(t, top, 1)
		synctest.Wait()
		require.Equal(t, []string{line(0, 1)}, book.written(), "at once")
		book.at(400 * time.Millisecond)
		publish(t, top, 2, 3)
		book.at(999_999_999)
		publish(t, top, 4)
		synctest.Wait()
		require.Len(t, book.written(), 1, "within a second nothing more")
		book.at(time.Second)
		require.Equal(t, []string{line(0, 1), line(time.Second, 3)}, book.written())
		book.at(1500 * time.Millisecond)
		publish(t, top, 5)
		book.at(time.Minute)
		publish(t, top, 6)
		synctest.Wait()
		require.Equal(t, []string{line(0, 1), line(time.Second, 3), line(2*time.Second, 1), line(time.Minute, 1)}, book.written())
		book.at(time.Minute + 100*time.Millisecond)
		publish(t, top, 7, 8)
		synctest.Wait()
		require.NoError(t, top.Close())
		<-top.Done()
		require.Equal(t, line(time.Minute+100*time.Millisecond, 2), book.written()[4], "what is left is logged at the end")
	})
}

// A handler that always panics, with all defaults: all 5 attempts and the letter show,
// a line a second at most.
func TestAHandlerThatAlwaysPanicsIsNotSilent(t *testing.T) {
	logged(t, func(t *testing.T, ctx context.Context, top *Topic[int], book *logBook) {
		subscribe(t, top, "q", func(context.Context, Delivery[int]) error { panic("out of memory") })
		publish(t, top, 1, 2, 3)
		book.at(time.Minute)
		require.NoError(t, top.Close())
		attempts, letters := 0, 0
		last := map[string]time.Duration{}
		for k, line := range book.written() {
			at, message, _ := strings.Cut(line, " fanout: ")
			d, err := time.ParseDuration(at)
			require.NoError(t, err)
			if k == 0 {
				require.Zero(t, d, "the first at once")
			}
			n := 0
			var what string
			switch {
			case strings.HasPrefix(message, "attempts ended in a panic"):
				what = "panics"
				_, err = fmt.Sscanf(message, "attempts ended in a panic %d", &n)
				attempts += n
			default:
				what = "letters"
				_, err = fmt.Sscanf(message, "messages went to the dead-letter queue %d", &n)
				letters += n
			}
			require.NoError(t, err, line)
			if before, ok := last[what]; ok {
				require.GreaterOrEqual(t, d-before, time.Second)
			}
			last[what] = d
		}
		require.Equal(t, 15, attempts)
		require.Equal(t, 3, letters)
	})
}

func TestAHandlerThatExitsIsNotSilent(t *testing.T) {
	logged(t, func(t *testing.T, ctx context.Context, top *Topic[int], book *logBook) {
		subscribe(t, top, "q", func(context.Context, Delivery[int]) error { runtime.Goexit(); return nil }, WithMaxAttempts(1))
		publish(t, top, 1)
		synctest.Wait()
		require.Equal(t, []string{"0s fanout: attempts ended in runtime.Goexit 1", "0s fanout: messages went to the dead-letter queue 1"}, book.written())
	})
}

func TestWhatALogLineSaysOfAPanicAndALetter(t *testing.T) {
	bubble(t, func(t *testing.T, ctx context.Context) {
		var b syncBuffer
		top := newTopic[int](t, WithLogger(b.logger()))
		q := subscribe(t, top, "q", func(context.Context, Delivery[int]) error { panic("out of memory") }, WithMaxAttempts(1)).Queue()
		publishAll(t, top, Message[int]{ID: "m-1"})
		synctest.Wait()
		require.Equal(t, 1, q.Stats().Dead)
		panicked, letter, _ := strings.Cut(b.String(), "\n")
		for _, part := range []string{
			"level=WARN", `msg="fanout: attempts ended in a panic"`, "topic=payments", "queue=q", "count=1", "message_id=m-1", "attempt=1",
			"cause=panicked", `error="panic: out of memory"`, "stack=", "log_test.go",
		} {
			require.Contains(t, panicked, part)
		}
		for _, part := range []string{
			"level=WARN", `msg="fanout: messages went to the dead-letter queue"`, "queue=q", "count=1", "message_id=m-1", "attempt=1",
			"cause=panicked", `error="panic: out of memory"`,
		} {
			require.Contains(t, letter, part)
		}
		require.NotContains(t, letter, "stack=")
		require.NoError(t, top.Close())
	})
}

// What is logged is logged without a lock: a logger may use the queue.
func TestALoggerMayUseTheQueueThatItIsToldOf(t *testing.T) {
	bubble(t, func(t *testing.T, ctx context.Context) {
		var q *Queue[int]
		var mu sync.Mutex
		var dead []int
		top := newTopic[int](t, WithLogger(slog.New(loggerFunc(func() {
			s := q.Stats()
			mu.Lock()
			dead = append(dead, s.Dead)
			mu.Unlock()
		}))))
		q = openQueue(t, top, "q", WithMaxAttempts(1))
		publish(t, top, 1, 2, 3)
		for range 3 {
			require.NoError(t, receive(t, q).Nack(ctx))
		}
		so := func() []int {
			mu.Lock()
			defer mu.Unlock()
			return slices.Clone(dead)
		}
		require.Equal(t, []int{1}, so())
		time.Sleep(time.Second)
		synctest.Wait()
		require.Equal(t, []int{1, 3}, so())
		require.NoError(t, top.Close())
	})
}

// A loggerFunc is called for each line.
type loggerFunc func()

func (f loggerFunc) Enabled(context.Context, slog.Level) bool  { return true }
func (f loggerFunc) Handle(context.Context, slog.Record) error { f(); return nil }
func (f loggerFunc) WithAttrs([]slog.Attr) slog.Handler        { return f }
func (f loggerFunc) WithGroup(string) slog.Handler             { return f }

// Letters of a queue on its way to a shared dead-letter queue are told by the queue.
func TestALetterInASharedDeadLetterQueueIsLoggedByItsOwnQueue(t *testing.T) {
	bubble(t, func(t *testing.T, ctx context.Context) {
		book := newLogBook()
		shared, err := NewDeadLetterQueue[int]("shared", WithLogger(slog.New(loggerFunc(func() { t.Error("the dead-letter queue has nothing to tell") }))))
		require.NoError(t, err)
		top := newTopic[int](t, WithLogger(slog.New(book)))
		a := openQueue(t, top, "a", WithMaxAttempts(1), WithDeadLetterQueue(shared))
		b := openQueue(t, top, "b", WithMaxAttempts(1), WithDeadLetterQueue(shared))
		publish(t, top, 1)
		for _, q := range []*Queue[int]{a, b} {
			require.NoError(t, receive(t, q).Nack(ctx))
		}
		require.Equal(t, []string{"0s fanout: messages went to the dead-letter queue 1", "0s fanout: messages went to the dead-letter queue 1"}, book.written())
		require.NoError(t, top.Close())
	})
}

func TestADiscardHandlerSilencesDeadLettersAndPanics(t *testing.T) {
	bubble(t, func(t *testing.T, ctx context.Context) {
		var b syncBuffer
		logger, out, flags := slog.Default(), log.Writer(), log.Flags()
		slog.SetDefault(b.logger())
		t.Cleanup(func() {
			slog.SetDefault(logger)
			log.SetOutput(out)
			log.SetFlags(flags)
		})
		top := newTopic[int](t, WithLogger(slog.New(slog.DiscardHandler)))
		q := subscribe(t, top, "q", func(context.Context, Delivery[int]) error { panic("out of memory") }).Queue()
		publish(t, top, 1, 2)
		time.Sleep(time.Minute)
		synctest.Wait()
		require.Equal(t, 2, q.Stats().Dead)
		require.NoError(t, top.Close())
		<-top.Done()
		require.Empty(t, b.String())
	})
}
