package fakeaws

import "time"

// deduplicationInterval is how long a FIFO queue remembers a message's ID, also
// after the message is deleted.
const deduplicationInterval = 5 * time.Minute

// recentIDs are the messages that a FIFO queue remembers for deduplication.
type recentIDs struct {
	byKey map[string]*recentID
	order []*recentID // the oldest first
}

type recentID struct {
	key, messageID, sequence string
	at                       instant
}

// find returns the message with the key that was sent within the interval, nil
// if there is none. It forgets those that are older.
func (r *recentIDs) find(key string, now instant) *recentID {
	for len(r.order) > 0 && r.order[0].at+deduplicationInterval <= now {
		old := r.order[0]
		r.order[0] = nil
		r.order = r.order[1:]
		if r.byKey[old.key] == old {
			delete(r.byKey, old.key)
		}
	}
	return r.byKey[key]
}

// add remembers a message.
func (r *recentIDs) add(key, messageID, sequence string, now instant) {
	if r.byKey == nil {
		r.byKey = map[string]*recentID{}
	}
	id := &recentID{key, messageID, sequence, now}
	r.byKey[key] = id
	r.order = append(r.order, id)
}
