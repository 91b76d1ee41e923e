// Package topic has the topic: its queues, how they are opened and closed, and how it ends.
//
// It promises that a queue which is opened gets what is published from then on, and what it
// replays before that; that a queue which is closed or deleted leaves nothing behind but its
// dead letters; and that a topic that shuts down ends when its queues are drained, however
// its handlers publish to each other.
//
// A Topic owns its queues, and has the Admission into them by value, as In: publishing is
// package admission's. Its Mu guards both, and comes before that of any queue. Topic.Check checks the
// invariants that stand above Topic and Queue. internal/docs/design.md says where each idea is.
package topic
