// Package shop is the domain of the checkout example: orders and the stock they
// draw on, read from CSV files; the inventory and the shipping service that work
// on each payment; and the books that say, order by order, what became of it.
//
// Nothing here knows how messages travel. The services are a
// [fanout.Handler][PaymentSucceeded] each, so the same shop runs on any engine,
// and nothing in it prints: what a program makes of it is the program's.
package shop

import "iter"

// PaymentSucceeded is what the payment service publishes once an order is paid.
// It says all that the other services need, so that none has to ask back.
type PaymentSucceeded struct {
	OrderID  int    `json:"order_id"`
	Customer string `json:"customer"`
	ShipTo   string `json:"ship_to"`
	Carrier  int    `json:"carrier"`
	Cents    int64  `json:"cents"`
	Lines    []Line `json:"lines"`
}

// A Line is one product of an order.
type Line struct {
	ProductID int `json:"product_id"`
	Quantity  int `json:"quantity"`
}

// A Product is something the shop sells.
type Product struct {
	ID    int
	Name  string
	Stock int
}

// A Workload is the payments to be published and the stock they meet.
type Workload struct {
	Products []Product
	Orders   Index

	n       int
	payment func(i int) PaymentSucceeded
}

// Len is the number of payments.
func (w *Workload) Len() int { return w.n }

// Lines is the number of order lines in all payments.
func (w *Workload) Lines() int {
	n := 0
	for p := range w.All() {
		n += len(p.Lines)
	}
	return n
}

// Payment returns the i-th payment, counted from 0, the same one each time.
func (w *Workload) Payment(i int) PaymentSucceeded { return w.payment(i) }

// All ranges over the payments in their order.
func (w *Workload) All() iter.Seq[PaymentSucceeded] {
	return func(yield func(PaymentSucceeded) bool) {
		for i := range w.n {
			if !yield(w.payment(i)) {
				return
			}
		}
	}
}
