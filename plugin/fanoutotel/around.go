package fanoutotel

import (
	"context"
	"errors"
	"slices"
	"time"

	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/codes"
	semconv "go.opentelemetry.io/otel/semconv/v1.43.0"
	"go.opentelemetry.io/otel/trace"

	"github.com/gofanout/fanout"
)

// Own attributes.
const (
	attemptKey     = attribute.Key("messaging.fanout.attempt")
	causeKey       = attribute.Key("messaging.fanout.cause")
	orderingKeyKey = attribute.Key("messaging.fanout.ordering_key")
)

// aroundPublish makes the span send of a publish, and for a batch those of its
// messages: create.
func (near *nearby) aroundPublish(ctx context.Context, info fanout.Info, next func(context.Context) error) error {
	i := near.i
	if ctx == nil {
		return next(ctx) // which refuses it
	}
	began := i.now()
	at := near.spot(info.Topic, "")
	made := at.publish
	var links []trace.Link
	travels := false // the context of the span send
	if info.Messages == 1 || i.set.noCreate {
		for k := range info.Messages {
			if m := info.Message(k); !i.carries(m) {
				travels = true
			} else {
				links = i.link(ctx, links, m)
			}
		}
	} else {
		links = i.create(ctx, info, at.create)
	}
	if travels {
		made = at.producing
	}
	ctx, span := i.tracer.Start(ctx, made.span, made.linked(links)...)
	ended := errUnreturned
	defer func() {
		t := errorType(ended)
		if t != "" {
			made = i.at(place{"publish", "send", info.Topic, "", t})
		}
		i.ended(ctx, span, made, began, t, ended)
		i.sent.Inst().Add(ctx, int64(info.Messages), made.add...)
	}()
	if span.IsRecording() {
		span.SetAttributes(i.describe(&info, 0)...)
	}
	if travels && (!i.w3c || span.SpanContext().IsValid()) {
		for k := range info.Messages {
			if m := info.Message(k); info.Messages == 1 || !i.carries(m) {
				i.carry(ctx, m)
			}
		}
	}
	ended = next(ctx)
	return ended
}

// errUnreturned is the error of a call that panicked, or called runtime.Goexit.
var errUnreturned = errors.New("fanoutotel: the call did not return")

// create makes a span for each message of a batch that carries no context, and returns
// links to the contexts that the messages carry.
func (i *Instrumentation) create(ctx context.Context, info fanout.Info, made *prepared) []trace.Link {
	links := make([]trace.Link, 0, info.Messages)
	for k := range info.Messages {
		m := info.Message(k)
		if i.carries(m) {
			links = i.link(ctx, links, m)
			continue
		}
		with, span := i.tracer.Start(ctx, made.span, made.start...)
		if span.IsRecording() {
			as := describeMessage(m.ID(), 0, 0)
			if i.set.orderingKey {
				as = withOrderingKey(as, m)
			}
			span.SetAttributes(as...)
		}
		i.carry(with, m)
		if c := span.SpanContext(); c.IsValid() {
			links = append(links, trace.Link{SpanContext: c})
		}
		span.End()
	}
	return links
}

// describe tells which message a span is about, or how many. There is room for more
// attributes.
func (i *Instrumentation) describe(info *fanout.Info, more int) []attribute.KeyValue {
	n := info.Len()
	switch {
	case info.Operation == fanout.OpRedrive || n > 1 || n == 1 && info.Operation == fanout.OpReceive && info.Messages > 1:
		return append(make([]attribute.KeyValue, 0, 1+more), semconv.MessagingBatchMessageCount(n))
	case n == 0:
		return nil
	}
	id, attempt := info.MessageID, info.Attempt
	if info.Operation == fanout.OpReceive { // before it they were not known
		m := info.Message(0)
		id, attempt = m.ID(), m.Attempt()
	}
	as := describeMessage(id, attempt, more)
	if i.set.orderingKey {
		as = withOrderingKey(as, info.Message(0))
	}
	return as
}

func describeMessage(id string, attempt, more int) []attribute.KeyValue {
	if attempt == 0 { // around a publish
		return append(make([]attribute.KeyValue, 0, 1+more), semconv.MessagingMessageID(id))
	}
	return append(make([]attribute.KeyValue, 0, 2+more), semconv.MessagingMessageID(id), attemptKey.Int(attempt))
}

func withOrderingKey(as []attribute.KeyValue, m fanout.MessageInfo) []attribute.KeyValue {
	if key := m.OrderingKey(); key != "" {
		as = append(as, orderingKeyKey.String(key))
	}
	return as
}

// linked are the options of a span with links.
func (p *prepared) linked(links []trace.Link) []trace.SpanStartOption {
	if links == nil {
		return p.start
	}
	return append(slices.Clip(p.start), trace.WithLinks(links...))
}

// aroundHandler makes the span process of an attempt, or of a batch. It is returned as a
// function because a method value would copy the Info once more.
func (i *Instrumentation) aroundHandler() fanout.Interceptor {
	near := nearby{i: i}
	return func(ctx context.Context, info fanout.Info, next func(context.Context) error) (err error) {
		began := i.now()
		made := near.spot(info.Topic, info.Queue).process
		run := ctx
		var links []trace.Link
		var from trace.SpanContext // what a single message carries
		child := false
		if info.Messages != 1 {
			links = i.links(ctx, info)
		} else if with := i.carried(ctx, info.Message(0), &from); with != nil || from.IsValid() {
			child = from.IsValid() && i.age(info.PublishedAt, began) < i.set.parentAge && !isWithin(ctx)
			if from.IsValid() && !child {
				links = []trace.Link{{SpanContext: from}}
			}
			switch {
			case child && with == nil:
				ctx = trace.ContextWithRemoteSpanContext(ctx, from)
			case child:
				ctx = with
			case with != nil: // what the message carries beside the trace
				ctx = trace.ContextWithSpan(with, trace.SpanFromContext(ctx))
			}
		}
		ctx, span := i.tracer.Start(ctx, made.span, made.linked(links)...)
		recording := span.IsRecording()
		if recording && child {
			span.AddLink(trace.Link{SpanContext: from}) // a sampler has seen it as the parent
		}
		returned := false
		defer func() {
			p := recover() // to know it from runtime.Goexit
			cause := fanout.Acked
			switch {
			case p != nil:
				cause = fanout.Panicked
			case !returned:
				cause = fanout.Exited
			case run.Err() != nil && errors.Is(context.Cause(run), fanout.ErrStale): // nothing that it returns counts
				cause = fanout.TimedOut
			case err != nil:
				cause = fanout.CauseOf(err)
			}
			t := causeType(cause)
			if recording {
				as := append(i.describe(&info, 1), causeKey.String(cause.String()))
				if t != "" {
					as = append(as, semconv.ErrorTypeKey.String(t))
					text := cause.String()
					if err != nil {
						text = err.Error()
					}
					span.SetStatus(codes.Error, text)
				}
				span.SetAttributes(as...)
			}
			span.End()
			at := made
			if t != "" {
				at = i.at(place{"process", "process", info.Topic, info.Queue, t})
			}
			i.process.Inst().Record(ctx, i.secondsSince(began), at.record...)
			i.consumed.Inst().Add(ctx, int64(info.Messages), made.add...)
			if p != nil {
				panic(p)
			}
		}()
		err = next(ctx)
		returned = true
		return err
	}
}

// links are links to the contexts that the messages carry.
func (i *Instrumentation) links(ctx context.Context, info fanout.Info) (links []trace.Link) {
	for k := range info.Len() {
		links = i.link(ctx, links, info.Message(k))
	}
	return links
}

// aroundQueue makes the spans receive, settle and redrive.
func (i *Instrumentation) aroundQueue(ctx context.Context, info fanout.Info, next func(context.Context) error) error {
	switch info.Operation {
	case fanout.OpReceive:
		return i.aroundReceive(ctx, info, next)
	case fanout.OpRedrive:
		return i.aroundCall(ctx, info, next, place{name: "redrive", topic: info.Topic, queue: info.Queue})
	case fanout.OpExtend:
		return i.aroundCall(ctx, info, next, place{name: "extend", kind: "settle", topic: info.Topic, queue: info.Queue})
	case fanout.OpSettle:
		return i.aroundCall(ctx, info, next, place{name: settleName(info.Cause), kind: "settle", topic: info.Topic, queue: info.Queue})
	}
	return next(ctx)
}

// settleName is the name of a settlement.
func settleName(c fanout.Cause) string {
	switch c {
	case fanout.Acked:
		return "ack"
	case fanout.Released:
		return "release"
	case fanout.Snoozed:
		return "snooze"
	}
	return "nack"
}

// aroundReceive makes the span when something was received, or when that failed: what
// came is its links, and a look at an empty queue is none.
func (i *Instrumentation) aroundReceive(ctx context.Context, info fanout.Info, next func(context.Context) error) error {
	began := time.Now()
	err := next(ctx)
	if err == nil && info.Len() == 0 || ctx == nil {
		return err
	}
	made := i.spot(info.Topic, info.Queue).receive
	options := append(slices.Clip(made.linked(i.links(ctx, info))), trace.WithTimestamp(began))
	with, span := i.tracer.Start(ctx, made.span, options...)
	if span.IsRecording() {
		span.SetAttributes(i.describe(&info, 0)...)
	}
	t, at := errorType(err), made
	if t != "" {
		at = i.at(place{"receive", "receive", info.Topic, info.Queue, t})
	}
	i.ended(with, span, at, i.instantOf(began), t, err)
	if n := info.Len(); n > 0 {
		i.consumed.Inst().Add(with, int64(n), made.add...)
	}
	return err
}

func (i *Instrumentation) aroundCall(ctx context.Context, info fanout.Info, next func(context.Context) error, p place) error {
	if ctx == nil {
		return next(ctx)
	}
	began := i.now()
	made := i.at(p)
	with, span := i.tracer.Start(ctx, made.span, made.linked(i.links(ctx, info))...)
	ended := errUnreturned
	defer func() {
		if span.IsRecording() {
			as := i.describe(&info, 1)
			if info.Cause != 0 {
				as = append(as, causeKey.String(info.Cause.String()))
			}
			span.SetAttributes(as...)
		}
		if p.errorType = errorType(ended); p.errorType != "" {
			made = i.at(p)
		}
		i.ended(with, span, made, began, p.errorType, ended)
	}()
	ended = next(with)
	return ended
}

// ended ends a span, and measures what it is about, if the conventions know that.
func (i *Instrumentation) ended(ctx context.Context, span trace.Span, made *prepared, began instant, errorType string, err error) {
	if err != nil && span.IsRecording() {
		span.SetAttributes(semconv.ErrorTypeKey.String(errorType))
		span.SetStatus(codes.Error, err.Error())
	}
	span.End()
	if made.measured {
		i.operation.Inst().Record(ctx, i.secondsSince(began), made.record...)
	}
}
