package main

import (
	"fmt"
	"io"
	"maps"
	"os"
	"regexp"
	"runtime"
	"slices"
	"strings"
	"time"
)

// A cell is measured once a round: one system in one setting of one workload.
type cell struct {
	at      place // without a metric
	once    bool  // in the first round only: it takes long, and compares with nothing
	scales  bool  // finds out in a round before the first how much it can do in its time
	measure func() ([]value, error)
}

// A workload is a group of cells, measured one after the other.
type workload struct {
	key, title string
	note       string // how to read it
	baseline   string // the system that ratios are to; "" for bare channels
	cells      func(o options) []cell
}

// Options say what is run, and how long.
type options struct {
	quick  bool
	rounds int
	only   *regexp.Regexp // workloads and settings, "W1 s16"
	peers  *regexp.Regexp // systems
	span   time.Duration  // that one throughput measurement should take
	old    string         // this program, built with an older library; "" is none
}

func (o options) wants(at place, baseline string) bool {
	return o.only.MatchString(at.workload+" "+at.setting) &&
		(at.system == channels.name || at.system == baseline || o.peers.MatchString(strings.TrimSuffix(at.system, again)))
}

// again ends the name of a system that is measured a second time, to show the
// noise.
const again = "-again"

// run measures all cells in rounds: each system once in every round, so that
// what the machine does in the meantime meets all of them. Cells that scale are
// measured once before, to find out how much they can do in the time they have.
func run(ws []workload, o options, progress io.Writer) *book {
	b := bookOf(ws)
	var cells []cell
	for _, w := range ws {
		for _, c := range w.cells(o) {
			c.at.workload = w.key
			if o.wants(c.at, b.baselineOf(w.key)) {
				cells = append(cells, c)
			}
		}
	}
	p := newReporter(progress, cells, o.rounds)
	for round := 0; round <= o.rounds; round++ {
		for _, c := range cells {
			if b.failure(c.at) != nil || c.once && round != 1 || round == 0 && !c.scales {
				continue
			}
			p.begin(round, c)
			runtime.GC() // of what the one before left
			values, err := c.measure()
			p.end(round, c)
			if err != nil {
				b.fail(c.at, err)
				p.say(fmt.Sprintf("%s %s %s: %v", c.at.workload, c.at.setting, c.at.system, err))
				continue
			}
			if round == 0 {
				continue
			}
			for _, v := range values {
				b.add(c.at, round, v)
			}
		}
	}
	p.finish()
	return b
}

// A reporter tells what is running: in place on a terminal, else a line now and
// then.
type reporter struct {
	w        io.Writer
	terminal bool
	rounds   int
	cells    []cell
	took     map[place]time.Duration // the last time
	started  time.Time
	spent    map[string]time.Duration // by workload
	began    time.Time
	told     time.Time
	doing    string
}

func newReporter(w io.Writer, cells []cell, rounds int) *reporter {
	p := &reporter{w: w, rounds: rounds, cells: cells, took: map[place]time.Duration{}, spent: map[string]time.Duration{}, started: time.Now()}
	if f, ok := w.(*os.File); ok {
		info, err := f.Stat()
		p.terminal = err == nil && info.Mode()&os.ModeCharDevice != 0
	}
	return p
}

func (p *reporter) begin(round int, c cell) {
	p.began = time.Now()
	name := fmt.Sprintf("round %d of %d", round, p.rounds)
	if round == 0 {
		name = "warming up"
	}
	eta := ""
	if left, ok := p.left(round, c); ok {
		eta = fmt.Sprintf(", about %v left", left.Round(time.Second))
	}
	line := fmt.Sprintf("%s: %s %-10s %-18s %v%s", name, c.at.workload, c.at.setting, c.at.system, time.Since(p.started).Round(time.Second), eta)
	switch doing := fmt.Sprint(round, c.at.workload); {
	case p.terminal:
		fmt.Fprintf(p.w, "\r\x1b[K%s", line)
	case doing != p.doing || time.Since(p.told) > 10*time.Second:
		p.doing, p.told = doing, time.Now()
		fmt.Fprintln(p.w, line)
	}
}

func (p *reporter) end(_ int, c cell) {
	p.took[c.at] = time.Since(p.began)
	p.spent[c.at.workload] += p.took[c.at]
}

// left estimates the time until the end, from what each cell last took.
func (p *reporter) left(round int, now cell) (left time.Duration, ok bool) {
	if len(p.took) < len(p.cells) {
		return 0, false // not all are known
	}
	reached := false
	for _, c := range p.cells {
		reached = reached || c.at == now.at
		rounds := p.rounds - round
		if reached {
			rounds++
		}
		if c.once && rounds > 1 {
			rounds = 1
		}
		left += time.Duration(rounds) * p.took[c.at]
	}
	return left, true
}

func (p *reporter) say(line string) {
	if p.terminal {
		fmt.Fprint(p.w, "\r\x1b[K")
	}
	fmt.Fprintln(p.w, line)
}

func (p *reporter) finish() {
	line := fmt.Sprintf("measured in %v:", time.Since(p.started).Round(time.Second))
	for _, w := range slices.Sorted(maps.Keys(p.spent)) {
		line += fmt.Sprintf(" %s %v", w, p.spent[w].Round(time.Second))
	}
	p.say(line)
}

// A scaler finds out how many messages a system handles in a given time.
type scaler struct {
	span        time.Duration
	least, most int
	n           int // messages for the next measurement; 0 before the first
}

// run measures with the right number of messages; measure says how long n took.
func (s *scaler) run(measure func(n int) (time.Duration, error)) error {
	if s.n == 0 {
		s.n = s.least
		for {
			took, err := measure(s.n)
			if err != nil {
				return err
			}
			enough := took > s.span/4 || s.n >= s.most
			s.learn(took)
			if enough {
				return nil
			}
		}
	}
	took, err := measure(s.n)
	if err == nil {
		s.learn(took)
	}
	return err
}

// learn sets the next number by how long the last took.
func (s *scaler) learn(took time.Duration) {
	next := float64(s.n) * float64(s.span) / float64(max(took, time.Microsecond))
	next = min(next, float64(s.n)*20) // the first, short ones say little
	s.n = min(max(int(next)/chunk*chunk, s.least), s.most)
}
