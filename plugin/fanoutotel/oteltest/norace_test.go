//go:build !race

package oteltest

// The allocations of our own that a delivery and a publish may have.
const (
	deliveryOwn = 0.05
	publishOwn  = 6.1
)
