package fanouttest

import "github.com/gofanout/fanout"

// A topicOption is an option of the kit's. It stands among those of the library
// because it embeds one, which does nothing.
type topicOption struct {
	fanout.TopicOption
	apply func(*settings)
}

type settings struct {
	hooks      fanout.Hooks
	unsettled  bool
	letters    bool
	changes    bool
	snapshotOf any // a func(T) any, or nil
}

func option(apply func(*settings)) fanout.TopicOption {
	return topicOption{fanout.WithHandlerInterceptor(), apply}
}

// WithHooks is [fanout.WithHooks] beside the kit's own hooks, which are called
// first. The library's option would take their place: the kit notices that and
// fails the test.
func WithHooks(h fanout.Hooks) fanout.TopicOption {
	return option(func(s *settings) { s.hooks = h })
}

// AllowUnsettled lets the test end with messages that are not settled.
func AllowUnsettled() fanout.TopicOption {
	return option(func(s *settings) { s.unsettled = true })
}

// AllowDeadLetters lets the test end with dead letters that it did not assert.
func AllowDeadLetters() fanout.TopicOption {
	return option(func(s *settings) { s.letters = true })
}

// AllowChanges says that bodies may be changed after they were published, and
// saves their snapshots.
func AllowChanges() fanout.TopicOption {
	return option(func(s *settings) { s.changes = true })
}

// WithSnapshot sets what of a body is compared to find out that it was changed
// while queues shared it. What f returns is kept as JSON, so it may point into
// the body. By default it is the body, whose unexported fields JSON leaves out.
// T must be the topic's. f is called concurrently, in publishers and handlers.
func WithSnapshot[T any](f func(body T) any) fanout.TopicOption {
	return option(func(s *settings) { s.snapshotOf = f })
}
