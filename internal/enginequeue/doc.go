// Package enginequeue has topics and queues whose messages an engine keeps.
//
// It promises that what ends here is told to the engine before it is forgotten; that a
// settlement that the engine did not take leaves the delivery as it was; and that nobody else
// gets a message while its visibility timeout runs here, as the engine's lease is longer.
//
// A Topic publishes by the engine and opens queues on it. A Queue is the keeper of a queue of
// package queue: it receives for callers, polls for workers, and settles. Its dead letters are
// package engineletters'. The queue's Mu guards its fields; no call of the engine is made
// under it.
package enginequeue
