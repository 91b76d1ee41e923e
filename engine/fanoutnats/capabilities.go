package fanoutnats

import "github.com/gofanout/fanout/engine"

// Capabilities says what is kept, the same for all servers and options, except that
// with [WithMemoryStorage] a message lasts as long as its servers do.
func (e *Engine) Capabilities() engine.Capabilities {
	kept := func(note string) engine.Support { return engine.Support{Kept: true, Note: note} }
	not := func(note string) engine.Support { return engine.Support{Note: note} }
	return engine.Capabilities{
		engine.Visibility:   kept("any length; a message comes up to a tenth of the queue's own, at least 2s, after its lease has ended"),
		engine.MessageDelay: kept("the adapter gives the message back until it is due"),
		engine.QueueDelay:   kept("the adapter gives each message back until it is due"),
		engine.RetryDelay:   kept("negative acknowledgement with a delay; off by up to 1s after the restart of a server"),
		engine.AllOrNone:    kept("atomic batch publish, up to 1000 messages"),
		engine.Bounded: not("NATS limits a stream, not a consumer: fanoutnats.WithMaxMessages bounds a topic's queues together, " +
			"and Publish then fails when it is full"),
		engine.Ordering: not("a consumer orders all its messages or none: " +
			"use a topic for each partition, or put a sequence number into the message"),
		engine.Deduplication: kept("at least 100ms; counts from the publication"),
		engine.FilterPolicy:  not("NATS filters on subjects; fanout filters what it receives"),
		engine.State:         kept("in a stream of its own, until the message is settled"),
		engine.Fencing: not("a server takes any delivery's acknowledgement; the adapter refuses by its own clock " +
			"and by what it has received since"),
		engine.ExactStats: not("the sum is exact; a delayed message counts as ready until it was looked at, then as in flight, " +
			"and one that was returned as in flight"),
		engine.Durable:     kept("a file store"),
		engine.Distributed: kept("a queue is a durable consumer, shared by name"),
		engine.Listing:     kept("the consumers of its streams"),
		engine.Deletion:    kept("its consumers, and what only they wait for"),
	}
}
