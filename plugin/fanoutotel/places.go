package fanoutotel

import (
	"slices"
	"sync"
	"sync/atomic"

	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/metric"
	semconv "go.opentelemetry.io/otel/semconv/v1.43.0"
	"go.opentelemetry.io/otel/trace"
)

// A place is where something is done, and how it ended. All that is recorded of it is
// of low cardinality, and made once.
type place struct {
	name, kind   string // of the operation; kind is "" for one that the conventions don't know
	topic, queue string
	errorType    string
}

// A prepared is what spans and measurements of a place have in common.
type prepared struct {
	span   string
	start  []trace.SpanStartOption
	record []metric.RecordOption
	add    []metric.AddOption
}

// A spot is what is prepared for a topic, or for a queue of it, as long as nothing fails
// there.
type spot struct {
	publish, producing, create *prepared // of a topic; producing is publish as producer
	process, receive           *prepared // of a queue
}

type spotKey struct{ topic, queue string }

// places are what has been prepared. When there are too many they are forgotten: the
// names of topics come and go.
//
// Invariant: a map that spots has is not changed.
type places struct {
	spots atomic.Pointer[map[spotKey]*spot]

	mu     sync.Mutex          // guards failed and changes of spots; a leaf
	failed map[place]*prepared // and what else is rare
}

const mostPlaces = 10_000

// spot returns what is prepared for a topic (without a queue), or a queue.
func (i *Instrumentation) spot(topic, queue string) *spot {
	k := spotKey{topic, queue}
	if all := i.places.spots.Load(); all != nil {
		if s := (*all)[k]; s != nil {
			return s
		}
	}
	s := new(spot)
	if queue == "" {
		s.publish = i.prepare(place{name: "publish", kind: "send", topic: topic})
		s.create = i.prepare(place{name: "create", kind: "create", topic: topic})
		producing := *s.publish
		producing.start = append(slices.Clip(s.publish.start), trace.WithSpanKind(trace.SpanKindProducer))
		s.producing = &producing
	} else {
		s.process = i.prepare(place{name: "process", kind: "process", topic: topic, queue: queue})
		s.receive = i.prepare(place{name: "receive", kind: "receive", topic: topic, queue: queue})
	}
	i.places.mu.Lock()
	defer i.places.mu.Unlock()
	next := map[spotKey]*spot{k: s}
	if all := i.places.spots.Load(); all != nil && len(*all) < mostPlaces {
		for k, s := range *all {
			next[k] = s
		}
	}
	i.places.spots.Store(&next)
	return s
}

// at returns what is prepared for a place that has no spot: of a failure, of a settlement,
// of a redrive.
func (i *Instrumentation) at(p place) *prepared {
	i.places.mu.Lock()
	made := i.places.failed[p]
	i.places.mu.Unlock()
	if made != nil {
		return made
	}
	made = i.prepare(p)
	i.places.mu.Lock()
	defer i.places.mu.Unlock()
	if i.places.failed == nil || len(i.places.failed) >= mostPlaces {
		i.places.failed = make(map[place]*prepared)
	}
	i.places.failed[p] = made
	return made
}

// failedAt returns what is prepared for p, which is made if nothing failed there.
func (i *Instrumentation) failedAt(made *prepared, p place) *prepared {
	if p.errorType == "" {
		return made
	}
	return i.at(p)
}

func (i *Instrumentation) prepare(p place) *prepared {
	system := i.set.publishing
	if p.queue != "" {
		system = i.set.consuming
	}
	as := []attribute.KeyValue{
		semconv.MessagingSystemKey.String(system), semconv.MessagingOperationName(p.name), semconv.MessagingDestinationName(p.topic),
	}
	kind := trace.SpanKindClient
	switch p.kind {
	case "":
		kind = trace.SpanKindInternal
	case "create":
		kind = trace.SpanKindProducer
	case "process":
		kind = trace.SpanKindConsumer
	}
	if p.kind != "" {
		as = append(as, semconv.MessagingOperationTypeKey.String(p.kind))
	}
	if p.queue != "" {
		as = append(as, semconv.MessagingDestinationSubscriptionName(p.queue))
	}
	m := &prepared{span: p.name + " " + p.topic, start: []trace.SpanStartOption{trace.WithSpanKind(kind), trace.WithAttributes(as...)}}
	if p.errorType != "" {
		as = append(as, semconv.ErrorTypeKey.String(p.errorType))
	}
	set := metric.WithAttributeSet(attribute.NewSet(as...))
	m.record, m.add = []metric.RecordOption{set}, []metric.AddOption{set}
	return m
}
