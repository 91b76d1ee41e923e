package model

import (
	"slices"
	"time"

	"github.com/gofanout/fanout"
)

const topicName = "payments"

// A view is all that can be seen of a topic after a step.
type view struct {
	full      bool // else without what costs much: Peek, Left and Deadlines
	Now       time.Duration
	Topic     fanout.TopicStats
	Queues    []queueView
	Deadlines []time.Duration // of the latest deliveries; -1 if they own nothing
	Runs      []runView
	Stopped   []bool // subscribers whose Done is closed
	Done      bool
	Left      []fanout.Left
	Why       error
	// What the step's operation returned, and the calls that ended.
	Err      error
	N        int
	Got      []messageView
	Finished []result
}

type queueView struct {
	Stats fanout.Stats
	Peek  []messageView
	Left  []fanout.Message[int]
	Dead  []queueView // one or none
}

type messageView struct {
	Body, Attempt int
	At            time.Duration
	Key           string
	History       []attempt
}

// A deliveryView is what was seen of a delivery when it was made.
type deliveryView struct {
	id deliveryID
	messageView
}

// A runView is what can be seen of a handler that runs.
type runView struct {
	id  deliveryID
	Sub int
	Got int   // deliveries
	Why error // its context was cancelled with
}

func (m *topic) stats(q *queue) fanout.Stats {
	s := q.count
	s.Topic, s.Queue, s.Capacity, s.Paused = q.topic, q.name, q.set.capacity, q.paused
	into := [...]*int{
		backlog: &s.Ready, due: &s.Ready, delayed: &s.Delayed, retrying: &s.Retrying,
		inFlight: &s.InFlight, parked: &s.Parked, released: &s.Released, blocked: &s.Blocked,
	}
	for _, x := range q.messages {
		*into[x.state]++
		if x.ready() {
			s.OldestAge = max(s.OldestAge, m.now-x.at)
		}
	}
	if !q.letters {
		if q.set.shared {
			s.Dead = len(m.shared.messages)
		} else if d := m.deads[q.ref.queue]; d != nil {
			s.Dead = len(d.messages)
		}
	}
	e := q.ended
	s.Acked, s.Failed, s.Panicked, s.Exited = e[fanout.Acked], e[fanout.Failed], e[fanout.Panicked], e[fanout.Exited]
	s.TimedOut, s.Nacked, s.PermanentlyFailed = e[fanout.TimedOut], e[fanout.Nacked], e[fanout.PermanentlyFailed]
	s.Expired, s.Snoozed, s.ReleasedCount = e[fanout.Expired], e[fanout.Snoozed], e[fanout.Released]
	for _, r := range m.runs {
		if m.subs[m.sub(r.sub)].ref == q.ref {
			s.Workers++
			if r.stuck {
				s.Stuck++
			}
		}
	}
	return s
}

func (m *topic) queueView(q *queue, full bool) queueView {
	v := queueView{Stats: m.stats(q)}
	if full {
		v.Left = q.left
		for _, x := range q.visible() {
			v.Peek = append(v.Peek, x.view())
		}
	}
	if q.ref.kind == opened && m.deads[q.ref.queue] != nil {
		v.Dead = []queueView{m.queueView(m.deads[q.ref.queue], full)}
	}
	return v
}

func (x *message) view() messageView {
	return messageView{Body: x.Body, Attempt: x.spent + 1, At: x.at, Key: x.OrderingKey, History: shortened(x.history)}
}

// shortened leaves of a long history what any queue keeps of it.
func shortened(as []attempt) []attempt {
	if len(as) > 32 {
		return append(slices.Clone(as[:1]), as[len(as)-24:]...)
	}
	return as
}

// view returns what is seen of the model: the deadlines of some deliveries too.
func (m *topic) view(deliveries []held, full bool) view {
	m.forget()
	v := view{full: full, Now: m.now, Done: m.phase == ended, Left: m.lefts, Why: m.why, Finished: m.results}
	v.Topic = fanout.TopicStats{
		Topic: topicName, Published: uint64(m.seq), Unrouted: int(m.unrouted), Waiting: len(m.offers), Retained: len(m.retained),
		Duplicates: int(m.duplicates), Remembered: len(m.ids), Forgotten: int(m.forgotten),
	}
	for _, q := range m.queues {
		if !q.closed {
			v.Topic.Queues++
		}
		v.Queues = append(v.Queues, m.queueView(q, full))
	}
	if m.shared != nil {
		v.Queues = append(v.Queues, m.queueView(m.shared, full))
	}
	for _, h := range deliveries {
		until := time.Duration(-1)
		if x := m.owned(m.at(h.ref), h.id); x != nil {
			until = x.until
		}
		v.Deadlines = append(v.Deadlines, until)
	}
	for _, r := range m.runs {
		rv := runView{id: r.delivery, Sub: r.sub, Got: len(r.all())}
		if m.subs[m.sub(r.sub)].looks {
			rv.Why = r.why
		}
		v.Runs = append(v.Runs, rv)
	}
	sortRuns(v.Runs)
	for _, s := range m.subs {
		v.Stopped = append(v.Stopped, s.stopping && m.running(s.id) == 0)
	}
	return v
}
