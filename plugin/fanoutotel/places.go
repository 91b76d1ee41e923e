package fanoutotel

import (
	"maps"
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

	measured bool // the conventions know its duration
}

// A spot is what is prepared for a topic, or for a queue of it, as long as nothing fails
// there.
type spot struct {
	spotKey
	publish, producing, create *prepared // of a topic; producing is publish as producer
	process, receive           *prepared // of a queue
}

type spotKey struct{ topic, queue string }

// places are what has been prepared. When there are too many they are forgotten: the
// names of topics come and go.
//
// Invariants: a map that known has is not changed, and all has what it has. A look that
// known does not answer is counted in missed; known is made anew when there were as many as
// there are spots, so that it costs little to add one.
type places struct {
	known atomic.Pointer[map[spotKey]*spot]

	mu     sync.Mutex // guards the fields below; a leaf
	all    map[spotKey]*spot
	missed int
	failed map[place]*prepared // and what else is rare
}

const mostPlaces = 10_000

// spot returns what is prepared for a topic (without a queue), or a queue.
func (i *Instrumentation) spot(topic, queue string) *spot {
	k := spotKey{topic, queue}
	if known := i.places.known.Load(); known != nil {
		if s := (*known)[k]; s != nil {
			return s
		}
	}
	if s := i.places.look(k, nil); s != nil {
		return s
	}
	return i.places.look(k, i.newSpot(k))
}

// A nearby is what one interceptor has to do with: nearly always one topic, and few queues.
// Its spots are found without a hash.
//
// Invariant: a slice that spots has is not changed. Of two goroutines that add to it at the
// same time one may add in vain, or both the same.
type nearby struct {
	i     *Instrumentation
	spots atomic.Pointer[[]*spot] // mostNearby at most
}

const mostNearby = 8

// spot is that of i.
func (near *nearby) spot(topic, queue string) *spot {
	var known []*spot
	if p := near.spots.Load(); p != nil {
		known = *p
	}
	for _, s := range known {
		if s.queue == queue && s.topic == topic {
			return s
		}
	}
	s := near.i.spot(topic, queue)
	if len(known) < mostNearby {
		more := append(slices.Clip(known), s)
		near.spots.Store(&more)
	}
	return s
}

// look returns the spot that there is, or adds the one given.
func (p *places) look(k spotKey, made *spot) *spot {
	p.mu.Lock()
	defer p.mu.Unlock()
	s := p.all[k]
	switch {
	case s == nil && made == nil:
		return nil
	case s == nil:
		if p.all == nil || len(p.all) >= mostPlaces {
			p.all = make(map[spotKey]*spot)
			p.known.Store(nil)
		}
		s = made
		p.all[k] = s
	}
	if p.missed++; p.missed >= len(p.all) {
		known := maps.Clone(p.all)
		p.known.Store(&known)
		p.missed = 0
	}
	return s
}

func (i *Instrumentation) newSpot(k spotKey) *spot {
	if k.queue != "" {
		return &spot{
			spotKey: k,
			process: i.prepare(place{name: "process", kind: "process", topic: k.topic, queue: k.queue}),
			receive: i.prepare(place{name: "receive", kind: "receive", topic: k.topic, queue: k.queue}),
		}
	}
	s := &spot{
		spotKey: k,
		publish: i.prepare(place{name: "publish", kind: "send", topic: k.topic}),
		create:  i.prepare(place{name: "create", kind: "create", topic: k.topic}),
	}
	producing := *s.publish
	producing.start = slices.Clone(s.publish.start)
	producing.start[0] = trace.WithSpanKind(trace.SpanKindProducer)
	s.producing = &producing
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
	m := &prepared{span: p.name + " " + p.topic, measured: p.kind != "", start: []trace.SpanStartOption{trace.WithSpanKind(kind), trace.WithAttributes(as...)}}
	if p.errorType != "" {
		as = append(as, semconv.ErrorTypeKey.String(p.errorType))
	}
	set := metric.WithAttributeSet(attribute.NewSet(as...))
	m.record, m.add = []metric.RecordOption{set}, []metric.AddOption{set}
	return m
}
