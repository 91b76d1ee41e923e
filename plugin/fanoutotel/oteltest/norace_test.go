//go:build !race

package oteltest

// The allocations of our own that a delivery and a publish may have.
const (
	deliveryOwn     = 0.05
	publishOwn      = 2.05
	publishOwnNoOps = 1.05 // because the bare calls make an empty map
)
