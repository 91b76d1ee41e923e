package fanoutweb

import (
	"errors"
	"fmt"
	"time"

	"github.com/gofanout/fanout"
)

// A jobView is an action as a request may see it.
type jobView struct {
	ID         string       `json:"id"`
	Action     Action       `json:"action"`
	Topic      string       `json:"topic"`
	Queue      string       `json:"queue"`
	Running    bool         `json:"running"`
	Failed     bool         `json:"failed"`
	Cancelled  bool         `json:"cancelled,omitempty"`
	Wanted     int          `json:"wanted"`     // messages to be changed
	Count      int          `json:"count"`      // messages that were
	Gone       int          `json:"gone"`       // messages that were not there any more
	Again      int          `json:"died_again"` // of what was redriven, within a minute
	Text       string       `json:"text"`
	Stacks     string       `json:"stacks,omitempty"`
	CanCancel  bool         `json:"-"`
	Warn       bool         `json:"-"` // it is done, but not as one would wish
	Took       time.Time    `json:"-"`
	More       string       `json:"-"` // the link to the letters of a sample, where they are not shown
	Goroutines []goroutines `json:"-"`
}

// job is the action that a request has just done, nil if it hasn't or may not know of it.
func (v *visit) job(at place) *jobView {
	j := v.h.jobs.find(v.r.Form.Get("did"))
	if j == nil || j.Topic != at.Topic || j.Queue != at.Queue {
		return nil
	}
	return v.jobView(j, at)
}

// jobAside is the action on a page that does not show the letters of a sample.
func (v *visit) jobAside(at place) *jobView {
	j := v.job(at)
	if j != nil && j.Action == Sample && !j.Running && j.Count > 0 {
		j.More = at.Link("letters", "did", j.ID)
	}
	return j
}

func (v *visit) jobView(j *job, at place) *jobView {
	r := v.reader(at)
	running := !j.over()
	j.mu.Lock()
	state := j.jobState
	j.mu.Unlock()
	j = &job{ID: j.ID, Action: j.Action, Topic: j.Topic, Queue: j.Queue, jobState: state} // what follows calls code of the user's
	s := &jobView{
		ID: j.ID, Action: j.Action, Topic: j.Topic, Queue: j.Queue, Running: running, Failed: j.err != nil, Cancelled: j.cancelled, Wanted: j.wanted, Count: j.count, Gone: j.gone,
		CanCancel: running && v.can(j.Action, j.Topic, j.Queue),
	}
	if r.stack {
		s.Stacks = r.text("stack", "", j.stacks)
		s.Goroutines = goroutinesOf(s.Stacks)
	}
	s.Text, s.Again, s.Took = j.text(running), j.again.n, j.took
	if j.again.n > 0 {
		s.Text += " " + isAre(j.again.n, "has died again: ", "have died again: ") + r.of(&j.again.last)
	}
	s.Warn = !running && (j.again.n > 0 || j.idle || doable[j.Action] && (j.count == 0 || j.gone > 0))
	if j.err != nil && !j.cancelled {
		s.Text += " " + reason(j.err, &r)
	}
	if running && j.Action == Redrive {
		if st := at.view.Stats(); st.Capacity > 0 && st.Unsettled() >= st.Capacity {
			s.Text += " The queue is full: the rest waits for room."
		}
	}
	return s
}

// infoOf is what is known of a queue, of this instant.
func (v *visit) infoOf(at place) (i *queueInfo) {
	v.h.sampler.look(func(s *sampler) {
		if q := s.states[at.view]; q != nil {
			now := q.view.Stats()
			info := q.infoWith(s.at, &now)
			i = &info
		}
	})
	if i != nil {
		v.texts(i)
	}
	return i
}

// text says what was done.
func (j *job) text(running bool) string {
	done := map[Action][2]string{Redrive: {"Redriving", "Redrove"}, Delete: {"Deleting", "Deleted"}}[j.Action]
	switch {
	case j.Action == Redrive || j.Action == Delete:
		word, of := done[1], ""
		if running {
			word = done[0]
		}
		if j.cancelled {
			word = "Cancelled. " + word
		}
		if j.wanted > 0 {
			of = " of " + grouped(j.wanted)
		}
		text := fmt.Sprintf("%s %s%s", word, grouped(j.count), of)
		if j.wanted == 1 || j.wanted == 0 && j.count == 1 {
			text += " letter."
		} else {
			text += " letters."
		}
		if running {
			return text[:len(text)-1] + " so far."
		}
		if j.gone > 0 {
			text += " " + isAre(j.gone, "was", "were") + " not there any more"
			if j.held > 0 {
				text += fmt.Sprintf(", or %s among the %s that a consumer of the dead-letter queue has", map[bool]string{true: "is", false: "are"}[j.gone == 1], plural(j.held, "letter"))
			}
			text += "."
		}
		return text
	case running:
		return "Under way."
	case j.err != nil:
		return "It was not done."
	case j.Action == Pause && j.note != "":
		return j.note
	case j.Action == Pause:
		return "Paused. Nothing is delivered until it is resumed; publishers go on until it is full."
	case j.Action == Resume:
		if j.note != "" {
			return j.note
		}
		return "Resumed."
	case j.Action == Purge:
		return "Purged: " + isAre(j.count, "message was dropped.", "messages were dropped.")
	case j.Action == Sample:
		return "Received " + isAre(j.count, "letter to look at, and gave it back.", "letters to look at, and gave them back.")
	}
	return j.note
}

// reason is an error for a reader.
func reason(err error, r *reader) string {
	switch {
	case errors.Is(err, fanout.ErrClosed):
		return "The queue is closed."
	case errors.Is(err, fanout.ErrQueueFull):
		return "The queue is full."
	case errors.Is(err, fanout.ErrUnsupported):
		return "The engine does not support it."
	case r.body:
		return "It failed: " + r.error(err)
	}
	return "It failed; the log says more."
}

// of is what a message died of, for a reader.
func (r *reader) of(d *death) string {
	if r.body && d.err != nil {
		return shorter(r.error(d.err), tableBody) + "."
	}
	return d.cause + "."
}
