package main

import "time"

// A system is one way to get a message from publishers to every queue: ours,
// channels, or a peer. Its fields say what a comparison has to know.
type system struct {
	name  string // short, as in figures
	gives string // what it promises, in a few words

	// throttled systems have no bound or drop what is too much. The publishers
	// then keep at most window messages outstanding.
	throttled bool
	// drains says that stop returns only when all that was published has been
	// handled and the workers are gone.
	drains bool
	// competes says that a queue can have several workers.
	competes bool
	// synchronous systems run handlers in the publisher: there is no queue.
	synchronous bool
	// costly systems take microseconds for a delivery: they get fewer messages
	// where the number is fixed.
	costly bool
	// batches systems publish several messages by one call.
	batches bool
	// least is how many deliveries a throughput measurement needs, if the system
	// has fixed delays that would else be most of it.
	least int
	// widest is the largest number of queues that is measured in reasonable
	// time; 0 is any.
	widest int
	// polls says that an idle consumer sleeps between looks: there is no point
	// in measuring latency.
	polls bool

	// open starts the system: queues, and workers that take from them.
	open func(s shape) (bus, error)
}

// A shape is what a system is opened for.
type shape struct {
	queues, workers, publishers int
	// capacity of each queue, where it can be said.
	capacity int
	// takes says which queues get a message; nil is all.
	takes choice
	// work is what a handler does beside counting, if anything, and works how long.
	work  func()
	works time.Duration
	// tally returns whom a worker of a queue gives its messages to. It must be
	// called once for each before open returns.
	tally func(queue, worker int) *tally
}

// A bus is a running system.
type bus interface {
	// publish publishes ms in order, for publisher p. It may be called
	// concurrently for different publishers.
	publish(p int, ms []*payload) error
	// stop ends it.
	stop() error
}

// find returns the system called name.
func find(systems []system, name string) system {
	for _, s := range systems {
		if s.name == name {
			return s
		}
	}
	panic("no system is called " + name)
}
