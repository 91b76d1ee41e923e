package policy

import (
	"math"
	"strconv"
)

// A fixed is a number as SNS compares it: with five digits after the decimal
// point. Within the range allowed it is exact as a float64 too, so that
// nothing is lost between the text and here but further decimals.
type fixed int64

const (
	unit     = 100_000
	maxFixed = 1_000_000_000 * unit
	minFixed = -maxFixed
)

// parseFixed reads a JSON number. It reports false if text is none, or if the
// number is outside the range of SNS.
func parseFixed(text string) (fixed, bool) {
	if !isJSONNumber(text) {
		return 0, false
	}
	f, err := strconv.ParseFloat(text, 64)
	if err != nil || math.Abs(f) > maxFixed/unit {
		return 0, false
	}
	return fixed(math.Round(f * unit)), true
}

// isJSONNumber reports if text is a number to JSON and nothing else. ParseFloat
// is laxer: it takes +1, .5, 0x1p3 and Inf.
func isJSONNumber(text string) bool {
	s := text
	if s != "" && s[0] == '-' {
		s = s[1:]
	}
	n := digits(s)
	if n == 0 || n > 1 && s[0] == '0' {
		return false
	}
	s = s[n:]
	if s != "" && s[0] == '.' {
		if n = digits(s[1:]); n == 0 {
			return false
		}
		s = s[1+n:]
	}
	if s != "" && (s[0] == 'e' || s[0] == 'E') {
		s = s[1:]
		if s != "" && (s[0] == '+' || s[0] == '-') {
			s = s[1:]
		}
		if n = digits(s); n == 0 {
			return false
		}
		s = s[n:]
	}
	return s == ""
}

// digits returns how many digits s begins with.
func digits(s string) int {
	n := 0
	for n < len(s) && '0' <= s[n] && s[n] <= '9' {
		n++
	}
	return n
}
