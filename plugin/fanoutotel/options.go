package fanoutotel

import (
	"fmt"
	"time"

	"go.opentelemetry.io/otel/metric"
	"go.opentelemetry.io/otel/propagation"
	"go.opentelemetry.io/otel/trace"

	"github.com/gofanout/fanout"
)

// An Option configures [New].
type Option func(*settings) error

type settings struct {
	tracers               trace.TracerProvider
	meters                metric.MeterProvider
	propagator            propagation.TextMapPropagator
	publishing, consuming string
	parentAge             time.Duration
	noCreate, orderingKey bool
}

func bad(option string, value any, want string) error {
	return fmt.Errorf("%w: fanoutotel.%s(%v): want %s", fanout.ErrInvalidOption, option, value, want)
}

// WithTracerProvider sets where spans go. The default is the global one at the time of
// [New].
func WithTracerProvider(p trace.TracerProvider) Option {
	return func(s *settings) error {
		if p == nil {
			return bad("WithTracerProvider", nil, "a provider")
		}
		s.tracers = p
		return nil
	}
}

// WithMeterProvider sets where measurements go. The default is the global one at the
// time of [New].
func WithMeterProvider(p metric.MeterProvider) Option {
	return func(s *settings) error {
		if p == nil {
			return bad("WithMeterProvider", nil, "a provider")
		}
		s.meters = p
		return nil
	}
}

// WithPropagator sets how a trace travels in a message's attributes. The default is W3C
// Trace Context, without baggage, whatever the global propagator is: what an
// application keeps in baggage is not meant for every queue. To carry that too give it
// otel.GetTextMapPropagator().
func WithPropagator(p propagation.TextMapPropagator) Option {
	return func(s *settings) error {
		if p == nil {
			return bad("WithPropagator", nil, "a propagator")
		}
		s.propagator = p
		return nil
	}
}

// WithSystem sets messaging.system for publishes and for queues: "aws.sns" and
// "aws_sqs" for topics on SNS and SQS, "nats" twice for those on JetStream. The default is
// "fanout" for both.
func WithSystem(publishing, consuming string) Option {
	return func(s *settings) error {
		if publishing == "" || consuming == "" {
			return bad("WithSystem", fmt.Sprintf("%q, %q", publishing, consuming), "names that are not empty")
		}
		s.publishing, s.consuming = publishing, consuming
		return nil
	}
}

// WithMaxParentAge sets how old a message may be for its handler's span to be a child
// of the publisher's. A span of an older message, one that was delayed, retried for
// hours or redriven, begins a trace of its own with a link to the publisher's: a trace
// that lasts for hours is more than tracing systems show. The default is 5 minutes.
func WithMaxParentAge(d time.Duration) Option {
	return func(s *settings) error {
		if d <= 0 {
			return bad("WithMaxParentAge", d, "a positive duration; WithLinksOnly makes no children")
		}
		s.parentAge = d
		return nil
	}
}

// WithLinksOnly has handlers' spans begin traces of their own, with links to the
// publishers'. By default the span of a single message is a child, and has the link
// too; that of a batch has links.
func WithLinksOnly() Option {
	return func(s *settings) error {
		s.parentAge = 0
		return nil
	}
}

// WithoutCreateSpans leaves out the span that each message of a batch has at its
// publication: all messages carry the context of the batch's span then.
func WithoutCreateSpans() Option {
	return func(s *settings) error {
		s.noCreate = true
		return nil
	}
}

// WithOrderingKey has spans of single messages tell the ordering key, as
// messaging.fanout.ordering_key. It may be personal data, so by default they don't.
func WithOrderingKey() Option {
	return func(s *settings) error {
		s.orderingKey = true
		return nil
	}
}
