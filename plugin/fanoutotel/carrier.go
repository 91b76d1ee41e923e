package fanoutotel

import (
	"context"

	"go.opentelemetry.io/otel/trace"

	"github.com/gofanout/fanout"
)

// A carrier carries a trace in a message's attributes.
type carrier struct{ fanout.MessageInfo }

func (c carrier) Get(name string) string {
	value, _ := c.Attribute(name)
	return value
}

func (c carrier) Set(name, value string) { c.SetAttribute(name, value) }

func (c carrier) Keys() (names []string) {
	for name := range c.Attributes() {
		names = append(names, name)
	}
	return names
}

// carried returns ctx with what the message carries, and the span context of that.
func (i *Instrumentation) carried(ctx context.Context, m fanout.MessageInfo) (context.Context, trace.SpanContext) {
	if !i.carries(m) {
		return ctx, trace.SpanContext{}
	}
	with := i.set.propagator.Extract(trace.ContextWithSpanContext(ctx, trace.SpanContext{}), carrier{m})
	return with, trace.SpanContextFromContext(with)
}

// carries reports whether the message has anything that the propagator reads: a context
// that its publisher has set is left as it is.
func (i *Instrumentation) carries(m fanout.MessageInfo) bool {
	for _, name := range i.set.propagator.Fields() {
		if _, ok := m.Attribute(name); ok {
			return true
		}
	}
	return false
}

// carry has the message carry ctx.
func (i *Instrumentation) carry(ctx context.Context, m fanout.MessageInfo) {
	i.set.propagator.Inject(ctx, carrier{m})
}
