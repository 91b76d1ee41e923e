package delivery_test

import (
	"context"
	"fmt"
	"testing"

	"github.com/gofanout/fanout"
)

// These are for a first look; internal/bench compares with others.

type benchBody [64]byte

func BenchmarkPush(b *testing.B) {
	for _, queues := range []int{1, 4, 16, 100} {
		for _, batch := range []int{1, 64} {
			b.Run(fmt.Sprintf("queues=%d/batch=%d", queues, batch), func(b *testing.B) {
				ctx := context.Background()
				top, err := fanout.NewTopic[*benchBody]("bench")
				if err != nil {
					b.Fatal(err)
				}
				for k := range queues {
					_, err := top.Subscribe(ctx, fmt.Sprint(k), func(context.Context, fanout.Delivery[*benchBody]) error { return nil })
					if err != nil {
						b.Fatal(err)
					}
				}
				body := new(benchBody)
				ms := make([]fanout.Message[*benchBody], batch)
				for k := range ms {
					ms[k].Body = body
				}
				b.ReportAllocs()
				for b.Loop() {
					if batch == 1 {
						_ = top.Publish(ctx, body)
					} else {
						_ = top.PublishMessages(ctx, ms...)
					}
				}
				_ = top.Shutdown(ctx)
				b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N*batch*queues), "ns/delivery")
			})
		}
	}
}

func BenchmarkPushToBatchHandlers(b *testing.B) {
	for _, queues := range []int{1, 4, 16} {
		for _, size := range []int{1, 10, 64} {
			b.Run(fmt.Sprintf("queues=%d/size=%d", queues, size), func(b *testing.B) {
				ctx := context.Background()
				top, err := fanout.NewTopic[*benchBody]("bench")
				if err != nil {
					b.Fatal(err)
				}
				for k := range queues {
					_, err := top.SubscribeBatch(ctx, fmt.Sprint(k), func(context.Context, []fanout.Delivery[*benchBody]) error { return nil }, fanout.WithBatchSize(size))
					if err != nil {
						b.Fatal(err)
					}
				}
				body := new(benchBody)
				ms := make([]fanout.Message[*benchBody], 64)
				for k := range ms {
					ms[k].Body = body
				}
				b.ReportAllocs()
				for b.Loop() {
					_ = top.PublishMessages(ctx, ms...)
				}
				_ = top.Shutdown(ctx)
				b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N*len(ms)*queues), "ns/delivery")
			})
		}
	}
}

func BenchmarkPullOneByOne(b *testing.B) {
	ctx := context.Background()
	top, err := fanout.NewTopic[*benchBody]("bench")
	if err != nil {
		b.Fatal(err)
	}
	q, err := top.OpenQueue(ctx, "q")
	if err != nil {
		b.Fatal(err)
	}
	body := new(benchBody)
	b.ReportAllocs()
	for b.Loop() {
		_ = top.Publish(ctx, body)
		d, _, _ := q.TryReceive(ctx)
		_ = d.Ack(ctx)
	}
	_ = top.Close()
}
