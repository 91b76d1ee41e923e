package main

import (
	"fmt"
	"io"
	"os"
	"time"
)

// A progress tells how far the run is: on a terminal in one line that changes,
// elsewhere in a line every few seconds.
type progress struct {
	out      io.Writer
	c        config
	sum      *summary
	terminal bool
	every    time.Duration
	last     time.Time
	shown    bool // a line is on the terminal, without its end
}

func newProgress(out io.Writer, c config, sum *summary) *progress {
	p := &progress{out: out, c: c, sum: sum, every: 5 * time.Second, last: time.Now()}
	if f, ok := out.(*os.File); ok {
		if s, err := f.Stat(); err == nil && s.Mode()&os.ModeCharDevice != 0 {
			p.terminal, p.every = true, 200*time.Millisecond
		}
	}
	return p
}

// during runs f in a goroutine of its own and tells of the progress meanwhile.
func (p *progress) during(f func() error) error {
	r := &result{f: f, done: make(chan struct{})}
	go r.run()
	for {
		wait(100*time.Millisecond, r.done)
		if ended(r.done) {
			return r.err
		}
		p.show()
	}
}

type result struct {
	f    func() error
	done chan struct{}
	err  error
}

// run runs f. Started and joined by during; ends with f.
func (r *result) run() {
	r.err = r.f()
	close(r.done)
}

func (p *progress) show() {
	now := time.Now()
	if now.Sub(p.last) < p.every {
		return
	}
	p.last = now
	n := p.sum.deliveries.Load()
	p.print(fmt.Sprintf("round %d: %d deliveries (%.0f%%), %.0f a second, %d published",
		p.sum.rounds.Load(), n, min(100, 100*float64(n)/float64(p.c.deliveries)), float64(n)/now.Sub(p.sum.began).Seconds(),
		p.sum.published.Load()))
}

func (p *progress) print(s string) {
	if !p.terminal {
		fmt.Fprintf(p.out, "%s\n", s)
		return
	}
	fmt.Fprintf(p.out, "\r\x1b[K%s", s)
	p.shown = true
}

// line prints a line that stays.
func (p *progress) line(format string, args ...any) {
	p.end()
	fmt.Fprintf(p.out, format+"\n", args...)
}

// end ends the line that changes.
func (p *progress) end() {
	if p.shown {
		fmt.Fprintf(p.out, "\r\x1b[K")
		p.shown = false
	}
}
