package fanoutaws

import (
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"time"
)

// An Option configures [New].
type Option interface{ apply(*settings) error }

type option func(*settings) error

func (o option) apply(s *settings) error { return o(s) }

type settings struct {
	names     Names
	existing  bool
	size      int  // bytes in a message and in a batch
	sized     bool // size was asked for
	poll      time.Duration
	retention time.Duration // 0 is SQS's default
	numbers   map[string]bool
	logger    *slog.Logger // nil is slog.Default()
}

// Limits of SNS and SQS.
const (
	batchMost     = 10
	attributeMost = 10
	snsDefault    = 256 << 10
	sqsMost       = 1 << 20
	visibleMost   = 12 * time.Hour
	delayMost     = 15 * time.Minute
	pollMost      = 20 * time.Second
	dedupWindow   = 5 * time.Minute
	// receivesMost is the largest maxReceiveCount that SQS takes. Snoozes and
	// releases are receives too, and fanout allows a thousand of them, so any
	// smaller net could catch a message that fanout has not given up.
	receivesMost = 1000
	// deadRetention is the longest there is: a letter's age counts from its
	// publication.
	deadRetention = 14 * 24 * time.Hour
)

func defaults() settings {
	return settings{names: defaultNames(), size: snsDefault, poll: pollMost, numbers: map[string]bool{}}
}

// WithExisting makes the engine use only what exists, made by Terraform, say:
// it creates, changes and deletes nothing. It still compares, and refuses a topic, a
// queue, a subscription or a policy that would not do with
// [engine.ErrMismatch]. The dead-letter queue is the one that the queue's redrive
// policy names, and by [Names] only if there is no such policy.
//
// By default what is missing is made, and an existing queue gets a policy,
// a redrive policy and a subscription if it has none. What is there is left
// as it is.
func WithExisting() Option {
	return option(func(s *settings) error { s.existing = true; return nil })
}

// WithNames sets how topics and queues are called in AWS. Functions that are nil
// leave the default.
func WithNames(n Names) Option {
	return option(func(s *settings) error {
		if n.Topic != nil {
			s.names.Topic = n.Topic
		}
		if n.Queue != nil {
			s.names.Queue = n.Queue
		}
		if n.DeadLetters != nil {
			s.names.DeadLetters = n.DeadLetters
		}
		return nil
	})
}

// WithMaxMessageSize sets how many bytes a message may have, its attributes
// included; a batch is sent in requests of no more than that. It sets the
// MaximumMessageSize of the topic, of queues and of dead-letter queues where that is
// smaller; WithExisting that is [engine.ErrMismatch]. Without this option no limit is
// changed, and the smallest counts: of 256 KiB, of the topic and of the queues that this
// process has opened, which need 500 bytes more, for a dead letter. The most is 1 MiB,
// which SNS allows to topics with up to 100 subscriptions.
func WithMaxMessageSize(bytes int) Option {
	return option(func(s *settings) error {
		if bytes < 1024 || bytes > sqsMost {
			return fmt.Errorf("fanoutaws: WithMaxMessageSize(%d): SNS takes 1024 to %d bytes", bytes, sqsMost)
		}
		s.size, s.sized = bytes, true
		return nil
	})
}

// WithPollTime sets how long one request for messages waits at SQS, 1 to 20
// seconds in whole seconds. A shorter one costs more requests and finds messages
// no sooner. The default is 20 seconds.
func WithPollTime(d time.Duration) Option {
	return option(func(s *settings) error {
		if d < time.Second || d > pollMost || d%time.Second != 0 {
			return fmt.Errorf("fanoutaws: WithPollTime(%v): SQS takes whole seconds from 1 to 20", d)
		}
		s.poll = d
		return nil
	})
}

// WithRetention sets for how long new queues keep a message, a minute to 14
// days in whole seconds. The default is SQS's, 4 days. An existing queue that
// keeps them shorter is given the new time, one that keeps them longer is
// [engine.ErrMismatch], as messages would be lost. Dead-letter queues always have
// 14 days.
func WithRetention(d time.Duration) Option {
	return option(func(s *settings) error {
		if d < time.Minute || d > deadRetention || d%time.Second != 0 {
			return fmt.Errorf("fanoutaws: WithRetention(%v): SQS takes a minute to 14 days, in whole seconds", d)
		}
		s.retention = d
		return nil
	})
}

// WithNumberAttributes says which attributes are numbers. They are sent as
// SNS's type Number when they look like one, and only those match numbers
// in a filter policy; a queue whose policy compares any other attribute with a
// number is refused. By default all are strings. A value that is a JSON array
// is sent as String.Array, whatever its name.
func WithNumberAttributes(names ...string) Option {
	return option(func(s *settings) error {
		s.numbers = maps.Clone(s.numbers)
		for _, n := range names {
			s.numbers[n] = true
		}
		return nil
	})
}

// WithLogger sets where the engine reports messages whose attribute fanout can't
// be read, which are given out as if it wasn't there, subscriptions that wait to be
// confirmed, and queues that SQS does not make yet. The default is slog.Default().
func WithLogger(l *slog.Logger) Option {
	return option(func(s *settings) error {
		if l == nil {
			return errors.New("fanoutaws: WithLogger(nil): for silence give it a logger with slog.DiscardHandler")
		}
		s.logger = l
		return nil
	})
}

func (s *settings) log() *slog.Logger {
	if s.logger != nil {
		return s.logger
	}
	return slog.Default()
}
