package fanouttest_test

import (
	"context"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/gofanout/fanout"
	"github.com/gofanout/fanout/fanouttest"
)

func TestListsTellWhatHappened(t *testing.T) {
	both(t, func(t *testing.T) {
		k := fanouttest.New(t)
		orders := fanouttest.NewTopic[order](k, "orders")
		o17, o18, o19 := order{"o-17", 1}, order{"o-18", 2}, order{"o-19", 3}
		q := subscribe(t, orders, "billing", func(_ context.Context, d fanout.Delivery[order]) error {
			switch {
			case d.Body == o18:
				return fanout.Permanent(errDown)
			case d.Body == o19 && d.Attempt() < 3:
				return errDown
			}
			return nil
		}, fanout.WithBackoff(fanout.Constant(time.Millisecond)), fanout.WithCapacity(3))
		small, err := orders.OpenQueue(t.Context(), "small", fanout.WithCapacity(1), fanout.WithOverflow(fanout.DropOldest))
		require.NoError(t, err)
		require.NoError(t, q.Pause(t.Context()))
		publish(t, orders, o17, o18, o19)
		require.NoError(t, q.Resume(t.Context()))
		d, err := small.Receive(t.Context())
		require.NoError(t, err)
		require.NoError(t, d.Ack(t.Context()))
		k.Settle(t.Context())

		orders.Published().Want(o17, o18, o19)
		orders.Delivered("billing").Want(o17, o18, o19, o19, o19)
		orders.Acked("billing").Want(o17, o19)
		orders.Retried("billing").Want(o19, o19)
		orders.DeadLettered("billing").Want(o18)
		orders.Dropped("billing").Want()
		orders.Dropped("small").Want(o17, o18)
		orders.Acked("small").Want(o19)
		require.Equal(t, []order{o17, o18, o19}, orders.Published().Bodies())
		require.Equal(t, orders.Published().IDs()[1:2], orders.DeadLettered("billing").IDs())
	})
}

func TestPublishedKnowsDelayedMessagesAndThoseOfABatch(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		k := fanouttest.New(t)
		orders := fanouttest.NewTopic[order](k, "orders", fanout.WithDeduplication(time.Hour, 10))
		subscribe(t, orders, "billing", ack[order])
		later := fanout.Message[order]{Body: order{"later", 1}, Delay: time.Hour, TimeToLive: 2 * time.Hour}
		once := fanout.Message[order]{Body: order{"once", 2}, DeduplicationID: "1"}
		require.NoError(t, orders.PublishMessages(t.Context(), later, once))
		require.NoError(t, orders.PublishMessages(t.Context(), once, fanout.Message[order]{Body: order{"twice", 3}}))
		want := []order{{"later", 1}, {"once", 2}, {"twice", 3}}
		orders.Published().WantInAnyOrder(want...)
		k.Settle(t.Context(), fanouttest.Delayed())
		orders.Published().WantInAnyOrder(want...)
		publish(t, orders, order{"later", 1})
		orders.Published().WantCount(4)
		k.Settle(t.Context())
		orders.Acked("billing").Want(want[1], want[2], want[0], want[0])
	})
}

func TestADifferenceCanBeRead(t *testing.T) {
	_, failed := failures(func(tb *fakeTB) {
		k := fanouttest.New(tb)
		orders := fanouttest.NewTopic[order](k, "orders")
		publish(tb, orders, order{"o-17", 4999}, order{"o-18", 1})
		require.False(t, orders.Published().Want(order{"o-17", 4999}, order{"o-18", 2}))
		require.False(t, orders.Published().WantInAnyOrder(order{"o-18", 1}))
		require.False(t, orders.Published().WantCount(3))
		require.True(t, orders.Published().WantInAnyOrder(order{"o-18", 1}, order{"o-17", 4999}))
		require.False(t, orders.Published().Want(order{"o-18", 1}, order{"o-17", 4999}))
	})
	require.Len(t, failed, 4)
	require.Equal(t, `fanouttest: published to topic "orders": as many as wanted, 1 of 2 different:
    - want
    + got
      {
        "ID": "o-17",
        "Cents": 4999
      }
      {
        "ID": "o-18",
    -   "Cents": 2
    +   "Cents": 1
      }`, failed[0])
	require.Equal(t, `fanouttest: published to topic "orders": 2, want 1, in any order:
    - want
    + got
      {
        "ID": "o-18",
        "Cents": 1
      }
    + {
    +   "ID": "o-17",
    +   "Cents": 4999
    + }`, failed[1])
	require.Regexp(t, `^fanouttest: published to topic "orders": 2, want 3:
    message [0-9a-f-]{36}: {"ID":"o-17","Cents":4999}
    message [0-9a-f-]{36}: {"ID":"o-18","Cents":1}$`, failed[2])
}

func TestBodiesThatJSONCannotTellAreShownAsTheyAre(t *testing.T) {
	type odd struct {
		Reply chan int
		n     int
	}
	_, failed := failures(func(tb *fakeTB) {
		k := fanouttest.New(tb)
		topic := fanouttest.NewTopic[*odd](k, "odd")
		publish(tb, topic, &odd{n: 1})
		topic.Published().Want(&odd{n: 2})
	})
	requireFailure(t, failed, "- &{Reply:<nil> n:2}", "+ &{Reply:<nil> n:1}")
}

func TestSnapshotsDecideWhatIsEqual(t *testing.T) {
	type stamped struct {
		ID string
		At time.Time
	}
	k := fanouttest.New(t)
	topic := fanouttest.NewTopic[*stamped](k, "stamped", fanouttest.WithSnapshot(func(s *stamped) any { return s.ID }))
	publish(t, topic, &stamped{"a", time.Now()})
	topic.Published().Want(&stamped{ID: "a"})
}

func TestTheCodeUnderTestMayShutTheTopicDown(t *testing.T) {
	both(t, func(t *testing.T) {
		k := fanouttest.New(t)
		orders := fanouttest.NewTopic[order](k, "orders")
		subscribe(t, orders, "billing", ack[order])
		for i := range 100 {
			publish(t, orders, order{"o", i})
		}
		require.NoError(t, orders.Shutdown(t.Context()))
		k.Settle(t.Context())
		orders.Published().WantCount(100)
		orders.Acked("billing").WantCount(100)
	})
}

func TestAnAssertionAboutAQueueThatThereIsNotFails(t *testing.T) {
	_, errs := failures(func(tb *fakeTB) {
		k := fanouttest.New(tb)
		numbers := fanouttest.NewTopic[order](k, "numbers")
		_, err := numbers.OpenQueue(context.Background(), "q")
		require.NoError(t, err)
		require.True(t, numbers.Acked("q").Want())
		require.True(t, numbers.Delivered("q/dead").WantCount(0))
		require.True(t, numbers.Published().Want())
		require.False(t, numbers.Acked("typo").Want())
		require.False(t, numbers.Dropped("typo").WantCount(0))
		require.False(t, numbers.Retried("typo").WantInAnyOrder())
	})
	require.Equal(t, []string{
		`fanouttest: acknowledged in queue "typo": the topic has no queue "typo", and nothing has happened in one`,
		`fanouttest: dropped by queue "typo": the topic has no queue "typo", and nothing has happened in one`,
		`fanouttest: retried by queue "typo": the topic has no queue "typo", and nothing has happened in one`,
	}, errs)
}
