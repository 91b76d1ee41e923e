package fanout

import (
	"sync"
	"sync/atomic"
)

// A sleepers list holds the queues that read the log and have a consumer with
// nothing to do. A publisher that finds it not empty takes it whole and wakes
// them; a queue that found nothing ready enters itself and then looks at the
// log once more, so that no message falls in between.
//
// Its mutex guards the fields below it, and each queue's place in the list.
type sleepers[T any] struct {
	n atomic.Int32 // len(list), for a look without the lock

	mu   sync.Mutex
	list []*Queue[T]
}

// awake is the place of a queue that is not in the list.
const awake = -1

// add enters q and reports whether it was not in the list.
func (s *sleepers[T]) add(q *Queue[T]) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if q.sleepAt != awake {
		return false
	}
	q.sleepAt = len(s.list)
	s.list = append(s.list, q)
	s.n.Store(int32(len(s.list)))
	return true
}

func (s *sleepers[T]) remove(q *Queue[T]) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if q.sleepAt == awake {
		return
	}
	last := len(s.list) - 1
	s.list[q.sleepAt] = s.list[last]
	s.list[q.sleepAt].sleepAt = q.sleepAt
	s.list[last] = nil
	s.list = s.list[:last]
	q.sleepAt = awake
	s.n.Store(int32(last))
}

// wakesItself is how many sleepers a publisher wakes itself. With more, it
// starts a goroutine that halves the list with others, so that a publish to
// ten thousand idle queues costs no more than one to sixteen.
const wakesItself = 16

// wakeAll wakes every queue in the list.
func (t *Topic[T]) wakeAll() {
	if t.sleep.n.Load() == 0 {
		return
	}
	var few [wakesItself]*Queue[T] // stays on the stack: wakeMany gets another list
	s := &t.sleep
	s.mu.Lock()
	for _, q := range s.list {
		q.sleepAt = awake
	}
	n := len(s.list)
	if n <= len(few) {
		copy(few[:], s.list)
		clear(s.list)
		s.list = s.list[:0]
	} else {
		t.live.Add(1) // for wakeMany: later the topic may have ended
		go t.wakeMany(s.list)
		s.list, n = nil, 0
	}
	s.n.Store(0)
	s.mu.Unlock()
	for _, q := range few[:n] {
		q.wake()
	}
}

// wakeMany wakes a long list. Started by wakeAll and by itself; ends when its
// part is woken; Done waits for it.
func (t *Topic[T]) wakeMany(list []*Queue[T]) {
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
