// Dead letters, panics and failures are in the log, a line a second at most, and a logger may use the queue.

package observing_test

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

	"github.com/gofanout/fanout"
	"github.com/gofanout/fanout/internal/tests/kit"
)

// logged runs test with a topic in memory, and with one on an engine.
func logged(t *testing.T, test func(t *testing.T, ctx context.Context, top *fanout.Topic[int], book *logBook)) {
	kit.OnBoth(t, func(t *testing.T, ctx context.Context, on func() fanout.TopicOption) {
		book := newLogBook()
		top := kit.NewTopic[int](t, on(), fanout.WithLogger(slog.New(book)))
		defer top.Close()
		test(t, ctx, top, book)
	})
}

func TestTheFirstDeadLetterIsLoggedAtOnceAndTheOthersByCount(t *testing.T) {
	logged(t, func(t *testing.T, ctx context.Context, top *fanout.Topic[int], book *logBook) {
		line := func(at time.Duration, n int) string {
			return fmt.Sprintf("%v fanout: messages went to the dead-letter queue %d", at, n)
		}
		kit.Subscribe(t, top, "q", func(context.Context, fanout.Delivery[int]) error { return fanout.Permanent(kit.ErrBusy) })
		book.at(0)
		kit.Publish(t, top, 1)
		synctest.Wait()
		require.Equal(t, []string{line(0, 1)}, book.written(), "at once")
		book.at(400 * time.Millisecond)
		kit.Publish(t, top, 2, 3)
		book.at(999_999_999)
		kit.Publish(t, top, 4)
		synctest.Wait()
		require.Len(t, book.written(), 1, "within a second nothing more")
		book.at(time.Second)
		require.Equal(t, []string{line(0, 1), line(time.Second, 3)}, book.written())
		book.at(1500 * time.Millisecond)
		kit.Publish(t, top, 5)
		book.at(time.Minute)
		kit.Publish(t, top, 6)
		synctest.Wait()
		require.Equal(t, []string{line(0, 1), line(time.Second, 3), line(2*time.Second, 1), line(time.Minute, 1)}, book.written())
		book.at(time.Minute + 100*time.Millisecond)
		kit.Publish(t, top, 7, 8)
		synctest.Wait()
		require.NoError(t, top.Close())
		<-top.Done()
		require.Equal(t, line(time.Minute+100*time.Millisecond, 2), book.written()[4], "what is left is logged at the end")
	})
}

// A handler that always panics, with all defaults: all 5 attempts and the letter show,
// a line a second at most.
func TestAHandlerThatAlwaysPanicsIsNotSilent(t *testing.T) {
	logged(t, func(t *testing.T, ctx context.Context, top *fanout.Topic[int], book *logBook) {
		kit.Subscribe(t, top, "q", func(context.Context, fanout.Delivery[int]) error { panic("out of memory") })
		kit.Publish(t, top, 1, 2, 3)
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
	logged(t, func(t *testing.T, ctx context.Context, top *fanout.Topic[int], book *logBook) {
		kit.Subscribe(t, top, "q", func(context.Context, fanout.Delivery[int]) error { runtime.Goexit(); return nil }, fanout.WithMaxAttempts(1))
		kit.Publish(t, top, 1)
		synctest.Wait()
		require.Equal(t, []string{"0s fanout: attempts ended in runtime.Goexit 1", "0s fanout: messages went to the dead-letter queue 1"}, book.written())
	})
}

func TestWhatALogLineSaysOfAPanicAndALetter(t *testing.T) {
	kit.Bubble(t, func(t *testing.T, ctx context.Context) {
		var b kit.Buffer
		top := kit.NewTopic[int](t, fanout.WithLogger(b.Logger()))
		q := kit.Subscribe(t, top, "q", func(context.Context, fanout.Delivery[int]) error { panic("out of memory") }, fanout.WithMaxAttempts(1)).Queue()
		kit.PublishAll(t, top, fanout.Message[int]{ID: "m-1"})
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
	kit.Bubble(t, func(t *testing.T, ctx context.Context) {
		var q *fanout.Queue[int]
		var mu sync.Mutex
		var dead []int
		top := kit.NewTopic[int](t, fanout.WithLogger(slog.New(loggerFunc(func() {
			s := q.Stats()
			mu.Lock()
			dead = append(dead, s.Dead)
			mu.Unlock()
		}))))
		q = kit.OpenQueue(t, top, "q", fanout.WithMaxAttempts(1))
		kit.Publish(t, top, 1, 2, 3)
		for range 3 {
			require.NoError(t, kit.Receive(t, q).Nack(ctx))
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
	kit.Bubble(t, func(t *testing.T, ctx context.Context) {
		book := newLogBook()
		shared, err := fanout.NewDeadLetterQueue[int]("shared", fanout.WithLogger(slog.New(loggerFunc(func() { t.Error("the dead-letter queue has nothing to tell") }))))
		require.NoError(t, err)
		top := kit.NewTopic[int](t, fanout.WithLogger(slog.New(book)))
		a := kit.OpenQueue(t, top, "a", fanout.WithMaxAttempts(1), fanout.WithDeadLetterQueue(shared))
		b := kit.OpenQueue(t, top, "b", fanout.WithMaxAttempts(1), fanout.WithDeadLetterQueue(shared))
		kit.Publish(t, top, 1)
		for _, q := range []*fanout.Queue[int]{a, b} {
			require.NoError(t, kit.Receive(t, q).Nack(ctx))
		}
		require.Equal(t, []string{"0s fanout: messages went to the dead-letter queue 1", "0s fanout: messages went to the dead-letter queue 1"}, book.written())
		require.NoError(t, top.Close())
	})
}

func TestADiscardHandlerSilencesDeadLettersAndPanics(t *testing.T) {
	kit.Bubble(t, func(t *testing.T, ctx context.Context) {
		var b kit.Buffer
		logger, out, flags := slog.Default(), log.Writer(), log.Flags()
		slog.SetDefault(b.Logger())
		t.Cleanup(func() {
			slog.SetDefault(logger)
			log.SetOutput(out)
			log.SetFlags(flags)
		})
		top := kit.NewTopic[int](t, fanout.WithLogger(slog.New(slog.DiscardHandler)))
		q := kit.Subscribe(t, top, "q", func(context.Context, fanout.Delivery[int]) error { panic("out of memory") }).Queue()
		kit.Publish(t, top, 1, 2)
		time.Sleep(time.Minute)
		synctest.Wait()
		require.Equal(t, 2, q.Stats().Dead)
		require.NoError(t, top.Close())
		<-top.Done()
		require.Empty(t, b.String())
	})
}

// A logBook keeps what is logged, and when.
type logBook struct {
	slog.Handler
	Began time.Time
	mu    sync.Mutex
	lines []string
}

func (b *logBook) Enabled(context.Context, slog.Level) bool { return true }

func (b *logBook) Handle(_ context.Context, r slog.Record) error {
	line := fmt.Sprintf("%v %s", r.Time.Sub(b.Began), r.Message)
	r.Attrs(func(a slog.Attr) bool {
		if a.Key == "count" {
			line += fmt.Sprintf(" %v", a.Value)
		}
		return true
	})
	b.mu.Lock()
	defer b.mu.Unlock()
	b.lines = append(b.lines, line)
	return nil
}

// written returns the book's lines.
func (b *logBook) written() []string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return append([]string(nil), b.lines...)
}

// at waits until so long after the book's beginning, and for all that happens then.
func (b *logBook) at(d time.Duration) {
	time.Sleep(time.Until(b.Began.Add(d)))
	synctest.Wait()
}

func newLogBook() *logBook { return &logBook{Handler: slog.DiscardHandler, Began: time.Now()} }

func TestASharedDeadLetterQueueHasHooksAndALogOfItsOwn(t *testing.T) {
	kit.Bubble(t, func(t *testing.T, ctx context.Context) {
		delivered, book := 0, newLogBook()
		shared, err := fanout.NewDeadLetterQueue[int]("shared", fanout.WithLogger(slog.New(book)),
			fanout.WithHooks(fanout.Hooks{Delivered: func(fanout.Event) { delivered++ }}), fanout.WithVisibilityTimeout(3*time.Second))
		require.NoError(t, err)
		top := kit.NewTopic[int](t)
		q := kit.OpenQueue(t, top, "q", fanout.WithDeadLetterQueue(shared), fanout.WithMaxAttempts(1))
		kit.Publish(t, top, 1)
		require.NoError(t, kit.Receive(t, q).Nack(ctx))
		d := kit.Receive(t, shared)
		require.Equal(t, time.Now().Add(3*time.Second), d.Deadline())
		require.Equal(t, 1, delivered)
		_, err = shared.Purge(ctx)
		require.NoError(t, err)
		require.Len(t, book.lines, 1)
		top.Close()
		require.NoError(t, shared.Close())
	})
}

func TestWhyAHandlerFailedTooLateIsInTheLog(t *testing.T) {
	kit.Bubble(t, func(t *testing.T, ctx context.Context) {
		var log kit.Buffer
		top := kit.NewTopic[int](t, fanout.WithLogger(log.Logger()))
		kit.Subscribe(t, top, "q", func(hctx context.Context, d fanout.Delivery[int]) error {
			if err := d.Ack(hctx); err != nil {
				return err
			}
			return kit.ErrBusy
		})
		kit.Publish(t, top, 1)
		synctest.Wait()
		require.NoError(t, top.Shutdown(ctx))
		require.Contains(t, log.String(), "error=busy")
	})
}

func TestAHandlerThatFailsForHavingHeardThatItIsLateIsHookedAndNotLogged(t *testing.T) {
	for name, why := range map[string]func(ctx context.Context) error{
		"its context's error": context.Context.Err,
		"its context's cause": func(ctx context.Context) error { return fmt.Errorf("gave up: %w", context.Cause(ctx)) },
	} {
		t.Run(name, func(t *testing.T) {
			kit.Bubble(t, func(t *testing.T, ctx context.Context) {
				var log kit.Buffer
				var late []error
				top := kit.NewTopic[int](t, fanout.WithLogger(log.Logger()), fanout.WithHooks(fanout.Hooks{Late: func(e fanout.Event) { late = append(late, e.Err) }}))
				kit.Subscribe(t, top, "q", func(hctx context.Context, d fanout.Delivery[int]) error {
					if d.Attempt() > 1 {
						return nil
					}
					<-hctx.Done()
					return why(hctx)
				})
				kit.Publish(t, top, 1)
				kit.Elapse(time.Minute)
				require.NoError(t, top.Shutdown(ctx))
				require.Len(t, late, 1)
				require.NotContains(t, log.String(), late[0].Error())
			})
		})
	}
}
