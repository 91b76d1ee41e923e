// Package fanouttest helps to test code that publishes and handles messages with fanout.
// The test uses the library itself, not a mock. The kit waits until messages are handled,
// asserts what happened, makes publishes and handlers fail, and finds what the test left
// behind.
//
//	func TestABankThatIsDownIsAskedAgain(t *testing.T) {
//		synctest.Test(t, func(t *testing.T) {
//			k := fanouttest.New(t)
//			orders := fanouttest.NewTopic[Order](k, "orders")
//			receipts := fanouttest.NewTopic[Receipt](k, "receipts")
//			startBilling(t.Context(), orders.Topic, receipts.Topic, bank) // the code under test
//
//			orders.Handling("billing").First(2).Fail(errDown)
//			orders.Publish(t.Context(), Order{ID: "o-17", Cents: 4999})
//			k.Settle(t.Context())
//
//			orders.Retried("billing").WantCount(2)
//			receipts.Published().Want(Receipt{Order: "o-17"})
//		})
//	}
//
// The nouns:
//
//   - A [Kit] belongs to one test. [Kit.Settle] waits until nothing is ready, in flight
//     or waiting for a retry in its topics, including what handlers publish meanwhile.
//     [Kit.Advance] and [Kit.Next] let time pass.
//   - A [Topic] is a fanout.Topic that the kit watches. The code under test gets the
//     embedded fanout.Topic, and does not depend on the kit.
//   - A [List] is what happened: [Topic.Published], and for each queue
//     [Topic.Delivered], [Topic.Acked], [Topic.Retried], [Topic.DeadLettered] and
//     [Topic.Dropped], with assertions that show the difference.
//   - A [Fault] is something that goes wrong on purpose, see [Topic.Handling] and
//     [Topic.Publishing].
//
// When the test ends, the kit closes the topics. It fails the test if messages, goroutines or
// scripted faults are left; [New] has the list. You have nothing to close yourself.
//
// # Time
//
// The kit works in real time and, in a bubble of testing/synctest, in virtual time. In virtual
// time a day of retries takes milliseconds, everything happens at its exact instant, and a
// goroutine that is left behind fails the test by itself. In real time give the queues under
// test short backoffs and timeouts.
//
// Use a kit and its topics in the bubble in which they were made. To use a topic in two bubbles
// at the same time, or in and outside of one, is a fatal error of the Go runtime, which ends the
// test binary.
//
// Settle doesn't poll: it looks again when something has happened in the topics.
//
// # Leaks
//
// In real time the kit looks for goroutines that handlers started, directly or not, and that
// still run a second after the topics have ended. It knows them by a pprof label, so tests that
// run in parallel are not mixed up. It does not find a goroutine whose labels were replaced, nor
// a timer that has not fired.
//
// The search takes about 150 µs and stops the world. The kit leaves it out if the process has
// started no goroutines since [New] except the workers of topics, which it can tell from Go 1.26
// on. Other goroutines, such as those of the test itself, make it search, but hide nothing.
//
// # Frameworks
//
// The kit needs the methods of [TB] and nothing else of a test framework. It shows bodies as
// JSON.
//
// # Bodies that are shared
//
// All queues of a topic share what a body points to, so a handler must not change it. If bodies
// of T contain pointers, maps or slices, the kit takes a snapshot of each body before its
// publication, as JSON, and compares it before and after each run of a handler and when the
// test ends. If a handler has changed a body, the test fails, names its queue, and shows the
// difference. See [WithSnapshot] and [AllowChanges]. If two handlers change the same body at the
// same time, the comparison is a data race, as their changes are: run such tests with -race.
package fanouttest
