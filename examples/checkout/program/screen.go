package program

import (
	"strings"
	"unicode"
	"unicode/utf8"
)

// pipeWidth is how wide lines may be where there is no terminal.
const pipeWidth = 100

// usualWidth is how wide a terminal is that does not say it.
const usualWidth = 80

// Colours help to find what is worth a look. Without a terminal, or with NO_COLOR set
// (see no-color.org), there are none.
func (o *console) red(s string) string    { return o.paint(s, "31") }
func (o *console) green(s string) string  { return o.paint(s, "32") }
func (o *console) yellow(s string) string { return o.paint(s, "33") }

func (o *console) paint(s, colour string) string {
	if !o.colour || s == "" {
		return s
	}
	return "\x1b[" + colour + "m" + s + "\x1b[0m"
}

// wide is how many columns of a terminal s takes. Colours take none, and the characters
// of East Asian scripts take two.
func wide(s string) (n int) {
	escape := false
	for _, r := range s {
		switch {
		case r == 0x1b:
			escape = true
		case escape:
			escape = r != 'm'
		case unicode.Is(unicode.Mn, r):
		case unicode.In(r, unicode.Han, unicode.Hiragana, unicode.Katakana, unicode.Hangul):
			n += 2
		default:
			n++
		}
	}
	return n
}

// fold breaks a line between words so that no part of it is wider than most. What
// follows the first part is indented by four columns more. A word that is longer than
// a line is cut.
func fold(line string, most int) string {
	if wide(line) <= most {
		return line
	}
	text := strings.TrimLeft(line, " ")
	first := line[:len(line)-len(text)]
	indent := first + "    "
	if len(indent) >= most/2 {
		first, indent = "", ""
	}
	var b strings.Builder
	b.WriteString(first)
	column, begun := len(first), false
	for word := range strings.SplitSeq(text, " ") {
		if begun && column+1+wide(word) > most {
			b.WriteString("\n" + indent)
			column, begun = len(indent), false
		}
		if begun {
			b.WriteByte(' ')
			column++
		}
		for column+wide(word) > most {
			part := cut(word, most-column)
			b.WriteString(part + "\n" + indent)
			word, column = word[len(part):], len(indent)
		}
		b.WriteString(word)
		column, begun = column+wide(word), true
	}
	return b.String()
}

// cut returns the beginning of s that takes at most n columns, but one character at
// least.
func cut(s string, n int) string {
	end := 0
	for k, r := range s {
		if n -= wide(string(r)); n < 0 && end > 0 {
			return s[:end]
		}
		end = k + utf8.RuneLen(r)
	}
	return s
}
