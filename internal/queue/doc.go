// Package queue has the queue: what one subscription holds, and in which state.
//
// It promises that each message of a queue is in one place, in the state that its counters
// say; that a delivery is ended once, by who owns it; that what is due and the backlog take
// turns; and that a consumer is woken if there is something for it.
//
// A Queue owns its cursor, window, leases, alarm and receivers. Its Mu guards them. The order
// of locks is topic, queue, its dead-letter queue. The leaves are the lists of idle queues, what
// counts the living, reporters, handlers' contexts, and the topic of package onengine. No user
// code is called, nothing waits and nothing is logged under any of them: that is left pending,
// and Unlock does it. A method whose name ends in Locked is called with Mu held.
//
// A queue knows its topic as a Home, a subscriber as a Pool, its workers as Holders of
// messages, and an engine as a Keeper: packages topic, workers and enginequeue, which stand above
// it, and use its fields under its lock.
//
// Every goroutine and timer is counted in the lives of its topic, so that Done waits for it.
package queue
