// Package natstest runs watermill's tests on fanoutwatermill over NATS JetStream in
// this process. It is a module of its own, so that the plugin needs no NATS.
package natstest

import (
	"fmt"
	"testing"
	"time"

	"github.com/ThreeDotsLabs/watermill/message"
	"github.com/ThreeDotsLabs/watermill/pubsub/tests"
	"github.com/stretchr/testify/require"

	"github.com/gofanout/fanout"
	"github.com/gofanout/fanout/engine"
	"github.com/gofanout/fanout/engine/fanoutnats"
	"github.com/gofanout/fanout/engine/fanoutnats/embedded"
	"github.com/gofanout/fanout/plugin/fanoutwatermill"
	"github.com/gofanout/fanout/plugin/fanoutwatermill/internal/suite"
)

// open returns a broker on the engine. Nacked messages come again a millisecond
// later, for as often as the suite wants them.
func open(t *testing.T, e *fanoutnats.Engine) *fanoutwatermill.Broker {
	t.Helper()
	b, err := fanoutwatermill.NewBroker(
		fanoutwatermill.WithEngine(e, fanout.Without(engine.Bounded)),
		fanoutwatermill.WithQueueOptions(fanout.WithMaxAttempts(fanout.Unlimited), fanout.WithBackoff(fanout.Constant(time.Millisecond))))
	require.NoError(t, err)
	return b
}

// Each instance of the Pub/Sub is a broker of its own, as each process has it; all
// have one engine, as one process has the directory. False are, of watermill's features:
//   - GuaranteedOrder, GuaranteedOrderWithSingleSubscriber: a consumer of JetStream
//     orders all its messages or none, and a nacked message comes behind others.
//   - ExactlyOnceDelivery: a message whose consumer ends before it acknowledges it
//     comes again.
//   - NewSubscriberReceivesOldMessages: what all groups have acknowledged is gone.
//   - ContextPreserved: a directory is between publisher and consumer.
//   - RequireSingleInstance: several work.
func TestWatermillsSuiteOnEmbeddedJetStream(t *testing.T) {
	e, err := embedded.Open(t.TempDir(), embedded.WithSyncInterval(time.Second))
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, e.Close()) })
	suite.Run(t, suite.Way{
		Group: "group",
		Open: func(t *testing.T, group string) (message.Publisher, message.Subscriber) {
			b := open(t, e.Engine)
			return b.Publisher(), closing{b.Subscriber(group, fanoutwatermill.WithCloseTimeout(100*time.Millisecond)), b}
		},
		Features: tests.Features{ConsumerGroups: true, Persistent: true},
		Left: map[string]string{
			"TestReconnect":                        "the server is in this process, and no command restarts it: see TestNothingIsLostByARestart",
			"TestPublishSubscribeInOrder":          "order by a key is not supported on JetStream",
			"TestNoAck":                            "it expects that a message holds up all others, as order does",
			"TestNewSubscriberReceivesOldMessages": "what all groups have acknowledged is gone",
		},
	})
}

// A closing subscriber closes its broker with it.
type closing struct {
	*fanoutwatermill.Subscriber
	broker *fanoutwatermill.Broker
}

func (c closing) Close() error { return c.broker.Close() }

// The server and all that is in the process ends and begins again on the directory
// while messages are unread, read and not acknowledged, and acknowledged.
func TestNothingIsLostByARestart(t *testing.T) {
	const messages = 200
	dir := t.TempDir()
	got := map[string]int{}
	acked := map[string]bool{}
	for round := range 4 {
		e, err := embedded.Open(dir)
		require.NoError(t, err)
		b := open(t, e.Engine)
		s := b.Subscriber("billing", fanoutwatermill.WithCloseTimeout(0), fanoutwatermill.WithWorkerOptions(fanout.WithConcurrency(10)))
		require.NoError(t, s.SubscribeInitialize("payments"))
		if round == 0 {
			var all []*message.Message
			for k := range messages {
				m := message.NewMessage(fmt.Sprint(k), fmt.Appendf(nil, "payment %d", k))
				m.Metadata.Set("n", fmt.Sprint(k))
				all = append(all, m)
			}
			require.NoError(t, b.Publisher().Publish("payments", all...))
		}
		in, err := s.Subscribe(t.Context(), "payments")
		require.NoError(t, err)
		for len(acked) < min(messages, (round+1)*messages/4) {
			m := <-in
			got[m.UUID]++
			require.False(t, acked[m.UUID], "%s was acknowledged before", m.UUID)
			require.Equal(t, "payment "+m.UUID, string(m.Payload))
			require.Equal(t, m.UUID, m.Metadata.Get("n"))
			if round < 3 && got[m.UUID] == 1 && len(got)%10 == 0 {
				continue // a consumer that never settles it: the next process gets it
			}
			require.True(t, m.Ack())
			<-m.Context().Done() // the engine has it
			acked[m.UUID] = true
		}
		require.NoError(t, b.Close())
		require.NoError(t, e.Close())
	}
	require.Len(t, acked, messages)
}

// Two processes stop one after the other: the second one's subscription goes on.
func TestABrokerThatClosesLeavesTheGroupToOthers(t *testing.T) {
	e, err := embedded.Open(t.TempDir())
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, e.Close()) })
	one, two := open(t, e.Engine), open(t, e.Engine)
	t.Cleanup(func() { require.NoError(t, two.Close()) })
	require.NoError(t, one.Subscriber("billing").SubscribeInitialize("payments"))
	in, err := two.Subscriber("billing").Subscribe(t.Context(), "payments")
	require.NoError(t, err)
	require.NoError(t, one.Close())
	require.NoError(t, two.Publisher().Publish("payments", message.NewMessage("1", []byte("x"))))
	m := <-in
	require.Equal(t, "1", m.UUID)
	require.True(t, m.Ack())
	<-m.Context().Done()
}
