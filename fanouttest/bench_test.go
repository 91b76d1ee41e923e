package fanouttest_test

import (
	"context"
	"slices"
	"testing"

	"github.com/gofanout/fanout"
	"github.com/gofanout/fanout/fanouttest"
)

// A oneTest is a test within a benchmark, which has many.
type oneTest struct {
	*testing.B
	cleanups []func()
}

func (o *oneTest) Cleanup(end func()) { o.cleanups = append(o.cleanups, end) }
func (o *oneTest) end() {
	for _, end := range slices.Backward(o.cleanups) {
		end()
	}
}

// BenchmarkUnitTest is a whole unit test: a topic is made, a message published,
// handled and asserted, and the topic closed and looked at for what it left.
func BenchmarkUnitTest(b *testing.B) {
	b.ReportAllocs()
	for b.Loop() {
		t := &oneTest{B: b}
		k := fanouttest.New(t)
		orders := fanouttest.NewTopic[order](k, "orders")
		_, err := orders.Subscribe(context.Background(), "billing", func(context.Context, fanout.Delivery[order]) error { return nil })
		if err != nil {
			b.Fatal(err)
		}
		if err := orders.Publish(context.Background(), order{"o-17", 4999}); err != nil {
			b.Fatal(err)
		}
		k.Settle(context.Background())
		orders.Acked("billing").Want(order{"o-17", 4999})
		t.end()
	}
}
