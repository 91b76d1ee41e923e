// Package lifecycle has what is done to a whole queue: it is paused, purged, drained, closed
// and deleted.
//
// It promises that each of these is one step for everybody else, and that what a queue held
// when it was closed is there to be looked at, in the order of publication, as it would have
// to be published again.
//
// It owns nothing. It takes the queue's lock; a function that needs the topic's lock too says
// so. What an engine keeps is asked of the queue's keeper, without a lock.
package lifecycle
