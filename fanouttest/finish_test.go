package fanouttest_test

import (
	"context"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/gofanout/fanout"
	"github.com/gofanout/fanout/fanouttest"
)

func TestAnUnsettledMessageFailsTheTest(t *testing.T) {
	both(t, func(t *testing.T) {
		setup := func(tb *fakeTB, options ...fanout.TopicOption) *fanouttest.Topic[order] {
			k := fanouttest.New(tb)
			orders := fanouttest.NewTopic[order](k, "orders", options...)
			q, err := orders.OpenQueue(context.Background(), "audit", fanout.WithBackoff(fanout.Constant(time.Hour)))
			require.NoError(t, err)
			publish(tb, orders, order{"retried", 1}, order{"in hand", 2}, order{"ready", 3})
			d, err := q.Receive(context.Background())
			require.NoError(t, err)
			require.NoError(t, d.Settle(context.Background(), errDown))
			_, err = q.Receive(context.Background())
			require.NoError(t, err)
			return orders
		}
		_, failed := failures(func(tb *fakeTB) { setup(tb) })
		requireFailure(t, failed, `topic "orders" ends with messages that are not settled`,
			`due again in `, `{"ID":"retried","Cents":1}`, "attempt 1: failed", "the bank is down",
			`in flight for `, `{"ID":"in hand","Cents":2}`, `not delivered yet: {"ID":"ready","Cents":3}`)

		_, failed = failures(func(tb *fakeTB) { require.NoError(t, setup(tb).Close()) })
		requireFailure(t, failed, "left when the queue was closed", `"retried"`, `"in hand"`, `"ready"`, "attempt 1: failed")

		_, failed = failures(func(tb *fakeTB) { setup(tb, fanouttest.AllowUnsettled()) })
		require.Empty(t, failed)

		tb, failed := failures(func(tb *fakeTB) {
			setup(tb)
			tb.Errorf("the test's own")
		})
		require.Equal(t, []string{"the test's own"}, failed)
		require.Len(t, tb.logs, 1)
	})
}

func TestAParkedMessageFailsTheTest(t *testing.T) {
	both(t, func(t *testing.T) {
		_, failed := failures(func(tb *fakeTB) {
			k := fanouttest.New(tb)
			orders := fanouttest.NewTopic[order](k, "orders", fanouttest.AllowDeadLetters())
			subscribe(tb, orders, "billing", func(context.Context, fanout.Delivery[order]) error { return fanout.Permanent(errDown) },
				fanout.WithDeadLetterCapacity(1))
			publish(tb, orders, order{"dead", 1}, order{"parked", 2})
			k.Settle(context.Background())
		})
		requireFailure(t, failed, `parked: the dead-letter queue is full: {"ID":"parked","Cents":2}`, "attempt 1: permanent")
	})
}

func TestAnUnexpectedDeadLetterFailsTheTest(t *testing.T) {
	both(t, func(t *testing.T) {
		run := func(look func(k *fanouttest.Kit, orders *fanouttest.Topic[order]), options ...fanout.TopicOption) []string {
			_, failed := failures(func(tb *fakeTB) {
				k := fanouttest.New(tb)
				orders := fanouttest.NewTopic[order](k, "orders", options...)
				subscribe(tb, orders, "billing", func(context.Context, fanout.Delivery[order]) error { return errDown },
					fanout.WithMaxAttempts(2), fanout.WithBackoff(fanout.Constant(time.Millisecond)))
				publish(tb, orders, order{"o-17", 1})
				k.Settle(context.Background())
				look(k, orders)
			})
			return failed
		}
		nothing := func(*fanouttest.Kit, *fanouttest.Topic[order]) {}
		requireFailure(t, run(nothing), `topic "orders" ends with dead letters that were not expected`,
			`queue "billing": message `, `dead after 2 attempts: {"ID":"o-17","Cents":1}`, "attempt 1: failed", "attempt 2: failed", "the bank is down")
		require.Empty(t, run(nothing, fanouttest.AllowDeadLetters()))
		require.Empty(t, run(func(_ *fanouttest.Kit, orders *fanouttest.Topic[order]) {
			orders.DeadLettered("billing").Want(order{"o-17", 1})
		}))
		require.Empty(t, run(func(_ *fanouttest.Kit, orders *fanouttest.Topic[order]) { orders.DeadLettered("billing").WantCount(1) }))
		require.Empty(t, run(func(_ *fanouttest.Kit, orders *fanouttest.Topic[order]) {
			d, err := orders.Queue("billing").DeadLetters().Receive(context.Background())
			require.NoError(t, err)
			require.NoError(t, d.Ack(context.Background()))
		}))
		require.Len(t, run(func(k *fanouttest.Kit, orders *fanouttest.Topic[order]) {
			orders.DeadLettered("billing").WantCount(1)
			require.NoError(t, orders.Publish(context.Background(), order{"o-18", 1})) // a later one is another
			k.Settle(context.Background())
		}), 1)
	})
}

func TestASharedDeadLetterIsTheQueuesItComesFrom(t *testing.T) {
	both(t, func(t *testing.T) {
		_, failed := failures(func(tb *fakeTB) {
			k := fanouttest.New(tb)
			dead, err := fanout.NewDeadLetterQueue[order]("graveyard")
			require.NoError(t, err)
			tb.Cleanup(func() { require.NoError(t, dead.Close()) })
			orders := fanouttest.NewTopic[order](k, "orders")
			refuse := func(context.Context, fanout.Delivery[order]) error { return fanout.Permanent(errDown) }
			subscribe(tb, orders, "billing", refuse, fanout.WithDeadLetterQueue(dead))
			subscribe(tb, orders, "shipping", refuse, fanout.WithDeadLetterQueue(dead))
			publish(tb, orders, order{"o-17", 1})
			k.Settle(context.Background())
			orders.DeadLettered("shipping").WantCount(1)
		})
		// The queue was closed before the kit looked, but its letters are still there.
		requireFailure(t, failed, `queue "billing": message`)
		require.NotContains(t, failed[0], "shipping")
	})
}

func TestAHandlerThatDoesNotReturnFailsTheTest(t *testing.T) {
	release := make(chan struct{})
	_, failed := failures(func(tb *fakeTB) {
		k := fanouttest.New(tb)
		orders := fanouttest.NewTopic[order](k, "orders", fanouttest.AllowUnsettled())
		subscribe(tb, orders, "billing", func(context.Context, fanout.Delivery[order]) error {
			<-release
			return nil
		})
		publish(tb, orders, order{"o-17", 1})
	})
	close(release)
	requireFailure(t, failed, "handlers or goroutines that don't end", `topic "orders", queue "billing": the handler of message`, "has been running for")
}

func TestAGoroutineThatAHandlerLeavesFailsTheTest(t *testing.T) {
	release := make(chan struct{})
	ended := make(chan struct{})
	_, failed := failures(func(tb *fakeTB) {
		k := fanouttest.New(tb)
		orders := fanouttest.NewTopic[order](k, "orders")
		subscribe(tb, orders, "billing", func(context.Context, fanout.Delivery[order]) error {
			go forgotten(release, ended)
			return nil
		})
		publish(tb, orders, order{"o-17", 1})
		k.Settle(context.Background())
	})
	requireFailure(t, failed, "handlers or goroutines that don't end", "a goroutine that a handler started", "forgotten", "finish_test.go")
	close(release)
	<-ended
}

func forgotten(release, ended chan struct{}) {
	defer close(ended)
	<-release
}

func TestAGoroutineThatEndsInTimeIsNoLeak(t *testing.T) {
	both(t, func(t *testing.T) {
		k := fanouttest.New(t)
		orders := fanouttest.NewTopic[order](k, "orders")
		release := make(chan struct{})
		subscribe(t, orders, "billing", func(context.Context, fanout.Delivery[order]) error {
			go func() { <-release }()
			return nil
		})
		publish(t, orders, order{"o-17", 1})
		k.Settle(t.Context())
		close(release)
	})
}

func TestTheTestsOwnHooksAreCalledToo(t *testing.T) {
	both(t, func(t *testing.T) {
		k := fanouttest.New(t)
		causes := make(map[string][]fanout.Cause)
		published := 0
		hooks := func(who string) fanout.Hooks {
			return fanout.Hooks{
				Published: func(e fanout.Event) { published++ },
				Settled: func(e fanout.Event) {
					if e.Queue == "fanouttest" && who == "the library's" {
						return
					}
					require.Equal(t, "billing", e.Queue)
					causes[who] = append(causes[who], e.Cause)
				},
			}
		}
		orders := fanouttest.NewTopic[order](k, "orders",
			fanouttest.WithHooks(hooks("one")), fanout.WithHooks(hooks("the library's")), fanouttest.WithHooks(hooks("another")))
		subscribe(t, orders, "billing", ack[order])
		orders.Handling("billing").Nth(1).Fail(fanout.RetryAfter(errDown, time.Millisecond))
		publish(t, orders, order{"o-17", 1})
		k.Settle(t.Context())
		k.Advance(time.Millisecond) // the last hook has returned
		want := []fanout.Cause{fanout.Failed, fanout.Acked}
		require.Equal(t, map[string][]fanout.Cause{"one": want, "the library's": want, "another": want}, causes)
		require.Equal(t, 3, published)
		orders.Acked("billing").Want(order{"o-17", 1})
	})
}

func TestABadTopicEndsTheTest(t *testing.T) {
	_, failed := failures(func(tb *fakeTB) {
		fanouttest.NewTopic[order](fanouttest.New(tb), "")
		tb.Errorf("went on")
	})
	requireFailure(t, failed, "invalid option")
}
