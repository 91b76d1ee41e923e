package fanouttest

import (
	"bytes"
	"context"
	"log/slog"
)

// log is what the topics log to: the test's log.
func (k *Kit) log() slog.Handler {
	return logHandler{slog.NewTextHandler(logWriter{k}, &slog.HandlerOptions{ReplaceAttr: withoutHead}), k}
}

// withoutHead leaves out what all lines have in common: a test has no use for it.
func withoutHead(groups []string, a slog.Attr) slog.Attr {
	if len(groups) == 0 && (a.Key == slog.TimeKey || a.Key == slog.LevelKey) {
		return slog.Attr{}
	}
	return a
}

// A logHandler writes a stack as the lines that it has. It leaves out what happens in
// the kit's own queue, and what queues held when the kit closed them: the kit has told of that.
type logHandler struct {
	slog.Handler
	kit *Kit
}

func (h logHandler) Handle(ctx context.Context, r slog.Record) error {
	h.kit.mu.Lock()
	closing := h.kit.closing
	h.kit.mu.Unlock()
	line, stack, skip := slog.NewRecord(r.Time, r.Level, r.Message, r.PC), "", false
	r.Attrs(func(a slog.Attr) bool {
		switch a.Key {
		case "queue":
			skip = a.Value.String() == tapName
		case "reason":
			skip = closing && a.Value.String() == "close"
		case "stack":
			stack = "\n" + a.Value.String()
			return true
		}
		line.AddAttrs(a)
		return !skip
	})
	if skip {
		return nil
	}
	err := h.Handler.Handle(ctx, line)
	if stack != "" {
		_, _ = logWriter{h.kit}.Write([]byte(stack))
	}
	return err
}

// A logWriter writes to a test's log.
type logWriter struct{ kit *Kit }

func (w logWriter) Write(text []byte) (int, error) {
	// A test that is over panics. There is nobody to tell then.
	defer func() { _ = recover() }()
	w.kit.tb.Logf("%s", bytes.TrimRight(text, "\n"))
	return len(text), nil
}
