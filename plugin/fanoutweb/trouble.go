package fanoutweb

import (
	"cmp"
	"fmt"
	"math"
	"slices"
	"strings"
	"time"
)

// The levels of troubles, the worst first: somebody waits or is stuck; something will
// be lost or late; something to know.
const (
	critical = "critical"
	warning  = "warning"
	note     = "note"
)

var levels = []string{critical, warning, note}

// A trouble is something that is wrong with a queue, in words.
type trouble struct {
	Level string `json:"level"`
	// Kind is "blocking", "stuck", "parked", "full", "paused", "failing", "unread" or "dead".
	Kind string `json:"kind"`
	Text string `json:"text"`
	// Error is the text of the last error, if the request may see it.
	Error string `json:"error,omitempty"`

	err error
}

// troubles are what is wrong with a queue, the worst first.
func (q *queueState) troubles(now time.Time, i *queueInfo) (ts []trouble) {
	add := func(level, kind, text string, args ...any) {
		ts = append(ts, trouble{Level: level, Kind: kind, Text: fmt.Sprintf(text, args...)})
	}
	if i.Blocking {
		add(critical, "blocking", "Publishers wait for room: it holds %s of %s. %s", number(i.Held), number(i.Capacity), q.why(i))
	}
	if i.Stuck > 0 {
		add(critical, "stuck", "%s%s past the visibility timeout of %s%s.", isAre(i.Stuck, "handler still runs", "handlers still run"), i.here(), duration(q.settings.VisibilityTimeout), q.subscribedAt(true))
	}
	if i.Parked > 0 {
		add(critical, "parked", "The dead-letter queue is full: %s of its room.", isAre(i.Parked, "dead message waits here and takes up some", "dead messages wait here and take up some"))
	}
	if i.Full() && !i.Blocking {
		what := map[string]string{
			"Block": "the next publisher will wait", "Reject": "publishes are refused", "DropOldest": "the oldest messages are dropped", "DropNewest": "new messages are dropped",
		}[i.Overflow]
		add(warning, "full", "It is full: %s.", what)
	}
	if i.Paused {
		waits := ""
		if i.Known(i.Ready) {
			waits = ": " + isAre(i.Ready, "message waits", "messages wait")
		}
		add(warning, "paused", "It is paused%s%s.%s", i.here(), waits, q.pausedFor(now, i))
	}
	if share := i.failing(); share >= leastShare {
		add(warning, "failing", "%.0f%% of attempts%s fail (%s/s)%s.", share*100, i.here(), rate(i.Rates.Failed), q.subscribedAt(false))
	}
	if i.unread() {
		add(warning, "unread", "Nothing is delivered%s, and the oldest message is %s old. %s", i.here(), seconds(i.Oldest), q.readers(i))
	}
	if i.Dead > 0 {
		full := ""
		if i.DeadCapacity > 0 && i.Dead >= int(i.DeadCapacity) {
			full = ", and there is no room for more"
		}
		level, grows := note, ""
		if i.Grows = q.grows(now, i); i.Grows {
			level, grows = warning, q.growing(now, i)
		}
		add(level, "dead", "%s in its dead-letter queue%s.%s", isAre(i.Dead, "letter is", "letters are"), full, grows)
		if i.Grows {
			ts[len(ts)-1].err = q.death.err
		}
	}
	slices.SortStableFunc(ts, func(a, b trouble) int {
		return cmp.Compare(slices.Index(levels, a.Level), slices.Index(levels, b.Level))
	})
	return ts
}

// here says, on an engine, that something is told of this process alone.
func (i *queueInfo) here() string {
	if i.Engine == "" {
		return ""
	}
	return " in this process"
}

// leastShare is the share of attempts from which on it is worth a word that they fail.
const leastShare = 0.2

// failing is the share of attempts that failed in the last seconds.
func (i *queueInfo) failing() float64 {
	ended := i.Rates.Failed + i.Rates.Acked
	if i.Rates.Failed <= 0 {
		return 0
	}
	return i.Rates.Failed / ended
}

// longUnread is the age from which on a message that nobody takes is worth a word, in seconds.
const longUnread = 10

func (i *queueInfo) unread() bool {
	return i.Oldest >= longUnread && i.Rates.Delivered == 0 && !i.Paused && !i.Blocking && i.Stuck == 0
}

// why says why a queue is full.
func (q *queueState) why(i *queueInfo) string {
	switch {
	case i.Paused:
		return "It is paused."
	case i.Parked*2 > i.Held:
		return "Most of it is dead, and its dead-letter queue is full."
	case i.Stuck > 0 && i.Stuck >= i.Workers:
		return "All its handlers are stuck."
	case i.failing() > 0.5:
		return fmt.Sprintf("%.0f%% of attempts fail.", i.failing()*100)
	case i.Rates.Delivered <= 0:
		return q.readers(i)
	}
	return fmt.Sprintf("%s a second are acknowledged; %s", rate(i.Rates.Acked), q.readers(i))
}

// readers says who takes messages from the queue.
func (q *queueState) readers(i *queueInfo) string {
	subscribers := q.view.Subscribers()
	if len(subscribers) == 0 {
		if i.Engine != "" {
			return "It has no subscriber" + i.here() + "."
		}
		return "It has no subscriber, and nobody receives from it."
	}
	most := 0
	for _, s := range subscribers {
		most += s.Concurrency
	}
	return fmt.Sprintf("%d of %s at work%s.", i.Workers, plural(most, "worker"), q.subscribedAt(false))
}

// growing says how the letters become more.
func (q *queueState) growing(now time.Time, i *queueInfo) string {
	var more string
	if i.Rates.DeadLettered > 0 {
		more = " " + rate(i.Rates.DeadLettered) + " a second die"
	} else {
		more = " The last died " + duration(max(now.Sub(q.death.at), 0).Truncate(time.Second)) + " ago"
	}
	if q.death.cause != "" {
		more += ". The last cause: " + q.death.cause
	}
	return more + "."
}

// pausedFor says since when a queue is paused, as far as the page knows, and when it is full.
func (q *queueState) pausedFor(now time.Time, i *queueInfo) (text string) {
	if d := now.Sub(q.paused); !q.paused.IsZero() && d >= time.Second {
		text = " It has been for at least " + duration(d.Truncate(time.Second)) + "."
	}
	switch in := i.Rates.Published; {
	case in <= 0:
	case !i.Bounded() || i.Full():
		text += fmt.Sprintf(" %s a second come in.", rate(in))
	default:
		text += fmt.Sprintf(" %s a second come in: it is full in about %s.", rate(in), seconds(max(math.Round(float64(i.Room())/in), 1)))
	}
	return text
}

// subscribedAt says where the subscribers are, or those of them that have stuck handlers.
func (q *queueState) subscribedAt(stuck bool) string {
	var at []string
	for _, s := range q.view.Subscribers() {
		if s.Stuck > 0 || !stuck {
			at = append(at, shortPath(s.Subscriber))
		}
	}
	if len(at) == 0 {
		return ""
	}
	if more := len(at) - mostSites; more > 0 {
		at = append(at[:mostSites], fmt.Sprintf("%d other places", more))
	}
	return ", subscribed at " + strings.Join(at, ", ")
}

// mostSites is how many places that subscribe are told in a sentence.
const mostSites = 3

// shortPath is a file and line with the last of its folders.
func shortPath(path string) string {
	parts := strings.Split(path, "/")
	return strings.Join(parts[max(len(parts)-2, 0):], "/")
}

// isAre is a count with the words for one or for several.
func isAre(n int, one, several string) string {
	if n == 1 {
		return "1 " + one
	}
	return number(n) + " " + several
}

// A finding is a trouble and where it is.
type finding struct {
	trouble
	Place place
}

// More is a link to what one does about it, and its name; empty if the queue's page is that.
func (t trouble) More(p place) (more struct{ Link, Name string }) {
	switch t.Kind {
	case "dead":
		more.Link, more.Name = p.Link("letters"), "Look at them"
	case "stuck":
		more.Link, more.Name = p.Link("queue")+"#subscribers", "Stacks of its handlers"
	}
	return more
}

// findings are the troubles of several queues, the worst first.
func findings(queues []queueInfo, most int) (fs []finding, more int) {
	for k := range queues {
		for _, t := range queues[k].Troubles {
			fs = append(fs, finding{t, queues[k].Place()})
		}
	}
	slices.SortStableFunc(fs, func(a, b finding) int {
		return cmp.Compare(slices.Index(levels, a.Level), slices.Index(levels, b.Level))
	})
	if more = len(fs) - most; more > 0 {
		return fs[:most], more
	}
	return fs, 0
}

// weight orders queues by what is wrong with them, the worst first.
func (i *queueInfo) weight() float64 {
	w := 0.0
	for _, t := range i.Troubles {
		w += []float64{1e6, 1e3, 1}[slices.Index(levels, t.Level)]
	}
	if i.Bounded() && i.Capacity > 0 {
		w += float64(i.Held) / float64(i.Capacity)
	}
	return w
}

// matches reports whether a queue is looked for by a part of its name.
func (i *queueInfo) matches(part string) bool {
	return strings.Contains(strings.ToLower(i.Queue), strings.ToLower(part))
}
