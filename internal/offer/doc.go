// Package offer has what one call wants to add to a topic's queues: messages that are
// published, or dead letters that are redriven.
//
// It promises that what it makes of a publish has been checked, that an offer which is used
// again is empty, and that no deduplication ID stands in an offer twice.
//
// An Offer is its call's, until it waits for room: then the topic's lock guards it. It has no
// lock, clock or goroutine of its own.
package offer
