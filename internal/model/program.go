package model

import (
	"math/rand/v2"
	"slices"
)

// A Program says what to do. The first step chooses the topic's options, each
// of the others an operation with its arguments. Every Program is a valid one,
// leaving out steps or bytes makes another valid one, and zeros stand for the
// simplest choices, so that whoever makes programs can shrink them.
type Program [][]byte

// stepLen is how many bytes of a flat program make a step.
const stepLen = 8

// Split makes a Program of flat bytes, as a fuzzer has them.
func Split(data []byte) (p Program) {
	for len(data) > 0 {
		n := min(stepLen, len(data))
		p = append(p, data[:n])
		data = data[n:]
	}
	return p
}

// Random makes the k-th Program of a seed, with the given number of steps.
func Random(seed, k uint64, steps int) Program {
	rnd := rand.New(rand.NewPCG(seed, k))
	data := make([]byte, steps*stepLen)
	for i := range data {
		data[i] = byte(rnd.Uint32())
	}
	return Split(data)
}

// draws are the choices of one step. When its bytes have been used up the next
// choices are made of all of them; those of zeros are zeros.
type draws struct {
	bytes []byte
	used  int
	more  uint64
}

func newDraws(bytes []byte) *draws {
	s := &draws{bytes: bytes}
	for _, b := range bytes {
		s.more = s.more*0x100000001b3 + uint64(b)
	}
	return s
}

// draw returns a number below n, which is at most 256.
func (s *draws) draw(n int) int {
	if s.used < len(s.bytes) {
		s.used++
		return int(s.bytes[s.used-1]) % n
	}
	s.more = s.more * 0x5851f42d4c957f2d >> 1
	x := s.more
	x ^= x >> 33
	x *= 0xff51afd7ed558ccd
	x ^= x >> 33
	return int(x % uint64(n))
}

// oneIn is true once in n times, and never for zeros.
func (s *draws) oneIn(n int) bool { return s.draw(n) == n-1 }

// Shrink returns a smaller program that still fails: it leaves out steps and
// makes bytes zero as long as that helps.
func Shrink(p Program, fails func(p Program) bool) Program {
	for n := len(p) / 2; n > 0; n /= 2 {
		for k := 0; k < len(p); {
			q := append(slices.Clone(p[:k]), p[min(k+n, len(p)):]...)
			if len(q) > 0 && fails(q) {
				p = q
			} else {
				k += n
			}
		}
	}
	for k, step := range p {
		for i := range step {
			q := slices.Clone(p)
			q[k] = slices.Clone(step)
			q[k][i] = 0
			if step[i] != 0 && fails(q) {
				p, step = q, q[k]
			}
		}
	}
	return p
}
