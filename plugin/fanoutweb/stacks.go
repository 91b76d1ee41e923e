package fanoutweb

import (
	"bytes"
	"runtime/pprof"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"
)

const (
	// stackEvery is how often stacks may be collected at most: it stops the world.
	stackEvery = 5 * time.Second
	// mostStacks is how many different stacks are shown.
	mostStacks = 32
)

// A stackLimit lets stacks be collected once in five seconds.
type stackLimit struct {
	mu   sync.Mutex
	last time.Time
}

func (l *stackLimit) take(now time.Time) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	if !l.last.IsZero() && now.Sub(l.last) < stackEvery {
		return false
	}
	l.last = now
	return true
}

// stacksOf returns the stacks of the goroutines that run for a queue: its workers, and what
// their handlers started. Those that are the same are one, with their number before it.
func stacksOf(topic, queue string) (text string, goroutines int) {
	var profile bytes.Buffer
	_ = pprof.Lookup("goroutine").WriteTo(&profile, 1) // a Buffer takes all
	want := []string{label("topic", topic), label("queue", queue)}
	var out strings.Builder
	shown := 0
	for one := range strings.SplitSeq(profile.String(), "\n\n") {
		head, rest, _ := strings.Cut(one, "\n")
		labels, frames, _ := strings.Cut(rest, "\n")
		if !strings.HasPrefix(labels, "# labels: ") || !strings.Contains(labels, want[0]) || !strings.Contains(labels, want[1]) {
			continue
		}
		n, _, _ := strings.Cut(head, " ")
		number, err := strconv.Atoi(n)
		if err != nil {
			continue
		}
		goroutines += number
		if shown++; shown > mostStacks {
			continue
		}
		out.WriteString(isAre(number, "goroutine:\n", "goroutines:\n"))
		for line := range strings.Lines(frames) {
			out.WriteString(frameOf(line))
		}
		out.WriteString("\n")
	}
	return out.String(), goroutines
}

// frameOf is a line of a profile without the address.
func frameOf(line string) string {
	parts := strings.Fields(strings.TrimPrefix(line, "#"))
	if len(parts) < 3 {
		return ""
	}
	return "    " + parts[1] + "\n        " + strings.Join(parts[2:], " ") + "\n"
}

// label is a label as a profile has it.
func label(name, value string) string { return strconv.Quote(name) + ":" + strconv.Quote(value) }

// goroutines are some with the same stack, for people.
type goroutines struct {
	Head  string // how many there are
	Parts []stackPart
}

// A stackPart is a row of frames that are all of the user's code, or all of the library's.
type stackPart struct {
	Library bool
	N       int
	Text    string
}

// goroutinesOf takes apart what stacksOf wrote, or what a redaction left of it.
func goroutinesOf(text string) (gs []goroutines) {
	for one := range strings.SplitSeq(text, "\n\n") {
		if strings.TrimSpace(one) == "" {
			continue
		}
		head, rest, _ := strings.Cut(one, "\n")
		g := goroutines{Head: strings.TrimSuffix(head, ":")}
		for line := range strings.Lines(rest) {
			function := !strings.HasPrefix(line, "        ")
			last := len(g.Parts) - 1
			if function && (last < 0 || g.Parts[last].Library != ours(line)) {
				g.Parts = append(g.Parts, stackPart{Library: ours(line)})
				last++
			}
			if last < 0 {
				continue
			}
			if function {
				g.Parts[last].N++
			}
			g.Parts[last].Text += strings.TrimPrefix(line, "    ")
		}
		gs = append(gs, g)
	}
	return gs
}

// stackOf takes apart the stack of a panic, as debug.Stack writes it. It returns nil for another
// text, such as a redacted one.
func stackOf(text string) (parts []stackPart) {
	function := ""
	for line := range strings.Lines(text) {
		line = strings.TrimRight(line, "\r\n")
		place, isPlace := strings.CutPrefix(line, "\t")
		if !isPlace {
			function = strings.TrimPrefix(line, "created by ")
			if end := strings.LastIndexByte(function, '('); end > 0 && strings.HasSuffix(function, ")") {
				function = function[:end] // without the arguments, which are addresses
			}
			continue
		}
		if function == "" {
			continue
		}
		if last := len(parts) - 1; last < 0 || parts[last].Library != ours(function) {
			parts = append(parts, stackPart{Library: ours(function)})
		}
		place, _, _ = strings.Cut(place, " +0x")
		p := &parts[len(parts)-1]
		p.N++
		p.Text += function + "\n    " + place + "\n"
		function = ""
	}
	return parts
}

// library are the beginnings of functions of the library, and of those below it.
var library = []string{
	"github.com/gofanout/fanout.",
	"github.com/gofanout/fanout/internal/admission.",
	"github.com/gofanout/fanout/internal/alarm.",
	"github.com/gofanout/fanout/internal/callback.",
	"github.com/gofanout/fanout/internal/consumers.",
	"github.com/gofanout/fanout/internal/deadletter.",
	"github.com/gofanout/fanout/internal/delivery.",
	"github.com/gofanout/fanout/internal/ending.",
	"github.com/gofanout/fanout/internal/engineletters.",
	"github.com/gofanout/fanout/internal/enginequeue.",
	"github.com/gofanout/fanout/internal/filter.",
	"github.com/gofanout/fanout/internal/handling.",
	"github.com/gofanout/fanout/internal/intercept.",
	"github.com/gofanout/fanout/internal/lifecycle.",
	"github.com/gofanout/fanout/internal/message.",
	"github.com/gofanout/fanout/internal/notice.",
	"github.com/gofanout/fanout/internal/overflow.",
	"github.com/gofanout/fanout/internal/queue.",
	"github.com/gofanout/fanout/internal/ranges.",
	"github.com/gofanout/fanout/internal/routing.",
	"github.com/gofanout/fanout/internal/topic.",
	"github.com/gofanout/fanout/internal/view.",
	"github.com/gofanout/fanout/internal/workers.",
	"runtime.", "runtime/debug.", "runtime/pprof.", "sync.(*WaitGroup)",
}

// ours reports whether a frame is of the library, or below it.
func ours(line string) bool {
	line = strings.TrimSpace(line)
	return line == "panic" || slices.ContainsFunc(library, func(prefix string) bool { return strings.HasPrefix(line, prefix) })
}
