// Package raced says whether a test runs with the race detector, which makes every pool
// forget a quarter of what it is given, and starts goroutines in another order.
package raced
