package fanoutnats

import "github.com/gofanout/fanout/engine"

// Capabilities says what is kept, the same for all servers and options, except that
// with [WithMemoryStorage] a message lasts as long as its servers do.
func (e *Engine) Capabilities() engine.Capabilities {
	kept := func(note string) engine.Support { return engine.Support{Kept: true, Note: note} }
	not := func(note string) engine.Support { return engine.Support{Note: note} }
	return engine.Capabilities{
		engine.Visibility: kept("a message whose lease has ended comes again up to 2s later, " +
			"or up to a tenth of the queue's visibility timeout if that is longer"),
		engine.MessageDelay: kept("the consumer that receives the message gives it back until it is due"),
		engine.QueueDelay:   kept("works like the delay of a message"),
		engine.RetryDelay:   kept("can be off by up to 1s after a server has restarted"),
		engine.AllOrNone:    kept("up to 1000 messages a batch"),
		engine.Bounded: not("NATS limits a topic's queues together, not each: use fanoutnats.WithMaxMessages; " +
			"Publish fails while the topic is full"),
		engine.Ordering: not("a consumer orders all its messages or none: " +
			"use a topic for each partition, or put a sequence number into the message"),
		engine.Deduplication: kept("a window of at least 100ms, counted from the publication"),
		engine.FilterPolicy:  not("NATS filters on subjects: fanout applies the policy after it has received a message"),
		engine.State:         kept("stored beside the messages until they are settled"),
		engine.Fencing: not("a server accepts the acknowledgement of any delivery: fanout refuses a late one by its process's clock " +
			"and by what that process has received since"),
		engine.ExactStats: not("only the sum is exact: a delayed message counts as ready until it was received once, then as in flight; " +
			"one that waits for a retry counts as in flight"),
		engine.Durable:     kept("in files, unless WithMemoryStorage says otherwise"),
		engine.Distributed: kept("they open the queue by the same name"),
		engine.Listing:     kept("lists all queues of the topic"),
		engine.Deletion:    kept("deletes the queue's dead letters too, and the messages that no other queue needs"),
	}
}
