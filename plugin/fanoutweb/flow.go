package fanoutweb

import (
	"cmp"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"
)

const (
	// mostRows is how many queues of a topic are shown at once. Of more the worst come first.
	mostRows = 50
	// mostFindings is how many troubles are told above them.
	mostFindings = 6
)

// A flowPage is the first page: topics, and what flows into their queues.
type flowPage struct {
	At, Since time.Time
	Search    string
	Many      bool // there is something to search
	Findings  []finding
	More      int            // findings that are not told
	Levels    map[string]int // how many findings there are of each level
	Queues    int
	Topics    []flowTopic
}

// A flowTopic is a topic, a part of its queues, and the picture between.
type flowTopic struct {
	topicInfo
	Links    links
	From, To int    // of the queues that were found
	Before   string // links to the other parts
	After    string
	Waits    []place // the queues that publishers wait for
}

func (v *visit) flow() error {
	p := v.flowPage()
	over := overview{At: p.At, Since: p.Since}
	for _, t := range p.Topics {
		over.Topics = append(over.Topics, t.topicInfo)
	}
	form := v.r.Form
	live := link("events", "page", "flow", "q", form.Get("q"), "topic", form.Get("topic"), "from", form.Get("from"))
	return v.show("flow", frame{Name: "Flow", Live: live, Refresh: true, Page: p}, over)
}

func (v *visit) flowPage() (p flowPage) {
	p.Search = v.r.Form.Get("q")
	var all []queueInfo
	v.h.sampler.look(func(s *sampler) {
		p.At, p.Since = s.at, s.since
		all = make([]queueInfo, 0, len(s.states))
		for _, t := range s.tops {
			if only := v.r.Form.Get("topic"); only != "" && only != t.view.Name() {
				continue
			}
			i := t.info(s.at)
			p.Topics = append(p.Topics, flowTopic{topicInfo: i})
			for _, q := range t.queues {
				all = append(all, q.info(s.at))
			}
		}
	})
	kept := p.Topics[:0]
	for _, t := range p.Topics {
		if v.can(View, t.Topic, "") {
			kept = append(kept, t)
		}
	}
	p.Topics = kept
	all = slices.DeleteFunc(all, func(i queueInfo) bool { return !v.can(View, i.Topic, i.Queue) })
	for k := range all {
		v.texts(&all[k])
	}
	p.Queues, p.Many = len(all), len(all) > 8
	p.Findings, p.More = findings(all, mostFindings)
	p.Levels = map[string]int{}
	for k := range all {
		for _, t := range all[k].Troubles {
			p.Levels[t.Level]++
		}
	}
	from, _ := strconv.Atoi(v.r.Form.Get("from"))
	for k := range p.Topics {
		p.Topics[k].part(all, p.Search, max(from, 0))
	}
	return p
}

// part has the topic show a part of its queues.
func (t *flowTopic) part(all []queueInfo, search string, from int) {
	var found []*queueInfo
	open := 0
	for k := range all {
		i := &all[k]
		if i.Topic != t.Topic {
			continue
		}
		open++
		if i.Blocking {
			t.Waits = append(t.Waits, i.Place())
		}
		if i.matches(search) {
			found = append(found, i)
		}
	}
	t.Open, t.Found = open, len(found)
	if len(found) > mostRows {
		slices.SortStableFunc(found, func(a, b *queueInfo) int { return cmp.Compare(b.weight(), a.weight()) })
	}
	from = min(from, max(len(found)-1, 0)/mostRows*mostRows)
	t.From, t.To = from, min(from+mostRows, len(found))
	t.Queues = make([]queueInfo, 0, t.To-t.From)
	for _, i := range found[t.From:t.To] {
		t.Queues = append(t.Queues, *i)
	}
	t.Links = linksTo(t.Queues)
	other := func(from int) string {
		return link("", "topic", t.Topic, "q", search, "from", strconv.Itoa(from))
	}
	if from > 0 {
		t.Before = other(max(from-mostRows, 0))
	}
	if t.To < len(found) {
		t.After = other(t.To)
	}
}

// Centred reports whether the topic stands beside the middle of its queues.
func (t flowTopic) Centred() bool { return len(t.Queues) <= centred }

// Say is the state of everything in a few words.
func (p flowPage) Say() string {
	var words []string
	for _, level := range levels {
		if n := p.Levels[level]; n > 0 && level == critical {
			words = append(words, number(n)+" critical")
		} else if n > 0 {
			words = append(words, plural(n, level))
		}
	}
	if len(words) == 0 {
		return "Nothing is wrong in " + plural(p.Queues, "queue")
	}
	return fmt.Sprintf("%s in %s", strings.Join(words, ", "), plural(p.Queues, "queue"))
}
