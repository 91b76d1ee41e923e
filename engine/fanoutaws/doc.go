// Package fanoutaws is the engine that keeps fanout's topics on Amazon SNS and
// its queues on Amazon SQS. Publishers, handlers, options, retries and histories
// stay as they are; only the line that makes the topic changes:
//
//	e, err := fanoutaws.New(sns.NewFromConfig(cfg), sqs.NewFromConfig(cfg))
//	payments, err := fanout.NewTopic[PaymentSucceeded]("payments", fanout.WithEngine(e, fanout.Without(engine.Bounded, engine.AllOrNone)))
//
// # What is made in AWS
//
//   - A topic is an SNS topic. With ordering or deduplication it is a FIFO topic.
//   - A queue is an SQS queue with a dead-letter queue, a policy that lets the topic
//     send to it, and a raw subscription, with the filter policy if there is one.
//     Opening a queue makes what is missing; [WithExisting] makes nothing.
//   - A lease is SQS's visibility timeout. A retry's wait and an extension are
//     ChangeMessageVisibility, an acknowledgement is DeleteMessage. Those that come at
//     the same time share a request, up to ten.
//   - A dead letter is sent to the dead-letter queue with the history of its attempts,
//     and then deleted from its queue.
//
// fanout's Queue.Delete removes what belongs to a queue, but keeps a dead-letter queue that
// other queues use. SQS makes no queue of the same name for 60 seconds: opening it again
// waits, within its context. If another process has deleted the queue, SQS may still find it
// for a minute: wait for that before you open it again.
//
// # Attempts
//
// SQS counts receives, not attempts. So fanout makes a message dead only after a run that
// failed in this process. A message that ends the process at each attempt is left to SQS's own
// redrive policy, which moves it after a thousand receives.
//
// # On the wire
//
// The body is what the codec made, in base64 if SQS would not take it as text. Attributes are
// SNS attributes of type String; for numbers see [WithNumberAttributes]. One more attribute,
// named fanout, has the message's ID, the time of its publication and other values, as JSON.
//
// SQS takes ten attributes, so nine are left. If a message has more, the attributes that the
// filter policies of the topic's subscriptions compare come first, then traceparent and
// tracestate, then the others by name. What is left over goes into that JSON, where this
// package finds it and SNS does not. To know the policies, the publisher of such a message asks
// SNS for them, at most once a minute. A new policy on an attribute in the JSON works after
// that minute.
//
// What others publish to the topic, or send to the queue, is received too. It has the ID, the
// time and the attributes that SNS or SQS gave it. If the subscription isn't raw, the
// envelope is removed.
//
// # Time
//
// SQS counts in whole seconds, so leases and waits are rounded up. It hides a message for at
// most twelve hours from its receipt, extensions and the wait of a retry included.
//
// SNS has no delays, and SQS applies a queue's DelaySeconds also to messages that have a delay
// of their own. So Receive hides a message until it is due. Others who read the queue see it
// earlier. Meanwhile it counts as in flight, and SQS allows 120,000 of these in a queue. If
// you need more, make the queue with a DelaySeconds, which is then the shortest delay.
//
// # What to know
//
//   - SQS doesn't bound queues, so a publisher never waits.
//   - A batch is published ten messages at a time, and a part of it can fail, see
//     fanout.PublishError. On a FIFO topic nothing is tried after the first request with a
//     failure.
//   - A standard queue accepts a late settlement. Each process refuses its own late ones by its
//     clock, but not those of another process.
//   - Each request to a FIFO queue receives one message, because SQS would give several messages
//     of one key together. A FIFO topic's deduplication window is always five minutes.
//   - When a queue is closed, SQS may still give messages to a request that it has not answered,
//     even if the request is cancelled. So requests go on for up to five seconds and give back
//     what they get: Close returns at once, and Done waits. What SQS gives to a cancelled request
//     is hidden until its lease ends.
package fanoutaws
