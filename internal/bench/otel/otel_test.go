//go:build peers

package otel

import (
	"context"
	"sync"
	"testing"

	googlepubsub "cloud.google.com/go/pubsub/v2"
	"cloud.google.com/go/pubsub/v2/apiv1/pubsubpb"
	"cloud.google.com/go/pubsub/v2/pstest"
	gootel "go.opentelemetry.io/otel"
	noopmetric "go.opentelemetry.io/otel/metric/noop"
	sdkmetric "go.opentelemetry.io/otel/sdk/metric"
	sdktrace "go.opentelemetry.io/otel/sdk/trace"
	nooptrace "go.opentelemetry.io/otel/trace/noop"
	"gocloud.dev/pubsub"
	"gocloud.dev/pubsub/mempubsub"
	"google.golang.org/api/option"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"

	"github.com/gofanout/fanout"
	"github.com/gofanout/fanout/plugin/fanoutotel"
)

// A flow publishes n messages, and returns when all are handled.
type flow func(n int) error

// dropped is a processor that drops all.
type dropped struct{}

func (dropped) OnStart(context.Context, sdktrace.ReadWriteSpan) {}
func (dropped) OnEnd(sdktrace.ReadOnlySpan)                     {}
func (dropped) Shutdown(context.Context) error                  { return nil }
func (dropped) ForceFlush(context.Context) error                { return nil }

func BenchmarkMessage(b *testing.B) {
	for _, system := range []struct {
		name   string
		atOnce int // of Google's fake server fewer: it looks at all messages each time
		open   func(b *testing.B, observed bool) flow
	}{{"fanout", 256, openFanout}, {"gocloud", 256, openGocloud}, {"google", 16, openGoogle}} {
		for _, mode := range []string{"without", "never sampled", "sampled"} {
			b.Run(system.name+"/"+mode, func(b *testing.B) {
				// Only the globals reach gocloud and Google's client, when they are made.
				gootel.SetTracerProvider(nooptrace.NewTracerProvider())
				gootel.SetMeterProvider(noopmetric.NewMeterProvider())
				if mode != "without" {
					gootel.SetMeterProvider(sdkmetric.NewMeterProvider(sdkmetric.WithReader(sdkmetric.NewManualReader())))
				}
				switch mode {
				case "never sampled":
					gootel.SetTracerProvider(sdktrace.NewTracerProvider(sdktrace.WithSampler(sdktrace.NeverSample())))
				case "sampled":
					gootel.SetTracerProvider(sdktrace.NewTracerProvider(sdktrace.WithSpanProcessor(dropped{})))
				}
				measure(b, system.open(b, mode != "without"), system.atOnce)
			})
		}
	}
}

func measure(b *testing.B, f flow, atOnce int) {
	check(b, f(atOnce))
	b.ReportAllocs()
	b.ResetTimer()
	before, n := cpuTime(), 0
	for ; n < b.N; n += atOnce {
		check(b, f(atOnce))
	}
	b.StopTimer()
	b.ReportMetric(float64(cpuTime()-before)/float64(n), "cpu-ns/op")
}

func check(tb testing.TB, err error) {
	tb.Helper()
	if err != nil {
		tb.Fatal(err)
	}
}

func openFanout(b *testing.B, observed bool) flow {
	var options []fanout.TopicOption
	if observed {
		i, err := fanoutotel.New()
		check(b, err)
		options = append(options, i.Topic())
	}
	top, err := fanout.NewTopic[[]byte]("payments", options...)
	check(b, err)
	b.Cleanup(func() { check(b, top.Close()) })
	var handled sync.WaitGroup
	_, err = top.Subscribe(context.Background(), "q", func(context.Context, fanout.Delivery[[]byte]) error {
		handled.Done()
		return nil
	})
	check(b, err)
	body := []byte("a payment")
	return func(atOnce int) error {
		handled.Add(atOnce)
		for range atOnce {
			if err := top.Publish(context.Background(), body); err != nil {
				return err
			}
		}
		handled.Wait()
		return nil
	}
}

func openGocloud(b *testing.B, _ bool) flow {
	ctx := context.Background()
	top := mempubsub.NewTopic()
	s := mempubsub.NewSubscription(top, 1<<40)
	b.Cleanup(func() {
		check(b, s.Shutdown(ctx))
		check(b, top.Shutdown(ctx))
	})
	body := []byte("a payment")
	return func(atOnce int) error {
		var sent sync.WaitGroup
		errs := make(chan error, atOnce)
		for range atOnce { // a Send returns when its batch has been sent
			sent.Go(func() { errs <- top.Send(ctx, &pubsub.Message{Body: body}) })
		}
		sent.Wait()
		for range atOnce {
			if err := <-errs; err != nil {
				return err
			}
		}
		for range atOnce {
			m, err := s.Receive(ctx)
			if err != nil {
				return err
			}
			m.Ack()
		}
		return nil
	}
}

func openGoogle(b *testing.B, observed bool) flow {
	ctx, cancel := context.WithCancel(context.Background())
	server := pstest.NewServer()
	conn, err := grpc.NewClient(server.Addr, grpc.WithTransportCredentials(insecure.NewCredentials()))
	check(b, err)
	client, err := googlepubsub.NewClientWithConfig(ctx, "project", &googlepubsub.ClientConfig{EnableOpenTelemetryTracing: observed}, option.WithGRPCConn(conn))
	check(b, err)
	const topic, subscription = "projects/project/topics/payments", "projects/project/subscriptions/q"
	_, err = client.TopicAdminClient.CreateTopic(ctx, &pubsubpb.Topic{Name: topic})
	check(b, err)
	_, err = client.SubscriptionAdminClient.CreateSubscription(ctx, &pubsubpb.Subscription{Name: subscription, Topic: topic, AckDeadlineSeconds: 600})
	check(b, err)
	publisher := client.Publisher(topic)
	var handled sync.WaitGroup
	received := make(chan error, 1)
	go func() {
		received <- client.Subscriber(subscription).Receive(ctx, func(_ context.Context, m *googlepubsub.Message) {
			m.Ack()
			handled.Done()
		})
	}()
	b.Cleanup(func() {
		publisher.Stop()
		cancel()
		check(b, <-received)
		check(b, client.Close())
		check(b, server.Close())
	})
	body := []byte("a payment")
	return func(atOnce int) error {
		handled.Add(atOnce)
		results := make([]*googlepubsub.PublishResult, atOnce)
		for k := range results {
			results[k] = publisher.Publish(ctx, &googlepubsub.Message{Data: body})
		}
		for _, r := range results {
			if _, err := r.Get(ctx); err != nil {
				return err
			}
		}
		handled.Wait()
		server.ClearMessages()
		return nil
	}
}

// What the benchmark measures works, in each system, with spans.
func TestEachSystemHandlesWhatIsPublished(t *testing.T) {
	result := testing.Benchmark(func(b *testing.B) {
		gootel.SetTracerProvider(sdktrace.NewTracerProvider(sdktrace.WithSpanProcessor(dropped{})))
		for _, open := range []func(*testing.B, bool) flow{openFanout, openGocloud, openGoogle} {
			check(b, open(b, true)(4))
		}
	})
	if result.N == 0 {
		t.Fatal("a system does not work")
	}
}
