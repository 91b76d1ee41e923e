// Package fakeaws is Amazon SQS and SNS inside a Go test: real clients of
// aws-sdk-go-v2 talk to it without a socket, so that it works in
// [testing/synctest], where time is virtual. Twelve hours of visibility timeout
// pass in milliseconds, and a long poll wakes at the exact instant.
//
//	func TestOrders(t *testing.T) {
//		synctest.Test(t, func(t *testing.T) {
//			a := fakeaws.New(t)
//			queue, err := a.SQS().CreateQueue(t.Context(), &sqs.CreateQueueInput{QueueName: aws.String("orders")})
//			...
//		})
//	}
//
// A fake keeps everything in memory, by account and region, and ends with its
// test. Requests that SQS and SNS would refuse are refused with their codes;
// operations and parameters that the fake does not know are refused too, and
// never ignored. README.md has the fidelity page: what the fake does, what it
// does differently, and what it does not do. The fake was never compared with AWS
// itself.
//
// Lambda functions are Go functions of the test ([AWS.Lambda]), which topics invoke
// through their subscriptions and queues through event source mappings
// ([Queue.Map]).
//
// A fake that is made inside a synctest bubble must be used inside it.
package fakeaws
