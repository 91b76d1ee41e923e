// Package fanouttest tests code that publishes and handles messages with fanout.
// The broker of the test is the library itself; the kit waits for it, asserts
// what happened in it, makes faults, and looks at what the test leaves behind.
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
//   - A [Kit] belongs to one test. [Kit.Settle] waits until all its topics are
//     drained: what is queued, in flight and waiting for a retry, and what
//     handlers publish meanwhile. [Kit.Advance] and [Kit.Next] let time pass.
//   - A [Topic] is a fanout.Topic that the kit watches. The code under test gets
//     the embedded one and knows nothing of the kit.
//   - A [List] is what happened: [Topic.Published], and for each queue
//     [Topic.Delivered], [Topic.Acked], [Topic.Retried], [Topic.DeadLettered] and
//     [Topic.Dropped], with assertions that show the difference.
//   - A [Fault] is scripted by [Topic.Handling] and [Topic.Publishing].
//
// When the test ends, the kit closes the topics and fails the test if it leaves
// something behind that it should not; [New] has the list. There is nothing to
// close and nothing to forget.
//
// # Time
//
// All works in real time and, in a bubble of testing/synctest, in virtual time.
// There a day of retries takes milliseconds, everything comes at its exact
// instant, and a goroutine that is left behind fails the test by itself. In real
// time give the queues under test short backoffs and timeouts. A kit and its topics belong
// to the bubble that they were made in: to use a topic in and outside of a bubble at the same
// time, or in two, is a fatal error of the Go runtime, which ends the test binary. Settle doesn't
// poll; it looks again whenever the topics' hooks or interceptors are called.
//
// # Leaks
//
// In real time the kit finds goroutines that handlers started, or that these
// started, and that are still there a second after the topics have ended. It
// tells them from others', of tests in parallel too, by a pprof label, so that
// one whose labels were replaced is not found, nor a timer that has not fired.
// Looking costs about 150 µs and stops the world. It is spared if the process has started
// no goroutine since [New] but the topics' own workers, which the runtime's
// counters tell exactly from Go 1.26 on. Others' goroutines, those of the test itself or of
// tests in parallel, cost the look; they hide nothing.
//
// # Frameworks
//
// The kit needs the methods of [TB] and nothing else of a test framework.
// Bodies are shown, and compared with their snapshots, as JSON.
//
// # Bodies that are shared
//
// All queues of a topic share what a body points to. If bodies of T can share
// anything, the kit keeps a snapshot of each body from before it was published,
// and compares it around each run of a handler and when the test ends. A
// handler that changes a body is named, with the difference. See [WithSnapshot]
// and [AllowChanges]. While two handlers change the same body at once, looking
// at it is a data race, as theirs is: run such tests with -race.
package fanouttest
