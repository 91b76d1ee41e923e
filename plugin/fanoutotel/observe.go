package fanoutotel

import (
	"context"
	"fmt"
	"time"

	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/metric"
	semconv "go.opentelemetry.io/otel/semconv/v1.43.0"

	"github.com/gofanout/fanout"
)

// A Source is a topic to observe, whatever its messages are.
type Source struct {
	name   string
	stats  func() fanout.TopicStats
	queues func(ctx context.Context, f func(fanout.Stats))
}

// Of makes a topic a source for [Instrumentation.Observe].
func Of[T any](t *fanout.Topic[T]) Source {
	if t == nil {
		return Source{}
	}
	return Source{t.Name(), t.Stats, func(ctx context.Context, f func(fanout.Stats)) {
		for _, q := range t.Queues() {
			s := q.Stats()
			if s.Ready < 0 || s.Dead < 0 || s.OldestAge < 0 { // the engine knows
				if d, err := q.Depth(ctx); err == nil {
					s.Ready, s.Delayed, s.InFlight, s.Dead, s.OldestAge = d.Ready, d.Delayed, d.InFlight, d.Dead, d.OldestAge
				}
			}
			f(s)
		}
	}}
}

// depthTime bounds how long an engine is asked for what a queue holds.
const depthTime = 5 * time.Second

// Observe reports what the queues of topics hold, and what they do, whenever metrics are
// collected: no message costs anything for it. On an engine it asks the engine for the depth
// of each queue, for five seconds at most. A number that is not known is not reported. stop
// ends it; it may be called again. It returns [fanout.ErrInvalidOption] for a topic that is nil, or
// what the MeterProvider returns.
func (i *Instrumentation) Observe(topics ...Source) (stop func() error, err error) {
	for k, t := range topics {
		if t.stats == nil {
			return nil, fmt.Errorf("%w: fanoutotel.Observe: topic %d is nil", fanout.ErrInvalidOption, k)
		}
	}
	o := &observer{topics: topics}
	var all []metric.Observable
	for _, g := range gauges {
		in, err := i.meter.Int64ObservableUpDownCounter(g.name, metric.WithUnit(g.unit), metric.WithDescription(g.text))
		if err != nil {
			return nil, err
		}
		o.gauges = append(o.gauges, in)
		all = append(all, in)
	}
	o.age, err = i.meter.Float64ObservableGauge("fanout.queue.oldest_age", metric.WithUnit("s"),
		metric.WithDescription("How long ago the oldest of the ready messages was published."))
	if err != nil {
		return nil, err
	}
	o.waiting, err = i.meter.Int64ObservableUpDownCounter("fanout.topic.publishers_waiting", metric.WithUnit("{call}"),
		metric.WithDescription("Number of publishes and redrives that wait for room."))
	if err != nil {
		return nil, err
	}
	r, err := i.meter.RegisterCallback(o.observe, append(all, o.age, o.waiting)...)
	if err != nil {
		return nil, err
	}
	return r.Unregister, nil
}

// gauges are what is observed of a queue. A negative value is not known.
var gauges = []struct {
	name, unit, text string
	of               func(s *fanout.Stats) int
}{
	{"fanout.queue.ready", "{message}", "Number of messages that could be delivered now.", func(s *fanout.Stats) int { return s.Ready }},
	{"fanout.queue.in_flight", "{message}", "Number of messages that are delivered and neither settled nor timed out.", func(s *fanout.Stats) int { return s.InFlight }},
	{"fanout.queue.delayed", "{message}", "Number of messages that are delayed or snoozed.", func(s *fanout.Stats) int { return s.Delayed }},
	{"fanout.queue.retrying", "{message}", "Number of messages that failed and wait for their next attempt.", func(s *fanout.Stats) int { return s.Retrying }},
	{"fanout.queue.blocked", "{message}", "Number of messages that wait behind another one of their ordering key.", func(s *fanout.Stats) int { return s.Blocked }},
	{"fanout.queue.parked", "{message}", "Number of dead messages that wait for room in the dead-letter queue.", func(s *fanout.Stats) int { return s.Parked }},
	{"fanout.queue.dead", "{message}", "Number of messages in the dead-letter queue.", func(s *fanout.Stats) int { return s.Dead }},
	{"fanout.queue.unsettled", "{message}", "Number of messages that count against the capacity.", func(s *fanout.Stats) int {
		if s.Retrying == fanout.Unknown { // on an engine, which has them among the others
			return fanout.Depth{Ready: s.Ready, Delayed: s.Delayed, InFlight: s.InFlight}.Unsettled()
		}
		return s.Unsettled()
	}},
	{"fanout.queue.capacity", "{message}", "Number of messages that the queue may hold; absent if that is not limited.", func(s *fanout.Stats) int {
		if s.Capacity == fanout.Unlimited {
			return fanout.Unknown
		}
		return s.Capacity
	}},
	{"fanout.queue.workers", "{worker}", "Number of running workers.", func(s *fanout.Stats) int { return s.Workers }},
	{"fanout.queue.stuck", "{worker}", "Number of handlers that run on past their visibility timeout.", func(s *fanout.Stats) int { return s.Stuck }},
}

type observer struct {
	topics  []Source
	gauges  []metric.Int64ObservableUpDownCounter
	age     metric.Float64ObservableGauge
	waiting metric.Int64ObservableUpDownCounter
}

func (o *observer) observe(ctx context.Context, to metric.Observer) error {
	ctx, cancel := context.WithTimeout(ctx, depthTime)
	defer cancel()
	for _, t := range o.topics {
		topic := semconv.MessagingDestinationName(t.name)
		if n := t.stats().Waiting; n >= 0 {
			to.ObserveInt64(o.waiting, int64(n), metric.WithAttributes(topic))
		}
		t.queues(ctx, func(s fanout.Stats) {
			at := metric.WithAttributeSet(attribute.NewSet(topic, semconv.MessagingDestinationSubscriptionName(s.Queue)))
			for k, g := range gauges {
				if n := g.of(&s); n >= 0 {
					to.ObserveInt64(o.gauges[k], int64(n), at)
				}
			}
			if s.OldestAge >= 0 {
				to.ObserveFloat64(o.age, s.OldestAge.Seconds(), at)
			}
		})
	}
	return nil
}
