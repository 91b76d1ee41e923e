package fanoutwatermill_test

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"testing"
	"testing/synctest"
	"time"

	"github.com/ThreeDotsLabs/watermill/message"
	"github.com/stretchr/testify/require"

	"github.com/gofanout/fanout"
	"github.com/gofanout/fanout/internal/fakeengine"
	"github.com/gofanout/fanout/plugin/fanoutwatermill"
)

var quiet = fanoutwatermill.WithTopicOptions(fanout.WithLogger(slog.New(slog.DiscardHandler)))

// bubble runs a test in virtual time, with a broker that is closed at its end: a
// goroutine that is left fails it.
func bubble(t *testing.T, test func(t *testing.T, b *fanoutwatermill.Broker), options ...fanoutwatermill.Option) {
	t.Helper()
	bubbleWith(t, test, func() []fanoutwatermill.Option { return options })
}

func bubbleWith(t *testing.T, test func(t *testing.T, b *fanoutwatermill.Broker), options func() []fanoutwatermill.Option) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		b, err := fanoutwatermill.NewBroker(append(options(), quiet)...)
		require.NoError(t, err)
		t.Cleanup(func() {
			require.NoError(t, b.Close())
			require.NoError(t, b.Close())
		})
		test(t, b)
	})
}

func subscribe(t *testing.T, s *fanoutwatermill.Subscriber) <-chan *message.Message {
	t.Helper()
	in, err := s.Subscribe(t.Context(), "payments")
	require.NoError(t, err)
	return in
}

func publish(t *testing.T, b *fanoutwatermill.Broker, ids ...string) {
	t.Helper()
	for _, id := range ids {
		require.NoError(t, b.Publisher().Publish("payments", message.NewMessage(id, []byte(id))))
	}
}

func dead(t *testing.T, b *fanoutwatermill.Broker, group string) []fanout.Delivery[[]byte] {
	t.Helper()
	topic, err := b.Topic("payments")
	require.NoError(t, err)
	letters, err := topic.Queue(group).DeadLetters().Peek(t.Context(), fanout.Unlimited)
	require.NoError(t, err)
	return letters
}

func TestAMessageArrivesAsItWas(t *testing.T) {
	bubble(t, func(t *testing.T, b *fanoutwatermill.Broker) {
		in := subscribe(t, b.Subscriber("books"))
		m := message.NewMessage("o-17", []byte{0, 255})
		m.Metadata.Set("region", "eu")
		require.NoError(t, b.Publisher().Publish("payments", m, message.NewMessage("", nil)))
		m.Metadata.Set("region", "changed") // after Publish
		got := <-in
		require.Equal(t, "o-17", got.UUID)
		require.Equal(t, message.Payload{0, 255}, got.Payload)
		require.Equal(t, message.Metadata{"region": "eu"}, got.Metadata)
		require.True(t, got.Ack())
		got = <-in
		require.NotEmpty(t, got.UUID)
		require.Empty(t, got.Payload)
		got.Metadata.Set("mine", "is writable")
		require.True(t, got.Ack())
	})
}

func TestEachGroupGetsAllAndItsSubscriptionsCompete(t *testing.T) {
	bubble(t, func(t *testing.T, b *fanoutwatermill.Broker) {
		billing := b.Subscriber("billing")
		one, two, books := subscribe(t, billing), subscribe(t, b.Subscriber("billing")), subscribe(t, b.Subscriber("books"))
		publish(t, b, "1", "2")
		first, second := <-one, <-two // neither is acknowledged yet
		require.ElementsMatch(t, []string{"1", "2"}, []string{first.UUID, second.UUID})
		require.True(t, first.Ack() && second.Ack())
		for _, id := range []string{"1", "2"} {
			m := <-books
			require.Equal(t, id, m.UUID)
			require.True(t, m.Ack())
		}
		synctest.Wait()
		require.Empty(t, one)
		require.Empty(t, books)
	})
}

func TestWithoutAGroupEachSubscriptionGetsAllWhileItLasts(t *testing.T) {
	bubble(t, func(t *testing.T, b *fanoutwatermill.Broker) {
		s := b.Subscriber("")
		require.NoError(t, s.SubscribeInitialize("payments"))
		one, two := subscribe(t, s), subscribe(t, s)
		publish(t, b, "1")
		for _, in := range []<-chan *message.Message{one, two} {
			m := <-in
			require.Equal(t, "1", m.UUID)
			require.True(t, m.Ack())
		}
		require.NoError(t, s.Close())
		topic, err := b.Topic("payments")
		require.NoError(t, err)
		require.Empty(t, topic.Queues(), "its queues went with their subscriptions")
	})
}

func TestWhatIsPublishedWhileNobodyIsSubscribedWaits(t *testing.T) {
	bubble(t, func(t *testing.T, b *fanoutwatermill.Broker) {
		s := b.Subscriber("billing")
		require.NoError(t, s.SubscribeInitialize("payments"))
		publish(t, b, "1")
		require.NoError(t, s.Close())
		require.ErrorIs(t, s.SubscribeInitialize("payments"), fanout.ErrClosed)
		_, err := s.Subscribe(t.Context(), "payments")
		require.ErrorIs(t, err, fanout.ErrClosed)
		m := <-subscribe(t, b.Subscriber("billing"))
		require.Equal(t, "1", m.UUID)
		require.True(t, m.Ack())
	})
}

func TestTheNextMessageComesWhenTheOneBeforeIsSettled(t *testing.T) {
	for concurrency := range 3 {
		concurrency++
		bubble(t, func(t *testing.T, b *fanoutwatermill.Broker) {
			in := subscribe(t, b.Subscriber("billing", fanoutwatermill.WithWorkerOptions(fanout.WithConcurrency(concurrency))))
			publish(t, b, "1", "2", "3", "4")
			var held []*message.Message
			for range concurrency {
				held = append(held, <-in)
			}
			synctest.Wait()
			select {
			case m := <-in:
				t.Fatalf("%s came before one of %d was settled", m.UUID, concurrency)
			default:
			}
			require.True(t, held[0].Ack())
			held[0] = <-in
			for _, m := range held {
				require.True(t, m.Ack())
			}
			for range 3 - concurrency {
				require.True(t, (<-in).Ack())
			}
		})
	}
}

func TestANackComesAgainAfterTheBackoffAndEndsAsADeadLetter(t *testing.T) {
	bubble(t, func(t *testing.T, b *fanoutwatermill.Broker) {
		in := subscribe(t, b.Subscriber("billing"))
		publish(t, b, "1")
		began := time.Now()
		for attempt := range 3 {
			m := <-in
			require.Equal(t, time.Duration(attempt)*time.Minute, time.Since(began))
			d, ok := fanoutwatermill.DeliveryOf(m)
			require.True(t, ok)
			require.Equal(t, attempt+1, d.Attempt())
			require.True(t, m.Nack())
			require.False(t, m.Ack())
		}
		synctest.Wait()
		letters := dead(t, b, "billing")
		require.Len(t, letters, 1)
		for _, a := range letters[0].History() {
			require.Equal(t, fanout.Nacked, a.Cause)
		}
	}, fanoutwatermill.WithQueueOptions(fanout.WithMaxAttempts(5)),
		fanoutwatermill.WithQueue("payments", "billing", fanout.WithMaxAttempts(3), fanout.WithBackoff(fanout.Constant(time.Minute))))
}

// handle runs a handler as a router does.
func handle(in <-chan *message.Message, h message.HandlerFunc) error {
	m := <-in
	_, err := h(m)
	if err != nil {
		m.Nack()
	} else {
		m.Ack()
	}
	return err
}

func TestTheMiddlewareTellsWhyAndHeedsOutcomes(t *testing.T) {
	bubble(t, func(t *testing.T, b *fanoutwatermill.Broker) {
		in := subscribe(t, b.Subscriber("billing"))
		publish(t, b, "1")
		began := time.Now()
		results := []error{errors.New("the bank is closed"), fanout.RetryAfter(errors.New("busy"), time.Hour), fanout.Permanent(errors.New("no such account"))}
		for k, after := range []time.Duration{0, time.Second, time.Hour + time.Second} {
			require.Equal(t, results[k], handle(in, fanoutwatermill.Errors(func(m *message.Message) ([]*message.Message, error) {
				require.Equal(t, after, time.Since(began))
				return nil, results[k]
			})))
		}
		synctest.Wait()
		letters := dead(t, b, "billing")
		require.Len(t, letters, 1)
		history := letters[0].History()
		require.Len(t, history, 3)
		require.EqualError(t, history[0].Err, "the bank is closed")
		require.Equal(t, fanout.Failed, history[0].Cause)
		require.Equal(t, fanout.PermanentlyFailed, history[2].Cause)
	}, fanoutwatermill.WithQueueOptions(fanout.WithBackoff(fanout.Constant(time.Second))))
}

func TestTheMiddlewareLeavesOtherMessagesAlone(t *testing.T) {
	want := errors.New("failed")
	m := message.NewMessage("1", nil)
	produced, err := fanoutwatermill.Errors(func(*message.Message) ([]*message.Message, error) { return []*message.Message{m}, want })(m)
	require.Equal(t, want, err)
	require.Equal(t, []*message.Message{m}, produced)
	_, ok := fanoutwatermill.DeliveryOf(m)
	require.False(t, ok)
}

// none is a context that is none.
var none context.Context

type key struct{}

func TestAMessagesContextIsTheSubscriptionsAndEndsWithTheMessage(t *testing.T) {
	bubble(t, func(t *testing.T, b *fanoutwatermill.Broker) {
		in, err := b.Subscriber("billing").Subscribe(context.WithValue(t.Context(), key{}, "of Subscribe"), "payments")
		require.NoError(t, err)
		publish(t, b, "1", "2")
		for _, settle := range []func(*message.Message) bool{(*message.Message).Ack, (*message.Message).Nack} {
			m := <-in
			require.Equal(t, "of Subscribe", m.Context().Value(key{}))
			require.NoError(t, m.Context().Err())
			require.True(t, settle(m))
			<-m.Context().Done()
		}
	})
}

func TestASubscriptionEndsWithItsContext(t *testing.T) {
	bubble(t, func(t *testing.T, b *fanoutwatermill.Broker) {
		ctx, cancel := context.WithCancel(t.Context())
		in, err := b.Subscriber("billing").Subscribe(ctx, "payments")
		require.NoError(t, err)
		publish(t, b, "1", "2")
		m := <-in
		cancel()
		<-m.Context().Done()
		require.True(t, m.Ack(), "what the consumer has can still be settled")
		_, open := <-in
		require.False(t, open)
		m = <-subscribe(t, b.Subscriber("billing"))
		require.Equal(t, "2", m.UUID)
		require.True(t, m.Ack())
	})
}

func TestCloseWaitsForWhatTheConsumerHas(t *testing.T) {
	bubble(t, func(t *testing.T, b *fanoutwatermill.Broker) {
		s := b.Subscriber("billing", fanoutwatermill.WithCloseTimeout(time.Minute))
		in := subscribe(t, s)
		publish(t, b, "1", "2")
		m, began := <-in, time.Now()
		time.AfterFunc(30*time.Second, func() {
			require.NoError(t, m.Context().Err())
			m.Ack()
		})
		require.NoError(t, s.Close())
		require.Equal(t, 30*time.Second, time.Since(began))
		_, open := <-in
		require.False(t, open)
		m = <-subscribe(t, b.Subscriber("billing"))
		require.Equal(t, "2", m.UUID)
		d, _ := fanoutwatermill.DeliveryOf(m)
		require.LessOrEqual(t, d.Attempt(), 2)
		require.True(t, m.Ack())
	})
}

func TestWhatIsNotSettledWhenCloseEndsComesAgainWithoutASpentAttempt(t *testing.T) {
	bubble(t, func(t *testing.T, b *fanoutwatermill.Broker) {
		s := b.Subscriber("billing")
		in := subscribe(t, s)
		publish(t, b, "1")
		m, began := <-in, time.Now()
		require.NoError(t, s.Close())
		require.Equal(t, 5*time.Second, time.Since(began))
		require.Error(t, m.Context().Err())
		m.Ack() // too late
		again := <-subscribe(t, b.Subscriber("billing"))
		require.Equal(t, "1", again.UUID)
		d, _ := fanoutwatermill.DeliveryOf(again)
		require.Equal(t, fanout.Released, d.History()[0].Cause)
		require.True(t, again.Ack())
	})
}

func TestAMessageIsNotTakenAwayFromASlowConsumer(t *testing.T) {
	bubble(t, func(t *testing.T, b *fanoutwatermill.Broker) {
		in := subscribe(t, b.Subscriber("billing"))
		publish(t, b, "1")
		m := <-in
		time.Sleep(11 * time.Hour)
		require.NoError(t, m.Context().Err())
		require.True(t, m.Ack())
		synctest.Wait()
		require.Empty(t, dead(t, b, "billing"))
	})
	bubble(t, func(t *testing.T, b *fanoutwatermill.Broker) {
		in := subscribe(t, b.Subscriber("billing", fanoutwatermill.WithWorkerOptions(fanout.WithAutoExtend(time.Minute))))
		publish(t, b, "1")
		m, began := <-in, time.Now()
		again := <-in
		require.Equal(t, time.Minute, time.Since(began).Truncate(time.Second))
		require.Error(t, m.Context().Err())
		require.True(t, again.Ack())
	})
}

func TestAPublishWaitsForRoomUntilItsMessageOrThePublisherEnds(t *testing.T) {
	bubble(t, func(t *testing.T, b *fanoutwatermill.Broker) {
		require.NoError(t, b.Subscriber("billing").SubscribeInitialize("payments"))
		publish(t, b, "1")
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		p := b.Publisher()
		m := message.NewMessage("3", nil)
		m.SetContext(ctx)
		require.ErrorIs(t, p.Publish("payments", m), context.DeadlineExceeded)
		time.AfterFunc(time.Second, func() { require.NoError(t, p.Close()) })
		require.ErrorIs(t, p.Publish("payments", message.NewMessage("4", nil)), fanout.ErrClosed)
		require.ErrorIs(t, p.Publish("payments", message.NewMessage("5", nil)), fanout.ErrClosed)
		got := <-subscribe(t, b.Subscriber("billing"))
		require.Equal(t, "1", got.UUID)
		require.True(t, got.Ack())
	}, fanoutwatermill.WithQueueOptions(fanout.WithCapacity(1)))
}

// The second message's context ends, and the first one's does not.
func TestAPublishEndsWithTheContextOfAnyOfItsMessages(t *testing.T) {
	bubble(t, func(t *testing.T, b *fanoutwatermill.Broker) {
		require.NoError(t, b.Subscriber("billing").SubscribeInitialize("payments"))
		publish(t, b, "1")
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		began := time.Now()
		require.ErrorIs(t, b.Publisher().Publish("payments", message.NewMessage("2", nil), message.NewMessageWithContext(ctx, "3", nil)), context.Canceled)
		require.Equal(t, time.Second, time.Since(began))
	}, fanoutwatermill.WithQueueOptions(fanout.WithCapacity(2)))
}

func TestAPublishThatCouldOnlyWaitForItsHandlerIsRefused(t *testing.T) {
	bubble(t, func(t *testing.T, b *fanoutwatermill.Broker) {
		in := subscribe(t, b.Subscriber("billing"))
		publish(t, b, "1")
		handled := <-in
		m := message.NewMessage("2", nil)
		m.SetContext(handled.Context())
		require.ErrorIs(t, b.Publisher().Publish("payments", m), fanout.ErrWouldDeadlock)
		require.True(t, handled.Ack())
	}, fanoutwatermill.WithQueueOptions(fanout.WithCapacity(1)))
}

func TestABatchIsInAllQueuesOrInNone(t *testing.T) {
	bubble(t, func(t *testing.T, b *fanoutwatermill.Broker) {
		require.NoError(t, b.Subscriber("billing").SubscribeInitialize("payments"))
		books := subscribe(t, b.Subscriber("books"))
		p := b.Publisher()
		require.ErrorIs(t, p.Publish("payments", message.NewMessage("1", nil), message.NewMessage("2", nil)), fanout.ErrBatchTooLarge)
		require.ErrorIs(t, p.Publish("payments", message.NewMessage("1", nil), nil), fanout.ErrInvalidMessage)
		require.NoError(t, p.Publish("payments"))
		synctest.Wait()
		require.Empty(t, books)
	}, fanoutwatermill.WithQueue("payments", "billing", fanout.WithCapacity(1)))
}

func TestASubscriptionEndsWithItsTopic(t *testing.T) {
	bubble(t, func(t *testing.T, b *fanoutwatermill.Broker) {
		in := subscribe(t, b.Subscriber("billing"))
		topic, err := b.Topic("payments")
		require.NoError(t, err)
		require.NoError(t, topic.Close())
		_, open := <-in
		require.False(t, open)
		_, err = b.Subscriber("billing").Subscribe(t.Context(), "payments")
		require.ErrorIs(t, err, fanout.ErrClosed)
	})
}

func TestShutdownDrainsWhatIsPublished(t *testing.T) {
	bubble(t, func(t *testing.T, b *fanoutwatermill.Broker) {
		in := subscribe(t, b.Subscriber("billing"))
		publish(t, b, "1", "2", "3")
		got := make(chan string, 3)
		ended := make(chan struct{})
		time.AfterFunc(0, func() {
			defer close(ended)
			for m := range in {
				time.Sleep(time.Second)
				got <- m.UUID
				m.Ack()
			}
		})
		require.Error(t, b.Shutdown(none))
		require.NoError(t, b.Shutdown(t.Context()))
		<-ended
		require.Len(t, got, 3)
		require.ErrorIs(t, b.Publisher().Publish("payments", message.NewMessage("4", nil)), fanout.ErrClosed)
		_, err := b.Topic("payments")
		require.ErrorIs(t, err, fanout.ErrClosed)
	})
}

func TestShutdownSaysWhatIsLeft(t *testing.T) {
	bubble(t, func(t *testing.T, b *fanoutwatermill.Broker) {
		require.NoError(t, b.Subscriber("billing").SubscribeInitialize("payments"))
		publish(t, b, "1", "2")
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		var left *fanout.ShutdownError
		require.ErrorAs(t, b.Shutdown(ctx), &left)
	})
}

func TestFieldsThatWatermillDoesNotHave(t *testing.T) {
	bubble(t, func(t *testing.T, b *fanoutwatermill.Broker) {
		in := subscribe(t, b.Subscriber("billing"))
		began := time.Now()
		for _, id := range []string{"1", "2"} {
			m := message.NewMessage(id, nil)
			m.Metadata.Set("delay", "1m")
			m.Metadata.Set("once", "o-17")
			require.NoError(t, b.Publisher().Publish("payments", m))
		}
		m := <-in
		require.Equal(t, time.Minute, time.Since(began))
		require.True(t, m.Ack())
		synctest.Wait()
		topic, err := b.Topic("payments")
		require.NoError(t, err)
		held, err := topic.Queue("billing").Depth(t.Context())
		require.NoError(t, err)
		require.Zero(t, held.Unsettled(), "the second is a duplicate")
	}, fanoutwatermill.WithTopicOptions(fanout.WithDeduplication(time.Hour, 100)),
		fanoutwatermill.WithMessageFields(func(topic string, from *message.Message, to *fanout.Message[[]byte]) {
			to.Delay, _ = time.ParseDuration(from.Metadata.Get("delay"))
			to.DeduplicationID = fmt.Sprint(topic, from.Metadata.Get("once"))
		}))
}

func TestBadInputIsNamed(t *testing.T) {
	for _, o := range []fanoutwatermill.Option{nil, fanoutwatermill.WithQueue("", "billing"), fanoutwatermill.WithQueue("payments", ""),
		fanoutwatermill.WithMessageFields(nil), fanoutwatermill.WithEngine(nil)} {
		_, err := fanoutwatermill.NewBroker(o)
		require.ErrorIs(t, err, fanout.ErrInvalidOption)
	}
	bubble(t, func(t *testing.T, b *fanoutwatermill.Broker) {
		for _, o := range []fanoutwatermill.SubscriberOption{nil, fanoutwatermill.WithCloseTimeout(-1), fanoutwatermill.WithWorkerOptions(fanout.WithConcurrency(-1))} {
			_, err := b.Subscriber("billing", o).Subscribe(t.Context(), "payments")
			require.ErrorIs(t, err, fanout.ErrInvalidOption)
		}
		require.ErrorIs(t, b.Subscriber("billing", nil).SubscribeInitialize("payments"), fanout.ErrInvalidOption)
		_, err := b.Subscriber("billing").Subscribe(none, "payments")
		require.ErrorIs(t, err, fanout.ErrInvalidOption)
		require.ErrorIs(t, b.Publisher().Publish("", message.NewMessage("1", nil)), fanout.ErrInvalidOption)
		_, err = b.Subscriber("ends in/dead").Subscribe(t.Context(), "payments")
		require.ErrorIs(t, err, fanout.ErrInvalidOption)
	})
}

func TestOnAnEngine(t *testing.T) {
	bubbleWith(t, func(t *testing.T, b *fanoutwatermill.Broker) {
		_, err := b.Subscriber("").Subscribe(t.Context(), "payments")
		require.ErrorIs(t, err, fanout.ErrUnsupported)
		in := subscribe(t, b.Subscriber("billing"))
		m := message.NewMessage("o-17", []byte{0, 255, '"'})
		m.Metadata.Set("region", "eu")
		require.NoError(t, b.Publisher().Publish("payments", m))
		for range 2 {
			got := <-in
			require.True(t, got.Equals(m), "%v", got)
			if d, _ := fanoutwatermill.DeliveryOf(got); d.Attempt() == 1 {
				require.True(t, got.Nack())
			} else {
				require.True(t, got.Ack())
			}
		}
	}, func() []fanoutwatermill.Option {
		return []fanoutwatermill.Option{fanoutwatermill.WithEngine(fakeengine.New(fakeengine.Config{}))}
	})
}
