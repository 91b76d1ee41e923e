package engine

import (
	"fmt"
	"strings"
)

// Table writes what engines keep as a table in Markdown, a row for each feature
// and a column for each engine: the documentation's, made from what they declare.
func Table(engines ...Engine) string {
	var b strings.Builder
	b.WriteString("| |")
	for _, e := range engines {
		fmt.Fprintf(&b, " %s |", e.Name())
	}
	b.WriteString("\n|---|" + strings.Repeat("---|", len(engines)) + "\n")
	for _, f := range Features() {
		fmt.Fprintf(&b, "| %v |", f)
		for _, e := range engines {
			fmt.Fprintf(&b, " %s |", e.Capabilities()[f])
		}
		b.WriteString("\n")
	}
	return b.String()
}

// String tells the support in a few words: "yes, up to 15m0s: hidden after receipt".
func (s Support) String() string {
	text := "no"
	if s.Kept {
		text = "yes"
		if s.Most > 0 {
			text += fmt.Sprintf(", up to %v", s.Most)
		}
	}
	if s.Note != "" {
		text += ": " + s.Note
	}
	return text
}
