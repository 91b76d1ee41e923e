//go:build !race

package fanout

// amortised is the most allocations a delivery that count as none.
const amortised = 0.01

// Raced says whether the race detector is on.
const Raced = false
