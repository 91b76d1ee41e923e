package shop

import "math/rand/v2"

// Flood returns a workload of n made-up payments that are never stored: each is
// made when it is asked for, the same one each time. There is stock for all.
func Flood(n int, seed uint64) *Workload {
	const products = 16
	w := &Workload{Orders: IndexRange(1, n), n: n}
	for id := 1; id <= products; id++ {
		w.Products = append(w.Products, Product{ID: id, Name: "product " + string(rune('A'+id-1)), Stock: 30 * n})
	}
	// Orders share their lines, which nobody changes, so that a payment costs nothing.
	chance := rand.New(rand.NewPCG(seed, 0))
	baskets := make([][]Line, 64)
	for i := range baskets {
		for range 1 + chance.IntN(3) {
			baskets[i] = append(baskets[i], Line{ProductID: 1 + chance.IntN(products), Quantity: 1 + chance.IntN(9)})
		}
	}
	w.payment = func(i int) PaymentSucceeded {
		return PaymentSucceeded{
			OrderID:  1 + i,
			Customer: "flood",
			ShipTo:   "everywhere",
			Carrier:  1 + i%len(carriers),
			Cents:    int64(100 + i%9900),
			Lines:    baskets[i%len(baskets)],
		}
	}
	return w
}

// Endless returns more payments than anybody waits for. They are those of a flood, but one
// product has long been sold out: who orders it can't be served.
func Endless(seed uint64) *Workload {
	w := Flood(10_000_000, seed)
	w.Products[len(w.Products)-1].Stock = 0
	return w
}
