// Package workers has what runs handlers over a queue: subscribers and their workers.
//
// It promises that a handler runs on each message that its worker takes, and that what the
// handler says becomes of the message, even if it panics or ends its goroutine; that no more
// workers run than the subscriber may have; and that a worker takes no more than it can begin
// soon, and gives back what it does not begin.
//
// A worker is a goroutine that exists while there is something to do. It owns the deliveries
// that it has taken; the queue's Mu guards what others see of it. No lock is held while a
// handler runs: what a plain message costs beside it is one step of the lease, without a lock.
//
//	prefetch, or claim ─▶ run the handler ─▶ step: acknowledge, begin the next ─┐
//	      ▲   ▲                    ▲                                            │
//	      │   └── nothing waits ───┼────────────────────────────────────────────┤
//	   started by the queue        └────────────── something waits ─────────────┘
package workers
