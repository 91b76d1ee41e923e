package fanoutotel

import (
	"context"
	"errors"
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
func (i *Instrumentation) aroundPublish(ctx context.Context, info fanout.Info, next func(context.Context) error) error {
	if ctx == nil {
		return next(ctx) // which refuses it
	}
	p := place{name: "publish", kind: "send", topic: info.Topic}
	began := time.Now()
	var links []trace.Link
	travels := false // the context of the span send
	if info.Messages == 1 || i.set.noCreate {
		for k := range info.Messages {
			if _, c := i.carried(ctx, info.Message(k)); c.IsValid() {
				links = append(links, trace.Link{SpanContext: c})
			} else {
				travels = true
			}
		}
	} else {
		links = i.create(ctx, info)
	}
	made := i.at(p)
	options := made.start
	if travels || links != nil {
		options = append(options[:len(options):len(options)], trace.WithLinks(links...))
		if travels {
			options = append(options, trace.WithSpanKind(trace.SpanKindProducer))
		}
	}
	ctx, span := i.tracer.Start(ctx, made.span, options...)
	ended := errUnreturned
	defer func() {
		p.errorType = errorType(ended)
		i.ended(ctx, span, p, began, ended)
		i.sent.Inst().Add(ctx, int64(info.Messages), i.at(p).add...)
	}()
	if span.IsRecording() {
		i.describe(span, info)
	}
	if travels {
		for k := range info.Messages {
			if m := info.Message(k); !i.carries(m) {
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
func (i *Instrumentation) create(ctx context.Context, info fanout.Info) []trace.Link {
	links := make([]trace.Link, 0, info.Messages)
	made := i.at(place{name: "create", kind: "create", topic: info.Topic})
	for k := range info.Messages {
		m := info.Message(k)
		if i.carries(m) {
			if _, c := i.carried(ctx, m); c.IsValid() {
				links = append(links, trace.Link{SpanContext: c})
			}
			continue
		}
		with, span := i.tracer.Start(ctx, made.span, made.start...)
		if span.IsRecording() {
			i.describeMessage(span, m)
		}
		i.carry(with, m)
		if c := span.SpanContext(); c.IsValid() {
			links = append(links, trace.Link{SpanContext: c})
		}
		span.End()
	}
	return links
}

// describe tells which message a span is about, or how many.
func (i *Instrumentation) describe(span trace.Span, info fanout.Info) {
	switch n := info.Len(); {
	case info.Operation == fanout.OpRedrive || n > 1 || n == 1 && info.Operation == fanout.OpReceive && info.Messages > 1:
		span.SetAttributes(semconv.MessagingBatchMessageCount(n))
	case n == 1:
		i.describeMessage(span, info.Message(0))
	}
}

func (i *Instrumentation) describeMessage(span trace.Span, m fanout.MessageInfo) {
	span.SetAttributes(semconv.MessagingMessageID(m.ID()))
	if n := m.Attempt(); n > 0 {
		span.SetAttributes(attemptKey.Int(n))
	}
	if key := m.OrderingKey(); key != "" && i.set.orderingKey {
		span.SetAttributes(orderingKeyKey.String(key))
	}
}

// aroundHandler makes the span process of an attempt, or of a batch.
func (i *Instrumentation) aroundHandler(ctx context.Context, info fanout.Info, next func(context.Context) error) (err error) {
	began := time.Now()
	made := i.at(place{name: "process", kind: "process", topic: info.Topic, queue: info.Queue})
	run := ctx
	var links []trace.Link
	if info.Messages == 1 {
		m := info.Message(0)
		with, c := i.carried(ctx, m)
		if c.IsValid() {
			links = []trace.Link{{SpanContext: c}}
			if began.Sub(m.PublishedAt()) < i.set.parentAge && !trace.SpanContextFromContext(ctx).IsValid() {
				ctx = with
			}
		}
	} else {
		links = i.links(ctx, info)
	}
	options := made.start
	if links != nil {
		options = append(options[:len(options):len(options)], trace.WithLinks(links...))
	}
	ctx, span := i.tracer.Start(ctx, made.span, options...)
	returned := false
	defer func() {
		p := recover() // to know it from runtime.Goexit
		cause := fanout.CauseOf(err)
		switch {
		case p != nil:
			cause = fanout.Panicked
		case !returned:
			cause = fanout.Exited
		case errors.Is(context.Cause(run), fanout.ErrStale): // nothing that it returns counts
			cause = fanout.TimedOut
		}
		at := i.at(place{"process", "process", info.Topic, info.Queue, causeType(cause)})
		if span.IsRecording() {
			i.describe(span, info)
			span.SetAttributes(causeKey.String(cause.String()))
			if t := causeType(cause); t != "" {
				span.SetAttributes(semconv.ErrorTypeKey.String(t))
				text := cause.String()
				if err != nil {
					text = err.Error()
				}
				span.SetStatus(codes.Error, text)
			}
		}
		span.End()
		i.process.Inst().Record(ctx, time.Since(began).Seconds(), at.record...)
		i.consumed.Inst().Add(ctx, int64(info.Messages), made.add...)
		if p != nil {
			panic(p)
		}
	}()
	err = next(ctx)
	returned = true
	return err
}

// links are links to the contexts that the messages carry.
func (i *Instrumentation) links(ctx context.Context, info fanout.Info) (links []trace.Link) {
	for k := range info.Len() {
		if _, c := i.carried(ctx, info.Message(k)); c.IsValid() {
			links = append(links, trace.Link{SpanContext: c})
		}
	}
	return links
}

// aroundQueue makes the spans receive, settle and redrive.
func (i *Instrumentation) aroundQueue(ctx context.Context, info fanout.Info, next func(context.Context) error) error {
	began := time.Now()
	switch info.Operation {
	case fanout.OpReceive:
		return i.aroundReceive(ctx, info, next, began)
	case fanout.OpRedrive:
		return i.aroundCall(ctx, info, next, began, place{name: "redrive", topic: info.Topic, queue: info.Queue})
	case fanout.OpExtend:
		return i.aroundCall(ctx, info, next, began, place{name: "extend", kind: "settle", topic: info.Topic, queue: info.Queue})
	case fanout.OpSettle:
		return i.aroundCall(ctx, info, next, began, place{name: settleName(info.Cause), kind: "settle", topic: info.Topic, queue: info.Queue})
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
func (i *Instrumentation) aroundReceive(ctx context.Context, info fanout.Info, next func(context.Context) error, began time.Time) error {
	err := next(ctx)
	if err == nil && info.Len() == 0 || ctx == nil {
		return err
	}
	p := place{name: "receive", kind: "receive", topic: info.Topic, queue: info.Queue}
	made := i.at(p)
	options := append(made.start[:len(made.start):len(made.start)], trace.WithTimestamp(began))
	if links := i.links(ctx, info); links != nil {
		options = append(options, trace.WithLinks(links...))
	}
	with, span := i.tracer.Start(ctx, made.span, options...)
	if span.IsRecording() {
		i.describe(span, info)
	}
	p.errorType = errorType(err)
	i.ended(with, span, p, began, err)
	if n := info.Len(); n > 0 {
		i.consumed.Inst().Add(with, int64(n), made.add...)
	}
	return err
}

func (i *Instrumentation) aroundCall(ctx context.Context, info fanout.Info, next func(context.Context) error, began time.Time, p place) error {
	if ctx == nil {
		return next(ctx)
	}
	made := i.at(p)
	options := made.start
	if links := i.links(ctx, info); links != nil {
		options = append(options[:len(options):len(options)], trace.WithLinks(links...))
	}
	with, span := i.tracer.Start(ctx, made.span, options...)
	ended := errUnreturned
	defer func() {
		if span.IsRecording() {
			i.describe(span, info)
			if info.Cause != 0 {
				span.SetAttributes(causeKey.String(info.Cause.String()))
			}
		}
		p.errorType = errorType(ended)
		i.ended(with, span, p, began, ended)
	}()
	ended = next(with)
	return ended
}

// ended ends a span, and measures what it is about, if the conventions know that.
func (i *Instrumentation) ended(ctx context.Context, span trace.Span, p place, began time.Time, err error) {
	if err != nil && span.IsRecording() {
		span.SetAttributes(semconv.ErrorTypeKey.String(p.errorType))
		span.SetStatus(codes.Error, err.Error())
	}
	span.End()
	if p.kind != "" {
		i.operation.Inst().Record(ctx, time.Since(began).Seconds(), i.at(p).record...)
	}
}
