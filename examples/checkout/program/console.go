package program

import (
	"fmt"
	"io"
	"os"
	"strings"
	"sync"
	"time"
)

// A console shows lines that stay, and below them how the queues are doing. On
// a terminal that part is drawn in place, several times a second; elsewhere it is
// a plain line, about one a second.
type console struct {
	// Immutable.
	w      io.Writer
	tty    bool
	colour bool
	width  func() int // columns of the terminal, at the time
	every  time.Duration
	begin  time.Time

	mu    sync.Mutex // guards the fields below and the writing
	next  time.Time  // no earlier refresh
	drawn int        // lines of the board, with the cursor below them
	last  snapshot
}

func newConsole(w io.Writer, tty bool) *console {
	o := &console{w: w, tty: tty, every: time.Second, begin: time.Now()}
	o.width = func() int { return pipeWidth }
	if f, ok := w.(*os.File); ok && tty {
		o.width = func() int { return widthOf(f) }
		o.colour = os.Getenv("NO_COLOR") == ""
	}
	o.last.at = o.begin
	if tty {
		o.every = 125 * time.Millisecond
	} else {
		o.next = o.begin.Add(o.every)
	}
	return o
}

// isTerminal reports whether w is a terminal that understands escape sequences.
func isTerminal(w io.Writer) bool {
	f, ok := w.(*os.File)
	if !ok || os.Getenv("TERM") == "dumb" {
		return false
	}
	info, err := f.Stat()
	return err == nil && info.Mode()&os.ModeCharDevice != 0
}

// say writes lines that stay.
func (o *console) say(format string, args ...any) {
	o.mu.Lock()
	defer o.mu.Unlock()
	var b strings.Builder
	o.clear(&b)
	for line := range strings.SplitSeq(fmt.Sprintf(format, args...), "\n") {
		b.WriteString(fold(line, o.width()-1))
		b.WriteByte('\n')
	}
	if o.drawn > 0 {
		o.drawn = 0
		o.draw(&b)
	}
	o.write(&b)
}

// refresh shows the queues as look finds them, if it is time again.
func (o *console) refresh(look func() snapshot) {
	o.mu.Lock()
	defer o.mu.Unlock()
	now := time.Now()
	if now.Before(o.next) {
		return
	}
	o.next = now.Add(o.every)
	s := look()
	s.rates(o.last)
	o.last = s
	var b strings.Builder
	if o.tty {
		o.clear(&b)
		o.draw(&b)
	} else {
		for k, line := range s.lines() {
			at := ""
			if k == 0 {
				at = fmt.Sprintf("%.1fs", now.Sub(o.begin).Seconds())
			}
			fmt.Fprintf(&b, "%7s  %s\n", at, line)
		}
	}
	o.write(&b)
}

// due has the next refresh show the queues, whenever the last one was.
func (o *console) due() {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.next = time.Time{}
}

// end takes the board away.
func (o *console) end() {
	o.mu.Lock()
	defer o.mu.Unlock()
	var b strings.Builder
	o.clear(&b)
	o.drawn = 0
	o.write(&b)
}

// clear removes the board, so that writing goes on where it began.
func (o *console) clear(b *strings.Builder) {
	if o.drawn > 0 {
		fmt.Fprintf(b, "\x1b[%dA\r\x1b[J", o.drawn) // up, and erase to the end of the screen
	}
}

func (o *console) draw(b *strings.Builder) {
	lines := o.board(o.last, o.width())
	o.drawn = len(lines)
	b.WriteString(strings.Join(lines, "\n") + "\n")
}

func (o *console) write(b *strings.Builder) { _, _ = io.WriteString(o.w, b.String()) }
