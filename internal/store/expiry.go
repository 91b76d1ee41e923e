package store

import "github.com/gofanout/fanout/internal/message"

// A message whose time to live has passed makes room when somebody wants room. Nobody else
// looks for what has expired: a message is seen to have when its turn comes.
//
// What is in flight may succeed still, and what is parked is dead already. All other
// messages that expire are noted in the window. When room is wanted,
// those in the log are looked at where they stand, each once, and taken into the window
// if one of them has expired.
//
// The latest message of the topic with a time to live of its own says whether it is worth a
// look, if the queue has none for all. It is given by its number.

// Expired reports whether a message's time to live has passed.
func (s *Store[T]) Expired(it *message.Item[T], now int64) bool {
	at, ok := s.Expiry(it)
	return ok && now >= at
}

// Expiry returns the instant at which a message's time to live has passed, and
// false if it has none.
func (s *Store[T]) Expiry(it *message.Item[T]) (at int64, ok bool) {
	ttl, born := s.Set.TTL, it.At
	if it.Ext != nil {
		if it.Ext.TTL > 0 {
			ttl = it.Ext.TTL
		}
		if it.Ext.Born > 0 {
			born = it.Ext.Born
		}
	}
	return message.After(born, ttl), ttl > 0 && !s.Letters
}

// noteExpiry notes when entry i, which is neither in flight nor parked, expires.
func (s *Store[T]) noteExpiry(i int32) {
	if !s.Evicts {
		return
	}
	if at, ok := s.Expiry(&s.Win.At(i).Item); ok {
		s.Win.SetExpiry(i, at)
	}
}

// A logScan is what is known of the times to live in the log: of the messages before
// position end, none expires before at.
type logScan struct {
	end int64
	at  int64
}

const never = 1<<63 - 1

// FirstExpiry returns when the first expires of the messages that are neither in
// flight nor parked, or an earlier instant that has not come. What has expired is in the
// window then.
func (s *Store[T]) FirstExpiry(now int64, latest uint64) (at int64, ok bool) {
	if s.scanLog(latest) <= now {
		s.scan.end = 0 // what it was may be gone: look again
		if s.scanLog(latest) <= now {
			s.spillExpiring(latest)
		}
	}
	return s.KnownExpiry()
}

// KnownExpiry is FirstExpiry for what has been looked at.
func (s *Store[T]) KnownExpiry() (at int64, ok bool) {
	_, at, ok = s.Win.FirstExpiry()
	if c := &s.scan; c.end > s.Cursor.Pos() && c.at != never && (!ok || c.at < at) {
		at, ok = c.at, true
	}
	return at, ok
}

// scanLog looks at the messages of the log that nobody has looked at yet, and returns
// when the first of the log expires, or an earlier instant.
func (s *Store[T]) scanLog(latest uint64) int64 {
	c := &s.scan
	if s.InLog() == 0 || s.Set.TTL == 0 && s.Cursor.Peek().Seq > latest {
		c.end = 0
		return never
	}
	if c.end <= s.Cursor.Pos() {
		c.end, c.at = s.Cursor.Pos(), never
	}
	s.Cursor.ScanFrom(c.end, func(it *message.Item[T]) bool {
		if at, ok := s.Expiry(it); ok {
			c.at = min(c.at, at)
		}
		c.end++
		return true
	})
	return c.at
}

// spillExpiring takes the messages of the log that have a time to live into the
// window, and those before them.
func (s *Store[T]) spillExpiring(latest uint64) {
	if s.Set.TTL > 0 {
		s.Spill()
		return
	}
	for s.InLog() > 0 && s.Cursor.Peek().Seq <= latest {
		s.Append(s.Cursor.Next())
	}
}

// PopExpired takes the first that expires of those in the window, if its time to live has
// passed, as an entry whose state has been left.
func (s *Store[T]) PopExpired(now int64) (i int32, ok bool) {
	i, at, ok := s.Win.FirstExpiry()
	if !ok || at > now {
		return 0, false
	}
	s.TakeOut(i)
	s.Win.Restamp(i)
	return i, true
}
