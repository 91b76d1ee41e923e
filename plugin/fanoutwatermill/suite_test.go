package fanoutwatermill_test

import (
	"sync"
	"testing"
	"time"

	"github.com/ThreeDotsLabs/watermill/message"
	"github.com/ThreeDotsLabs/watermill/pubsub/tests"
	"github.com/stretchr/testify/require"

	"github.com/gofanout/fanout"
	"github.com/gofanout/fanout/plugin/fanoutwatermill"
	"github.com/gofanout/fanout/plugin/fanoutwatermill/internal/suite"
)

// Brokers have a broker for each test: its publishers and subscribers are what the
// suite takes for instances of a Pub/Sub.
type brokers struct {
	options []fanoutwatermill.Option
	mu      sync.Mutex
	byTest  map[string]*fanoutwatermill.Broker
}

func (b *brokers) open(t *testing.T, group string) (message.Publisher, message.Subscriber) {
	b.mu.Lock()
	defer b.mu.Unlock()
	broker := b.byTest[t.Name()]
	if broker == nil {
		var err error
		broker, err = fanoutwatermill.NewBroker(b.options...)
		require.NoError(t, err)
		t.Cleanup(func() { require.NoError(t, broker.Close()) })
		b.byTest[t.Name()] = broker
	}
	return broker.Publisher(), broker.Subscriber(group, fanoutwatermill.WithCloseTimeout(100*time.Millisecond))
}

func ways(options ...fanoutwatermill.Option) *brokers {
	return &brokers{byTest: map[string]*fanoutwatermill.Broker{}, options: append([]fanoutwatermill.Option{
		// The suite publishes up to 10,000 messages before it reads the first, and
		// nacks messages more often than the five times that fanout tries them.
		fanoutwatermill.WithQueueOptions(fanout.WithCapacity(20_000), fanout.WithMaxAttempts(fanout.Unlimited), fanout.WithBackoff(fanout.Constant(time.Millisecond))),
	}, options...)}
}

// byPayload orders messages with equal payloads, as the suite expects it.
var byPayload = fanoutwatermill.WithMessageFields(func(_ string, from *message.Message, to *fanout.Message[[]byte]) {
	to.OrderingKey = string(from.Payload)
})

const (
	noCommand  = "nothing to restart: messages are in this process"
	onceAtMost = "it is for a Pub/Sub that replays to consumers what they have consumed: see the run without groups, which does"
)

// Groups, and order by a key. False are, of watermill's features:
//   - ExactlyOnceDelivery: a message whose consumer ends before it acknowledges it
//     comes again.
//   - GuaranteedOrderWithSingleSubscriber: order is guaranteed with many.
//   - NewSubscriberReceivesOldMessages: a new group gets what is published after it
//     was made, unless its queue was opened WithReplay.
//   - ContextPreserved: a queue is between publisher and consumer.
func TestWatermillsSuiteInMemoryWithGroups(t *testing.T) {
	for _, instances := range []string{"single", "many"} {
		t.Run(instances, func(t *testing.T) {
			suite.Run(t, suite.Way{
				Group: "group",
				Open:  ways(fanoutwatermill.WithTopicOptions(fanout.WithOrdering()), byPayload).open,
				Features: tests.Features{
					ConsumerGroups:  true,
					GuaranteedOrder: true,
					// What a closed instance has not consumed, the next one gets: the
					// broker is one for all, and keeps it.
					Persistent:            instances == "many",
					RequireSingleInstance: instances == "single",
				},
				Left: left(instances == "single"),
			})
		})
	}
}

func left(single bool) map[string]string {
	why := map[string]string{"TestReconnect": noCommand, "TestNewSubscriberReceivesOldMessages": onceAtMost}
	if single {
		why["TestContinueAfterSubscribeClose"] = "it is for several instances: see the run with many"
		why["TestContinueAfterErrors"] = "a single instance stays open with four subscriptions, and reads only the last: in one group the others keep a message each, see the other runs"
	}
	return why
}

// As GoChannel: each subscription gets all messages, old ones too.
func TestWatermillsSuiteInMemoryWithoutGroups(t *testing.T) {
	suite.Run(t, suite.Way{
		Open: ways(fanoutwatermill.WithTopicOptions(fanout.WithRetention(20_000), fanout.WithOrdering()), byPayload,
			fanoutwatermill.WithQueueOptions(fanout.WithReplay(20_000))).open,
		Features: tests.Features{
			GuaranteedOrder:                  true,
			RequireSingleInstance:            true,
			NewSubscriberReceivesOldMessages: true,
		},
		Left: map[string]string{
			"TestReconnect":                   noCommand,
			"TestConsumerGroups":              "there are none in this run",
			"TestContinueAfterSubscribeClose": "it expects the second subscription to get what the first has left; without groups it gets all",
		},
	})
}
