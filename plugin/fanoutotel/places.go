package fanoutotel

import (
	"sync"

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

// places are what has been prepared. When there are too many they are forgotten: the
// names of topics come and go.
type places struct {
	mu  sync.RWMutex // guards all, and is a leaf
	all map[place]*prepared
}

const mostPlaces = 10_000

// at returns what is prepared for p.
func (i *Instrumentation) at(p place) *prepared {
	i.places.mu.RLock()
	made := i.places.all[p]
	i.places.mu.RUnlock()
	if made != nil {
		return made
	}
	made = i.prepare(p)
	i.places.mu.Lock()
	defer i.places.mu.Unlock()
	if i.places.all == nil || len(i.places.all) >= mostPlaces {
		i.places.all = make(map[place]*prepared)
	}
	i.places.all[p] = made
	return made
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
