package ending

import (
	"fmt"
	"strings"

	"github.com/gofanout/fanout/internal/message"
)

// A ShutdownError is what ending a topic left.
type ShutdownError struct {
	Topic  string
	Queues []Left
	Err    error // why waiting ended; nil if everything was done that is waited for
}

// Error names the topic, and says for each queue what is left.
func (e *ShutdownError) Error() string {
	var b strings.Builder
	fmt.Fprintf(&b, "fanout: shutdown of topic %q left ", e.Topic)
	for i, l := range e.Queues {
		if i > 0 {
			b.WriteString("; ")
		}
		b.WriteString(l.String())
	}
	if e.Err != nil {
		fmt.Fprintf(&b, ": %v", e.Err)
	}
	return b.String()
}

// Unwrap returns e.Err.
func (e *ShutdownError) Unwrap() error { return e.Err }

// Left is what ending a topic left in one queue.
type Left struct {
	Queue                                                                  string
	Ready, Retrying, Delayed, InFlight, Parked, Released, Blocked, Running int
}

// Messages counts them all; handlers are none.
func (l Left) Messages() int {
	return l.Ready + l.Retrying + l.Delayed + l.InFlight + l.Parked + l.Released + l.Blocked
}

// String returns what is left in one line, without the numbers that are 0.
func (l Left) String() string {
	var b strings.Builder
	fmt.Fprintf(&b, "queue %q:", l.Queue)
	sep := " "
	for _, f := range []struct {
		n    int
		name string
	}{
		{l.Ready, "ready"}, {l.Retrying, "retrying"}, {l.Delayed, "delayed"}, {l.InFlight, "in flight"},
		{l.Parked, "parked"}, {l.Released, "released"}, {l.Blocked, "blocked"},
	} {
		if f.n > 0 {
			fmt.Fprintf(&b, "%s%d %s", sep, f.n, f.name)
			sep = ", "
		}
	}
	if l.Running > 0 {
		b.WriteString(sep + message.Plural(l.Running, "handler") + " running")
	}
	return b.String()
}
