package model

import (
	"cmp"
	"fmt"
	"slices"
	"strings"
	"time"
)

// An operation does to the model what was done to the topic.
type operation func(m *topic) (n int, got []messageView, err error)

// A pastStep is a step that was explained: other choices may be looked for if a
// later one is not.
type pastStep struct {
	before     *topic
	do         operation
	seen       view
	witness    *witness
	deliveries []held // whose deadlines were looked at
	asleep     bool
}

// Other choices are looked for as far back as the program began, if the models
// since then have no more than pastMost messages, else retraceLeast steps. triesMost
// is how many tries the step itself gets. Then patience has for each pass how many
// tries each step on the way gets, and all of them together: a wrong guess is
// most often taken back by few tries at the right place, so that no place may
// use up those of the others.
const (
	retraceLeast = 64
	pastMost     = 100_000
	triesMost    = 6_000
)

var patience = []struct{ each, all int }{{24, 6_000}, {250, 60_000}, {triesMost, 240_000}}

// A search looks for choices that explain a step: first the likeliest, then
// those that deviate from them in one choice, then in two, and so on.
type search struct {
	*pastStep
	before *topic
	todo   [][]choice
	tell   bool // how what is tried differs
	tried  int
	all    bool // nothing was left out for want of tries
}

func (s *pastStep) explain(before *topic) *search {
	return &search{pastStep: s, before: before, todo: [][]choice{nil}, all: true}
}

// next returns the next model after the step that looks like the topic, or nil
// if there are none, or no tries left. made are the choices that led there.
func (s *search) next(tries *int) (m *topic, made []choice) {
	for *tries > 0 && len(s.todo) > 0 {
		*tries -= s.cost()
		begun := s.pop()
		m, why := s.try(begun)
		s.all = s.all && !m.cut
		more := deviations(m.choices, len(begun))
		if room := *tries - len(s.todo); len(more) > room {
			more, s.all = more[:max(room, 0)], false
		}
		s.todo = append(s.todo, more...)
		if why == "" {
			made, m.choices = m.choices, nil
			return m, made
		}
	}
	s.all = s.all && len(s.todo) == 0
	return nil, nil
}

// pop takes one of the prefixes that are to be tried: in turn that with the
// fewest deviations, the latest, and any.
func (s *search) pop() []choice {
	s.tried++
	k := 0
	switch s.tried % 3 {
	case 2:
		k = len(s.todo) - 1
	case 0:
		k = int(uint64(s.tried)*0x9e3779b97f4a7c15>>33) % len(s.todo)
	}
	p := s.todo[k]
	if k > 0 {
		s.todo[k] = s.todo[len(s.todo)-1]
		s.todo = s.todo[:len(s.todo)-1]
	} else {
		s.todo = s.todo[1:]
	}
	return p
}

// cost is what a try costs: more for a model that is large.
func (s *search) cost() int {
	return 1 + s.before.size()/64
}

// size counts messages.
func (m *topic) size() (n int) {
	for q := range m.all {
		n += len(q.messages)
	}
	return n
}

// try does the step with given choices, and the likeliest ones after those. It
// says why the result does not look like the topic, if it does not.
func (s *search) try(choices []choice) (m *topic, why string) {
	m = s.before.clone()
	m.choices, m.asked, m.seen, m.stirred, m.deferred, m.passed, m.wrong, m.cut = choices, 0, s.witness, false, nil, nil, "", false
	n, got, err := s.do(m)
	m.settleDown()
	if m.wrong == "" {
		m.learnAll()
	}
	if m.wrong != "" {
		return m, m.wrong
	}
	want := m.view(s.deliveries, s.seen.full)
	want.Err, want.N, want.Got = err, n, got
	if s.asleep {
		want.Topic = s.seen.Topic
	}
	if want.fits(&s.seen) {
		return m, ""
	}
	if !s.tell {
		return m, "it looks otherwise"
	}
	return m, cmp.Or(differences(want, s.seen), "it looks otherwise")
}

// explained finds choices that explain the step, and if there are none, other
// ones before it.
func (d *driver) explained(s *pastStep) {
	tries := triesMost
	look := s.explain(d.model)
	m, _ := look.next(&tries)
	d.report.Tries += triesMost - tries
	if m != nil {
		d.remember(s, m)
		return
	}
	d.report.Retraced++
	how := "not all that could have been was tried"
	steps := append(slices.Clone(d.past), s)
	for _, p := range patience {
		if d.tell != nil && p.all > patience[0].all {
			d.tell("step %d at %v: looking back for other choices, with %d tries", d.steps, d.model.now, p.all)
		}
		r := newRetrace(steps, p.each, p.all)
		m := r.run()
		d.report.Tries += p.all - r.tries
		if m != nil {
			d.past, d.kept = steps[:len(steps)-1], 0
			for _, p := range d.past {
				d.kept += p.before.size()
			}
			d.remember(s, m)
			return
		}
		if r.all && look.all && !d.forgot {
			how = "all that could have been was tried"
			break
		}
	}
	last := s.explain(d.model)
	last.tell = true
	_, why := last.try(nil)
	d.fail("the topic does what the model does not (model, topic; %s):\n%s", how, why)
}

// A retrace looks for choices other than those made that explain all of some
// steps, of which the last was not explained.
type retrace struct {
	steps []*pastStep
	each  int // tries for each step from each model before it
	tries int // left for all
	all   bool
	// met has by step the fingerprints of the models before it that were looked at.
	met []map[string]bool
}

func newRetrace(steps []*pastStep, each, all int) *retrace {
	r := &retrace{steps: steps, each: each, tries: all, all: true, met: make([]map[string]bool, len(steps))}
	for k, s := range steps {
		r.met[k] = map[string]bool{s.before.fingerprint(): true} // what that led to was looked at in vain
	}
	return r
}

// run tries the latest steps first.
func (r *retrace) run() *topic {
	for k := len(r.steps) - 2; k >= 0; k-- {
		if m := r.explore(k, r.steps[k].before); m != nil {
			return m
		}
	}
	return nil
}

// explore looks for choices that explain the steps from number k on.
func (r *retrace) explore(k int, before *topic) *topic {
	if k == len(r.steps) {
		return before
	}
	look := r.steps[k].explain(before)
	for left := min(r.each, r.tries); left > 0; left = min(left, r.tries) {
		had := left
		m, _ := look.next(&left)
		r.tries -= had - left
		if m == nil {
			break
		}
		if k+1 < len(r.steps) {
			print := m.fingerprint()
			if r.met[k+1][print] {
				continue
			}
			r.met[k+1][print] = true
		}
		if end := r.explore(k+1, m); end != nil {
			r.steps[k].before = before
			return end
		}
	}
	r.all = r.all && look.all && len(look.todo) == 0
	return nil
}

// remember goes on with m, which explains step s.
func (d *driver) remember(s *pastStep, m *topic) {
	d.model = m
	d.past = append(d.past, s)
	d.kept += s.before.size()
	for len(d.past) > retraceLeast && d.kept > pastMost {
		d.kept -= d.past[0].before.size()
		d.past = slices.Delete(d.past, 0, 1)
		d.forgot = true
	}
}

// fingerprint tells models apart that may go on in different ways.
func (m *topic) fingerprint() string {
	var b strings.Builder
	for q := range m.all {
		xs := make([]string, 0, len(q.messages))
		for _, x := range q.messages {
			y := *x
			y.turn = 0 // only guesses depend on it
			xs = append(xs, fmt.Sprintf("%+v", y))
		}
		slices.Sort(xs)
		fmt.Fprintln(&b, q.name, xs, q.heads, q.paused, q.closed, q.draining, q.backlogsTurn, q.letter, q.count, q.ended)
	}
	endings := make([]string, 0, len(m.endings))
	for _, e := range m.endings {
		endings = append(endings, fmt.Sprint(e))
	}
	slices.Sort(endings)
	fmt.Fprintln(&b, m.ids, m.retained, m.duplicates, m.forgotten, m.subs, m.runs, m.joins, m.loops, endings, m.phase)
	for _, r := range m.receives {
		fmt.Fprintln(&b, r.id, r.acks, r.acking)
	}
	for _, o := range m.offers {
		fmt.Fprintln(&b, o.id, o.messages, o.gate, o.doubtful, o.letters, o.moved)
	}
	return b.String()
}

// A line is one of the program as text, written only if it is asked for: most
// programs agree.
type line struct {
	at     time.Duration
	format string
	args   []any
}

// text returns the program as text.
func (d *driver) text() string {
	var b strings.Builder
	for _, l := range d.lines {
		fmt.Fprintf(&b, "%8v  %s\n", l.at, fmt.Sprintf(l.format, l.args...))
	}
	return b.String()
}
