package fanoutweb

import (
	"fmt"
	"math"
	"strconv"
	"strings"
	"time"

	"github.com/gofanout/fanout"
)

// number is a count that is short: 9,999 and 12.3k and 4.5M.
func number[N int | uint64 | bound](n N) string {
	f := float64(n)
	switch {
	case f == fanout.Unknown:
		return "?"
	case f >= float64(fanout.Unlimited):
		return "unlimited"
	case f < 10_000:
		return grouped(n)
	case f < 999_950:
		return trimmed(f/1e3) + "k"
	case f < 999_950_000:
		return trimmed(f/1e6) + "M"
	}
	return trimmed(f/1e9) + "G"
}

func trimmed(f float64) string { return strings.TrimSuffix(strconv.FormatFloat(f, 'f', 1, 64), ".0") }

// grouped is a count in full: 1,234,567.
func grouped[N int | uint64 | bound](n N) string {
	s := fmt.Sprint(n)
	for i := len(s) - 3; i > 0 && s[i-1] != '-'; i -= 3 {
		s = s[:i] + "," + s[i:]
	}
	return s
}

// rate is a number of times a second, "–" if it isn't known yet.
func rate(r float64) string {
	switch {
	case r < 0:
		return "–"
	case r == 0 || r >= 9.95:
		return number(int(math.Round(r)))
	case r < 0.1:
		return "<0.1"
	}
	return trimmed(r)
}

// seconds is a duration in seconds for people.
func seconds(s float64) string {
	if s < 0 {
		return "?"
	}
	return duration(time.Duration(s * float64(time.Second)))
}

// duration is a duration for people, in its two largest units.
func duration(d time.Duration) string {
	switch {
	case d == 0:
		return "0 s"
	case d < time.Microsecond:
		return strconv.FormatInt(int64(d), 10) + " ns"
	case d < time.Millisecond:
		return trimmed(float64(d)/1e3) + " µs"
	case d < time.Second:
		return trimmed(float64(d)/1e6) + " ms"
	case d < 10*time.Second:
		return trimmed(d.Seconds()) + " s"
	case d < time.Minute:
		return fmt.Sprintf("%d s", int(d.Seconds()))
	}
	for _, u := range []struct {
		big, small         time.Duration
		bigName, smallName string
	}{{24 * time.Hour, time.Hour, "d", "h"}, {time.Hour, time.Minute, "h", "min"}, {time.Minute, time.Second, "min", "s"}} {
		if d >= u.big {
			text := fmt.Sprintf("%d %s", d/u.big, u.bigName)
			if rest := d % u.big / u.small; rest > 0 {
				text += fmt.Sprintf(" %d %s", rest, u.smallName)
			}
			return text
		}
	}
	return d.String()
}

// plural is a count of a thing, in words.
func plural[N int | uint64](n N, thing string) string {
	if n == 1 {
		return "1 " + thing
	}
	if ending, ok := strings.CutSuffix(thing, "y"); ok {
		thing = ending + "ie"
	}
	return number(n) + " " + thing + "s"
}

// clock is an instant for a time element, which the script shows in the reader's zone.
func clock(t time.Time) string { return t.UTC().Format(time.RFC3339Nano) }

// clockText is what stands there without a script.
func clockText(t time.Time) string { return t.UTC().Format("2006-01-02 15:04:05 UTC") }

// A bound is a capacity, null in JSON if there is none.
type bound int

// MarshalJSON implements [json.Marshaler].
func (b bound) MarshalJSON() ([]byte, error) {
	if int(b) == fanout.Unlimited {
		return []byte("null"), nil
	}
	return strconv.AppendInt(nil, int64(b), 10), nil
}
