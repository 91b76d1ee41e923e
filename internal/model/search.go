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

// retraceMost is how many steps back other choices are looked for, triesMost how
// many are tried for one step, and triesLast how many if those were too few: one
// program in some ten thousand needs them, and seconds.
const (
	retraceMost = 64
	triesMost   = 6_000
	triesLast   = 400_000
)

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
	n := 0
	for q := range s.before.all {
		n += len(q.messages)
	}
	return 1 + n/64
}

// try does the step with given choices, and the likeliest ones after those. It
// says why the result does not look like the topic, if it does not.
func (s *search) try(choices []choice) (m *topic, why string) {
	m = s.before.clone()
	m.choices, m.asked, m.seen, m.stirred, m.deferred, m.wrong = choices, 0, s.witness, false, nil, ""
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
// ones before it: with few tries first, since few do nearly always.
func (d *driver) explained(s *pastStep) {
	all := false
	for _, tries := range []int{triesMost, triesLast} {
		var found bool
		if found, all = d.explainedWithin(s, tries); found {
			return
		}
		if all {
			break
		}
	}
	how := "all that could have been was tried"
	if !all {
		how = "not all that could have been was tried"
	}
	look := s.explain(d.model)
	look.tell = true
	_, why := look.try(nil)
	d.fail("the topic does what the model does not (model, topic; %s):\n%s", how, why)
}

// explainedWithin is explained with so many tries for a step. all says that
// nothing was left out for want of tries.
func (d *driver) explainedWithin(s *pastStep, most int) (found, all bool) {
	tries := most
	look := s.explain(d.model)
	m, _ := look.next(&tries)
	d.report.Tries += most - tries
	if m != nil {
		d.remember(s, m)
		return true, false
	}
	d.report.Retraced++
	steps := append(slices.Clone(d.past), s)
	all = look.all
	for k := len(steps) - 2; k >= 0; k-- {
		tries := most
		// What the step led to was looked at in vain.
		met := map[string]bool{steps[k+1].before.fingerprint(): true}
		m := explore(steps[k:], steps[k].before, met, &tries)
		d.report.Tries += most - tries
		if m != nil {
			d.past = steps[:len(steps)-1]
			d.remember(s, m)
			return true, false
		}
		all = all && tries > 0
	}
	return false, all
}

// remember goes on with m, which explains step s.
func (d *driver) remember(s *pastStep, m *topic) {
	d.model = m
	d.past = append(d.past, s)
	if len(d.past) > retraceMost {
		d.past = slices.Delete(d.past, 0, 1)
	}
}

// explore looks for choices that explain all of steps. The first is not to lead
// to what was met already.
func explore(steps []*pastStep, before *topic, met map[string]bool, tries *int) *topic {
	if len(steps) == 0 {
		return before
	}
	look := steps[0].explain(before)
	for *tries > 0 {
		m, _ := look.next(tries)
		if m == nil {
			return nil
		}
		print := m.fingerprint()
		if met[print] {
			continue
		}
		met[print] = true
		if end := explore(steps[1:], m, map[string]bool{}, tries); end != nil {
			steps[0].before = before
			return end
		}
	}
	return nil
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
		fmt.Fprintln(&b, q.name, xs, q.heads, q.paused, q.closed, q.draining, q.letter, q.count, q.ended)
	}
	endings := make([]string, 0, len(m.endings))
	for _, e := range m.endings {
		endings = append(endings, fmt.Sprint(e))
	}
	slices.Sort(endings)
	fmt.Fprintln(&b, m.ids, m.retained, m.duplicates, m.forgotten, m.subs, m.runs, m.joins, endings, m.phase)
	for _, r := range m.receives {
		fmt.Fprintln(&b, r.id)
	}
	for _, o := range m.offers {
		fmt.Fprintln(&b, o.id, o.messages, o.doubtful, o.letters, o.moved)
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
