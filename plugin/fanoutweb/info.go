package fanoutweb

import (
	"math"
	"time"

	"github.com/gofanout/fanout"
)

// What a page shows is built of these, and so is JSON: the names of their fields there are
// documented in internal/docs/page.md. A number that only an engine knows, and has not told, is
// [fanout.Unknown], a rate that isn't known is negative.

// An overview is all topics.
type overview struct {
	At     time.Time   `json:"at"`
	Since  time.Time   `json:"since"` // rates and charts begin here
	Topics []topicInfo `json:"topics"`
}

// A topicInfo is a topic with some of its queues.
type topicInfo struct {
	Topic     string      `json:"topic"`
	Engine    string      `json:"engine,omitempty"`
	Ended     bool        `json:"ended,omitempty"`
	Published uint64      `json:"published"`
	Unrouted  int         `json:"unrouted"`
	Waiting   int         `json:"waiting"` // publishes and redrives that wait for room
	Rate      float64     `json:"published_per_second"`
	Open      int         `json:"queues_open"`
	Found     int         `json:"queues_found"` // that the request looks for
	Queues    []queueInfo `json:"queues"`
}

// A queueInfo is a queue.
type queueInfo struct {
	Topic    string `json:"topic"`
	Queue    string `json:"queue"`
	Engine   string `json:"engine,omitempty"`
	Capacity bound  `json:"capacity"`
	Overflow string `json:"overflow"`

	Held     int     `json:"held"` // all that counts against the capacity
	Ready    int     `json:"ready"`
	InFlight int     `json:"in_flight"`
	Delayed  int     `json:"delayed"`
	Retrying int     `json:"retrying"`
	Parked   int     `json:"parked"`
	Blocked  int     `json:"blocked"`
	Released int     `json:"released"`
	Oldest   float64 `json:"oldest_age_seconds"`
	Paused   bool    `json:"paused"`
	Blocking bool    `json:"blocking"` // publishers wait for room in it, or did in the last seconds
	Workers  int     `json:"workers"`
	Stuck    int     `json:"stuck"`

	Dead         int    `json:"dead"`
	DeadCapacity bound  `json:"dead_letter_capacity"`
	SharedDead   string `json:"dead_letter_queue,omitempty"` // its name if it is shared

	Counts counts `json:"counts"`
	Rates  rates  `json:"per_second"`

	// What the engine said, and when; zero in memory.
	Asked  time.Time `json:"asked,omitzero"`
	AskErr string    `json:"asked_error,omitempty"`

	Troubles []trouble `json:"troubles,omitempty"`
	Grows    bool      `json:"-"` // its letters become more

	looked counts  // by the last look: rates are differences between looks
	was    counts  // some seconds ago
	since  float64 // how many
}

// counts are those since the queue was opened.
type counts struct {
	Published    int    `json:"published"` // on an engine it is Unknown
	Delivered    uint64 `json:"delivered"`
	Acked        uint64 `json:"acked"`
	Failed       uint64 `json:"failed"`
	Panicked     uint64 `json:"panicked"`
	Exited       uint64 `json:"exited"`
	TimedOut     uint64 `json:"timed_out"`
	Nacked       uint64 `json:"nacked"`
	Permanent    uint64 `json:"permanent"`
	Expired      uint64 `json:"expired"`
	Snoozed      uint64 `json:"snoozed"`
	Released     uint64 `json:"released"`
	DeadLettered uint64 `json:"dead_lettered"`
	Redriven     uint64 `json:"redriven"`
	Dropped      uint64 `json:"dropped"`
	TimesParked  uint64 `json:"times_parked"`
}

// rates are those of counts that are of most use, over the last seconds.
type rates struct {
	Published    float64 `json:"published"`
	Delivered    float64 `json:"delivered"`
	Acked        float64 `json:"acked"`
	Failed       float64 `json:"failed"` // of all causes
	DeadLettered float64 `json:"dead_lettered"`
	Dropped      float64 `json:"dropped"`
}

// blockedFor is how long it is said that publishers wait after they were last seen to: a
// queue that is always full lets one in whenever there is room.
const blockedFor = 5 * time.Second

// info is a queue as the last look saw it, which was at now. The sampler's mutex is held.
func (q *queueState) info(now time.Time) queueInfo { return q.infoWith(now, &q.stats) }

// infoWith is a queue with numbers that are newer than the last look, which was at now. Rates
// are still those between looks. The sampler's mutex is held.
func (q *queueState) infoWith(now time.Time, s *fanout.Stats) queueInfo {
	i := queueInfo{
		Topic: q.topic.view.Name(), Queue: q.view.Name(), Engine: q.topic.view.Engine(), Capacity: bound(q.settings.Capacity), Overflow: q.settings.Overflow.String(),
		Held: s.Unsettled(), Ready: s.Ready, InFlight: s.InFlight, Delayed: s.Delayed, Retrying: s.Retrying, Parked: s.Parked, Blocked: s.Blocked,
		Released: s.Released, Oldest: s.OldestAge.Seconds(), Paused: s.Paused, Blocking: now.Sub(q.blocked) <= blockedFor, Workers: s.Workers, Stuck: s.Stuck,
		Dead: s.Dead, DeadCapacity: bound(q.settings.DeadLetterCapacity), SharedDead: q.settings.DeadLetterQueue,
		Counts: countsOf(s),
	}
	if d := q.rates.seconds(now); d > 0 {
		was, looked := countsOf(&q.rates.then), countsOf(&q.stats)
		i.was, i.looked, i.since = was, looked, d
		per := func(now, then uint64) float64 { return math.Round(float64(now-min(then, now))/d*100) / 100 }
		i.Rates = rates{
			Published: per(uint64(looked.Published), uint64(was.Published)), Delivered: per(looked.Delivered, was.Delivered), Acked: per(looked.Acked, was.Acked),
			Failed: per(failures(&q.stats), failures(&q.rates.then)), DeadLettered: per(looked.DeadLettered, was.DeadLettered), Dropped: per(looked.Dropped, was.Dropped),
		}
	} else {
		i.Rates = rates{-1, -1, -1, -1, -1, -1}
	}
	if i.Engine != "" {
		i.Counts.Published, i.Rates.Published = fanout.Unknown, -1
		i.ask(&q.asked)
	}
	i.Troubles = q.troubles(now, &i)
	return i
}

// ask has what only the engine knows.
func (i *queueInfo) ask(a *answer) {
	i.Oldest = fanout.Unknown
	if a.at.IsZero() {
		return
	}
	i.Asked = a.at
	if a.err != nil {
		i.AskErr = "the engine didn't answer"
		return
	}
	d := &a.depth
	i.Held, i.Ready, i.Delayed, i.InFlight, i.Dead = d.Unsettled(), d.Ready, d.Delayed, d.InFlight, d.Dead
	if d.OldestAge != fanout.Unknown {
		i.Oldest = d.OldestAge.Seconds()
	}
}

func countsOf(s *fanout.Stats) counts {
	return counts{
		Published: max(s.Published, 0), Delivered: s.Delivered, Acked: s.Acked, Failed: s.Failed, Panicked: s.Panicked, Exited: s.Exited, TimedOut: s.TimedOut,
		Nacked: s.Nacked, Permanent: s.PermanentlyFailed, Expired: s.Expired, Snoozed: s.Snoozed, Released: s.ReleasedCount,
		DeadLettered: s.DeadLettered, Redriven: s.Redriven, Dropped: s.Dropped, TimesParked: s.TimesParked,
	}
}

// info is a topic without its queues. The sampler's mutex is held.
func (t *topicState) info(now time.Time) topicInfo {
	i := topicInfo{
		Topic: t.view.Name(), Engine: t.view.Engine(), Ended: t.ended, Published: t.stats.Published, Unrouted: t.stats.Unrouted, Waiting: t.stats.Waiting,
		Rate: -1, Open: len(t.queues),
	}
	if d := t.rates.seconds(now); d > 0 {
		i.Rate = math.Round(float64(t.stats.Published-t.rates.then.Published)/d*100) / 100
	}
	return i
}

// Bounded reports whether the queue's capacity is known, and small enough to be a picture.
func (i *queueInfo) Bounded() bool {
	return i.Capacity != fanout.Unknown && int(i.Capacity) != fanout.Unlimited
}

// Full reports whether nothing more can be published to the queue.
func (i *queueInfo) Full() bool { return i.Bounded() && i.Held >= int(i.Capacity) }

// Room is for how many more messages there is room.
func (i *queueInfo) Room() int { return max(int(i.Capacity)-i.Held, 0) }

// Known reports whether a number is known.
func (i *queueInfo) Known(n int) bool { return n != fanout.Unknown }

// DeadBounded reports whether the dead-letter queue's capacity is known, and a number.
func (i *queueInfo) DeadBounded() bool {
	return i.DeadCapacity != fanout.Unknown && int(i.DeadCapacity) != fanout.Unlimited
}

// Place is where the queue's pages are.
func (i *queueInfo) Place() place { return place{Topic: i.Topic, Queue: i.Queue} }

// Worst is the level of the worst trouble, "ok" if there is none.
func (i *queueInfo) Worst() string {
	if len(i.Troubles) == 0 {
		return "ok"
	}
	return i.Troubles[0].Level
}
