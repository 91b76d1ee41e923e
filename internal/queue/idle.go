package queue

import (
	"sync"
	"sync/atomic"
)

// An IdleQueues holds the queues that read a log and have a consumer with
// nothing to do. A publisher that finds it not empty takes it whole and wakes
// them; a queue that found nothing ready enters itself and then looks at the
// log once more, so that no message falls in between.
//
// Places are counted on from list to list, so that the list is taken without a
// look at any queue in it: all places below first have been left.
//
// Its mutex guards the fields below it, and each queue's place in the list.
type IdleQueues[T any] struct {
	N atomic.Int32 // len(list), for a look without the lock

	Mu    sync.Mutex
	First int64 // place of list[0]
	List  []*Queue[T]
}

// NotIdle is a place that has always been left.
const NotIdle = -1

// TakeLocked empties the list and returns it.
func (s *IdleQueues[T]) TakeLocked() []*Queue[T] {
	list := s.List
	s.First += int64(len(list))
	s.List = nil
	s.N.Store(0)
	return list
}

// Add enters q and reports whether it was not in the list.
func (s *IdleQueues[T]) Add(q *Queue[T]) bool {
	s.Mu.Lock()
	defer s.Mu.Unlock()
	if q.IdleAt >= s.First {
		return false
	}
	q.IdleAt = s.First + int64(len(s.List))
	s.List = append(s.List, q)
	s.N.Store(int32(len(s.List)))
	return true
}

func (s *IdleQueues[T]) Remove(q *Queue[T]) {
	s.Mu.Lock()
	defer s.Mu.Unlock()
	if q.IdleAt < s.First {
		return
	}
	last, at := len(s.List)-1, q.IdleAt-s.First
	s.List[at] = s.List[last]
	s.List[at].IdleAt = q.IdleAt
	s.List[last] = nil
	s.List = s.List[:last]
	q.IdleAt = NotIdle
	s.N.Store(int32(last))
}

// WakesItself is how many idle queues a publisher wakes itself. With more, it
// starts a goroutine that halves the list with others, so that a publish to
// ten thousand idle queues costs no more than one to sixteen.
const WakesItself = 16

// WakeAll wakes every queue in a list.
func (t *Home[T]) WakeAll(s *IdleQueues[T]) {
	if s.N.Load() == 0 {
		return
	}
	var few [WakesItself]*Queue[T] // stays on the stack: wakeMany gets another list
	s.Mu.Lock()
	list := s.TakeLocked()
	n := copy(few[:], list)
	if len(list) > len(few) {
		t.Live.Add(1) // for wakeMany: later the topic may have ended
		go t.wakeMany(list)
		n = 0
	} else {
		clear(list)
		s.List = list[:0]
	}
	s.Mu.Unlock()
	for _, q := range few[:n] {
		q.wake()
	}
}

// wakeMany wakes a long list. Started by WakeAll and by itself; ends when its
// part is woken; Done waits for it.
func (t *Home[T]) wakeMany(list []*Queue[T]) {
	defer t.Release()
	for len(list) > WakesItself {
		half := len(list) / 2
		t.Live.Add(1)
		go t.wakeMany(list[half:])
		list = list[:half]
	}
	for _, q := range list {
		q.wake()
	}
}
