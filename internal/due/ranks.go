package due

import "unsafe"

// A Ranked names something that has come up, and says when: by a stamp.
type Ranked struct {
	ID   int32
	Rank uint64
}

// Ranks is a queue of what has come up and waits. Its owner adds in order of rank, and drops what
// does not wait any more once that is first.
type Ranks struct {
	all  []Ranked
	head int
}

// Add adds what came up last.
func (r *Ranks) Add(id int32, rank uint64) {
	if r.head > 64 && r.head > len(r.all)/2 {
		r.all = r.all[:copy(r.all, r.all[r.head:])]
		r.head = 0
	}
	r.all = append(r.all, Ranked{id, rank})
}

// First is what was added first of what was not dropped. There is one.
func (r *Ranks) First() Ranked { return r.all[r.head] }

// Drop drops the first.
func (r *Ranks) Drop() { r.head++ }

// All is what was not dropped, in order. Tests call it.
func (r *Ranks) All() []Ranked { return r.all[r.head:] }

// Bytes is how much memory it has. Tests call it.
func (r *Ranks) Bytes() int { return cap(r.all) * int(unsafe.Sizeof(Ranked{})) }
