// Package fanoutaws is the engine that keeps fanout's topics on Amazon SNS and
// its queues on Amazon SQS. Publishers, handlers, options, retries and histories
// stay as they are; only the topic is made another way:
//
//	e, err := fanoutaws.New(sns.NewFromConfig(cfg), sqs.NewFromConfig(cfg))
//	payments, err := fanout.NewTopic[PaymentSucceeded]("payments", fanout.WithEngine(e, fanout.Without(engine.Bounded, engine.AllOrNone)))
//
// # What becomes of what
//
//   - A topic is an SNS topic; with ordering or deduplication a FIFO topic.
//   - A queue is an SQS queue with a dead-letter queue, a policy that lets the
//     topic send to it, and a subscription with raw delivery and, if there is
//     one, the filter policy. All are made when a queue is opened, or only looked
//     at, see [WithExisting]. fanout's Queue.Delete removes them, unless other queues
//     use the dead-letter queue too. SQS makes no queue of that name for 60 seconds:
//     opening it waits, within its context. A queue that another process has deleted SQS
//     may find for a minute still: wait for that before it is opened again.
//   - A lease is SQS's visibility timeout, a retry's wait and an extension are
//     ChangeMessageVisibility, an acknowledgement is DeleteMessage. Those that
//     meet are sent together, up to ten in one request.
//   - A dead letter is sent to the dead-letter queue with the history of its
//     attempts, then deleted. SQS's own redrive policy is a net at a thousand
//     receives, for messages that end the process each time: SQS counts receives, and
//     not attempts, so no message is dead before a run that failed here.
//
// # On the wire
//
// The body is what the codec made, in base64 if it isn't text that SQS takes.
// Attributes are SNS attributes of type String; see [WithNumberAttributes] for
// numbers. One attribute more, named fanout, has the message's ID, the time of
// its publication and whatever else it carries, as JSON. SQS takes ten
// attributes, so a message has nine others. Of more, those that filter policies of the
// topic's subscriptions compare are attributes, then traceparent and tracestate, then the
// first by name; the rest is in that JSON, where this package finds it and SNS does not.
// To know the policies a publisher of such a message asks SNS for them, once a minute at
// most. A policy that comes to compare an attribute that was in the JSON works after that
// minute.
//
// What others publish to the topic, or send to the queue, is received too: with
// the ID, the time and the attributes that SNS or SQS gave it, and without its
// envelope if the subscription isn't raw.
//
// # Time
//
// SQS counts in whole seconds: leases and waits are rounded up. It hides a
// message for twelve hours from its receipt at the longest, extensions and
// the wait of a retry included.
//
// SNS knows no delays, and a queue's DelaySeconds holds for messages with a delay
// of their own too. So Receive hides what is not due until it is: whoever reads
// the queue by other means sees it earlier, and it counts as in flight meanwhile,
// of which SQS allows 120,000 a queue. For more than that make the queue with a
// DelaySeconds; it is taken into account, and is then the shortest delay.
//
// # What to know
//
//   - SQS doesn't bound queues: a publisher never waits.
//   - A batch is published ten by ten, and may succeed in part, see
//     fanout.PublishError. Of FIFO topics nothing after the first request with a
//     failure is tried.
//   - A standard queue lets a late settlement through. Each process refuses its
//     own by the clock; another process can't know.
//   - A FIFO queue hands out one message a request, since one key's messages
//     would come together. Its window of deduplication is five minutes.
//   - SQS may hand messages to a poll that it has not answered when a queue is closed,
//     even if that is broken off. So polls go on for up to five seconds, and give back what
//     they get: Close returns at once, Done waits. What comes later to a poll that was
//     broken off is hidden until its lease ends.
package fanoutaws
