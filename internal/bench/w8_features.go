package main

import (
	"context"
	"fmt"
	"strconv"
	"time"

	"github.com/gofanout/fanout"
)

// plain is our delivery with no feature, which the others are compared with.
const plain = "plain"

var features = workload{
	key: "W8", title: "Features: one publisher, 4 queues with one subscriber each, published one by one",
	note:     "Ratios are to plain, which is fanout-push, of the same round. cpu counts: it is the processor time of publisher and handlers for a delivery. Hooks and interceptors do nothing themselves.",
	baseline: plain,
	cells: func(o options) (cells []cell) {
		of := func(sys system, workers int) {
			cells = append(cells, flowCell(o, "s4", sys, shape{queues: 4, workers: workers, publishers: 1, capacity: capacity}))
		}
		of(channels, 1)
		for _, f := range allFeatures {
			of(f.system(), max(f.workers, 1))
		}
		of(renamed(allFeatures[0].system(), plain+"-again"), 1)
		of(channelsAgain, 1)
		return cells
	},
}

func renamed(s system, name string) system {
	s.name = name
	return s
}

// A feature is a way to use the library that does more than deliver.
type feature struct {
	way
	workers int // of each queue, one subscriber each; 0 is 1
	// says is the feature in the words of its users, why what costs.
	says, why string
}

const (
	orderingKeys  = 1000
	rememberedIDs = 10_000
	longEnough    = time.Hour
)

var (
	hookPublished = fanout.Hooks{Published: func(fanout.Event) {}}
	hooksBoth     = fanout.Hooks{Published: func(fanout.Event) {}, Settled: func(fanout.Event) {}}

	// Made once: to make one is not the library's work.
	manyIDs  = numbered("id-", 1<<16)
	someKeys = numbered("key-", orderingKeys)
)

func numbered(prefix string, n int) []string {
	out := make([]string, n)
	for k := range out {
		out[k] = prefix + strconv.Itoa(k)
	}
	return out
}

func passing(ctx context.Context, _ fanout.Info, next func(context.Context) error) error {
	return next(ctx)
}

func queueOptions(os ...fanout.QueueOption) func(int) []fanout.QueueOption {
	return func(int) []fanout.QueueOption { return os }
}

// allFeatures begins with plain.
var allFeatures = []feature{
	{way: way{name: plain}, says: "none"},
	{
		way:  way{name: "hook-published", topic: []fanout.TopicOption{fanout.WithHooks(hookPublished)}},
		says: "hook Published", why: "an ID and an event for each message, shared by all queues",
	},
	{
		way:  way{name: "hooks", topic: []fanout.TopicOption{fanout.WithHooks(hooksBoth)}},
		says: "hooks Published and Settled", why: "an event for each delivery: time, ID, how long it took",
	},
	{
		way:  way{name: "publish-interceptor", topic: []fanout.TopicOption{fanout.WithPublishInterceptor(passing)}},
		says: "a publish interceptor", why: "an ID before the publish, and two calls for each message",
	},
	{
		way:  way{name: "interceptor", worker: []fanout.WorkerOption{fanout.WithHandlerInterceptor(passing)}},
		says: "a handler interceptor", why: "what the interceptor is told, and two calls for each delivery",
	},
	{
		way:  way{name: "ttl", queue: queueOptions(fanout.WithTimeToLive(longEnough))},
		says: "time to live of the queue", why: "a comparison with the clock before each delivery",
	},
	{
		way:  way{name: "message-ttl", message: func(to *fanout.Message[*payload], _ *payload, _ int) { to.TimeToLive = longEnough }},
		says: "time to live of each message", why: "a deadline of its own for each message, stored beside it",
	},
	{
		way:  way{name: "rate", worker: []fanout.WorkerOption{fanout.WithRateLimit(1e9)}},
		says: "a rate limit that does not bite", why: "the next allowed start, for each delivery",
	},
	{
		way:  way{name: "handler-timeout", worker: []fanout.WorkerOption{fanout.WithHandlerTimeout(longEnough)}},
		says: "a handler timeout", why: "a deadline for each run",
	},
	{
		way:  way{name: "asks-err", consume: askingPush(func(ctx context.Context) { _ = ctx.Err() })},
		says: "the handler asks ctx.Err", why: "a context of its own for each run",
	},
	{
		way:  way{name: "asks-value", consume: askingPush(func(ctx context.Context) { _ = ctx.Value(contextKey{}) })},
		says: "the handler asks ctx.Value", why: "a context of its own for each run",
	},
	{
		way:  way{name: "asks-done", consume: askingPush(func(ctx context.Context) { _ = ctx.Done() })},
		says: "the handler asks ctx.Done", why: "a context and a channel of its own for each run",
	},
	{
		way:  way{name: "own-id", message: func(to *fanout.Message[*payload], _ *payload, n int) { to.ID = manyIDs[n%len(manyIDs)] }},
		says: "an ID of the publisher's", why: "what a message has beside its body is stored for each message",
	},
	{
		way:  way{name: "attribute", message: func(to *fanout.Message[*payload], m *payload, _ int) { to.Attributes = m.attrs }},
		says: "an attribute", why: "the map of attributes is copied, once for all queues",
	},
	{
		way:     way{name: "workers-8"},
		workers: 8,
		says:    "8 workers, without keys", why: "workers take fewer messages at a time, to leave some for each other",
	},
	{
		way: way{
			name: "ordering-key", topic: []fanout.TopicOption{fanout.WithOrdering()},
			message: func(to *fanout.Message[*payload], _ *payload, n int) { to.OrderingKey = someKeys[n%orderingKeys] },
		},
		workers: 8,
		says:    "an ordering key of 1,000, 8 workers", why: "a look for the key in each queue, and the next message of it after the delivery",
	},
	{
		way: way{
			name: "deduplication", topic: []fanout.TopicOption{fanout.WithDeduplication(longEnough, rememberedIDs)},
			message: func(to *fanout.Message[*payload], _ *payload, n int) { to.DeduplicationID = manyIDs[n%len(manyIDs)] },
		},
		says: "a deduplication ID, of 10,000 remembered", why: "a map is asked and kept, once for all queues",
	},
	{
		way:  way{name: "filter", queue: queueOptions(fanout.WithFilter(func(*payload) bool { return true }))},
		says: "a filter that accepts all", why: "the filter is called for each message, in the publisher",
	},
	{
		way: way{
			name:   "all",
			topic:  []fanout.TopicOption{fanout.WithHooks(hooksBoth), fanout.WithPublishInterceptor(passing)},
			queue:  queueOptions(fanout.WithTimeToLive(longEnough)),
			worker: []fanout.WorkerOption{fanout.WithHandlerInterceptor(passing), fanout.WithRateLimit(1e9)},
		},
		says: "both hooks, a publish and a handler interceptor, time to live, rate limit", why: "all of these",
	},
	{
		way: way{
			name:   "all-handler",
			topic:  []fanout.TopicOption{fanout.WithHooks(hooksBoth)},
			queue:  queueOptions(fanout.WithTimeToLive(longEnough)),
			worker: []fanout.WorkerOption{fanout.WithHandlerInterceptor(passing, passing), fanout.WithRateLimit(1e9)},
		},
		says: "both hooks, two handler interceptors, time to live, rate limit", why: "all of these",
	},
}

func featureNamed(name string) feature {
	for _, f := range allFeatures {
		if f.name == name {
			return f
		}
	}
	panic("no feature is called " + name)
}

func (f feature) system() system {
	if f.consume == nil {
		f.consume = subscribePush
	}
	f.gives = f.says
	return f.way.system()
}

type contextKey struct{}

// askingPush is subscribePush with a handler that asks its context something.
func askingPush(ask func(context.Context)) consumer {
	return func(b *fanoutBus, s shape, q *fanout.Queue[*payload], queue int) error {
		return subscribeEach(b, s, q, queue, func(t *tally) fanout.Handler[*payload] {
			return func(ctx context.Context, d fanout.Delivery[*payload]) error {
				ask(ctx)
				t.take(d.Body.word)
				return nil
			}
		})
	}
}

// featureRows is the table of what features cost.
func featureRows(b *book) (rows [][]string) {
	at := func(system, metric string) place { return place{features.key, "s4", system, metric} }
	for _, f := range allFeatures {
		cpu, ok := b.value(at(f.name, "cpu"))
		if !ok {
			continue
		}
		times := "1"
		if r, ok := b.ratio(at(f.name, "cpu"), plain); ok && f.name != plain {
			times = fmt.Sprintf("%s (%s to %s)", number(r.median), number(r.least), number(r.greatest))
		}
		allocs, _ := b.value(at(f.name, "allocs"))
		rows = append(rows, []string{f.says, number(cpu.median), times, strconv.FormatFloat(allocs.median, 'f', 2, 64), f.why})
	}
	return rows
}

var featureHead = []string{"feature", "ns of processor time a delivery", "times plain", "allocations a delivery", "what costs"}
