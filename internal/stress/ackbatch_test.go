package main

import (
	"fmt"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/gofanout/fanout"
)

// receivedFor returns a queue's book and deliveries of messages 1 to n.
func receivedFor(t *testing.T, a *arena, name string, n int) (*book, []fanout.Delivery[ticket]) {
	q, err := a.top.OpenQueue(t.Context(), name, fanout.WithVisibilityTimeout(time.Second))
	require.NoError(t, err)
	b := a.newBook(name, spec{keep: 1}, 1)
	b.q = q
	for k := range n {
		require.NoError(t, a.top.PublishMessages(t.Context(), fanout.Message[ticket]{ID: idOf(ticket(k)), Body: ticket(k)}))
	}
	ds, err := q.ReceiveBatch(t.Context(), n)
	require.NoError(t, err)
	require.Len(t, ds, n)
	return b, ds
}

func TestACallOfAckBatchEntersWhatBecameOfEach(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a := arenaFor(t)
		b, ds := receivedFor(t, a, "q", 6)
		_, others := receivedFor(t, a, "other", 1)
		time.Sleep(2 * time.Second)
		fresh, err := b.q.ReceiveBatch(t.Context(), 6)
		require.NoError(t, err)
		require.NoError(t, fresh[5].Ack(t.Context()))

		c := &ackBatch{b: b, worker: 256}
		c.add(ds[0], fate{kind: hadEnded}) // the message of fresh[0]
		c.add(fresh[0], fate{})
		c.addAgain(1)
		c.addAgain(1)
		c.add(fresh[5], fate{kind: hadAcked})
		c.add(fresh[1], fate{})
		c.add(others[0], fate{kind: strange}) // of message 0 too
		c.add(ds[3], fate{})
		require.Equal(t, []uint8{stale, 0, settled, settled, 0, foreign, stale}, c.call())
		require.Empty(t, a.w.problems)
		require.Equal(t, []deed{refusedAs, settledAs, refusedAs, refusedAs, settledAs, refusedAs}, deeds(b.events))
		require.NoError(t, b.q.Close())
		c = &ackBatch{b: b}
		c.add(fresh[2], fate{})
		c.add(ds[1], fate{kind: hadEnded})
		require.Equal(t, []uint8{closed, closed}, c.call())
		require.Empty(t, a.w.problems)
		require.NoError(t, a.top.Close())
	})
}

func deeds(events []event) (ds []deed) {
	for _, e := range events {
		ds = append(ds, e.deed)
	}
	return ds
}

func TestAWrongOutcomeOfAckBatchIsNoticed(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a := arenaFor(t)
		b, ds := receivedFor(t, a, "q", 2)
		_, others := receivedFor(t, a, "other", 1)
		failed := func(k int, id string, err error) error {
			return &fanout.BatchError{Failed: map[int]error{k: fmt.Errorf("message %s: %w", id, err)}}
		}
		for name, c := range map[string]struct {
			must  fate
			err   error
			deeds []deed
			told  int
		}{
			"acknowledged though it had ended": {fate{kind: hadEnded}, nil, []deed{settledAs, wronglyDone}, 0},
			"acknowledged twice":               {fate{kind: hadAcked}, nil, []deed{settledAs, wronglyDone}, 0},
			"settled, and was stale":           {fate{kind: hadEnded}, failed(1, "m1", fanout.ErrSettled), []deed{settledAs, wronglyDone}, 0},
			"twice in the call, and no error":  {fate{kind: again}, nil, []deed{settledAs, wronglyDone}, 0},
			"the second stale, the first not":  {fate{kind: again}, failed(1, "m1", fanout.ErrStale), []deed{settledAs, wronglyDone}, 0},
			"settled before by nobody":         {fate{}, failed(1, "m1", fanout.ErrSettled), []deed{settledAs, wronglyDone}, 0},
			"another error":                    {fate{}, failed(1, "m1", errBusy), []deed{settledAs, wronglyDone}, 0},
			"names another":                    {fate{}, failed(1, "m7", fanout.ErrStale), []deed{settledAs, settledAs}, 1},
			"names none of the call":           {fate{}, failed(2, "m1", fanout.ErrStale), []deed{settledAs, settledAs}, 1},
			"names nothing":                    {fate{}, fanout.ErrStale, []deed{settledAs, settledAs}, 1},
		} {
			b.events, a.w.problems = nil, nil
			call := &ackBatch{b: b}
			call.add(ds[0], fate{})
			call.add(ds[1], c.must)
			call.enter(c.err)
			require.Equal(t, c.deeds, deeds(b.events), name)
			require.Len(t, a.w.problems, c.told, name)
		}
		a.w.problems = nil
		call := &ackBatch{b: b}
		call.add(others[0], fate{kind: strange})
		call.enter(failed(0, "m0", fanout.ErrStale))
		require.Equal(t, []string{"fenced"}, promises(a.w.problems))
		require.NoError(t, a.top.Close())
	})
}
