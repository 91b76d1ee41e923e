package main

import (
	"fmt"
	"io"
	"slices"
	"strings"
	"sync"
	"time"
)

// A printer writes lines, and on a terminal a last one that says what is under way.
type printer struct {
	terminal, verbose bool
	modules           int
	start             time.Time

	mu      sync.Mutex // guards what follows, and the writer
	w       io.Writer
	under   []string // modules that are tested now
	done    int      // modules
	tests   int      // that ended
	status  bool     // whether the last line is the status
	partial bool     // whether the last line has no newline yet
	drawn   time.Time
}

func newPrinter(w io.Writer, terminal, verbose bool, modules int) *printer {
	return &printer{w: w, terminal: terminal, verbose: verbose, modules: modules, start: time.Now()}
}

func (p *printer) print(text string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.clearLocked()
	_, _ = io.WriteString(p.w, text)
	p.partial = text != "" && !strings.HasSuffix(text, "\n")
	p.drawLocked(true)
}

func (p *printer) began(module string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.under = append(p.under, module)
	p.drawLocked(true)
}

func (p *printer) ended(module string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.under = slices.DeleteFunc(p.under, func(m string) bool { return m == module })
	p.done++
	p.drawLocked(true)
}

// tested counts a test.
func (p *printer) tested() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.tests++
	p.drawLocked(false)
}

func (p *printer) end() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.clearLocked()
	p.terminal = false
}

func (p *printer) clearLocked() {
	if p.status {
		_, _ = io.WriteString(p.w, "\r\x1b[K")
		p.status = false
	}
}

// drawLocked writes the status anew, ten times a second at most unless it is forced.
func (p *printer) drawLocked(forced bool) {
	now := time.Now()
	if !p.terminal || p.partial || !forced && now.Sub(p.drawn) < 100*time.Millisecond {
		return
	}
	p.clearLocked()
	p.drawn = now
	text := fmt.Sprintf("%s  %d of %d modules, %d tests; now %s", now.Sub(p.start).Round(time.Second), p.done, p.modules, p.tests, strings.Join(p.under, ", "))
	if len(text) > 79 {
		text = text[:76] + "..."
	}
	_, _ = io.WriteString(p.w, text)
	p.status = true
}
