package core

import (
	"sync"
	"sync/atomic"
)

// A sleepers list holds the queues that read a log and have a consumer with
// nothing to do. A publisher that finds it not empty takes it whole and wakes
// them; a queue that found nothing ready enters itself and then looks at the
// log once more, so that no message falls in between.
//
// Places are counted on from list to list, so that the list is taken without a
// look at any queue in it: all places below first have been left.
//
// Its mutex guards the fields below it, and each queue's place in the list.
type sleepers[T any] struct {
	n atomic.Int32 // len(list), for a look without the lock

	mu    sync.Mutex
	first int64 // place of list[0]
	list  []*Queue[T]
}

// awake is a place that has always been left.
const awake = -1

// takeLocked empties the list and returns it.
func (s *sleepers[T]) takeLocked() []*Queue[T] {
	list := s.list
	s.first += int64(len(list))
	s.list = nil
	s.n.Store(0)
	return list
}

// add enters q and reports whether it was not in the list.
func (s *sleepers[T]) add(q *Queue[T]) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if q.sleepAt >= s.first {
		return false
	}
	q.sleepAt = s.first + int64(len(s.list))
	s.list = append(s.list, q)
	s.n.Store(int32(len(s.list)))
	return true
}

func (s *sleepers[T]) remove(q *Queue[T]) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if q.sleepAt < s.first {
		return
	}
	last, at := len(s.list)-1, q.sleepAt-s.first
	s.list[at] = s.list[last]
	s.list[at].sleepAt = q.sleepAt
	s.list[last] = nil
	s.list = s.list[:last]
	q.sleepAt = awake
	s.n.Store(int32(last))
}

// wakesItself is how many sleepers a publisher wakes itself. With more, it
// starts a goroutine that halves the list with others, so that a publish to
// ten thousand idle queues costs no more than one to sixteen.
const wakesItself = 16

// wakeAll wakes every queue in a list.
func (t *home[T]) wakeAll(s *sleepers[T]) {
	if s.n.Load() == 0 {
		return
	}
	var few [wakesItself]*Queue[T] // stays on the stack: wakeMany gets another list
	s.mu.Lock()
	list := s.takeLocked()
	n := copy(few[:], list)
	if len(list) > len(few) {
		t.live.Add(1) // for wakeMany: later the topic may have ended
		go t.wakeMany(list)
		n = 0
	} else {
		clear(list)
		s.list = list[:0]
	}
	s.mu.Unlock()
	for _, q := range few[:n] {
		q.wake()
	}
}

// wakeMany wakes a long list. Started by wakeAll and by itself; ends when its
// part is woken; Done waits for it.
func (t *home[T]) wakeMany(list []*Queue[T]) {
	defer t.release()
	for len(list) > wakesItself {
		half := len(list) / 2
		t.live.Add(1)
		go t.wakeMany(list[half:])
		list = list[:half]
	}
	for _, q := range list {
		q.wake()
	}
}
