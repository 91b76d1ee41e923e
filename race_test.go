//go:build race

package fanout

// amortised is the most allocations a delivery that count as none: the race
// detector makes every pool forget a quarter of what it is given.
const amortised = 0.1

// Raced says whether the race detector is on.
const Raced = true
