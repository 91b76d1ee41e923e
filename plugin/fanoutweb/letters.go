package fanoutweb

import (
	"net/http"
	"slices"
	"strconv"
	"time"

	"github.com/gofanout/fanout"
)

// mostLetters is how many messages a table shows.
const mostLetters = 50

// A lettersPage is a table of a queue's dead letters, or of the messages that wait in it.
type lettersPage struct {
	Place    place     `json:"-"`
	Topic    string    `json:"topic"`
	Queue    string    `json:"queue"`
	Waiting  bool      `json:"-"` // it is about the queue itself
	Engine   string    `json:"engine,omitempty"`
	Total    int       `json:"total"`    // that there are
	Searched int       `json:"searched"` // of them by this request
	Letters  []letter  `json:"letters"`
	Groups   []group   `json:"groups,omitempty"`
	Summed   int       `json:"grouped,omitempty"` // letters that the groups are of
	Newest   bool      `json:"-"`                 // the newest first
	Matched  int       `json:"-"`                 // by the search for the newest
	Other    string    `json:"-"`                 // the link to the other order
	Next     string    `json:"next,omitempty"`    // cursor of what was not looked at
	More     string    `json:"-"`                 // the link with it
	First    string    `json:"-"`                 // the link to the beginning, if this is not it
	Filter   filter    `json:"-"`
	Causes   []string  `json:"-"`
	Ages     []age     `json:"-"`
	Can      allowed   `json:"-"`
	Job      *jobView  `json:"-"`
	At       time.Time `json:"-"`
	Sample   string    `json:"-"` // the job whose letters these are
}

func (v *visit) letters() error {
	at, err := v.place()
	if err != nil {
		return err
	}
	p := lettersPage{
		Place: at, Topic: at.Topic, Queue: at.Queue, Waiting: v.r.Form.Get("of") == "queue", Engine: at.topic.Engine(), Causes: causeNames, Ages: ages,
		Can: v.allowed(at), Job: v.job(at), At: time.Now(), Letters: []letter{},
	}
	switch {
	case p.Engine != "" && p.Waiting:
		return refusal{http.StatusBadRequest, "What waits in a queue of " + p.Engine + " can't be looked at: the queue's page has its numbers."}
	case p.Engine != "":
		v.sampled(&p)
	default:
		if err := v.page(&p); err != nil {
			return err
		}
	}
	name := "Dead letters of " + at.Queue
	if p.Waiting {
		name = "Messages in " + at.Queue
	}
	f := frame{Name: name, Page: &p}
	if p.Job != nil && (p.Job.Action == Redrive || p.Job.Running) { // what became of it is told as long as one looks
		f.Live, f.Quiet = at.Link("events", "page", "job", "did", p.Job.ID), true
	}
	return v.show("letters", f, &p)
}

// page fills a table in memory.
func (v *visit) page(p *lettersPage) error {
	s, err := v.search(p.Place, p.Waiting)
	if err != nil {
		return err
	}
	p.Filter = s.filter
	if order := v.r.Form.Get("order"); order != "" && order != "newest" {
		return refusal{http.StatusBadRequest, "order=" + strconv.Quote(order) + ": want newest, or nothing for the order of publication."}
	}
	s.next = v.r.Form.Get("after")
	if s.of != nil {
		st := s.of.Stats()
		p.Total = st.Unsettled() - st.InFlight
	}
	p.Newest = v.r.Form.Get("order") == "newest"
	of := ""
	if p.Waiting {
		of = "queue"
	}
	query := append(p.Filter.Query(), "of", of)
	if !p.Waiting && !p.Newest && p.Filter.Any() && v.r.Form.Get("after") == "" {
		if p.Groups, p.Summed, err = v.groups(p.Place); err != nil {
			return err
		}
	}
	if p.Other = p.Place.Link("letters", append(slices.Clone(query), "order", "newest")...); p.Newest {
		p.Other = p.Place.Link("letters", query...)
		s.next = ""
		p.Letters, p.Matched, err = s.newest(v.r.Context(), tableBody+48)
		for k := range p.Letters {
			p.Letters[k].Body = shorter(p.Letters[k].Body, tableBody)
		}
		if p.Letters == nil {
			p.Letters = []letter{}
		}
		p.Searched = s.looked
		return err
	}
	err = s.each(v.r.Context(), tableBody+48, bounds{time.Now().Add(searchFor), searchCost}, func(m *fanout.MessageView, l *letter) bool {
		if l.State == "" {
			*l = s.letter(m, false)
		}
		l.Body = shorter(l.Body, tableBody)
		p.Letters = append(p.Letters, *l)
		return len(p.Letters) < mostLetters
	})
	if err != nil {
		return err
	}
	p.Searched = s.looked
	if !s.done {
		p.Next = s.next
		p.More = p.Place.Link("letters", append(query, "after", s.next)...)
	}
	if v.r.Form.Get("after") != "" {
		p.First = p.Place.Link("letters", query...)
	}
	return nil
}

// sampled fills a table with letters that were received from an engine, if they were.
func (v *visit) sampled(p *lettersPage) {
	v.h.sampler.look(func(s *sampler) {
		if q := s.states[p.Place.view]; q != nil {
			p.Total = q.info(s.at).Dead
		}
	})
	j := v.h.jobs.find(v.r.Form.Get("did"))
	if j == nil || j.Topic != p.Topic || j.Queue != p.Queue {
		return
	}
	r := v.reader(p.Place)
	sample := j.letters()
	for k := range sample {
		l := r.letter(&sample[k], false)
		l.Body = shorter(l.Body, tableBody)
		p.Letters = append(p.Letters, l)
	}
	p.Searched, p.Sample = len(sample), j.ID
}

// shorter is the beginning of a text.
func shorter(text string, most int) string {
	if len(text) <= most {
		return text
	}
	for most > 0 && text[most]&0xc0 == 0x80 {
		most--
	}
	return text[:most] + "…"
}

// Filtered reports whether there is a table to search.
func (p *lettersPage) Filtered() bool { return p.Engine == "" }

// Link is the page of one of the letters.
func (p *lettersPage) Link(k int, l letter) string {
	of := ""
	if p.Waiting {
		of = "queue"
	}
	if p.Sample != "" {
		return p.Place.Link("letter", "did", p.Sample, "id", l.ID)
	}
	return p.Place.Link("letter", "of", of, "at", l.Cursor, "id", l.ID)
}

// All is the link to the confirmation of something done with all that match.
func (p *lettersPage) All(do string) string {
	return p.Place.Link("confirm", append([]string{"do", do}, p.Filter.Query()...)...)
}
