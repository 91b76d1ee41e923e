package fanoutotel

import (
	"context"
	"testing"
	"testing/synctest"
	"time"

	"go.opentelemetry.io/otel/propagation"
	"go.opentelemetry.io/otel/trace"

	"github.com/gofanout/fanout"
)

// carrying calls f with a message that has the attributes.
func carrying(t *testing.T, attributes map[string]string, f func(m fanout.MessageInfo)) {
	t.Helper()
	top, err := fanout.NewTopic[int]("payments", fanout.WithPublishInterceptor(func(_ context.Context, info fanout.Info, _ func(context.Context) error) error {
		f(info.Message(0))
		return nil
	}))
	if err != nil {
		t.Fatal(err)
	}
	if err := top.PublishMessages(t.Context(), fanout.Message[int]{Attributes: attributes}); err != nil {
		t.Fatal(err)
	}
	if err := top.Close(); err != nil {
		t.Fatal(err)
	}
}

// What is parsed here is what the propagator extracts, and what is not is left to it.
func TestParseExtractsWhatThePropagatorDoes(t *testing.T) {
	const usual = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"
	parents := []string{
		"", usual, usual[:53] + "00", usual[:53] + "02", usual[:53] + "03", usual[:53] + "04", usual[:53] + "ff", usual + "-", usual + "-more", usual[:54],
		"01" + usual[2:], "01" + usual[2:] + "-more", "ff" + usual[2:], "00-00000000000000000000000000000000" + usual[35:], usual[:36] + "0000000000000000-01", "nonsense",
	}
	for k := range usual { // any one character wrong
		for _, c := range "0fgA- \x00\xff" {
			parents = append(parents, usual[:k]+string(c)+usual[k+1:])
			if c < 0x80 {
				continue
			}
			parents = append(parents, usual[:k]+string(c)+usual[min(k+2, len(usual)):]) // as long as the usual one
		}
	}
	i, err := New()
	if err != nil {
		t.Fatal(err)
	}
	parsed := 0
	for _, parent := range parents {
		for _, state := range []string{"", "vendor=value,other=1", "=bad="} {
			attributes := map[string]string{}
			if parent != "" {
				attributes["traceparent"] = parent
			}
			if state != "" {
				attributes["tracestate"] = state
			}
			carrying(t, attributes, func(m fanout.MessageInfo) {
				want := trace.SpanContextFromContext(propagation.TraceContext{}.Extract(t.Context(), &carrier{m}))
				var c, got trace.SpanContext
				if parse(m, &c) {
					parsed++
					if !c.Equal(want) {
						t.Errorf("%q, %q is parsed as %v: want %v", parent, state, c, want)
					}
				}
				if i.carried(t.Context(), m, &got); !got.Equal(want) {
					t.Errorf("%q, %q carries %v: want %v", parent, state, got, want)
				}
			})
		}
	}
	carrying(t, map[string]string{"traceparent": usual}, func(m fanout.MessageInfo) {
		var c trace.SpanContext
		if !parse(m, &c) || !c.IsValid() {
			t.Error("the usual context is left to the propagator")
		}
		if each := testing.AllocsPerRun(100, func() { i.carried(t.Context(), m, &c) }); each != 0 {
			t.Errorf("%v allocations to parse it", each)
		}
	})
	if parsed < 100 {
		t.Errorf("%d were parsed", parsed)
	}
}

// A duration is exact in a bubble too, also for an Instrumentation that was made outside.
func TestInstants(t *testing.T) {
	i, err := New()
	if err != nil {
		t.Fatal(err)
	}
	synctest.Test(t, func(t *testing.T) {
		began, published := i.now(), time.Now()
		time.Sleep(time.Hour)
		if got := i.secondsSince(began); got != 3600 {
			t.Errorf("an hour took %v seconds", got)
		}
		if got := i.secondsSince(i.instantOf(published)); got != 3600 {
			t.Errorf("an hour took %v seconds", got)
		}
		if got := i.age(published, i.now()); got != time.Hour {
			t.Errorf("what was published an hour ago is %v old", got)
		}
	})
}

// The monotonic clock stands still while the machine sleeps. A message of an engine ages.
func TestAgeOfAnEnginesMessageIsByTheWallClock(t *testing.T) {
	i, err := New()
	if err != nil {
		t.Fatal(err)
	}
	awake := i.now() - instant(time.Hour)
	if got := i.age(time.Now().Round(0).Add(-time.Hour), awake); got < time.Hour {
		t.Errorf("what was published an hour ago is %v old", got)
	}
}
