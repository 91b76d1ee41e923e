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

// carried sets c to the span context that the message carries, and returns ctx with all
// that it carries; nil stands for ctx with c.
func (i *Instrumentation) carried(ctx context.Context, m fanout.MessageInfo, c *trace.SpanContext) context.Context {
	if i.w3c && parse(m, c) {
		return nil
	}
	in := i.carrier(m)
	with := i.set.propagator.Extract(trace.ContextWithSpanContext(ctx, trace.SpanContext{}), in)
	i.putBack(in)
	*c = trace.SpanContextFromContext(with)
	return with
}

// parse sets c, which is empty, to what W3C Trace Context extracts from a message that
// carries nothing, or a context of version 00, as nearly all do. If it is anything else it
// returns false. It needs no carrier and half the time.
func parse(m fanout.MessageInfo, c *trace.SpanContext) (ok bool) {
	p, _ := m.Attribute("traceparent")
	if p == "" {
		return true
	}
	const flags = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-0" // and a digit
	if len(p) != len(flags)+1 || p[:3] != flags[:3] || p[35] != '-' || p[52:54] != flags[52:] || p[54] < '0' || p[54] > '3' {
		return false
	}
	of := trace.SpanContextConfig{TraceFlags: trace.TraceFlags(p[54] - '0'), Remote: true}
	var err error
	if of.TraceID, err = trace.TraceIDFromHex(p[3:35]); err != nil {
		return false
	}
	if of.SpanID, err = trace.SpanIDFromHex(p[36:52]); err != nil {
		return false
	}
	if s, _ := m.Attribute("tracestate"); s != "" {
		of.TraceState, _ = trace.ParseTraceState(s) // a bad one is none
	}
	*c = trace.NewSpanContext(of)
	return true
}

// link adds a link to the span context that the message carries, if it carries one.
func (i *Instrumentation) link(ctx context.Context, links []trace.Link, m fanout.MessageInfo) []trace.Link {
	var c trace.SpanContext
	if i.carried(ctx, m, &c); c.IsValid() {
		links = append(links, trace.Link{SpanContext: c})
	}
	return links
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
