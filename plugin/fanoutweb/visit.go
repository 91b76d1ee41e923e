package fanoutweb

import (
	"bytes"
	"encoding/json"
	"errors"
	"net/http"
	"net/url"

	"github.com/gofanout/fanout"
)

// A visit is one request, and what it may do. It belongs to one goroutine.
type visit struct {
	h    *Handler
	w    http.ResponseWriter
	r    *http.Request
	json bool

	asked map[Access]bool // what Allow said
}

// A refusal is an error with the status that a request is answered with.
type refusal struct {
	Code int
	Text string
}

// A failedPage says why a request was refused, and leads back.
type failedPage struct {
	refusal
	Back  string
	Queue string // that Back leads to, empty if it is the flow
}

// failed is the page of a refusal. It leads to the queue that the request was about, if it may be seen.
func (v *visit) failed(no refusal) failedPage {
	p := failedPage{no, "./", ""}
	if v.r.Form == nil {
		return p
	}
	if at, err := v.place(); err == nil {
		p.Back, p.Queue = at.Link("queue"), at.Queue
	}
	return p
}

func (r refusal) Error() string { return r.Text }

func notAllowed(a Access) error {
	return refusal{http.StatusForbidden, "You are not allowed to " + verbs[a.Action] + " here."}
}

// verbs are what the actions are called in sentences.
var verbs = map[Action]string{
	View: "look", Body: "see bodies", Stack: "see stacks", Sample: "receive letters", Pause: "pause a queue", Resume: "resume a queue",
	Redrive: "redrive letters", Delete: "delete letters", Purge: "purge a queue",
}

// can reports whether the request may do something with a queue.
func (v *visit) can(a Action, topic, queue string) bool {
	what := Access{a, topic, queue}
	yes, known := v.asked[what]
	if !known {
		yes = v.h.options.Allow(v.r, what)
		if v.asked == nil {
			v.asked = map[Access]bool{}
		}
		v.asked[what] = yes
	}
	return yes
}

// place finds the queue that a request is about, and checks that it may be seen.
func (v *visit) place() (p place, err error) {
	p.Topic, p.Queue = v.r.Form.Get("topic"), v.r.Form.Get("queue")
	if !v.can(View, p.Topic, p.Queue) {
		return p, notAllowed(Access{Action: View})
	}
	if p.topic = v.h.topic(p.Topic); p.topic == nil {
		return p, refusal{http.StatusNotFound, "There is no topic of this name."}
	}
	if p.view = p.topic.Queue(p.Queue); p.view == nil {
		return p, refusal{http.StatusNotFound, "There is no queue of this name in the topic. It may have been closed."}
	}
	return p, nil
}

// A place is a queue that a request is about.
type place struct {
	Topic, Queue string
	topic        fanout.TopicView
	view         fanout.QueueView
}

// Link is a page of this queue.
func (p place) Link(page string, more ...string) string {
	return link(page, append([]string{"topic", p.Topic, "queue", p.Queue}, more...)...)
}

// link is a relative link with a query, made of names and values in turn. Those without a
// value are left out.
func link(page string, query ...string) string {
	values := url.Values{}
	for k := 0; k+1 < len(query); k += 2 {
		if query[k+1] != "" {
			values.Add(query[k], query[k+1])
		}
	}
	if page == "" {
		page = "./"
	}
	if len(values) == 0 {
		return page
	}
	return page + "?" + values.Encode()
}

// A frame is what a template is given: the page itself, and what is around it.
type frame struct {
	Title   string // of the whole
	Name    string // of this page
	Live    string // where its events come from, empty if it has none
	Quiet   bool   // only a part of it is live, so it isn't said that it is
	Refresh bool   // it asks for itself again where there is no script
	Page    any
}

// show answers with a page, or with data as JSON.
func (v *visit) show(template string, f frame, data any) error {
	if v.json {
		return v.send(http.StatusOK, data)
	}
	f.Title = v.h.options.Title
	return v.render(http.StatusOK, template, f)
}

func (v *visit) render(code int, template string, f frame) error {
	var b bytes.Buffer
	if err := v.h.pages.ExecuteTemplate(&b, template, f); err != nil {
		return err
	}
	v.w.Header().Set("Content-Type", "text/html; charset=utf-8")
	v.w.WriteHeader(code)
	_, _ = v.w.Write(b.Bytes()) // who asked may have gone
	return nil
}

func (v *visit) send(code int, data any) error {
	text, err := json.MarshalIndent(data, "", "  ")
	if err != nil {
		return err
	}
	v.w.Header().Set("Content-Type", "application/json")
	v.w.WriteHeader(code)
	_, _ = v.w.Write(append(text, '\n'))
	return nil
}

// fail answers with an error. What the page itself got wrong is not shown.
func (v *visit) fail(err error) {
	var no refusal
	if !errors.As(err, &no) {
		v.h.options.Logger.Error("fanoutweb: a page can't be shown", "path", v.r.URL.Path, "error", err)
		no = refusal{http.StatusInternalServerError, "The page can't be shown. This is a fault of the page, and the log says more."}
	}
	if v.json {
		err = v.send(no.Code, map[string]string{"error": no.Text})
	} else {
		err = v.render(no.Code, "failed", frame{Title: v.h.options.Title, Name: http.StatusText(no.Code), Page: v.failed(no)})
	}
	if err != nil {
		http.Error(v.w, no.Text, no.Code)
	}
}

// goTo has the browser get another page, by a link that is relative to this one.
func (v *visit) goTo(link string) error {
	v.w.Header().Set("Location", link)
	v.w.WriteHeader(http.StatusSeeOther)
	return nil
}
