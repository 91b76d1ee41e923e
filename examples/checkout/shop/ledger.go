package shop

import "sync"

// A Ledger is what one service remembers about orders: whether it has done its
// work for each. It is written where the work is done, and nowhere else, so that
// it can be held against what the queues say. It takes one byte an order.
//
// All methods may be called concurrently.
type Ledger struct {
	index Index

	mu      sync.Mutex // guards the fields below
	done    []bool     // by slot
	total   int        // how many are done
	high    int        // no slot from here on is done
	again   int
	unknown []int
}

// NewLedger returns the empty ledger of the orders in x.
func NewLedger(x Index) *Ledger {
	return &Ledger{index: x, done: make([]bool, x.Len())}
}

// Enter enters that the work for an order was done, and reports whether this
// was the first time. If not, somebody else was faster, and the work must not
// count twice: delivery at least once allows an order to come again.
func (l *Ledger) Enter(orderID int) (first bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	slot, ok := l.index.Slot(orderID)
	switch {
	case !ok:
		l.unknown = append(l.unknown, orderID)
		return false
	case l.done[slot]:
		l.again++
		return false
	}
	l.done[slot] = true
	l.total++
	l.high = max(l.high, slot+1)
	return true
}

// Has reports whether the work for the order was done.
func (l *Ledger) Has(orderID int) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	slot, ok := l.index.Slot(orderID)
	return ok && l.done[slot]
}

// Total is the number of orders whose work was done.
func (l *Ledger) Total() int {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.total
}

// record returns whether the work was done, by slot, up to the last slot of which it
// was. It is for when the work has ended: the record is the ledger's own.
func (l *Ledger) record() []bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.done[:l.high]
}

// Again is how many more times work came that had been done.
func (l *Ledger) Again() int {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.again
}
