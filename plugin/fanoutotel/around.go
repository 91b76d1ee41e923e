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
func (i *Instrumentation) aroundPublish(ctx context.Context, info fanout.Info, next func(context.Context) error) error {
	if ctx == nil {
		return next(ctx) // which refuses it
	}
	began := time.Now()
	at := i.spot(info.Topic, "")
	made := at.publish
	var links []trace.Link
	travels := false // the context of the span send
	if info.Messages == 1 || i.set.noCreate {
		for k := range info.Messages {
			if m := info.Message(k); !i.carries(m) {
				travels = true
			} else if _, c := i.carried(ctx, true, m); c.IsValid() {
				links = append(links, trace.Link{SpanContext: c})
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
		p := place{name: "publish", kind: "send", topic: info.Topic, errorType: errorType(ended)}
		made := i.failedAt(made, p)
		i.ended(ctx, span, p, made, began, ended)
		i.sent.Inst().Add(ctx, int64(info.Messages), made.add...)
	}()
	if span.IsRecording() {
		span.SetAttributes(i.describe(info)...)
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
func (i *Instrumentation) create(ctx context.Context, info fanout.Info, made *prepared) []trace.Link {
	links := make([]trace.Link, 0, info.Messages)
	for k := range info.Messages {
		m := info.Message(k)
		if i.carries(m) {
			if _, c := i.carried(ctx, true, m); c.IsValid() {
				links = append(links, trace.Link{SpanContext: c})
			}
			continue
		}
		with, span := i.tracer.Start(ctx, made.span, made.start...)
		if span.IsRecording() {
			span.SetAttributes(i.describeMessage(m)...)
		}
		i.carry(with, m)
		if c := span.SpanContext(); c.IsValid() {
			links = append(links, trace.Link{SpanContext: c})
		}
		span.End()
	}
	return links
}

// describe tells which message a span is about, or how many. There is room for three more
// attributes.
func (i *Instrumentation) describe(info fanout.Info) []attribute.KeyValue {
	switch n := info.Len(); {
	case info.Operation == fanout.OpRedrive || n > 1 || n == 1 && info.Operation == fanout.OpReceive && info.Messages > 1:
		return append(make([]attribute.KeyValue, 0, 4), semconv.MessagingBatchMessageCount(n))
	case n == 1:
		return i.describeMessage(info.Message(0))
	}
	return nil
}

func (i *Instrumentation) describeMessage(m fanout.MessageInfo) []attribute.KeyValue {
	as := append(make([]attribute.KeyValue, 0, 6), semconv.MessagingMessageID(m.ID()))
	if n := m.Attempt(); n > 0 {
		as = append(as, attemptKey.Int(n))
	}
	if key := m.OrderingKey(); key != "" && i.set.orderingKey {
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

// aroundHandler makes the span process of an attempt, or of a batch.
func (i *Instrumentation) aroundHandler(ctx context.Context, info fanout.Info, next func(context.Context) error) (err error) {
	began := time.Now()
	made := i.spot(info.Topic, info.Queue).process
	run := ctx
	var links []trace.Link
	var parent trace.SpanContext // of a single message
	if info.Messages == 1 {
		m, within := info.Message(0), isWithin(ctx)
		switch with, c := i.carried(ctx, within, m); {
		case !c.IsValid():
		case !within && began.Sub(m.PublishedAt()) < i.set.parentAge:
			ctx, parent = with, c
		default:
			links = []trace.Link{{SpanContext: c}}
		}
	} else {
		links = i.links(ctx, info)
	}
	ctx, span := i.tracer.Start(ctx, made.span, made.linked(links)...)
	recording := span.IsRecording()
	if recording && parent.IsValid() {
		span.AddLink(trace.Link{SpanContext: parent}) // a sampler has seen it as the parent
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
			as := append(i.describe(info), causeKey.String(cause.String()))
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
		at := i.failedAt(made, place{"process", "process", info.Topic, info.Queue, t})
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
	within := isWithin(ctx)
	for k := range info.Len() {
		if _, c := i.carried(ctx, within, info.Message(k)); c.IsValid() {
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
	p := place{"receive", "receive", info.Topic, info.Queue, errorType(err)}
	made := i.spot(info.Topic, info.Queue).receive
	options := append(slices.Clip(made.linked(i.links(ctx, info))), trace.WithTimestamp(began))
	with, span := i.tracer.Start(ctx, made.span, options...)
	if span.IsRecording() {
		span.SetAttributes(i.describe(info)...)
	}
	i.ended(with, span, p, i.failedAt(made, p), began, err)
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
	with, span := i.tracer.Start(ctx, made.span, made.linked(i.links(ctx, info))...)
	ended := errUnreturned
	defer func() {
		if span.IsRecording() {
			as := i.describe(info)
			if info.Cause != 0 {
				as = append(as, causeKey.String(info.Cause.String()))
			}
			span.SetAttributes(as...)
		}
		p.errorType = errorType(ended)
		i.ended(with, span, p, i.failedAt(made, p), began, ended)
	}()
	ended = next(with)
	return ended
}

// ended ends a span, and measures what it is about, if the conventions know that.
func (i *Instrumentation) ended(ctx context.Context, span trace.Span, p place, made *prepared, began time.Time, err error) {
	if err != nil && span.IsRecording() {
		span.SetAttributes(semconv.ErrorTypeKey.String(p.errorType))
		span.SetStatus(codes.Error, err.Error())
	}
	span.End()
	if p.kind != "" {
		i.operation.Inst().Record(ctx, time.Since(began).Seconds(), made.record...)
	}
}
