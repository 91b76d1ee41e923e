package fanouttest_test

import (
	"context"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/gofanout/fanout"
	"github.com/gofanout/fanout/fanouttest"
)

type basket struct {
	ID    string
	Items []string
	note  *string
}

func TestAHandlerThatChangesASharedBodyIsNamed(t *testing.T) {
	both(t, func(t *testing.T) {
		_, failed := failures(func(tb *fakeTB) {
			k := fanouttest.New(tb)
			baskets := fanouttest.NewTopic[basket](k, "baskets")
			subscribe(tb, baskets, "billing", ack[basket])
			subscribe(tb, baskets, "sorter", func(_ context.Context, d fanout.Delivery[basket]) error {
				d.Body.Items[0] = "sold" // shared
				d.Body.ID = "mine"       // its own copy
				return nil
			}, fanout.WithDelay(5*time.Millisecond))
			publish(tb, baskets, basket{ID: "b-1", Items: []string{"tea", "cup"}})
			k.Settle(context.Background(), fanouttest.Delayed())
		})
		requireFailure(t, failed, `topic "baskets": the body of message `,
			`was changed while the handler of queue "sorter" had it, attempt 1:`,
			"    -     \"tea\",\n    +     \"sold\",\n          \"cup\"")
	})
}

func TestAChangeIsFoundThoughTheHandlerPanicsOrGetsABatch(t *testing.T) {
	both(t, func(t *testing.T) {
		_, failed := failures(func(tb *fakeTB) {
			k := fanouttest.New(tb)
			baskets := fanouttest.NewTopic[*basket](k, "baskets")
			q, err := baskets.OpenQueue(context.Background(), "sorter", fanout.WithBackoff(fanout.Constant(time.Millisecond)))
			require.NoError(t, err)
			publish(tb, baskets, &basket{ID: "b-1"}, &basket{ID: "b-2"}, &basket{ID: "b-3"})
			_, err = q.SubscribeBatch(context.Background(), func(_ context.Context, ds []fanout.Delivery[*basket]) error {
				if ds[0].Attempt() == 1 {
					ds[1].Body.ID = "changed"
					panic("and out")
				}
				return nil
			})
			require.NoError(t, err)
			k.Settle(context.Background())
		})
		requireFailure(t, failed, `while the handler of queue "sorter" had it, attempt 1:`, `-   "ID": "b-2",`, `+   "ID": "changed",`)
	})
}

func TestAPublisherThatReusesABodyIsFound(t *testing.T) {
	both(t, func(t *testing.T) {
		tb, failed := failures(func(tb *fakeTB) {
			k := fanouttest.New(tb)
			baskets := fanouttest.NewTopic[basket](k, "baskets")
			buffer := []string{"tea"}
			q := subscribe(tb, baskets, "billing", ack[basket])
			require.NoError(t, q.Pause(context.Background()))
			publish(tb, baskets, basket{Items: buffer})
			buffer[0] = "cup"
			require.NoError(t, q.Resume(context.Background()))
			k.Settle(context.Background())
			buffer[0] = "pot"
		})
		requireFailure(t, failed, `before the handler of queue "billing" got it`)
		requireFailure(t, tb.logs, `was changed, not by a handler before it returned`) // the test had failed by then
	})
}

func TestARefusedPublishLeavesNoSnapshotBehind(t *testing.T) {
	both(t, func(t *testing.T) {
		k := fanouttest.New(t)
		baskets := fanouttest.NewTopic[*basket](k, "baskets")
		_, err := baskets.OpenQueue(t.Context(), "full", fanout.WithCapacity(1), fanout.WithOverflow(fanout.Reject))
		require.NoError(t, err)
		first, again := &basket{ID: "b-1"}, &basket{ID: "b-2"}
		publish(t, baskets, first)
		require.ErrorIs(t, baskets.Publish(t.Context(), again), fanout.ErrQueueFull)
		again.ID = "b-3" // nobody has it
		require.NoError(t, baskets.Queue("full").Close())
		publish(t, baskets, again)
		baskets.Published().Want(first, again)
	})
}

func TestAFunctionSaysWhatOfABodyIsCompared(t *testing.T) {
	both(t, func(t *testing.T) {
		change := func(_ context.Context, d fanout.Delivery[basket]) error {
			*d.Body.note = "seen"
			d.Body.Items[0] = "sold"
			return nil
		}
		body := func() basket { return basket{ID: "b-1", Items: []string{"tea"}, note: new(string)} }
		_, failed := failures(func(tb *fakeTB) {
			k := fanouttest.New(tb)
			baskets := fanouttest.NewTopic[basket](k, "baskets", fanouttest.WithSnapshot(func(b basket) any { return b.note }))
			subscribe(tb, baskets, "notes", change)
			publish(tb, baskets, body())
			k.Settle(context.Background())
		})
		requireFailure(t, failed, "    - \"\"\n    + \"seen\"")
		require.NotContains(t, failed[0], "sold")

		k := fanouttest.New(t)
		baskets := fanouttest.NewTopic[basket](k, "baskets", fanouttest.AllowChanges())
		subscribe(t, baskets, "notes", change)
		publish(t, baskets, body())
		k.Settle(t.Context())
	})
}

func TestASnapshotForAnotherTypeEndsTheTest(t *testing.T) {
	_, failed := failures(func(tb *fakeTB) {
		fanouttest.NewTopic[basket](fanouttest.New(tb), "baskets", fanouttest.WithSnapshot(func(int) any { return nil }))
	})
	requireFailure(t, failed, `WithSnapshot was given a func(int) interface {}, but the topic carries fanouttest_test.basket`)
}
