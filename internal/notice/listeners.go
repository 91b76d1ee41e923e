package notice

import (
	"bytes"
	"context"
	"log/slog"
	"runtime"
	"slices"
	"strings"
	"sync/atomic"

	"github.com/gofanout/fanout/internal/callback"
	"github.com/gofanout/fanout/internal/message"
)

// Alive counts who must have ended before its owner has.
type Alive interface {
	Add(n int64)
	Release()
}

// Listeners are whom a topic tells of its queues: hooks, and a log.
type Listeners struct {
	// Immutable once a Reporter uses them.
	Topic  string
	Clock  *message.Clock
	Alive  Alive
	Logger *slog.Logger // nil: slog.Default() at the time of logging
	hooks  [Kinds]func(*Event)

	taps     atomic.Pointer[[]*[Kinds]func(*Event)] // nil: none. What it points to never changes
	stacksAt atomic.Int64                           // when stacks were last collected, 0: never
}

// Hook adds a hook for a kind of event. However one of several ends, all are called.
func (l *Listeners) Hook(k Kind, f func(*Event)) {
	first := l.hooks[k]
	if first == nil {
		l.hooks[k] = f
		return
	}
	l.hooks[k] = func(e *Event) {
		defer f(e)
		l.call(first, e)
	}
}

// Hooked reports whether there is a hook for events of kind k.
func (l *Listeners) Hooked(k Kind) bool { return l.hooks[k] != nil }

// Wants reports whether events of kind k are hooked, logged or tapped.
func (l *Listeners) Wants(k Kind) bool {
	return l.hooks[k] != nil || lines[k] != "" || (k == Redriven || k == LateCancelled) && l.taps.Load() != nil
}

// Tap adds hooks while the topic is in use, until stop is called. It hears of the kinds
// that are logged, and of Redriven and LateCancelled.
func (l *Listeners) Tap(hooks [Kinds]func(*Event)) (stop func()) {
	tap := &hooks
	l.retap(func(taps []*[Kinds]func(*Event)) []*[Kinds]func(*Event) { return append(taps, tap) })
	return func() {
		l.retap(func(taps []*[Kinds]func(*Event)) []*[Kinds]func(*Event) {
			return slices.DeleteFunc(taps, func(other *[Kinds]func(*Event)) bool { return other == tap })
		})
	}
}

// retap replaces the taps by what change makes of a copy.
func (l *Listeners) retap(change func(taps []*[Kinds]func(*Event)) []*[Kinds]func(*Event)) {
	for {
		old := l.taps.Load()
		var taps []*[Kinds]func(*Event)
		if old != nil {
			taps = slices.Clone(*old)
		}
		next := &taps
		if taps = change(taps); len(taps) == 0 {
			next = nil
		}
		if l.taps.CompareAndSwap(old, next) {
			return
		}
	}
}

// Call calls the hook of kind k, if there is one, and then the taps, and survives their
// panics. No lock is held.
func (l *Listeners) Call(k Kind, e *Event) {
	taps := l.taps.Load()
	if taps == nil {
		if f := l.hooks[k]; f != nil {
			l.call(f, e)
		}
		return
	}
	callback.Each(1+len(*taps), func(n int) {
		f := l.hooks[k]
		if n > 0 {
			f = (*taps)[n-1][k]
		}
		if f != nil {
			l.call(f, e)
		}
	})
}

func (l *Listeners) call(f func(*Event), e *Event) {
	defer func() {
		if p := recover(); p != nil {
			l.Log("fanout: a hook panicked", slog.String("topic", e.Topic), slog.String("queue", e.Queue), slog.Any("panic", p))
		}
	}()
	f(e)
}

// Log logs a warning, and survives the logger's panic. No lock is held.
func (l *Listeners) Log(line string, attrs ...slog.Attr) {
	l.logWith(context.Background(), line, attrs)
}

func (l *Listeners) logWith(ctx context.Context, line string, attrs []slog.Attr) {
	defer func() { _ = recover() }() // a log that panics has nobody to tell
	log := l.Logger
	if log == nil {
		log = slog.Default()
	}
	log.LogAttrs(ctx, slog.LevelWarn, line, attrs...)
}

// LogApart logs, whatever the logger does.
func (l *Listeners) LogApart(line string, attrs ...slog.Attr) {
	callback.Apart(func() { l.Log(line, attrs...) })
}

// Goroutine returns the caller's header in a dump of all goroutines, "goroutine 17 ", if a
// hook wants stacks, else nil: it costs a microsecond.
func (l *Listeners) Goroutine() *string {
	if l.hooks[StuckStack] == nil {
		return nil
	}
	var buf [64]byte
	header := string(buf[:runtime.Stack(buf[:], false)])
	if k := strings.IndexByte(header, '['); k > 0 {
		header = header[:k]
	}
	return &header
}

// stacksEvery is the least time between two collections of stacks: they stop the world.
const stacksEvery = int64(60e9)

// maxDump bounds a dump of all goroutines.
const maxDump = 16 << 20

// stackOf returns the stack of the goroutine with the given header, or "" if stacks were
// collected less than a minute ago or it is not found.
func (l *Listeners) stackOf(header *string) string {
	now := l.Clock.Now()
	last := l.stacksAt.Load()
	if header == nil || last != 0 && now-last < stacksEvery || !l.stacksAt.CompareAndSwap(last, max(now, 1)) {
		return ""
	}
	dump := make([]byte, 64<<10)
	for {
		n := runtime.Stack(dump, true)
		if n < len(dump) || len(dump) >= maxDump {
			dump = dump[:n]
			break
		}
		dump = make([]byte, 2*len(dump))
	}
	for _, stack := range bytes.Split(dump, []byte("\n\n")) {
		if bytes.HasPrefix(stack, []byte(*header)) {
			return string(stack)
		}
	}
	return ""
}
