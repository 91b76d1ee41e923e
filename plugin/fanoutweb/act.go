package fanoutweb

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/gofanout/fanout"
)

// A deed is an action that a request asks for, with all that it is about.
type deed struct {
	place
	Action   Action
	Selected []string // IDs, nil for all that match
	Filter   filter
	Until    time.Time // when the newest of them died
	Count    int       // how many there are to be
	search   *search
	jobs     *jobs
}

// doable are the actions that a form may ask for, and whether they are about letters.
var doable = map[Action]bool{Pause: false, Resume: false, Purge: false, Stack: false, Sample: false, Redrive: true, Delete: true}

// deed reads what a form asks for, and checks that it may be done.
func (v *visit) deed() (d deed, err error) {
	if d.place, err = v.place(); err != nil {
		return d, err
	}
	form := v.r.Form
	d.jobs = v.h.jobs
	d.Action = Action(form.Get("do"))
	letters, known := doable[d.Action]
	switch {
	case !known:
		return d, refusal{http.StatusBadRequest, "do=" + strconv.Quote(form.Get("do")) + ": want pause, resume, redrive, delete, purge, stack or sample."}
	case !v.can(d.Action, d.Topic, d.Queue):
		return d, notAllowed(Access{Action: d.Action})
	case d.Action == Purge:
		return d, d.readCount(form)
	case !letters:
		return d, nil
	}
	if form.Get("scope") == "selected" {
		if d.Selected = form["id"]; len(d.Selected) == 0 {
			return d, refusal{http.StatusBadRequest, "No letter is selected. Go back, and select some."}
		}
		if !v.can(Body, d.Topic, d.Queue) {
			return d, notAllowed(Access{Action: Body})
		}
		slices.Sort(d.Selected)
		d.Selected = slices.Compact(d.Selected)
	}
	if d.search, err = v.search(d.place, false); err != nil {
		return d, err
	}
	d.Filter = d.search.filter
	if !d.Filter.Any() && d.topic.Engine() != "" {
		return d, refusal{http.StatusBadRequest, "Letters in an engine can't be searched: choose all, or take a sample and select some."}
	}
	return d, d.readCount(form)
}

// readCount reads what a confirmation said.
func (d *deed) readCount(form url.Values) (err error) {
	if until := form.Get("until"); until != "" {
		if d.Until, err = time.Parse(time.RFC3339Nano, until); err != nil {
			return refusal{http.StatusBadRequest, "until=" + strconv.Quote(until) + ": want a time as in RFC 3339."}
		}
	}
	if count := form.Get("count"); count != "" {
		if d.Count, err = strconv.Atoi(count); err != nil || d.Count < 0 {
			return refusal{http.StatusBadRequest, "count=" + strconv.Quote(count) + ": want a number."}
		}
	}
	return nil
}

// confirmed checks that a confirmation was asked for: what it counted comes with the form. One
// letter that is redriven needs none.
func (d *deed) confirmed(form url.Values) error {
	one := d.Action == Redrive && len(d.Selected) == 1
	switch {
	case d.Action != Purge && !doable[d.Action]:
		return nil
	case form.Get("count") != "" && form.Get("until") != "":
		return nil
	case one:
		d.Count, d.Until = 1, time.Now()
		return nil
	}
	return refusal{http.StatusBadRequest, "To " + verbs[d.Action] + " needs count and until: ask GET confirm with the same fields first, and send the count and until that it answers with."}
}

// fix says now which letters the deed is about, so that none that dies later is. On an engine letters
// can't be looked at, and it is asked for their number.
func (d *deed) fix(ctx context.Context) error {
	if d.topic.Engine() != "" {
		d.Until, d.Count = time.Now(), len(d.Selected)
		if d.Selected != nil {
			return nil
		}
		ctx, cancel := context.WithTimeout(ctx, askFor)
		defer cancel()
		depth, err := d.view.Depth(ctx)
		if err != nil {
			return refusal{http.StatusBadGateway, "The engine does not say how many letters there are. Try again."}
		}
		d.Count = max(depth.Dead, 0)
		return nil
	}
	if d.Selected == nil && !d.search.own && d.Filter.Any() { // all of them, which need no looking at
		d.Until = time.Now() // before they are counted: more are not moved than were said to be
		if d.Count = 0; !d.search.done {
			st := d.search.of.Stats()
			d.Count = max(st.Unsettled()-st.InFlight, 0)
		}
		return nil
	}
	m, ids, err := d.search.choose(ctx, time.Time{}, d.Selected != nil)
	if err != nil {
		return err
	}
	if d.Until, d.Count = m.Newest, m.Count; d.Until.IsZero() {
		d.Until = time.Now() // nothing yet, and what dies later is left alone
	}
	if d.Selected != nil {
		d.Count = 0
		for _, id := range ids {
			if _, found := slices.BinarySearch(d.Selected, id); found {
				d.Count++
			}
		}
	}
	return nil
}

// Words say which letters it is about.
func (d *deed) Words() string {
	switch {
	case d.Selected != nil:
		return "selected"
	case !d.Filter.Any():
		return d.Filter.String()
	case doable[d.Action]:
		return "all"
	}
	return ""
}

// act does what a form asks for, and goes to the page that tells of it.
func (v *visit) act() error {
	d, err := v.deed()
	if err != nil {
		return err
	}
	if err := d.confirmed(v.r.Form); err != nil {
		return err
	}
	if d.Action == Stack && !v.h.stacks.take(time.Now()) {
		return refusal{http.StatusTooManyRequests, "Stacks were collected less than five seconds ago. It stops the program for a moment, so wait a little."}
	}
	j := &job{Action: d.Action, Topic: d.Topic, Queue: d.Queue, Chosen: d.Words(), jobState: jobState{wanted: d.Count}}
	err = v.h.jobs.start(j, audited{v.h, v.r.WithContext(context.WithoutCancel(v.r.Context())), d}.run)
	if err != nil {
		return refusal{http.StatusTooManyRequests, "There are as many actions under way as there may be. Wait for one to end, or cancel it."}
	}
	if v.json {
		j.wait(v.r.Context(), 10*time.Second)
		return v.send(http.StatusOK, v.jobView(j, d.place))
	}
	patience := 700 * time.Millisecond
	if d.Action == Sample {
		patience = 5 * time.Second // one waits for the letters, and an engine has to be asked for them
	}
	j.wait(v.r.Context(), patience)
	page := "queue"
	if doable[d.Action] || d.Action == Sample {
		page = "letters"
		if !j.over() {
			page = "queue" // it is live
		}
	}
	return v.goTo(d.Link(page, "did", j.ID))
}

// cancel ends an action that is under way.
func (v *visit) cancel() error {
	at, err := v.place()
	if err != nil {
		return err
	}
	j := v.h.jobs.find(v.r.Form.Get("did"))
	if j == nil || j.Topic != at.Topic || j.Queue != at.Queue {
		return refusal{http.StatusNotFound, "This action is not known any more."}
	}
	if !v.can(j.Action, j.Topic, j.Queue) {
		return notAllowed(Access{Action: j.Action})
	}
	j.cancel()
	j.wait(v.r.Context(), 2*time.Second)
	if v.json {
		return v.send(http.StatusOK, v.jobView(j, at))
	}
	return v.goTo(at.Link("queue", "did", j.ID))
}

// An audited is a deed that the audit hook hears of.
type audited struct {
	h *Handler
	r *http.Request
	d deed
}

func (a audited) run(ctx context.Context, j *job) error {
	r := reader{place: a.d.place, redact: a.h.options.Redact}
	e := Entry{
		Time: time.Now(), Request: a.r, Access: Access{a.d.Action, a.d.Topic, a.d.Queue}, Count: a.d.Count,
		Letters: r.text("filter", "", a.d.Words()),
	}
	if err := a.tell(e); err != nil {
		return err
	}
	err := a.d.do(ctx, j)
	if err != nil && ctx.Err() == nil {
		a.h.options.Logger.Warn("fanoutweb: an action failed", "action", string(a.d.Action), "topic", a.d.Topic, "queue", a.d.Queue, "error", err)
	}
	if doable[a.d.Action] || a.d.Action == Purge {
		a.h.sampler.askNow(a.d.topic, a.d.view)
	}
	e.Time, e.Done, e.Err = time.Now(), true, err
	j.set(func(j *job) { e.Count = j.count })
	return errors.Join(err, a.tell(e))
}

// tell calls the audit hook. What can't be told is not done.
func (a audited) tell(e Entry) (err error) {
	if a.h.options.Audit == nil {
		return nil
	}
	defer func() {
		if p := recover(); p != nil {
			err = fmt.Errorf("Options.Audit panicked: %v", p)
		}
	}()
	a.h.options.Audit(e)
	return nil
}

// do does it.
func (d *deed) do(ctx context.Context, j *job) error {
	count := func(n int, err error) error {
		j.set(func(j *job) { j.count += n })
		return err
	}
	switch d.Action {
	case Pause:
		if d.topic.Engine() != "" {
			j.set(func(j *job) {
				j.note = "Paused in this process. Nothing is delivered here until it is resumed; other processes go on."
			})
		}
		return d.view.Pause(ctx)
	case Resume:
		if st := d.view.Stats(); !st.Paused {
			j.set(func(j *job) { j.note, j.idle = "It was not paused.", true })
		}
		return d.view.Resume(ctx)
	case Purge:
		return count(d.view.Purge(ctx))
	case Stack:
		text, n := stacksOf(d.Topic, d.Queue)
		j.set(func(j *job) {
			j.stacks, j.took, j.note = text, time.Now(), isAre(n, "goroutine runs for this queue.", "goroutines run for this queue.")
		})
		return nil
	case Sample:
		return d.sample(ctx, j)
	}
	return d.end(ctx, j)
}

// mostSampled is how many letters are received at most to look at them.
const mostSampled = 50

func (d *deed) sample(ctx context.Context, j *job) error {
	letters := d.view.DeadLetters()
	if letters == nil {
		return nil
	}
	ms, _, err := letters.Peek(ctx, fanout.PeekOptions{Most: mostSampled, Body: wholeBody})
	j.set(func(j *job) { j.sample, j.count = ms, len(ms) })
	return err
}

// atOnce is how many letters are moved by one call at most.
const atOnce = 256

// room is how many letters to move by the next call: it is known between calls how far it has
// got, so as many as don't have to wait.
func (d *deed) room() int {
	st := d.view.Stats()
	if d.Action != Redrive || st.Capacity == fanout.Unknown || st.Unsettled() == fanout.Unknown {
		return atOnce
	}
	return min(max(st.Capacity-st.Unsettled(), 1), atOnce)
}

// end redrives or deletes letters.
func (d *deed) end(ctx context.Context, j *job) error {
	call := d.view.Redrive
	if d.Action == Delete {
		call = d.view.DeleteLetters
	}
	options := []fanout.RedriveOption{}
	if !d.Until.IsZero() {
		options = append(options, fanout.RedriveUntil(d.Until))
	}
	ids := d.Selected
	if ids == nil && d.topic.Engine() == "" {
		var err error
		if _, ids, err = d.search.choose(ctx, d.Until, true); err != nil {
			return err
		}
	} else if ids == nil {
		n, err := call(ctx, options...)
		j.set(func(j *job) { j.count, j.gone = n, max(j.wanted-n, 0) })
		return err
	}
	if d.Action == Redrive && len(ids) > 0 {
		defer func(stop func()) { d.jobs.work.Go(ear{d.jobs, j, stop}.run) }(j.listen(d.topic, ids))
	}
	for len(ids) > 0 {
		some := ids[:min(len(ids), d.room())]
		ids = ids[len(some):]
		n, err := call(ctx, append(options, fanout.RedriveIDs(some...))...)
		j.set(func(j *job) { j.count += n })
		if err != nil && !errors.Is(err, fanout.ErrUnknownID) {
			return err
		}
	}
	held := 0
	if letters := d.view.DeadLetters(); letters != nil && d.topic.Engine() == "" {
		held = letters.Stats().InFlight
	}
	j.set(func(j *job) { j.gone, j.held = max(j.wanted-j.count, 0), held })
	return nil
}

// Engine is the name of the topic's engine, empty in memory.
func (d *deed) Engine() string { return d.topic.Engine() }

// Verb is what the action is called on a button.
func (d *deed) Verb() string { return strings.ToUpper(string(d.Action[:1])) + string(d.Action[1:]) }
