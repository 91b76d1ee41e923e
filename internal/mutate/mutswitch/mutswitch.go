// Package mutswitch is what mutated code asks which mutant it is. The driver
// copies it into the copy of the module that it mutates.
package mutswitch

import (
	"cmp"
	"os"
	"strconv"
)

// Active is the number of the mutant that is on, 0 for none.
var Active, _ = strconv.Atoi(os.Getenv("FANOUT_MUTANT"))

// On reports whether mutant n is on.
func On(n int) bool { return n == Active }

type integer interface {
	~int | ~int8 | ~int16 | ~int32 | ~int64 | ~uint | ~uint8 | ~uint16 | ~uint32 | ~uint64 | ~uintptr
}

type number interface {
	integer | ~float32 | ~float64
}

// Lt is a < b, and a <= b in mutant n.
func Lt[T cmp.Ordered](n int, a, b T) bool {
	if On(n) {
		return a <= b
	}
	return a < b
}

// Le is a <= b, and a < b in mutant n.
func Le[T cmp.Ordered](n int, a, b T) bool {
	if On(n) {
		return a < b
	}
	return a <= b
}

// Gt is a > b, and a >= b in mutant n.
func Gt[T cmp.Ordered](n int, a, b T) bool { return Lt(n, b, a) }

// Ge is a >= b, and a > b in mutant n.
func Ge[T cmp.Ordered](n int, a, b T) bool { return Le(n, b, a) }

// Add is a + b, and a - b in mutant n.
func Add[T number](n int, a, b T) T {
	if On(n) {
		return a - b
	}
	return a + b
}

// Sub is a - b, and a + b in mutant n.
func Sub[T number](n int, a, b T) T {
	if On(n) {
		return a + b
	}
	return a - b
}

// Mul is a * b, and a / b in mutant n.
func Mul[T number](n int, a, b T) T {
	if On(n) {
		return a / b
	}
	return a * b
}

// Quo is a / b, and a * b in mutant n.
func Quo[T number](n int, a, b T) T {
	if On(n) {
		return a * b
	}
	return a / b
}

// Rem is a % b, and a * b in mutant n.
func Rem[T integer](n int, a, b T) T {
	if On(n) {
		return a * b
	}
	return a % b
}

// And is a & b, and a | b in mutant n.
func And[T integer](n int, a, b T) T {
	if On(n) {
		return a | b
	}
	return a & b
}

// Or is a | b, and a & b in mutant n.
func Or[T integer](n int, a, b T) T {
	if On(n) {
		return a & b
	}
	return a | b
}

// Xor is a ^ b, and a & b in mutant n.
func Xor[T integer](n int, a, b T) T {
	if On(n) {
		return a & b
	}
	return a ^ b
}

// AndNot is a &^ b, and a & b in mutant n.
func AndNot[T integer](n int, a, b T) T {
	if On(n) {
		return a & b
	}
	return a &^ b
}

// Shl is a << b, and a >> b in mutant n.
func Shl[T, S integer](n int, a T, b S) T {
	if On(n) {
		return a >> b
	}
	return a << b
}

// Shr is a >> b, and a << b in mutant n.
func Shr[T, S integer](n int, a T, b S) T {
	if On(n) {
		return a << b
	}
	return a >> b
}

// Neg is -a, and a in mutant n.
func Neg[T number](n int, a T) T {
	if On(n) {
		return a
	}
	return -a
}

// Max is the greatest of its arguments, and the least in mutant n.
func Max[T cmp.Ordered](n int, a T, more ...T) T {
	for _, b := range more {
		if On(n) {
			a = min(a, b)
		} else {
			a = max(a, b)
		}
	}
	return a
}

// Min is the least of its arguments, and the greatest in mutant n.
func Min[T cmp.Ordered](n int, a T, more ...T) T {
	for _, b := range more {
		if On(n) {
			a = max(a, b)
		} else {
			a = min(a, b)
		}
	}
	return a
}

// Num is a, and in mutant n 0, or 1 if a is 0.
func Num[T number](n int, a T) T {
	switch {
	case !On(n):
		return a
	case a == 0:
		return 1
	}
	return 0
}

// Str is a, and in mutant n empty, or "mutant" if a is empty.
func Str[T ~string](n int, a T) T {
	switch {
	case !On(n):
		return a
	case a == "":
		return "mutant"
	}
	return ""
}
