// Package core does the work of package fanout: it has the topics, the queues and their
// workers, and the queues that an engine keeps. Package fanout stands before it, with the
// options, the checks of what callers pass, and the documentation; its types are laid out as
// the types here.
//
// It promises what package fanout promises: a publish reaches all queues or none, in one
// order; each message of a queue is in one place, in the state that its counters say; a
// delivery is ended once, by who owns it. The invariants stand above Topic and Queue, and
// Topic.Check checks them.
//
// A Topic owns its log, its queues and what waits for room; its mu guards them. A Queue owns
// its cursor, window, leases, alarm, receivers and subscribers; its mu guards them. The order
// of locks is topic, queue, its dead-letter queue. The leaves are the lists of idle queues, what
// counts the living, reporters, handlers' contexts, and the topic of package onengine. No
// user code is called, nothing waits and nothing is logged under any of them: that is left
// pending, and unlock does it.
//
// Every goroutine and timer is counted in the lives of its topic, so that Done waits for it.
package queue
