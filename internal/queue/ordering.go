package queue

import "github.com/gofanout/fanout/internal/window"

// A keyLine keeps the messages of one ordering key in order: one of them, the
// head, may be delivered, and the others that were reached stand in line. The
// head keeps its place through retries, snoozes and time-outs, until it is
// gone, dead or parked; then the first in line takes it.
//
// A queue has a keyLine for each key that it holds a reached message of, and
// none for keys that are idle. Its Mu guards them.
type keyLine struct {
	head  int32         // its entry; inFlightHead while it is in a lease
	line  window.List   // in the order of publication, in state blocked
	order *window.Order // of line, if older ones have come in before others
}

// keyOf is an item's ordering key, empty if it has none.
func keyOf[T any](it *Item[T]) string {
	if it.Ext == nil {
		return ""
	}
	return it.Ext.Key
}

// headOfKeyLocked reports whether entry i, which is in no list, may be
// delivered: whether it has no key, or is the head of its key's line. Otherwise
// it has put i in line.
func (q *Queue[T]) headOfKeyLocked(i int32) bool {
	it := &q.Win.At(i).Item
	key := keyOf(it)
	if key == "" {
		return true
	}
	k := q.Keys[key]
	if k == nil {
		if q.Keys == nil {
			q.Keys = make(map[string]*keyLine)
		}
		q.Keys[key] = &keyLine{head: i}
		return true
	}
	if k.head == i {
		return true
	}
	q.Win.Meta(i).State = blocked
	q.N[blocked]++
	if last, found := k.line.Last(); !found || q.Win.At(last).Seq < it.Seq {
		q.Win.Push(&k.line, i)
	} else { // a redriven message may be older than those in line
		if k.order == nil {
			k.order = new(window.Order)
		}
		q.Win.PushInOrder(&k.line, k.order, i, func(i int32) uint64 { return q.Win.At(i).Seq })
	}
	q.rankLocked(i)
	q.noteExpiryLocked(i)
	return false
}

// inFlightHead is the head of a line while that is in flight.
const inFlightHead = int32(-1)

// LeaveKeyLocked lets a message's key go on, if the message, which is entry i or in
// flight, was its head.
func (q *Queue[T]) LeaveKeyLocked(it *Item[T], i int32) {
	key := keyOf(it)
	if key == "" {
		return
	}
	k := q.Keys[key]
	if k == nil || k.head != i {
		return
	}
	next, ok := q.Win.Pop(&k.line)
	if !ok {
		delete(q.Keys, key)
		if len(q.Keys) == 0 {
			q.Keys = nil // a map does not shrink
		}
		return
	}
	k.head = next
	q.N[blocked]--
	q.Win.Restamp(next) // it is in another list now
	q.becomeDueLocked(next)
}
