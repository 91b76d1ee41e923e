package fanoutweb

import (
	"fmt"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"time"

	"github.com/gofanout/fanout"
)

// A filter says which letters are looked for. The zero filter is all.
type filter struct {
	Cause string // of the last attempt
	Text  string // a part of the ID, key, error, an attribute or the beginning of the body
	Attr  string // name, or name=value
	Error string // what the errors of a group have in common, see alike
	Age   string // "<1h" or ">1h": since it died, or was published if it is not dead

	under, over time.Duration
}

// Causes are what letters die of.
var causeNames = []string{"failed", "panicked", "exited", "timed out", "nacked", "permanent", "expired", "snoozed", "released"}

// An age is a choice of ages.
type age struct{ Value, Name string }

var ages = []age{{"<5m", "under 5 minutes"}, {"<1h", "under an hour"}, {"<24h", "under a day"}, {">1h", "over an hour"}, {">24h", "over a day"}}

func filterOf(form url.Values, body bool) (f filter, err error) {
	f = filter{Cause: form.Get("cause"), Text: form.Get("text"), Attr: form.Get("attr"), Error: form.Get("error"), Age: form.Get("age")}
	bad := func(name, value, want string) error {
		return refusal{http.StatusBadRequest, fmt.Sprintf("%s=%s: want %s.", name, strconv.Quote(value), want)}
	}
	if f.Cause != "" {
		known := false
		for _, name := range causeNames {
			known = known || name == f.Cause
		}
		if !known {
			return f, bad("cause", f.Cause, strings.Join(causeNames, ", "))
		}
	}
	if !body && (f.Text != "" || f.Attr != "" || f.Error != "") {
		return f, notAllowed(Access{Action: Body})
	}
	if f.Age != "" {
		d, err := time.ParseDuration(f.Age[1:])
		switch {
		case err != nil || d <= 0 || f.Age[0] != '<' && f.Age[0] != '>':
			return f, bad("age", f.Age, "< or > and a duration, such as <1h30m")
		case f.Age[0] == '<':
			f.under = d
		default:
			f.over = d
		}
	}
	return f, nil
}

// Query are the names and values of the filter, for a link.
func (f filter) Query() []string {
	return []string{"cause", f.Cause, "text", f.Text, "attr", f.Attr, "error", f.Error, "age", f.Age}
}

// Any reports whether it is all.
func (f filter) Any() bool {
	return f.Cause == "" && f.Text == "" && f.Attr == "" && f.Error == "" && f.Age == ""
}

// String is the filter in words.
func (f filter) String() string {
	var words []string
	q := f.Query()
	for k := 0; k < len(q); k += 2 {
		if q[k+1] != "" {
			words = append(words, q[k]+"="+strconv.Quote(q[k+1]))
		}
	}
	return strings.Join(words, " ")
}

// quick reports whether a message can match, by what costs nothing to look at.
func (f *filter) quick(m *fanout.MessageView, now time.Time) bool {
	if f.Cause != "" && (len(m.History) == 0 || m.History[len(m.History)-1].Cause.String() != f.Cause) {
		return false
	}
	at := m.DiedAt
	if at.IsZero() {
		at = m.PublishedAt
	}
	return (f.under == 0 || now.Sub(at) <= f.under) && (f.over == 0 || now.Sub(at) >= f.over)
}

// matches reports whether a letter has the texts that are looked for.
func (f *filter) matches(l *letter) bool {
	if f.Attr != "" {
		name, value, whole := strings.Cut(f.Attr, "=")
		has, found := l.Attributes[name]
		if !found || whole && has != value {
			return false
		}
	}
	if f.Error != "" && alike(l.Error) != f.Error {
		return false
	}
	if f.Text == "" {
		return true
	}
	part := strings.ToLower(f.Text)
	for _, text := range []string{l.Error, l.ID, l.Key, l.Body} {
		if strings.Contains(strings.ToLower(text), part) {
			return true
		}
	}
	for _, value := range l.Attributes {
		if strings.Contains(strings.ToLower(value), part) {
			return true
		}
	}
	return false
}
