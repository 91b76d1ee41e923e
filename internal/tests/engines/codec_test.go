// Bodies go to an engine and come back by a codec, and what it cannot encode or decode is refused or kept as bytes.

package engines_test

import (
	"context"
	"encoding/json"
	"errors"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/gofanout/fanout"
	"github.com/gofanout/fanout/engine"
	"github.com/gofanout/fanout/internal/fakeengine"
)

type method interface{ Pay() }

// codecOf makes a topic. Types are tried behind a pointer: the library is compiled once
// for all pointers, and once more for each other type, which takes seconds.
func codecOf[T any](options ...fanout.TopicOption) error {
	top, err := fanout.NewTopic[T]("orders", options...)
	if err != nil {
		return err
	}
	return top.Close()
}

// TestAnEngineRefusesATypeThatJSONCannotBringBack, once: all its messages would die.
// internal/jsontype says which those are.
func TestAnEngineRefusesATypeThatJSONCannotBringBack(t *testing.T) {
	for name, row := range map[string]struct {
		try  func(...fanout.TopicOption) error
		says []string // none: it is taken
	}{
		"an interface": {codecOf[*method], []string{"engines_test.method", "interface"}},
		"a chan":       {codecOf[*chan int], []string{"chan"}},
		"a string":     {codecOf[string], nil},
	} {
		t.Run(name, func(t *testing.T) {
			on := fanout.WithEngine(fakeengine.New(fakeengine.Config{Name: "the engine"}))
			require.NoError(t, row.try(), "in memory all is taken")
			require.NoError(t, row.try(on, fanout.WithCodec(brokenCodec{fanout.JSON})), "a codec knows what it can")
			for _, options := range [][]fanout.TopicOption{{on}, {on, fanout.WithCodec(fanout.JSON)}} {
				err := row.try(options...)
				if row.says == nil {
					require.NoError(t, err)
					continue
				}
				require.ErrorIs(t, err, fanout.ErrUnsupported)
				for _, word := range append(row.says, `topic "orders"`, `"the engine"`, "fanout.WithCodec") {
					require.ErrorContains(t, err, word)
				}
			}
		})
	}
}

func TestUnlimitedIsTakenByAnEngineThatBoundsNothing(t *testing.T) {
	none, few := fanout.WithCapacity(fanout.Unlimited), fanout.WithCapacity(10)
	for name, row := range map[string]struct {
		options []fanout.QueueOption
		refused string // by one that bounds nothing
	}{
		"capacity":              {[]fanout.QueueOption{none}, ""},
		"dead-letter capacity":  {[]fanout.QueueOption{fanout.WithDeadLetterCapacity(fanout.Unlimited)}, ""},
		"block beside it":       {[]fanout.QueueOption{fanout.WithOverflow(fanout.Block), none}, ""},
		"all":                   {[]fanout.QueueOption{none, fanout.WithOverflow(fanout.Block), fanout.WithDeadLetterCapacity(fanout.Unlimited), fanout.WithDeadLetterOverflow(fanout.Block)}, ""},
		"block alone":           {[]fanout.QueueOption{fanout.WithOverflow(fanout.Block)}, "WithOverflow(Block)"},
		"block and a capacity":  {[]fanout.QueueOption{fanout.WithOverflow(fanout.Block), few}, "WithCapacity(10)"},
		"reject beside it":      {[]fanout.QueueOption{fanout.WithOverflow(fanout.Reject), none}, "WithOverflow(Reject)"},
		"a capacity":            {[]fanout.QueueOption{few}, "WithCapacity(10)"},
		"a dead-letter one":     {[]fanout.QueueOption{none, fanout.WithDeadLetterCapacity(3)}, "WithDeadLetterCapacity(3)"},
		"the last one wins":     {[]fanout.QueueOption{none, few}, "WithCapacity(10)"},
		"the last one wins too": {[]fanout.QueueOption{few, none}, ""},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				unbounded := fakeengine.New(fakeengine.Config{Without: []engine.Feature{engine.Bounded}})
				for k, on := range [][]fanout.TopicOption{nil, {fanout.WithEngine(fakeengine.New(fakeengine.Config{}))},
					{fanout.WithEngine(unbounded, fanout.Without(engine.Bounded))}} {
					top, err := fanout.NewTopic[string](t.Name(), append(on, quiet)...)
					require.NoError(t, err)
					q, err := top.OpenQueue(t.Context(), "q", row.options...)
					if k == 2 && row.refused != "" {
						require.ErrorIs(t, err, fanout.ErrUnsupported)
						require.ErrorContains(t, err, row.refused)
					} else {
						require.NoError(t, err)
						require.NoError(t, top.Publish(t.Context(), "a"))
						require.NoError(t, next(t, q).Settle(t.Context(), fanout.Permanent(errBroken)))
						require.NoError(t, next(t, q.DeadLetters()).Ack(t.Context()))
					}
					endTopic(t, top)
				}
			})
		})
	}
}

func TestACodecInMemoryIsNotUsed(t *testing.T) {
	top, err := fanout.NewTopic[string]("orders", fanout.WithCodec(brokenCodec{fanout.JSON}))
	require.NoError(t, err)
	q := engineQueue(t, top)
	for _, body := range []string{"not encodable", "not decodable"} {
		require.NoError(t, top.Publish(t.Context(), body))
		d := next(t, q)
		require.Equal(t, body, d.Body)
		require.Nil(t, d.Encoded())
		require.NoError(t, d.Ack(t.Context()))
	}
	require.NoError(t, top.Close())
	require.Nil(t, fanout.Delivery[string]{}.Encoded())
}

// TestALetterThatCannotBeDecodedHasItsBytes, however one looks at it, and whatever keeps
// the codec from it.
func TestALetterThatCannotBeDecodedHasItsBytes(t *testing.T) {
	const raw = `"not decodable"`
	synctest.Test(t, func(t *testing.T) {
		top := onEngine(t, fakeengine.New(fakeengine.Config{}), fanout.WithCodec(brokenCodec{fanout.JSON}))
		q := engineQueue(t, top)
		require.NoError(t, top.Publish(t.Context(), "fine"))
		d := next(t, q)
		require.Equal(t, `"fine"`, string(d.Encoded()))
		require.NoError(t, d.Ack(t.Context()))
		require.Equal(t, `"fine"`, string(d.Encoded()), "it may be kept")
		require.NoError(t, top.Publish(t.Context(), "not decodable"))
		_, ok, err := q.TryReceive(t.Context())
		require.NoError(t, err)
		require.False(t, ok, "it is dead")
		letters, err := q.DeadLetters().Peek(t.Context(), 10)
		require.NoError(t, err)
		require.Len(t, letters, 1)
		d = next(t, q.DeadLetters())
		for _, d := range []fanout.Delivery[string]{letters[0], d} {
			require.Empty(t, d.Body)
			require.Equal(t, raw, string(d.Encoded()))
			require.ErrorContains(t, d.History()[0].Err, "decode")
		}
		require.NoError(t, d.Nack(t.Context()))
		handled := make(chan fanout.Delivery[string], 10)
		s, err := q.DeadLetters().Subscribe(t.Context(), func(_ context.Context, d fanout.Delivery[string]) error {
			handled <- d
			return nil
		})
		require.NoError(t, err)
		d = <-handled
		require.Empty(t, d.Body)
		require.Equal(t, raw, string(d.Encoded()))
		require.NoError(t, s.Shutdown(t.Context()))
		depth, err := q.Depth(t.Context())
		require.NoError(t, err)
		require.Zero(t, depth.Dead, "the handler is done with it")
		require.Empty(t, handled)
		require.NoError(t, top.Close())
		require.Empty(t, q.Leftovers(), "the engine has what is left")
		<-top.Done()
	})
}

// A fussyCodec does not return from a Decode, once it is set to.
type fussyCodec struct {
	fanout.Codec
	panics *atomic.Bool
}

func (c fussyCodec) Decode(data []byte, body any) error {
	if c.panics.Load() {
		panic("fussy")
	}
	return c.Codec.Decode(data, body)
}

func TestALetterWhoseDecodingPanicsHasItsBytes(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var panics atomic.Bool
		top := onEngine(t, fakeengine.New(fakeengine.Config{}), fanout.WithCodec(fussyCodec{fanout.JSON, &panics}))
		q := engineQueue(t, top)
		require.NoError(t, top.Publish(t.Context(), "a"))
		require.NoError(t, next(t, q).Settle(t.Context(), fanout.Permanent(errBroken)))
		panics.Store(true)
		d := next(t, q.DeadLetters())
		require.Empty(t, d.Body)
		require.Equal(t, `"a"`, string(d.Encoded()))
		require.NoError(t, d.Ack(t.Context()))
		endTopic(t, top)
	})
}

func TestStatsOnAnEngineAreOfThisProcess(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		e := fakeengine.New(fakeengine.Config{})
		top := onEngine(t, e, fanout.WithDeduplication(time.Minute, 10))
		q := engineQueue(t, top, fanout.WithBackoff(fanout.Constant(time.Hour)))
		require.NoError(t, top.PublishMessages(t.Context(), fanout.Message[string]{Body: "dies"}, fanout.Message[string]{Body: "b"}, fanout.Message[string]{Body: "c"}))
		require.NoError(t, next(t, q).Settle(t.Context(), fanout.Permanent(errBroken)))
		for range 2 {
			require.NoError(t, next(t, q).Nack(t.Context()))
		}
		s := q.Stats()
		require.Equal(t, fanout.Stats{
			Topic: "payments", Queue: "q", Capacity: fanout.Unknown, Ready: fanout.Unknown, Delayed: fanout.Unknown, Retrying: fanout.Unknown,
			Parked: fanout.Unknown, Released: fanout.Unknown, Blocked: fanout.Unknown, OldestAge: fanout.Unknown, Dead: fanout.Unknown,
			Published: fanout.Unknown, Delivered: 3, DeadLettered: 1, PermanentlyFailed: 1, Nacked: 2,
		}, s)
		require.Equal(t, fanout.Unknown, s.Unsettled())
		d, err := q.Depth(t.Context())
		require.NoError(t, err)
		require.Equal(t, fanout.Depth{Queue: "q", InFlight: 2, Dead: 1}, d, "the engine counts what waits for its retry as in flight")
		letters := q.DeadLetters().Stats()
		require.Equal(t, []int{fanout.Unknown, 0, fanout.Unknown}, []int{letters.Ready, letters.Dead, letters.Capacity})
		ts := top.Stats()
		require.Equal(t, fanout.TopicStats{
			Topic: "payments", Published: 3, Unrouted: fanout.Unknown, Queues: 1,
			Duplicates: fanout.Unknown, Remembered: fanout.Unknown, Forgotten: fanout.Unknown,
		}, ts)
		endTopic(t, top)

		top = onEngine(t, e.Sibling(), fanout.WithDeduplication(time.Minute, 10))
		q = engineQueue(t, top, fanout.WithCapacity(7), fanout.WithDeadLetterCapacity(fanout.Unlimited))
		require.Equal(t, []int{7, fanout.Unlimited}, []int{q.Stats().Capacity, q.DeadLetters().Stats().Capacity})
		endTopic(t, top)
	})
}

// TestWhatWaitsForAWorkerOnAnEngineIsInFlight: it is leased, and nobody else's.
func TestWhatWaitsForAWorkerOnAnEngineIsInFlight(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		top := onEngine(t, fakeengine.New(fakeengine.Config{}))
		q := engineQueue(t, top)
		for range 4 {
			require.NoError(t, top.Publish(t.Context(), "a"))
		}
		release := make(chan struct{})
		_, err := q.SubscribeBatch(t.Context(), func(context.Context, []fanout.Delivery[string]) error { <-release; return nil }, fanout.WithConcurrency(2), fanout.WithBatchSize(2))
		require.NoError(t, err)
		synctest.Wait()
		d, err := q.Depth(t.Context())
		require.NoError(t, err)
		require.Equal(t, d.InFlight, q.Stats().InFlight)
		close(release)
		synctest.Wait()
		endTopic(t, top)
	})
}

func TestPublishedOnAnEngineIsWhatItConfirmed(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		e := fakeengine.New(fakeengine.Config{Without: []engine.Feature{engine.AllOrNone}, MaxBody: 10})
		top := onEngine(t, e, fanout.WithEngine(e, fanout.Without(engine.AllOrNone)))
		e.Inject(fakeengine.Fault{Op: fakeengine.OpenTopic, Nth: 1, Err: errBroken})
		require.ErrorIs(t, top.Publish(t.Context(), "a"), errBroken)
		e.Inject(fakeengine.Fault{Op: fakeengine.Publish, Nth: 1, Err: errBroken})
		require.ErrorIs(t, top.Publish(t.Context(), "a"), errBroken)
		require.Zero(t, top.Stats().Published)
		var partial *fanout.PublishError
		require.ErrorAs(t, top.PublishMessages(t.Context(), fanout.Message[string]{Body: "a"}, fanout.Message[string]{Body: "much too long"}, fanout.Message[string]{Body: "c"}), &partial)
		require.EqualValues(t, 2, top.Stats().Published)
		require.NoError(t, top.Publish(t.Context(), "a"))
		require.EqualValues(t, 3, top.Stats().Published)
		endTopic(t, top)
	})
}

type angry struct{}

func (angry) Error() string { panic("angry") }

func TestAnEventInJSONHasTheTextOfItsError(t *testing.T) {
	e := fanout.Event{Topic: "orders", Queue: "billing", Seq: 3, Cause: fanout.Failed, Elapsed: time.Second, Count: 1, Err: errors.New("no such customer")}
	data, err := json.Marshal(e)
	require.NoError(t, err)
	require.Contains(t, string(data), `"Err":"no such customer"`)
	require.Contains(t, string(data), `"Topic":"orders","Queue":"billing","Seq":3`)
	require.Contains(t, string(data), `"Cause":"failed"`)
	var back fanout.Event
	require.NoError(t, json.Unmarshal(data, &back))
	require.EqualError(t, back.Err, "no such customer")
	back.Err = e.Err
	require.Equal(t, e, back)

	data, err = json.Marshal(fanout.Event{})
	require.NoError(t, err)
	require.Contains(t, string(data), `"Err":null`)
	require.NoError(t, json.Unmarshal(data, &back))
	require.Equal(t, fanout.Event{}, back)
	require.NoError(t, json.Unmarshal([]byte("null"), &back))
	require.ErrorContains(t, json.Unmarshal([]byte(`{"Cause":"bored"}`), &back), "bored")
	require.Equal(t, fanout.Event{}, back)
	data, err = json.Marshal(&fanout.Event{Err: angry{}})
	require.NoError(t, err, "a text that panics is said to")
	require.Contains(t, string(data), "angry")
}
