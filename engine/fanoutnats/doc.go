// Package fanoutnats keeps fanout's topics and queues in NATS JetStream: on servers that a
// connection reaches or, with package embedded, in this process, with files in a directory.
//
//	nc, err := nats.Connect("nats://a:4222,nats://b:4222,nats://c:4222", fanoutnats.ConnectOptions()...)
//	js, err := jetstream.New(nc)
//	e, err := fanoutnats.New(js, fanoutnats.WithReplicas(3))
//	payments, err := fanout.NewTopic[Payment]("payments", fanout.WithEngine(e, fanout.Without(engine.Bounded)))
//
// # What is made in JetStream
//
// A topic is a stream with interest retention: a message stays until every queue is done with
// it. A queue is a durable pull consumer of that stream. The dead letters of all queues are in a
// second stream, with a consumer for each queue. A third stream has a record for each message
// that is being retried, which is removed with the message. "nats stream ls" shows all three.
// What others publish to the topic's subject is delivered too.
//
// A queue outlives the processes that open it, and keeps the messages that it has not
// delivered. If nobody needs a queue any more, delete it by fanout.Queue.Delete, or the stream
// grows without end.
//
// # Leases
//
// A server hides a delivered message for its queue's AckWait, which is the queue's visibility
// timeout and a little more. A lease of another length is told to the server, which keeps a
// time for each message; that costs one message, and a round trip for a Receive. So a message
// that is not settled comes again after its lease has ended, whether its process lives or not:
// up to two seconds later, or up to a tenth of the queue's visibility timeout if that is longer.
// This package has no goroutine.
//
// A JetStream server takes the acknowledgement of any delivery of a message as that of the
// newest. So this package checks first: it refuses to settle a lease that has ended, and one
// whose message this process has received again. Another process is told apart by time only. If
// a process stops between the check and its request, for longer than the rest of its lease, it
// can settle a delivery that another process has got meanwhile.
//
// On a cluster, a Receive that ends without a message leaves its request open for up to two
// seconds, for the next Receive. If a message comes meanwhile and nobody takes it here, the
// server delivers it to others after a second, and it has one delivery more.
//
// # Delays
//
// A message with a delay is received in its turn, and given back until it is due. fanout does
// not count these deliveries. Delays are as exact as the clocks of processes and servers agree.
// After a server has restarted, waits may be off by a second.
package fanoutnats
