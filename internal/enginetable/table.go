package main

import (
	"fmt"
	"slices"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"

	"github.com/gofanout/fanout/engine"
)

// A column is what one engine declares.
type column struct {
	name string
	caps engine.Capabilities
	like int // its notes are those that differ from the notes of this column; 0 for none
}

// A row asks one question of all engines. Its features have the same answer on
// each engine: a test says so.
type row struct {
	title    string
	longest  bool // the answer is the longest duration, not yes
	features []engine.Feature
}

// rows are what a reader asks before he chooses an engine. What is not here is in
// the notes alone.
var rows = []row{
	{"messages outlive the process", false, []engine.Feature{engine.Durable}},
	{"several processes can share a queue", false, []engine.Feature{engine.Distributed}},
	{"each queue is bounded", false, []engine.Feature{engine.Bounded}},
	{"a batch is published as a whole or not at all", false, []engine.Feature{engine.AllOrNone}},
	{"ordering keys", false, []engine.Feature{engine.Ordering}},
	{"a late acknowledgement is always refused", false, []engine.Feature{engine.Fencing}},
	{"a dead letter has its whole history", false, []engine.Feature{engine.State}},
	{"longest deduplication window", true, []engine.Feature{engine.Deduplication}},
	{"longest visibility timeout and wait for a retry", true, []engine.Feature{engine.Visibility, engine.RetryDelay}},
	{"longest delay of a message or queue", true, []engine.Feature{engine.MessageDelay, engine.QueueDelay}},
}

// table is the table, and below it the notes of each engine.
func table(columns []column) string {
	var b strings.Builder
	b.WriteString("| |")
	for _, c := range columns {
		fmt.Fprintf(&b, " %s |", c.name)
	}
	b.WriteString("\n|---|" + strings.Repeat("---|", len(columns)) + "\n")
	for _, r := range rows {
		fmt.Fprintf(&b, "| %s |", r.title)
		for _, c := range columns {
			fmt.Fprintf(&b, " %s |", r.answer(c.caps[r.features[0]]))
		}
		b.WriteString("\n")
	}
	for _, c := range columns {
		title, known := c.name, engine.Capabilities{}
		if c.like > 0 {
			title, known = fmt.Sprintf("%s, where it differs from %s", c.name, columns[c.like].name), columns[c.like].caps
		}
		if text := notes(c.caps, known); text != "" {
			fmt.Fprintf(&b, "\n**%s**\n\n%s", title, text)
		}
	}
	return b.String()
}

// answer is yes, no, or the longest duration.
func (r row) answer(s engine.Support) string {
	switch {
	case !s.Kept:
		return "no"
	case !r.longest:
		return "yes"
	case s.Most == 0:
		return "no limit"
	case s.Most%time.Hour == 0:
		return fmt.Sprintf("%d h", s.Most/time.Hour)
	case s.Most%time.Minute == 0:
		return fmt.Sprintf("%d min", s.Most/time.Minute)
	default:
		return s.Most.String()
	}
}

// notes is a line for each row of which an engine has more to say than is known, and
// then one for each feature that has no row, with the answer.
func notes(caps, known engine.Capabilities) string {
	var b strings.Builder
	hasMore := func(f engine.Feature) bool { return caps[f].Note != "" && caps[f] != known[f] }
	rest := engine.Features()
	for _, r := range rows {
		var text string
		for _, f := range r.features {
			rest = slices.DeleteFunc(rest, func(other engine.Feature) bool { return other == f })
			if !hasMore(f) {
				continue
			}
			note := caps[f].Note
			if len(r.features) > 1 {
				note = f.String() + ": " + note
			}
			text += " " + sentence(note) + "."
		}
		if text != "" {
			fmt.Fprintf(&b, "- *%s:*%s\n", sentence(r.title), text)
		}
	}
	for _, f := range rest {
		if hasMore(f) {
			answer := "no"
			if caps[f].Kept {
				answer = "yes"
			}
			fmt.Fprintf(&b, "- *%s:* %s. %s.\n", sentence(f.String()), answer, sentence(caps[f].Note))
		}
	}
	return b.String()
}

// sentence is text with its first letter large.
func sentence(text string) string {
	first, size := utf8.DecodeRuneInString(text)
	return string(unicode.ToUpper(first)) + text[size:]
}
