package store

import (
	"errors"
	"fmt"
	"slices"

	"github.com/gofanout/fanout/internal/keyline"
)

// Check returns an error if an invariant that stands above Store does not hold. It counts what
// consumers in step have done. It is for tests.
func (s *Store[T]) Check() error {
	if s.Closed {
		return nil
	}
	if err := s.checkKeys(); err != nil {
		return err
	}
	if s.Leases != nil {
		if err := s.Leases.Check(); err != nil {
			return err
		}
	}
	if rank, ok := s.Leases.FirstTimedOut(); ok {
		later := false
		for i, ok := s.due.First(); ok; i, ok = s.Win.Next(i) {
			stamp := s.Win.Meta(i).Stamp
			if later && stamp < rank {
				return fmt.Errorf("stamp %d is due after %d", stamp, rank)
			}
			later = later || stamp > rank
		}
	}
	if err := s.checkEntries(); err != nil {
		return err
	}
	s.Count()
	unsettled := s.Held() + s.InLog()
	if unsettled > s.Set.Capacity {
		return fmt.Errorf("holds %d, capacity %d", unsettled, s.Set.Capacity)
	}
	if err := s.checkAllow(); err != nil {
		return err
	}
	c := s.Totals()
	in := s.Published(s.InLog())
	out := s.Acked + c.Dropped + c.DeadLettered
	if !s.Letters {
		in += c.Redriven
	} else {
		out += c.Redriven
	}
	if in != out+uint64(unsettled) {
		return fmt.Errorf("the books don't balance: %d in, %d out, %d held", in, out, unsettled)
	}
	return nil
}

func (s *Store[T]) checkKeys() error {
	line := 0
	for key, k := range s.Keys.All() {
		line += k.Waiting.Len()
		if k.Head != keyline.InFlight && (!s.Win.Holds(k.Head) || keyOf(&s.Win.At(k.Head).Item) != key) {
			return fmt.Errorf("entry %d is the head of key %q, and has not that key", k.Head, key)
		}
	}
	if line != s.In(Blocked) {
		return fmt.Errorf("%d messages stand behind others of their key, %d are blocked", line, s.In(Blocked))
	}
	return nil
}

// checkEntries compares the counts, the lists and the expiries with the entries.
func (s *Store[T]) checkEntries() error {
	var n [States]int32
	var expire []int64 // when those expire that can make room
	s.Win.All(func(i int32) bool {
		state := s.Win.Meta(i).State
		n[state]++
		if at, ok := s.Expiry(&s.Win.At(i).Item); ok && s.Evicts && state != InFlight && state != InHandler && state != Parked {
			expire = append(expire, at)
		}
		return true
	})
	if n != s.n {
		return fmt.Errorf("the states of entries are %v, counted are %v", n, s.n)
	}
	for state, n := range s.n {
		if l := s.list(uint8(state)); l != nil && l.Len() != int(n) {
			return fmt.Errorf("state %d counts %d, its list holds %d", state, n, l.Len())
		}
	}
	if _, first, ok := s.Win.FirstExpiry(); ok != (len(expire) > 0) || ok && first != slices.Min(expire) {
		return fmt.Errorf("the first of %d expires at %d, %t", len(expire), first, ok)
	}
	return nil
}

func (s *Store[T]) checkAllow() error {
	allow := room(s.Set.Capacity) - int64(s.Held())
	if !s.Direct {
		allow += s.Cursor.Pos()
		head := s.Log.Head()
		if s.Cursor.Pos() > head {
			return fmt.Errorf("cursor %d is beyond the head %d", s.Cursor.Pos(), head)
		}
		if head != s.Log.Published() {
			return errors.New("not all of its log is published")
		}
	}
	if got := s.Allow.Load(); got != allow {
		return fmt.Errorf("allow is %d, want %d", got, allow)
	}
	return nil
}
