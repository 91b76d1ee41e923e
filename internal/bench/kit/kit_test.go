// Package kit measures what a unit test costs that needs a broker: to start it,
// publish one message, handle and assert it, and close. Beside fanouttest stand
// the library without the kit and watermill's GoChannel, in the same run:
//
//	go test -bench UnitTest -benchmem -count 6
package kit

import (
	"context"
	"encoding/json"
	"slices"
	"testing"

	"github.com/ThreeDotsLabs/watermill"
	"github.com/ThreeDotsLabs/watermill/message"
	"github.com/ThreeDotsLabs/watermill/pubsub/gochannel"

	"github.com/gofanout/fanout"
	"github.com/gofanout/fanout/fanouttest"
)

type order struct {
	ID    string
	Cents int
}

var o17 = order{"o-17", 4999}

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

func BenchmarkUnitTest(b *testing.B) {
	b.Run("fanouttest", func(b *testing.B) { measure(b, withKit) })
	b.Run("fanout", func(b *testing.B) { measure(b, withLibrary) })
	b.Run("gochannel", func(b *testing.B) { measure(b, withGoChannel) })
}

func measure(b *testing.B, test func(t *oneTest)) {
	b.ReportAllocs()
	for b.Loop() {
		t := &oneTest{B: b}
		test(t)
		t.end()
	}
}

// withKit waits until all is settled, asserts what was handled, and looks for
// unsettled messages, dead letters and leaks.
func withKit(t *oneTest) {
	k := fanouttest.New(t)
	orders := fanouttest.NewTopic[order](k, "orders")
	_, err := orders.Subscribe(context.Background(), "billing", func(context.Context, fanout.Delivery[order]) error { return nil })
	check(t, err)
	check(t, orders.Publish(context.Background(), o17))
	k.Settle(context.Background())
	orders.Acked("billing").Want(o17)
}

// withLibrary has the handler tell what it got, as does withGoChannel.
func withLibrary(t *oneTest) {
	orders, err := fanout.NewTopic[order]("orders")
	check(t, err)
	handled := make(chan order, 1)
	_, err = orders.Subscribe(context.Background(), "billing", func(_ context.Context, d fanout.Delivery[order]) error {
		handled <- d.Body
		return nil
	})
	check(t, err)
	check(t, orders.Publish(context.Background(), o17))
	want(t, <-handled)
	check(t, orders.Shutdown(context.Background()))
	<-orders.Done()
}

func withGoChannel(t *oneTest) {
	orders := gochannel.NewGoChannel(gochannel.Config{}, watermill.NopLogger{})
	messages, err := orders.Subscribe(context.Background(), "orders")
	check(t, err)
	handled := make(chan order, 1)
	go handle(t, messages, handled)
	body, err := json.Marshal(o17)
	check(t, err)
	check(t, orders.Publish("orders", message.NewMessage(watermill.NewUUID(), body)))
	want(t, <-handled)
	check(t, orders.Close()) // waits for its goroutines
}

// handle is GoChannel's consumer. Started by withGoChannel; ends when the
// channel is closed, which is when the GoChannel is.
func handle(t *oneTest, messages <-chan *message.Message, handled chan<- order) {
	for m := range messages {
		var o order
		if err := json.Unmarshal(m.Payload, &o); err != nil {
			t.Error(err)
		}
		handled <- o
		m.Ack()
	}
}

func check(t *oneTest, err error) {
	if err != nil {
		t.Fatal(err)
	}
}

func want(t *oneTest, got order) {
	if got != o17 {
		t.Errorf("got %v", got)
	}
}
