package fanouttest

import (
	"strings"

	"github.com/gofanout/fanout"
)

// A topicOption is an option of the kit's. It stands among those of the library
// because it embeds one, which does nothing.
type topicOption struct {
	fanout.TopicOption
	apply func(*settings)
}

type settings struct {
	unsettled  bool
	letters    bool
	changes    bool
	snapshotOf any // a func(T) any, or nil
}

func option(apply func(*settings)) fanout.TopicOption {
	return topicOption{fanout.WithHandlerInterceptor(), apply}
}

// applyOwn applies the kit's options, those in groups too, and returns the others.
func (s *settings) applyOwn(options []fanout.TopicOption) (others []fanout.TopicOption) {
	for _, o := range options {
		switch o := o.(type) {
		case topicOption:
			o.apply(s)
		case interface{ Options() []fanout.TopicOption }: // fanout.TopicOptions
			others = append(others, fanout.TopicOptions(s.applyOwn(o.Options())...))
		default:
			others = append(others, o)
		}
	}
	return others
}

// WithHooks is fanout.WithHooks, but its hooks do not hear of the kit's own queue. Hooks
// given by either option add up; the kit's own are called first.
func WithHooks(h fanout.Hooks) fanout.TopicOption {
	for _, hook := range []*func(fanout.Event){&h.Delivered, &h.Settled, &h.Dropped} { // of what happens there
		if then := *hook; then != nil {
			*hook = func(e fanout.Event) {
				if !ofTap(e) {
					then(e)
				}
			}
		}
	}
	return fanout.WithHooks(h)
}

// ofTap reports whether e happened in the kit's own queue.
func ofTap(e fanout.Event) bool { return e.Queue == tapName || strings.HasPrefix(e.Queue, tapName+"/") }

// AllowUnsettled lets the test end with messages that are not settled.
func AllowUnsettled() fanout.TopicOption {
	return option(func(s *settings) { s.unsettled = true })
}

// AllowDeadLetters lets the test end with dead letters that it has not asserted.
func AllowDeadLetters() fanout.TopicOption {
	return option(func(s *settings) { s.letters = true })
}

// AllowChanges says that bodies may be changed after they were published. The kit then takes
// no snapshots.
func AllowChanges() fanout.TopicOption {
	return option(func(s *settings) { s.changes = true })
}

// WithSnapshot sets what the kit compares to find bodies that were changed while queues
// shared them. It keeps what f returns as JSON, so f may return a part of the body itself.
// The default is the whole body, whose unexported fields JSON leaves out. T must be the
// topic's. f is called concurrently, in publishers and handlers.
func WithSnapshot[T any](f func(body T) any) fanout.TopicOption {
	return option(func(s *settings) { s.snapshotOf = f })
}
