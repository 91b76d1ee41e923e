package fanoutotel

import (
	"context"
	"log/slog"

	"go.opentelemetry.io/otel/propagation"
	"go.opentelemetry.io/otel/trace"

	"github.com/gofanout/fanout"
)

// LogHandler returns a handler that adds trace_id and span_id of the context's span to
// each record, outside of all groups, and hands it to h. So what a handler logs with its
// context is found by its trace. A line of the topic's own log about a message has those
// of the publisher's span, if the message carries them: give the handler to fanout.WithLogger.
func LogHandler(h slog.Handler) slog.Handler { return logHandler{root: h, inner: h} }

// A logHandler keeps root, without the groups that were opened, and what was added since
// the first of them.
type logHandler struct {
	root, inner slog.Handler
	added       []func(slog.Handler) slog.Handler
}

func (l logHandler) Enabled(ctx context.Context, level slog.Level) bool {
	return l.inner.Enabled(ctx, level)
}

func (l logHandler) Handle(ctx context.Context, r slog.Record) error {
	c := trace.SpanContextFromContext(ctx)
	if !c.IsValid() {
		if m, ok := fanout.MessageFromContext(ctx); ok {
			c = trace.SpanContextFromContext(propagation.TraceContext{}.Extract(ctx, &carrier{m}))
		}
	}
	if !c.IsValid() {
		return l.inner.Handle(ctx, r)
	}
	ids := []slog.Attr{slog.String("trace_id", c.TraceID().String()), slog.String("span_id", c.SpanID().String())}
	if l.added == nil {
		r = r.Clone()
		r.AddAttrs(ids...)
		return l.inner.Handle(ctx, r)
	}
	h := l.root.WithAttrs(ids)
	for _, add := range l.added {
		h = add(h)
	}
	return h.Handle(ctx, r)
}

func (l logHandler) WithAttrs(as []slog.Attr) slog.Handler {
	if len(as) == 0 {
		return l
	}
	return l.with(func(h slog.Handler) slog.Handler { return h.WithAttrs(as) }, l.added != nil)
}

func (l logHandler) WithGroup(name string) slog.Handler {
	if name == "" {
		return l
	}
	return l.with(func(h slog.Handler) slog.Handler { return h.WithGroup(name) }, true)
}

func (l logHandler) with(add func(slog.Handler) slog.Handler, grouped bool) slog.Handler {
	inner := add(l.inner)
	if !grouped {
		return logHandler{root: inner, inner: inner}
	}
	return logHandler{l.root, inner, append(l.added[:len(l.added):len(l.added)], add)}
}
