package fanoutotel

import (
	"context"

	"go.opentelemetry.io/otel/trace"

	"github.com/gofanout/fanout"
)

// A carrier carries a trace in a message's attributes.
type carrier struct{ fanout.MessageInfo }

func (c *carrier) Get(name string) string {
	value, _ := c.Attribute(name)
	return value
}

func (c *carrier) Set(name, value string) { c.SetAttribute(name, value) }

func (c *carrier) Keys() (names []string) {
	for name := range c.Attributes() {
		names = append(names, name)
	}
	return names
}

// carrier returns a carrier for m, to be put back when the propagator has returned.
func (i *Instrumentation) carrier(m fanout.MessageInfo) *carrier {
	c, ok := i.carriers.Get().(*carrier)
	if !ok {
		c = new(carrier)
	}
	c.MessageInfo = m
	return c
}

func (i *Instrumentation) putBack(c *carrier) {
	c.MessageInfo = fanout.MessageInfo{}
	i.carriers.Put(c)
}

// carried returns ctx with what the message carries, and the span context of that. within
// says that ctx has a span already.
func (i *Instrumentation) carried(ctx context.Context, within bool, m fanout.MessageInfo) (context.Context, trace.SpanContext) {
	if within {
		ctx = trace.ContextWithSpanContext(ctx, trace.SpanContext{})
	}
	c := i.carrier(m)
	with := i.set.propagator.Extract(ctx, c)
	i.putBack(c)
	return with, trace.SpanContextFromContext(with)
}

// isWithin reports whether ctx has a span.
func isWithin(ctx context.Context) bool { return trace.SpanContextFromContext(ctx).IsValid() }

// carries reports whether the message has anything that the propagator reads: a context
// that its publisher has set is left as it is.
func (i *Instrumentation) carries(m fanout.MessageInfo) bool {
	for _, name := range i.fields {
		if _, ok := m.Attribute(name); ok {
			return true
		}
	}
	return false
}

// carry has the message carry ctx.
func (i *Instrumentation) carry(ctx context.Context, m fanout.MessageInfo) {
	c := i.carrier(m)
	i.set.propagator.Inject(ctx, c)
	i.putBack(c)
}
