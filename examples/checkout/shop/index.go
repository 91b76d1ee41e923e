package shop

import "slices"

// An Index gives each order a slot, from 0, so that what is known about orders
// fits a plain slice: a million of them need no map. Consecutive order IDs,
// which shops tend to have, are not even stored.
type Index struct {
	first, n int
	ids      []int // sorted; nil if the IDs are first to first+n-1
}

// IndexRange is the index of n orders with consecutive IDs.
func IndexRange(first, n int) Index { return Index{first: first, n: n} }

// IndexOf is the index of the orders with the given IDs, each given once.
func IndexOf(ids []int) Index {
	if len(ids) == 0 {
		return Index{}
	}
	ids = slices.Sorted(slices.Values(ids))
	x := Index{first: ids[0], n: len(ids)}
	if ids[len(ids)-1]-ids[0] != len(ids)-1 {
		x.ids = ids
	}
	return x
}

// Len is the number of orders.
func (x Index) Len() int { return x.n }

// Slot returns the slot of an order, and false if there is no such order.
func (x Index) Slot(orderID int) (slot int, ok bool) {
	if x.ids != nil {
		return slices.BinarySearch(x.ids, orderID)
	}
	slot = orderID - x.first
	return slot, slot >= 0 && slot < x.n
}

// OrderID returns the order whose slot it is.
func (x Index) OrderID(slot int) int {
	if x.ids != nil {
		return x.ids[slot]
	}
	return x.first + slot
}
