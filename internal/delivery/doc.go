// Package delivery has what a consumer holds: deliveries, how callers receive them, and how
// they are settled.
//
// It promises that a delivery owns its message until it is settled or its visibility timeout
// passes, and does nothing after that; that a receive takes what there is, waits its turn in
// the order of the calls, and takes nothing once its context has ended; and that interceptors
// are called around each of these, if there are any.
//
// It owns the deliveries, which are values, and nothing else. What they are of is the queue's,
// and is used under its lock. Functions whose names end in Locked are called with that held.
// Contexts, interceptors and backoffs, which are the user's, are asked without it.
//
// AckHere and TakeInto are on every caller's path, and DeliverLocked, CopyOut, AckedLocked and
// Forget on every worker's.
package delivery
