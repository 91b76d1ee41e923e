package shop

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/gofanout/fanout"
)

// Inventory is the service that reserves stock for each line of an order: for
// all of them or for none.
//
// All methods may be called concurrently.
type Inventory struct {
	// Invariant: for each product, opening + restocked = stock + what the orders
	// in the ledger took.

	// Immutable.
	world  *World
	ledger *Ledger

	mu       sync.Mutex // guards the fields below, and comes before the ledger's
	products map[int]*shelf
	order    []int // the products' IDs as given
}

type shelf struct {
	name                      string
	opening, restocked, stock int
}

// reserveTime is how long a warehouse takes to answer.
const reserveTime = 80 * time.Millisecond

var _ fanout.Handler[PaymentSucceeded] = (*Inventory)(nil).Handle

// NewInventory returns the service with its shelves filled for the workload.
func NewInventory(load *Workload, world *World) *Inventory {
	s := &Inventory{world: world, ledger: NewLedger(load.Orders), products: map[int]*shelf{}}
	for _, p := range load.Products {
		s.products[p.ID] = &shelf{name: p.Name, opening: p.Stock, stock: p.Stock}
		s.order = append(s.order, p.ID)
	}
	return s
}

// Ledger tells which orders have their stock reserved.
func (s *Inventory) Ledger() *Ledger { return s.ledger }

// Handle reserves the stock for a paid order. A warehouse that doesn't answer is
// worth another attempt; too little stock is not, until somebody restocks.
func (s *Inventory) Handle(ctx context.Context, d fanout.Delivery[PaymentSucceeded]) error {
	if err := s.world.call(ctx, warehouse, d.Body.OrderID, d.Attempt(), reserveTime); err != nil {
		return fmt.Errorf("warehouse: %w", err)
	}
	err := s.Reserve(d.Body)
	var short *ShortageError
	if errors.As(err, &short) {
		return fanout.Permanent(err)
	}
	return err
}

// Reserve takes an order's lines from the shelves, or returns a [*ShortageError]
// and takes none. For an order that has its stock it does nothing: a message may
// come more than once.
func (s *Inventory) Reserve(p PaymentSucceeded) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.ledger.Has(p.OrderID) {
		s.ledger.Enter(p.OrderID)
		return nil
	}
	need := total(p.Lines)
	var short []Shortage
	for _, l := range need {
		shelf := s.products[l.ProductID]
		if shelf == nil {
			return fanout.Permanent(fmt.Errorf("order %d: no product %d", p.OrderID, l.ProductID))
		}
		if shelf.stock < l.Quantity {
			short = append(short, Shortage{Product: shelf.name, Wanted: l.Quantity, InStock: shelf.stock})
		}
	}
	if short != nil {
		return &ShortageError{OrderID: p.OrderID, Short: short}
	}
	for _, l := range need {
		s.products[l.ProductID].stock -= l.Quantity
	}
	s.ledger.Enter(p.OrderID)
	return nil
}

// total sums up lines of the same product.
func total(lines []Line) []Line {
	sums := make([]Line, 0, len(lines))
	for _, l := range lines {
		k := slices.IndexFunc(sums, func(s Line) bool { return s.ProductID == l.ProductID })
		if k < 0 {
			sums = append(sums, l)
		} else {
			sums[k].Quantity += l.Quantity
		}
	}
	return sums
}

// Restock fills the shelves so that the given orders can all be reserved, and
// returns how many products and units it took.
func (s *Inventory) Restock(orders iter.Seq[PaymentSucceeded]) (products, units int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	need := map[int]int{}
	for p := range orders {
		if s.ledger.Has(p.OrderID) {
			continue
		}
		for _, l := range p.Lines {
			need[l.ProductID] += l.Quantity
		}
	}
	for id, n := range need {
		if shelf := s.products[id]; shelf != nil && n > shelf.stock {
			products++
			units += n - shelf.stock
			shelf.restocked += n - shelf.stock
			shelf.stock = n
		}
	}
	return products, units
}

// A Shortage is a product of which there is too little for an order.
type Shortage struct {
	Product         string
	Wanted, InStock int
}

func (s Shortage) String() string {
	return fmt.Sprintf("%s: %d wanted, %d in stock", s.Product, s.Wanted, s.InStock)
}

// A ShortageError says why an order could not be reserved.
type ShortageError struct {
	OrderID int
	Short   []Shortage
}

func (e *ShortageError) Error() string {
	all := make([]string, len(e.Short))
	for i, s := range e.Short {
		all[i] = s.String()
	}
	return fmt.Sprintf("order %d: %s", e.OrderID, strings.Join(all, "; "))
}
