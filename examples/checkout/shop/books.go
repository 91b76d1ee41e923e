package shop

import (
	"fmt"
	"iter"

	"github.com/gofanout/fanout"
)

// QueueSide is what a service's queue says of its messages once it is closed.
type QueueSide struct {
	Stats fanout.Stats
	Dead  []fanout.Delivery[PaymentSucceeded] // what its dead-letter queue holds
	Left  []fanout.Message[PaymentSucceeded]  // what it held when it was closed
	// Engine says that an engine keeps the queue. Then Dead and Left are what it
	// gave out, and the counters are no record: they are of this process, and of
	// deliveries, of which a message may have several that ended well.
	Engine bool
}

// An Account is one service's page in the books: what became of each order that
// was published to it.
type Account struct {
	Service string

	// Published = Settled + Dead + Left, if nothing is wrong.
	Published, Settled, Dead, Left int

	// Early is how many of the dead and the left had their work done all the
	// same: it was done, and the acknowledgement came too late.
	Early int
	// Again is how many deliveries brought work that was done before.
	Again int

	// Wrong says what does not fit, each with the order that it is about.
	Wrong []Discrepancy
}

// A Discrepancy is something in the books that does not fit.
type Discrepancy struct {
	OrderID int // 0 if it is about a sum
	What    string
}

func (d Discrepancy) String() string {
	if d.OrderID == 0 {
		return d.What
	}
	return fmt.Sprintf("order %d %s", d.OrderID, d.What)
}

// Balanced reports whether every order is accounted for.
func (a *Account) Balanced() bool { return len(a.Wrong) == 0 }

// Audit holds three independent records against each other, order by order:
// what was published, what the service did, and what its queue says is dead or
// left. Each published order must be in exactly one place: dead, or left, or
// else settled, and then the service must have done its work.
func Audit(published, work *Ledger, q QueueSide) *Account {
	a := &Account{Service: q.Stats.Queue, Again: work.Again()}
	dead, left := map[int]int{}, map[int]int{}
	for _, d := range q.Dead {
		dead[d.Body.OrderID]++
	}
	for _, m := range q.Left {
		left[m.Body.OrderID]++
	}
	for _, orders := range [][]int{published.unknownOrders(), work.unknownOrders()} {
		for _, id := range orders {
			a.wrong(id, "is in nobody's index")
		}
	}
	paid, done := published.record(), work.record()
	for slot := range max(len(paid), len(done)) {
		id := work.index.OrderID(slot)
		a.place(id, slot < len(paid) && paid[slot], slot < len(done) && done[slot], dead[id], left[id])
		delete(dead, id)
		delete(left, id)
	}
	for _, rest := range []map[int]int{dead, left} { // of orders after the last that was published
		for id := range rest {
			if _, ok := work.index.Slot(id); ok {
				a.place(id, false, false, dead[id], left[id])
				delete(rest, id)
			}
		}
	}
	for _, rest := range []map[int]int{dead, left} {
		for id := range rest {
			a.wrong(id, "is in a queue and in nobody's index")
		}
	}
	if !q.Engine {
		a.compare(q.Stats)
	}
	return a
}

// place finds the one place where an order is.
func (a *Account) place(id int, published, done bool, dead, left int) {
	if !published {
		if done || dead+left > 0 {
			a.wrong(id, "was not published, and yet it arrived")
		}
		return
	}
	a.Published++
	a.Dead += dead
	a.Left += left
	switch {
	case dead+left > 1:
		a.wrong(id, fmt.Sprintf("is in several places: %d times dead, %d times left", dead, left))
	case dead+left == 1:
		if done {
			a.Early++
		}
	case done:
		a.Settled++
	default:
		a.wrong(id, "is lost: not settled, not dead, not left")
	}
}

// compare holds the sums against the queue's own counters.
func (a *Account) compare(s fanout.Stats) {
	held := s.Unsettled()
	for _, c := range []struct {
		what         string
		books, queue int
	}{
		{"published", a.Published, s.Published},
		{"settled", a.Settled, int(s.Acked)},
		{"dead", a.Dead, s.Dead},
		{"left", a.Left, held + int(s.Left)},
		{"in and out", s.Published + int(s.Redriven), int(s.Acked+s.DeadLettered+s.Dropped+s.Left) + held},
	} {
		if c.books != c.queue {
			a.wrong(0, fmt.Sprintf("%s: the books say %d, the queue says %d", c.what, c.books, c.queue))
		}
	}
}

func (a *Account) wrong(orderID int, what string) {
	a.Wrong = append(a.Wrong, Discrepancy{orderID, what})
}

func (l *Ledger) unknownOrders() []int {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.unknown
}

// A StockAccount is the inventory's page on goods:
// Opening + Restocked = Reserved + OnShelf, for each product.
type StockAccount struct {
	Products                              int
	Opening, Restocked, Reserved, OnShelf int
	Wrong                                 []string
}

// Balanced reports whether every unit is accounted for.
func (a *StockAccount) Balanced() bool { return len(a.Wrong) == 0 }

// AuditStock adds up the lines of the orders that the inventory's ledger has,
// and holds them against what is gone from the shelves.
func (s *Inventory) AuditStock(orders iter.Seq[PaymentSucceeded]) *StockAccount {
	s.mu.Lock()
	defer s.mu.Unlock()
	reserved := map[int]int{}
	rest := s.ledger.Total()
	for p := range orders {
		if rest == 0 {
			break // a flood that was interrupted has many more orders
		}
		if s.ledger.Has(p.OrderID) {
			rest--
			for _, l := range p.Lines {
				reserved[l.ProductID] += l.Quantity
			}
		}
	}
	a := &StockAccount{Products: len(s.products)}
	for _, id := range s.order {
		p := s.products[id]
		a.Opening += p.opening
		a.Restocked += p.restocked
		a.Reserved += reserved[id]
		a.OnShelf += p.stock
		if p.opening+p.restocked != reserved[id]+p.stock || p.stock < 0 {
			a.Wrong = append(a.Wrong, fmt.Sprintf("%s: opening %d + restocked %d is not reserved %d + on shelf %d",
				p.name, p.opening, p.restocked, reserved[id], p.stock))
		}
	}
	return a
}
