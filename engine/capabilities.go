package engine

import (
	"fmt"
	"time"
)

// A Feature is something that an engine may keep or not.
type Feature uint8

const (
	// Visibility is the visibility timeout; Most is the longest.
	Visibility Feature = iota + 1
	// MessageDelay is a delay of a message's own; Most is the longest.
	MessageDelay
	// QueueDelay is a delay of all of a queue's messages; Most is the longest.
	QueueDelay
	// RetryDelay is the wait of a message that was returned; Most is the longest.
	// fanout takes no engine without it: what fails would be tried without a pause.
	RetryDelay
	// AllOrNone says that a batch is published as a whole or not at all.
	AllOrNone
	// Bounded says that a queue holds no more than its capacity, and that a publish
	// that finds it full waits or fails.
	Bounded
	// Ordering says that messages with one OrderingKey are delivered in order, one
	// at a time.
	Ordering
	// Deduplication says that a DeduplicationID counts once within the window;
	// Most is the longest window.
	Deduplication
	// FilterPolicy says that the engine filters on attributes itself. Without it
	// fanout does, after a message was received.
	FilterPolicy
	// State says that what is given to Return comes back with the message. Without
	// it, histories are kept by the process that worked on a message, and its
	// attempts are counted by the engine's deliveries.
	State
	// Fencing says that the engine itself refuses to settle a lease that has
	// ended. Without it fanout refuses by its own clock, which is earlier.
	Fencing
	// ExactStats says that Stats are exact when nothing happens.
	ExactStats
	// Durable says that messages outlive the process.
	Durable
	// Distributed says that several processes can share a topic and its queues.
	Distributed
	// Deletion says that a queue can be deleted, see [Queue]. Without it
	// fanout.Queue.Delete is refused.
	Deletion
	// Listing says that the topic's queues can be listed, see [Lister]. Without it
	// fanout.Topic.ListQueues is refused.
	Listing
	features
)

var featureNames = [features]string{
	Visibility: "visibility timeout", MessageDelay: "delay of a message", QueueDelay: "delay of a queue",
	RetryDelay: "delay of a retry", AllOrNone: "all or none", Bounded: "bounded queues",
	Ordering: "ordering keys", Deduplication: "deduplication", FilterPolicy: "filter policies in the engine",
	State: "history across processes", Fencing: "fencing across processes", ExactStats: "exact depth", Durable: "outlives the process",
	Distributed: "several processes", Deletion: "deletion of queues", Listing: "list of queues",
}

func (f Feature) String() string {
	if f > 0 && f < features {
		return featureNames[f]
	}
	return fmt.Sprintf("Feature(%d)", uint8(f))
}

// Features returns all features, in the order of documentation.
func Features() []Feature {
	fs := make([]Feature, 0, features-1)
	for f := Feature(1); f < features; f++ {
		fs = append(fs, f)
	}
	return fs
}

// Support says how an engine keeps a feature.
type Support struct {
	Kept bool
	// Most is the longest duration, for features that have one; 0 is unlimited.
	Most time.Duration
	// Note says how it is kept, or, if it isn't, what would work instead. It is
	// part of the error that refuses an option and of the documentation's table.
	Note string
}

// Capabilities says what an engine keeps. A feature that is not in it is not
// kept.
type Capabilities map[Feature]Support

// Keeps reports whether f is kept, for durations up to d if f has one.
func (c Capabilities) Keeps(f Feature, d time.Duration) bool {
	s := c[f]
	return s.Kept && (s.Most == 0 || d <= s.Most)
}
