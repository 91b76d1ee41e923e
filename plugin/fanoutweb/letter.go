package fanoutweb

import (
	"fmt"
	"net/http"
	"strings"

	"github.com/gofanout/fanout"
)

// wholeBody is how many bytes of a body the page of a letter shows.
const wholeBody = 64 << 10

// A letterPage is one message with all that it has been through.
type letterPage struct {
	letter
	Place   place   `json:"-"`
	Topic   string  `json:"topic"`
	Queue   string  `json:"queue"`
	Waiting bool    `json:"-"`
	Can     allowed `json:"-"`
	since   int     // attempts since the last redrive, -1: it never was
}

func (v *visit) letter() error {
	at, err := v.place()
	if err != nil {
		return err
	}
	m, err := v.message(at)
	if err != nil {
		return err
	}
	r := v.reader(at)
	p := letterPage{letter: r.letter(m, true), Place: at, Topic: at.Topic, Queue: at.Queue, Waiting: v.r.Form.Get("of") == "queue", Can: v.allowed(at)}
	source := at.Queue
	if p.Source != "" {
		source = p.Source
	}
	p.since = redrives(p.History, source, at.view.Settings().MaxAttempts)
	name := "A message of " + at.Queue
	if !p.Waiting {
		name = "A dead letter of " + at.Queue
	}
	return v.show("letter", frame{Name: name, Page: &p}, &p)
}

var errGone = refusal{http.StatusNotFound, "The message is not there any more. It was delivered, moved, deleted or dropped since the page before."}

// message finds the message that a request is about: by its cursor, or in a sample.
func (v *visit) message(at place) (*fanout.MessageView, error) {
	form := v.r.Form
	id := form.Get("id")
	if at.topic.Engine() != "" {
		if j := v.h.jobs.find(form.Get("did")); j != nil && j.Topic == at.Topic && j.Queue == at.Queue {
			for _, m := range j.letters() {
				if m.ID == id {
					return &m, nil
				}
			}
		}
		return nil, errGone
	}
	s, err := v.search(at, form.Get("of") == "queue")
	if err != nil {
		return nil, err
	}
	if s.done {
		return nil, errGone
	}
	if form.Get("at") == "" {
		return nil, refusal{http.StatusBadRequest, `at="": want the cursor of a message.`}
	}
	page, _, err := s.of.Peek(v.r.Context(), fanout.PeekOptions{After: form.Get("at"), Most: 1, Body: wholeBody})
	if err != nil {
		return nil, refusal{http.StatusBadRequest, "The cursor is none of this queue's."}
	}
	if len(page) == 0 || id != "" && page[0].ID != id || page[0].PublishedAt.IsZero() || s.own && page[0].Source != at.Queue || !sameSeat(page[0].Cursor, form.Get("at")) {
		return nil, errGone
	}
	return &page[0], nil
}

// sameSeat reports whether two cursors are of one message, which may have moved from the log
// to the queue in between.
func sameSeat(a, b string) bool {
	a, _, _ = strings.Cut(a, ".")
	b, _, _ = strings.Cut(b, ".")
	return a == b
}

// redrives marks the attempts before which the message was redriven, and returns how many
// attempts there were since the last time, -1 if it never was.
func redrives(history []attempt, queue string, most int) (since int) {
	spent, dead := 0, false
	since = -1
	for k := range history {
		a := &history[k]
		if a.Queue != queue { // by a consumer of letters
			continue
		}
		if dead {
			a.Redriven, dead, spent, since = true, false, 0, 0
		}
		if since >= 0 {
			since++
		}
		if a.Cause != "snoozed" && a.Cause != "released" {
			spent++
		}
		dead = a.Cause == "permanent" || a.Cause == "expired" || spent >= most
	}
	return since
}

// Tries says how many attempts there were.
func (p *letterPage) Tries() string {
	if p.since < 0 {
		return number(p.Attempts)
	}
	return fmt.Sprintf("%s in all, %s since the last redrive", number(p.Attempts), number(p.since))
}
