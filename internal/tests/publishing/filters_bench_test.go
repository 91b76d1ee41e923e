package publishing_test

import (
	"context"
	"fmt"
	"strconv"
	"sync"
	"testing"
	"time"

	"github.com/gofanout/fanout"
)

// What a publish with filters, attributes or IDs costs, beside channels: one publisher that
// asks the same predicates in a loop and sends to the channels that match. Each channel has a
// goroutine that receives from it. cpu-ns/delivery is processor time. These are for a first
// look; internal/bench compares with others.

type filteredBody struct {
	number int
	_      [56]byte
}

// channels measures a publisher of bodies that send takes to some of n channels, so many
// deliveries a body.
func channels(b *testing.B, n int, each float64, send func(chans []chan *filteredBody, k int, body *filteredBody)) {
	chans := make([]chan *filteredBody, n)
	var running sync.WaitGroup
	for k := range chans {
		chans[k] = make(chan *filteredBody, 1000)
		running.Go(func() {
			for range chans[k] {
			}
		})
	}
	before := processorTime()
	k := 0
	for b.Loop() {
		send(chans, k, &filteredBodies[k%len(filteredBodies)])
		k++
	}
	for _, c := range chans {
		close(c)
	}
	running.Wait()
	b.ReportMetric(float64(processorTime()-before)/(float64(b.N)*each), "cpu-ns/delivery")
}

// topic measures a publisher to n queues, so many deliveries a message.
func topic(b *testing.B, n int, each float64, publish func(ctx context.Context, top *fanout.Topic[*filteredBody], k int, body *filteredBody) error, option func(k int) []fanout.QueueOption, options ...fanout.TopicOption) {
	ctx := context.Background()
	top, err := fanout.NewTopic[*filteredBody]("bench", options...)
	if err != nil {
		b.Fatal(err)
	}
	for k := range n {
		var os []fanout.SubscribeOption
		for _, o := range option(k) {
			os = append(os, o)
		}
		if _, err := top.Subscribe(ctx, strconv.Itoa(k), func(context.Context, fanout.Delivery[*filteredBody]) error { return nil }, os...); err != nil {
			b.Fatal(err)
		}
	}
	b.ReportAllocs()
	before := processorTime()
	k := 0
	for b.Loop() {
		if err := publish(ctx, top, k, &filteredBodies[k%len(filteredBodies)]); err != nil {
			b.Fatal(err)
		}
		k++
	}
	if err := top.Shutdown(ctx); err != nil {
		b.Fatal(err)
	}
	b.ReportMetric(float64(processorTime()-before)/(float64(b.N)*each), "cpu-ns/delivery")
}

var filteredBodies = func() (bodies [1 << 10]filteredBody) {
	for k := range bodies {
		bodies[k].number = k
	}
	return bodies
}()

func plainly(ctx context.Context, top *fanout.Topic[*filteredBody], _ int, body *filteredBody) error {
	return top.Publish(ctx, body)
}

func noOptions(int) []fanout.QueueOption { return nil }

func BenchmarkPredicates(b *testing.B) {
	const n = 16
	keeps := make([]func(*filteredBody) bool, n)
	for k := range keeps {
		keeps[k] = func(body *filteredBody) bool { return body.number%n == k }
	}
	b.Run("topic", func(b *testing.B) {
		topic(b, n, 1, plainly, func(k int) []fanout.QueueOption { return []fanout.QueueOption{fanout.WithFilter(keeps[k])} })
	})
	b.Run("channels", func(b *testing.B) {
		channels(b, n, 1, func(chans []chan *filteredBody, _ int, body *filteredBody) {
			for k, keep := range keeps {
				if keep(body) {
					chans[k] <- body
				}
			}
		})
	})
}

func BenchmarkAFilterThatTakesAll(b *testing.B) {
	const n = 4
	all := func(*filteredBody) bool { return true }
	b.Run("topic", func(b *testing.B) {
		topic(b, n, n, plainly, func(int) []fanout.QueueOption { return []fanout.QueueOption{fanout.WithFilter(all)} })
	})
	b.Run("plain", func(b *testing.B) { topic(b, n, n, plainly, noOptions) })
}

func BenchmarkPolicies(b *testing.B) {
	const n = 100
	names := make([]map[string]string, n)
	byName := map[string]int{}
	for k := range names {
		name := fmt.Sprint("value", k)
		names[k] = map[string]string{"name": name}
		byName[name] = k
	}
	publish := func(ctx context.Context, top *fanout.Topic[*filteredBody], k int, body *filteredBody) error {
		return top.PublishMessages(ctx, fanout.Message[*filteredBody]{Body: body, Attributes: names[k%n]})
	}
	b.Run("topic", func(b *testing.B) {
		topic(b, n, 1, publish, func(k int) []fanout.QueueOption {
			return []fanout.QueueOption{fanout.WithFilterPolicy(fmt.Sprintf(`{"name": ["value%d"]}`, k))}
		})
	})
	keeps := make([]func(map[string]string) bool, n)
	for k := range keeps {
		want := fmt.Sprint("value", k)
		keeps[k] = func(attributes map[string]string) bool { return attributes["name"] == want }
	}
	b.Run("channels", func(b *testing.B) {
		channels(b, n, 1, func(chans []chan *filteredBody, k int, body *filteredBody) {
			for j, keep := range keeps {
				if keep(names[k%n]) {
					chans[j] <- body
				}
			}
		})
	})
	b.Run("map", func(b *testing.B) {
		channels(b, n, 1, func(chans []chan *filteredBody, k int, body *filteredBody) {
			if j, ok := byName[names[k%n]["name"]]; ok {
				chans[j] <- body
			}
		})
	})
}

func BenchmarkMessageFilters(b *testing.B) {
	const n = 100
	names := make([]map[string]string, n)
	keeps := make([]func(fanout.Message[*filteredBody]) bool, n)
	for k := range names {
		want := fmt.Sprint("value", k)
		names[k] = map[string]string{"name": want}
		keeps[k] = func(m fanout.Message[*filteredBody]) bool { return m.Attributes["name"] == want }
	}
	publish := func(ctx context.Context, top *fanout.Topic[*filteredBody], k int, body *filteredBody) error {
		return top.PublishMessages(ctx, fanout.Message[*filteredBody]{Body: body, Attributes: names[k%n]})
	}
	b.Run("topic", func(b *testing.B) {
		topic(b, n, 1, publish, func(k int) []fanout.QueueOption {
			return []fanout.QueueOption{fanout.WithMessageFilter(keeps[k])}
		})
	})
	b.Run("channels", func(b *testing.B) {
		channels(b, n, 1, func(chans []chan *filteredBody, k int, body *filteredBody) {
			m := fanout.Message[*filteredBody]{Body: body, Attributes: names[k%n]}
			for j, keep := range keeps {
				if keep(m) {
					chans[j] <- body
				}
			}
		})
	})
}

func BenchmarkMessagesWithMore(b *testing.B) {
	const n = 4
	ids := make([]string, 1<<16)
	for k := range ids {
		ids[k] = fmt.Sprint("id", k)
	}
	attributes := map[string]string{"name": "value"}
	one := func(fill func(m *fanout.Message[*filteredBody], k int)) func(context.Context, *fanout.Topic[*filteredBody], int, *filteredBody) error {
		return func(ctx context.Context, top *fanout.Topic[*filteredBody], k int, body *filteredBody) error {
			m := fanout.Message[*filteredBody]{Body: body}
			fill(&m, k)
			return top.PublishMessages(ctx, m)
		}
	}
	b.Run("plain", func(b *testing.B) { topic(b, n, n, plainly, noOptions) })
	b.Run("own-id", func(b *testing.B) {
		topic(b, n, n, one(func(m *fanout.Message[*filteredBody], k int) { m.ID = ids[k%len(ids)] }), noOptions)
	})
	b.Run("attribute", func(b *testing.B) {
		topic(b, n, n, one(func(m *fanout.Message[*filteredBody], _ int) { m.Attributes = attributes }), noOptions)
	})
	b.Run("deduplication", func(b *testing.B) {
		topic(b, n, n, one(func(m *fanout.Message[*filteredBody], k int) { m.DeduplicationID = ids[k%len(ids)] }), noOptions, fanout.WithDeduplication(5*time.Minute, 10_000))
	})
	b.Run("interceptor", func(b *testing.B) {
		topic(b, n, n, plainly, noOptions, fanout.WithPublishInterceptor(func(ctx context.Context, _ fanout.Info, next func(context.Context) error) error { return next(ctx) }))
	})
}
