//go:build race

package oteltest

// With the race detector pools forget a part of what they are given.
const (
	deliveryOwn     = 4.0
	publishOwn      = 10.0
	publishOwnNoOps = 10.0
)
