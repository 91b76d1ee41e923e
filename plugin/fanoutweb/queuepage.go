package fanoutweb

import (
	"fmt"
	"time"

	"github.com/gofanout/fanout"
)

// A queuePage is all that is known of one queue.
type queuePage struct {
	queueInfo
	At, Since   time.Time      `json:"-"`
	Subscribers []worksOn      `json:"subscribers"`
	Settings    []setting      `json:"-"`
	Options     map[string]any `json:"options"`
	Charts      []chart        `json:"-"`
	Can         allowed        `json:"-"`
	Ended       bool           `json:"-"`
	Job         *jobView       `json:"-"`
}

// A worksOn is a subscriber.
type worksOn struct {
	Subscriber     string  `json:"subscriber"`
	Concurrency    int     `json:"concurrency"`
	BatchSize      int     `json:"batch_size"`
	RateLimit      float64 `json:"rate_limit,omitempty"`
	AutoExtend     float64 `json:"auto_extend_seconds,omitempty"`
	HandlerTimeout float64 `json:"handler_timeout_seconds,omitempty"`
	Workers        int     `json:"workers"`
	Stuck          int     `json:"stuck"`
	Stopping       bool    `json:"stopping,omitempty"`
}

// Short is the file and line without the folders.
func (w worksOn) Short() string { return shortPath(w.Subscriber) }

// A setting is an option in force.
type setting struct{ Name, Value string }

// allowed is what a request may do with a queue.
type allowed struct{ Body, Stack, Sample, Pause, Resume, Redrive, Delete, Purge bool }

func (v *visit) allowed(p place) allowed {
	can := func(a Action) bool { return v.can(a, p.Topic, p.Queue) }
	return allowed{can(Body), can(Stack), can(Sample), can(Pause), can(Resume), can(Redrive), can(Delete), can(Purge)}
}

func (v *visit) queuePage() error {
	place, err := v.place()
	if err != nil {
		return err
	}
	p, err := v.queueOf(place)
	if err != nil {
		return err
	}
	did := v.r.Form.Get("did")
	f := frame{Name: p.Queue, Refresh: true, Page: &p, Live: link("events", "page", "queue", "topic", p.Topic, "queue", p.Queue, "did", did)}
	return v.show("queue", f, p)
}

func (v *visit) queueOf(at place) (p queuePage, err error) {
	var q *queueState
	v.h.sampler.look(func(s *sampler) {
		if q = s.states[at.view]; q == nil {
			return
		}
		now := q.view.Stats() // what was just done is to be seen
		p.At, p.Since, p.Ended = s.at, s.since, q.topic.ended
		p.queueInfo, p.Charts = q.infoWith(s.at, &now), q.charts()
	})
	if q == nil { // it was opened since the last look
		return p, refusal{404, "The queue has only just been opened. Try again in a second."}
	}
	v.texts(&p.queueInfo)
	p.Subscribers = []worksOn{}
	for _, s := range at.view.Subscribers() {
		p.Subscribers = append(p.Subscribers, worksOn{
			Subscriber: s.Subscriber, Concurrency: s.Concurrency, BatchSize: s.BatchSize, RateLimit: s.RateLimit, AutoExtend: s.AutoExtend.Seconds(),
			HandlerTimeout: s.HandlerTimeout.Seconds(), Workers: s.Workers, Stuck: s.Stuck, Stopping: s.Stopping,
		})
	}
	p.Settings, p.Options = settingsOf(at.view.Settings())
	p.Can = v.allowed(at)
	p.Job = v.jobAside(at)
	return p, nil
}

// settingsOf are the options in force, for people and for JSON.
func settingsOf(s fanout.QueueSettings) (texts []setting, values map[string]any) {
	attempts := number(s.MaxAttempts)
	capacity := number(s.Capacity)
	if s.Capacity == fanout.Unknown {
		capacity = "the engine's"
	}
	yes := map[bool]string{true: "yes", false: "no"}
	zero := func(d time.Duration) string {
		if d == 0 {
			return "none"
		}
		return duration(d)
	}
	own := s.DeadLetterQueue
	if own == "" {
		own = "its own"
	}
	texts = []setting{
		{"Capacity", capacity}, {"When it is full", s.Overflow.String()}, {"Visibility timeout", duration(s.VisibilityTimeout)}, {"Attempts", attempts},
		{"Backoff", s.Backoff}, {"Delay", zero(s.Delay)}, {"Time to live", zero(s.TimeToLive)}, {"Filter", yes[s.Filtered]},
		{"Dead-letter queue", fmt.Sprintf("%s, %s, %v", own, number(s.DeadLetterCapacity), s.DeadLetterOverflow)},
	}
	return texts, map[string]any{
		"capacity": bound(s.Capacity), "overflow": s.Overflow.String(), "visibility_timeout_seconds": s.VisibilityTimeout.Seconds(), "max_attempts": bound(s.MaxAttempts),
		"backoff": s.Backoff, "delay_seconds": s.Delay.Seconds(), "time_to_live_seconds": s.TimeToLive.Seconds(), "filtered": s.Filtered,
		"dead_letter_queue": s.DeadLetterQueue, "dead_letter_capacity": bound(s.DeadLetterCapacity), "dead_letter_overflow": s.DeadLetterOverflow.String(),
	}
}

// Causes are the attempts that ended, by cause.
func (i *queueInfo) Causes() (cs []cause) {
	c, now, was := &i.Counts, &i.looked, &i.was
	for _, n := range []struct {
		name            string
		n, looked, then uint64
	}{
		{"acknowledged", c.Acked, now.Acked, was.Acked}, {"failed", c.Failed, now.Failed, was.Failed}, {"panicked", c.Panicked, now.Panicked, was.Panicked}, {"exited", c.Exited, now.Exited, was.Exited},
		{"timed out", c.TimedOut, now.TimedOut, was.TimedOut}, {"nacked", c.Nacked, now.Nacked, was.Nacked}, {"permanent", c.Permanent, now.Permanent, was.Permanent}, {"expired", c.Expired, now.Expired, was.Expired},
		{"snoozed", c.Snoozed, now.Snoozed, was.Snoozed}, {"released", c.Released, now.Released, was.Released},
	} {
		one := cause{Name: n.name, N: n.n}
		if i.since > 0 && n.looked > n.then {
			one.Rate = rate(float64(n.looked-n.then)/i.since) + "/s"
		}
		cs = append(cs, one)
	}
	return cs
}

// A cause is how many attempts ended so, and how many a second lately, if any.
type cause struct {
	Name string
	N    uint64
	Rate string
}

// Others are counts of messages that left the queue in another way.
func (i *queueInfo) Others() []cause {
	c := &i.Counts
	return []cause{{Name: "dead-lettered", N: c.DeadLettered}, {Name: "redriven", N: c.Redriven}, {Name: "dropped", N: c.Dropped}, {Name: "parked", N: c.TimesParked}}
}
