// Package overflow adds messages to a queue's window, and has what a queue does that has too
// little room for what is added to it.
//
// It promises that what has expired makes room before anything is dropped; that what is
// dropped is what the queue's policy says, in the order of publication, and is told; and that
// what is parked or in flight is spared.
//
// It owns nothing. The topic's Mu is held, and the queue's is taken here; ReplayLocked is called
// with both held.
package overflow
