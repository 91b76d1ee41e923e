package main

import (
	"math/rand/v2"
	"time"
)

// mix makes one number of several, so that each goroutine, queue, message and
// attempt has a stream of its own that the seed determines.
func mix(parts ...uint64) uint64 {
	h := uint64(0x9e3779b97f4a7c15)
	for _, p := range parts {
		h ^= p
		h += 0x9e3779b97f4a7c15
		h = (h ^ h>>30) * 0xbf58476d1ce4e5b9
		h = (h ^ h>>27) * 0x94d049bb133111eb
		h ^= h >> 31
	}
	return h
}

// What the streams are for: the first number after the seed.
const (
	forWorld = iota + 1
	forPublisher
	forSlot
	forHandler
	forPuller
	forLetters
	forBatch
	forEngine
)

func stream(parts ...uint64) *rand.Rand {
	return rand.New(rand.NewPCG(mix(parts...), 0))
}

// micros is a random duration below most microseconds.
func micros(r *rand.Rand, most int) time.Duration {
	return time.Duration(r.IntN(most)) * time.Microsecond
}

// A dice is what is random about one delivery: a few draws out of one number.
type dice uint64

// roll returns a number below n.
func (d *dice) roll(n int) int {
	*d = dice(mix(uint64(*d)))
	return int(uint64(*d) >> 1 % uint64(n))
}

// wait waits for d, or until stop is closed.
func wait(d time.Duration, stop <-chan struct{}) {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
	case <-stop:
	}
}

func ended(stop <-chan struct{}) bool {
	select {
	case <-stop:
		return true
	default:
		return false
	}
}
