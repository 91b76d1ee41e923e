// Package topic has the topic: publishing into all of its queues at once, and admission.
//
// It promises that a publish reaches all queues or none, in one order; that a publish which
// has to wait for room is admitted by whoever makes the room, and before those that came
// after it and want the same queue; that a publish which would wait for ever gets an error;
// and that a topic that shuts down ends when its queues are drained, however its handlers
// publish to each other.
//
// A Topic owns its log, its queues, and the lines of those who wait. Its Mu guards them, and
// comes before that of any queue. Topic.Check checks the invariants that stand above Topic and
// Queue.
package topic
