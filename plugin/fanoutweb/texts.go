package fanoutweb

import (
	"bytes"
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/gofanout/fanout"
)

// A letter is a message as a request may see it. Its texts are redacted.
type letter struct {
	Cursor      string            `json:"cursor,omitempty"`
	ID          string            `json:"id,omitempty"`
	State       string            `json:"state"`
	PublishedAt time.Time         `json:"published_at"`
	DueAt       time.Time         `json:"due_at,omitzero"`
	DiedAt      time.Time         `json:"died_at,omitzero"`
	Source      string            `json:"source,omitempty"`
	Attempts    int               `json:"attempts"` // that have ended
	Cause       string            `json:"cause,omitempty"`
	Error       string            `json:"error,omitempty"`
	Key         string            `json:"ordering_key,omitempty"`
	Attributes  map[string]string `json:"attributes,omitempty"`
	Body        string            `json:"body,omitempty"`
	History     []attempt         `json:"history,omitempty"`
}

// An attempt is one of a letter's, as a request may see it.
type attempt struct {
	Number  int       `json:"number"`
	Cause   string    `json:"cause"`
	Queue   string    `json:"queue"`
	Start   time.Time `json:"start"`
	Elapsed float64   `json:"elapsed_seconds"`
	Error   string    `json:"error,omitempty"`
	Stack   string    `json:"stack,omitempty"`
	// Redriven is whether the message was redriven before it. That is inferred: the attempt
	// before it was the last that the options in force allow.
	Redriven bool `json:"redriven,omitempty"`
}

// A reader is what a request may see of the messages of a queue.
type reader struct {
	place
	body, stack bool
	redact      func(Text) string // nil: nothing is
}

func (v *visit) reader(p place) reader {
	return reader{p, v.can(Body, p.Topic, p.Queue), v.can(Stack, p.Topic, p.Queue), v.h.options.Redact}
}

// text redacts.
func (r *reader) text(kind, name, text string) (shown string) {
	if r.redact == nil || text == "" {
		return text
	}
	defer func() {
		if recover() != nil {
			shown = "redacted"
		}
	}()
	return r.redact(Text{Topic: r.Topic, Queue: r.Queue, Kind: kind, Name: name, Text: text})
}

// letter is what the reader may see of a message, with all of its history if it is wanted.
func (r *reader) letter(m *fanout.MessageView, whole bool) letter {
	l := letter{
		Cursor: m.Cursor, State: m.State, PublishedAt: m.PublishedAt, DueAt: m.DueAt, DiedAt: m.DiedAt, Source: m.Source, Attempts: len(m.History),
	}
	if n := len(m.History); n > 0 {
		last := &m.History[n-1]
		l.Cause = last.Cause.String()
		if r.body {
			l.Error = r.error(last.Err)
		}
	}
	if r.body {
		l.ID, l.Key, l.Body = m.ID, r.text("ordering key", "", m.OrderingKey), r.text("body", "", m.Body)
		if len(m.Attributes) > 0 {
			l.Attributes = make(map[string]string, len(m.Attributes))
			for name, value := range m.Attributes {
				l.Attributes[name] = r.text("attribute", name, value)
			}
		}
	}
	if whole {
		for k := range m.History {
			a := &m.History[k]
			shown := attempt{Number: a.Number, Cause: a.Cause.String(), Queue: a.Queue, Start: a.Start, Elapsed: a.Elapsed.Seconds()}
			if r.body {
				shown.Error = r.error(a.Err)
			}
			if r.stack {
				shown.Stack = r.text("stack", "", a.Stack)
			}
			l.History = append(l.History, shown)
		}
	}
	return l
}

// Parts are the stack's frames, nil if they can't be told apart.
func (a attempt) Parts() []stackPart { return stackOf(a.Stack) }

// error is the text of an error of the user's, whose method may panic.
func (r *reader) error(err error) (text string) {
	if err == nil {
		return ""
	}
	defer func() {
		if recover() != nil {
			text = fmt.Sprintf("a %T, whose text could not be had", err)
		}
	}()
	return r.text("error", "", err.Error())
}

// Names are the names of the attributes, in order.
func (l letter) Names() []string { return slices.Sorted(maps.Keys(l.Attributes)) }

// Pretty is the body, indented if it is JSON.
func (l letter) Pretty() string {
	var b bytes.Buffer
	if strings.ContainsAny(l.Body, "{[") && json.Indent(&b, []byte(l.Body), "", "  ") == nil {
		return b.String()
	}
	return l.Body
}

// plain is a text in which nothing is invisible: control characters, and those that
// change the direction of writing, are shown by their names.
func plain(text string) string {
	odd := func(r rune) bool {
		return r < ' ' && r != '\n' && r != '\t' || r >= 0x7f && r < 0xa0 || r == 0x200e || r == 0x200f || r >= 0x202a && r <= 0x202e || r >= 0x2066 && r <= 0x2069 || r == 0xfeff
	}
	if strings.IndexFunc(text, odd) < 0 {
		return text
	}
	var b strings.Builder
	for _, r := range text {
		switch {
		case !odd(r):
			b.WriteRune(r)
		case r < ' ':
			b.WriteRune(0x2400 + r)
		default:
			fmt.Fprintf(&b, "⟨U+%04X⟩", r)
		}
	}
	return b.String()
}
