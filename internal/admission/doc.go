// Package admission has how messages get into a topic's queues, and who waits for room.
//
// It promises that a publish reaches all queues or none, in one order; that a publish which
// has to wait for room is admitted by whoever makes the room, and before those that came
// after it and want the same queue; and that a publish which would wait for ever gets an
// error. A redrive waits in the same lines.
//
// An Admission owns the topic's log, which queues read it, the lines of those who wait, and
// the deduplication IDs. It has no queues of its own: whoever has it tells it of each that is
// opened or gone, and of the topic's end. The topic's lock, its Mu, guards it. Filters, hooks
// and contexts are asked without that. Its one timer gives deduplication IDs back; the topic's
// end waits for it.
package admission
