package fanoutaws

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/sns"
	"github.com/stretchr/testify/require"

	"github.com/gofanout/fanout"
	"github.com/gofanout/fanout/engine"
	"github.com/gofanout/fanout/fanouttest/fakeaws"
)

// tenAnd are ten attributes of a user's, a0 to a9, and others.
func tenAnd(others ...string) map[string]string {
	as := map[string]string{}
	for k := range 10 {
		as[fmt.Sprint("a", k)] = fmt.Sprint("value ", k)
	}
	for _, name := range others {
		as[name] = "of " + name
	}
	return as
}

// attributesIn returns the names of the attributes that SQS has of the only message of a
// queue.
func attributesIn(t *testing.T, a *fakeaws.AWS, queue string) []string {
	t.Helper()
	ms := a.Queue(queue).Messages()
	require.Len(t, ms, 1)
	return slices.Sorted(maps.Keys(ms[0].Attributes))
}

// TestATraceIsReadableBesideTenAttributes: as a published message, as a letter and
// redriven, and the handler gets all of them.
func TestATraceIsReadableBesideTenAttributes(t *testing.T) {
	inFake(t, func(t *testing.T) {
		for name, ordering := range map[string]fanout.TopicOption{"standard": fanout.TopicOptions(), "fifo": fanout.WithOrdering()} {
			t.Log(name)
			a := fakeaws.New(t)
			e, err := New(a.SNS(), a.SQS(), WithPollTime(time.Second))
			require.NoError(t, err)
			top := newFanoutTopic(t, e, ordering)
			q, err := top.OpenQueue(t.Context(), "q", fanout.WithMaxAttempts(1))
			require.NoError(t, err)
			suffix := ""
			if name == "fifo" {
				suffix = ".fifo"
			}
			want := tenAnd("traceparent", "tracestate")
			require.NoError(t, top.PublishMessages(t.Context(), fanout.Message[string]{ID: "m", Body: "a", Attributes: want}))
			outside := []string{"a0", "a1", "a2", "a3", "a4", "a5", "a6", "fanout", "traceparent", "tracestate"}
			require.Equal(t, outside, attributesIn(t, a, "p-q"+suffix))

			d, err := q.Receive(t.Context())
			require.NoError(t, err)
			require.Equal(t, want, d.Attributes())
			require.NoError(t, d.Settle(t.Context(), errors.New("busy")))
			require.Equal(t, outside, attributesIn(t, a, "p-q-dlq"+suffix))

			n, err := q.Redrive(t.Context())
			require.NoError(t, err)
			require.Equal(t, 1, n)
			require.Equal(t, outside, attributesIn(t, a, "p-q"+suffix))
			d, err = q.Receive(t.Context())
			require.NoError(t, err)
			require.Equal(t, want, d.Attributes())
			require.NoError(t, d.Ack(t.Context()))
		}
	})
}

// TestWhatFiltersCompareStaysAnAttribute: also in policies of queues that others have
// subscribed, and of those that compare the absence of an attribute.
func TestWhatFiltersCompareStaysAnAttribute(t *testing.T) {
	inFake(t, func(t *testing.T) {
		a := fakeOf(t)
		elsewhere, here := newFanoutTopic(t, newEngine(t)), newFanoutTopic(t, newEngine(t))
		filtered, err := elsewhere.OpenQueue(t.Context(), "filtered", fanout.WithFilterPolicy(`{"z1":["of z1"],"$or":[{"z2":["of z2"]},{"z3":[{"exists":false}]}]}`))
		require.NoError(t, err)
		all, err := elsewhere.OpenQueue(t.Context(), "all")
		require.NoError(t, err)
		want := tenAnd("z1", "z2", "z3", "traceparent", "tracestate")
		require.NoError(t, here.PublishMessages(t.Context(), fanout.Message[string]{Body: "a", Attributes: want}))
		for _, q := range []*fanout.Queue[string]{filtered, all} {
			require.Equal(t, []string{"a0", "a1", "a2", "a3", "fanout", "traceparent", "tracestate", "z1", "z2", "z3"}, attributesIn(t, a, "p-"+q.Name()))
			d, err := q.Receive(t.Context())
			require.NoError(t, err)
			require.Equal(t, want, d.Attributes())
			require.NoError(t, d.Ack(t.Context()))
		}
	})
}

// TestPoliciesAreAskedForOnceAMinuteAndOnlyForManyAttributes.
func TestPoliciesAreAskedForOnceAMinuteAndOnlyForManyAttributes(t *testing.T) {
	inFake(t, func(t *testing.T) {
		a := fakeOf(t)
		elsewhere, here := newFanoutTopic(t, newEngine(t)), newFanoutTopic(t, newEngine(t))
		_, err := elsewhere.OpenQueue(t.Context(), "plain")
		require.NoError(t, err)
		nine := tenAnd()
		delete(nine, "a9")
		asked := func() int { return a.Calls("ListSubscriptionsByTopic") }
		before := asked()
		publish := func(as map[string]string) {
			require.NoError(t, here.PublishMessages(t.Context(), fanout.Message[string]{Body: "a", Attributes: as}))
		}
		publish(nine)
		require.Equal(t, before, asked())
		var together sync.WaitGroup
		for range 20 {
			together.Go(func() { publish(tenAnd("z")) })
		}
		together.Wait()
		require.Equal(t, before+1, asked(), "one asks, the others wait for it")

		// A queue of another process that filters by what was packed: after a minute.
		q, err := elsewhere.OpenQueue(t.Context(), "new", fanout.WithFilterPolicy(`{"z":["of z"]}`))
		require.NoError(t, err)
		before = asked()
		time.Sleep(time.Minute - time.Nanosecond)
		publish(tenAnd("z"))
		require.Equal(t, before, asked())
		require.Empty(t, a.Queue("p-new").Messages())
		time.Sleep(time.Nanosecond)
		publish(tenAnd("z"))
		require.Equal(t, before+1, asked())
		require.Len(t, a.Queue("p-new").Messages(), 1)
		d, err := q.Receive(t.Context())
		require.NoError(t, err)
		require.NoError(t, d.Ack(t.Context()))

		// One that was opened here: at once.
		_, err = here.OpenQueue(t.Context(), "own", fanout.WithFilterPolicy(`{"y":["of y"]}`))
		require.NoError(t, err)
		publish(tenAnd("y", "z"))
		require.Len(t, a.Queue("p-own").Messages(), 1)
	})
}

func TestMessagesOfManyAttributesThatCanNotBePublished(t *testing.T) {
	inFake(t, func(t *testing.T) {
		a := fakeOf(t)
		top := newFanoutTopic(t, newEngine(t))
		_, err := top.OpenQueue(t.Context(), "q", fanout.WithFilterPolicy(`{"a0":["1"],"a1":["1"],"a2":["1"],"a3":["1"],"a4":["1"]}`))
		require.NoError(t, err)
		_, err = top.OpenQueue(t.Context(), "r", fanout.WithFilterPolicy(`{"a5":["1"],"a6":["1"],"a7":["1"],"a8":["1"],"a9":["1"]}`))
		require.NoError(t, err)
		err = top.PublishMessages(t.Context(), fanout.Message[string]{Body: "a", Attributes: tenAnd()})
		require.ErrorIs(t, err, fanout.ErrInvalidMessage)
		require.ErrorContains(t, err, "more than nine attributes")

		other := newFanoutTopic(t, newEngine(t))
		denied := a.Inject(fakeaws.Fault{Operation: "GetSubscriptionAttributes", Error: &fakeaws.AccessDenied, Times: fakeaws.Always})
		err = other.PublishMessages(t.Context(), fanout.Message[string]{Body: "a", Attributes: tenAnd("traceparent")})
		require.ErrorContains(t, err, "GetSubscriptionAttributes")
		require.ErrorContains(t, err, "more than nine")
		require.Empty(t, a.Topic("p").Published())
		denied.Remove()

		// Whoever waits for another's answer leaves with its context.
		a.Inject(fakeaws.Fault{Operation: "ListSubscriptionsByTopic", Delay: time.Minute})
		var asking sync.WaitGroup
		asking.Go(func() {
			_ = other.PublishMessages(t.Context(), fanout.Message[string]{Body: "a", Attributes: tenAnd("traceparent")})
		})
		time.Sleep(time.Second)
		short, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		began := time.Now()
		err = other.PublishMessages(short, fanout.Message[string]{Body: "a", Attributes: tenAnd("traceparent")})
		require.ErrorIs(t, err, context.DeadlineExceeded)
		require.Equal(t, time.Second, time.Since(began))
		asking.Wait()
	})
}

// A subscription that isn't of fanout's making, without raw delivery, has the packed
// attributes too; one that filters by bodies needs none outside.
func TestOtherSubscriptionsOfATopic(t *testing.T) {
	inFake(t, func(t *testing.T) {
		a := fakeOf(t)
		e := newEngine(t)
		top := newFanoutTopic(t, e)
		_, err := top.OpenQueue(t.Context(), "q")
		require.NoError(t, err)
		p, err := e.findPlace(t.Context(), "p-q")
		require.NoError(t, err)
		for _, attributes := range []map[string]string{{}, {"FilterPolicyScope": "MessageBody", "FilterPolicy": `{"z":["no"]}`}} {
			name := fmt.Sprint("p-", len(attributes))
			createQueue(t, e, name, map[string]string{"Policy": newQueuePolicy(strings.ReplaceAll(p.arn, "p-q", name), a.Topic("p").ARN())})
			_, err = e.sns.Subscribe(t.Context(), &sns.SubscribeInput{TopicArn: aws.String(a.Topic("p").ARN()), Protocol: aws.String("sqs"),
				Endpoint: aws.String(strings.ReplaceAll(p.arn, "p-q", name)), Attributes: attributes})
			require.NoError(t, err)
		}
		want := tenAnd("traceparent", "z")
		require.NoError(t, top.PublishMessages(t.Context(), fanout.Message[string]{Body: "a", Attributes: want}))
		ms := a.Queue("p-0").Messages()
		require.Len(t, ms, 1)
		d, err := decode(ms[0].Body, nil, engine.Message{})
		require.NoError(t, err)
		require.Equal(t, want, d.Attributes)
		envelope, ok := parseEnvelope(ms[0].Body)
		require.True(t, ok)
		require.Len(t, envelope.MessageAttributes, 10)
		require.Contains(t, envelope.MessageAttributes, "traceparent")
		require.NotContains(t, envelope.MessageAttributes, "z")
		require.Empty(t, a.Queue("p-2").Messages())
	})
}
