// Package fanoutnats keeps fanout's topics and queues in NATS JetStream: on the
// servers that a connection reaches, or, with package embedded, in this very
// process with its files in a directory.
//
//	nc, err := nats.Connect("nats://a:4222,nats://b:4222,nats://c:4222")
//	js, err := jetstream.New(nc)
//	e, err := fanoutnats.New(js, fanoutnats.WithReplicas(3))
//	payments, err := fanout.NewTopic[Payment]("payments", fanout.WithEngine(e, fanout.Without(engine.Bounded)))
//
// # What is where
//
// A topic is a stream with interest retention: a message stays until each queue
// is done with it. A queue is a durable pull consumer of it. The dead letters of
// a topic's queues are in a second stream, a consumer for each queue. The
// bookkeeping of messages that are being retried is in a third one, a message
// for each, which goes when the message does. A message published by somebody
// else to the topic's subject is delivered too. "nats stream ls" shows them all.
//
// A queue outlives the processes that open it, and holds on to what it has not
// received yet. Whoever no longer needs a queue deletes it, with fanout.Queue.Delete,
// or the stream grows.
//
// # Leases
//
// A server hides a delivery for its queue's AckWait, which here is the queue's
// visibility timeout and a little more. A lease of another length is told to the
// server, which has a time of its own for each message; it costs one message, and for
// a Receive a round trip. So a message that is not settled comes back when its lease has
// ended, whether its process lives or not: up to a tenth of the queue's visibility
// timeout later, or two seconds if that is more. The adapter has no goroutine.
//
// A JetStream server takes the acknowledgement of any delivery of a message for
// that of the newest. So the adapter looks first: a receipt whose lease has ended, or
// whose message it has received again, is refused. Two processes are told apart by
// time only: a process that stands still between the look and the send, for longer
// than the rest of its lease, may settle the delivery that another one has got
// meanwhile.
//
// In a cluster, a Receive that ends without a message leaves its request open for up
// to two seconds, for the next one. A message that comes meanwhile, with nobody here
// to take it, goes on after a second, and has one delivery more.
//
// # Delays
//
// A message with a delay is received when it is its turn, and given back until it
// is due. That spends none of the Deliveries that fanout is told of. The clocks of
// the processes and of the servers have to agree as well as the delays are wanted
// to be exact. After the restart of a server, waits may be off by a second.
package fanoutnats
