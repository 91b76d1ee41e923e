package embedded

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"sync"
	"syscall"

	"github.com/gofanout/fanout/engine/fanoutnats/internal/failure"
)

// A logger is a slog.Logger as the server wants one. It keeps why the server gave up.
type logger struct {
	*slog.Logger

	failures failure.Last  // to write to the disk
	failed   chan struct{} // has one if there is one; never blocks

	mu  sync.Mutex // guards err
	err error
}

func newLogger(l *slog.Logger) *logger { return &logger{Logger: l, failed: make(chan struct{}, 1)} }

// begin forgets why another server gave up.
func (l *logger) begin() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.err = nil
}

// fatal returns why the server gave up, if it has.
func (l *logger) fatal() error {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.err
}

// Noticef logs what the server does when all is well.
func (l *logger) Noticef(f string, v ...any) { l.Info("nats: " + fmt.Sprintf(f, v...)) }

// Warnf logs a warning, and keeps that of a disk.
func (l *logger) Warnf(f string, v ...any) {
	text := fmt.Sprintf(f, v...)
	l.Warn("nats: " + text)
	for _, e := range []syscall.Errno{syscall.ENOSPC, syscall.EDQUOT} {
		if strings.Contains(text, e.Error()) {
			l.notice(text)
		}
	}
}

// Fatalf logs what a server of its own would exit for, and keeps it.
func (l *logger) Fatalf(f string, v ...any) {
	text := fmt.Sprintf(f, v...)
	l.Error("nats: " + text)
	l.mu.Lock()
	defer l.mu.Unlock()
	l.err = errors.New(text)
}

// Errorf logs an error, and keeps that of a disk.
func (l *logger) Errorf(f string, v ...any) {
	text := fmt.Sprintf(f, v...)
	l.Error("nats: " + text)
	l.notice(text)
}

// notice keeps what text says of the disk. A server that could not write takes no more
// writes, nor does it answer them, until it is started again.
func (l *logger) notice(text string) {
	var failed error
	for _, e := range []syscall.Errno{syscall.ENOSPC, syscall.EDQUOT, syscall.EFBIG, syscall.EROFS, syscall.EIO, syscall.EACCES, syscall.EPERM} {
		if strings.Contains(text, e.Error()) {
			failed = fmt.Errorf("the server's disk: %w: %s", e, text)
			break
		}
	}
	if failed == nil && strings.Contains(strings.ToLower(text), "write error") {
		failed = fmt.Errorf("the server's disk: %s", text)
	}
	if failed == nil {
		return
	}
	l.failures.Set(failed)
	select {
	case l.failed <- struct{}{}:
	default: // it is known
	}
}

// Debugf logs details, if the server is told to.
func (l *logger) Debugf(f string, v ...any) { l.Debug("nats: " + fmt.Sprintf(f, v...)) }

// Tracef logs the protocol, if the server is told to.
func (l *logger) Tracef(f string, v ...any) { l.Debug("nats: " + fmt.Sprintf(f, v...)) }

// warnings returns a logger that hands warnings and errors to slog.Default.
func warnings() *slog.Logger { return slog.New(warningHandler{}) }

// A warningHandler hands on to slog.Default as it is at the time.
type warningHandler struct{}

func (warningHandler) Enabled(ctx context.Context, l slog.Level) bool {
	return l >= slog.LevelWarn && slog.Default().Enabled(ctx, l)
}

func (warningHandler) Handle(ctx context.Context, r slog.Record) error {
	return slog.Default().Handler().Handle(ctx, r)
}

// WithAttrs is not called by the logger here.
func (warningHandler) WithAttrs(as []slog.Attr) slog.Handler {
	return slog.Default().Handler().WithAttrs(as)
}

// WithGroup is not called by the logger here.
func (warningHandler) WithGroup(name string) slog.Handler {
	return slog.Default().Handler().WithGroup(name)
}
