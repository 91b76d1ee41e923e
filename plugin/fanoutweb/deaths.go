package fanoutweb

import (
	"sync"
	"time"

	"github.com/gofanout/fanout"
)

// A death is what a message died of, and when.
type death struct {
	at    time.Time
	cause string
	err   error
}

// deaths hears what messages die of while somebody reads, and keeps the last of each queue.
// All methods may be called concurrently, except listen and stop.
type deaths struct {
	stops []func()

	mu   sync.Mutex
	last map[[2]string]death // by topic and queue
}

// listen hears of a topic's deaths, until stop.
func (ds *deaths) listen(t fanout.TopicView) {
	stop, err := t.Tap(fanout.Hooks{DeadLettered: ds.hear})
	if err == nil {
		ds.stops = append(ds.stops, stop)
	}
}

// stop ends listening, and forgets what was heard.
func (ds *deaths) stop() {
	for _, stop := range ds.stops {
		stop()
	}
	ds.stops = nil
	ds.mu.Lock()
	defer ds.mu.Unlock()
	ds.last = nil
}

func (ds *deaths) hear(e fanout.Event) {
	ds.mu.Lock()
	defer ds.mu.Unlock()
	if ds.last == nil {
		ds.last = map[[2]string]death{}
	}
	ds.last[[2]string{e.Topic, e.Queue}] = death{e.Time, e.Cause.String(), e.Err}
}

func (ds *deaths) of(topic, queue string) death {
	ds.mu.Lock()
	defer ds.mu.Unlock()
	return ds.last[[2]string{topic, queue}]
}

// growFor is how long after a death a queue's letters are said to grow.
const growFor = time.Minute

// grows reports whether the letters of a queue become more. The sampler's mutex is held.
func (q *queueState) grows(now time.Time, i *queueInfo) bool {
	return i.Rates.DeadLettered > 0 || !q.death.at.IsZero() && now.Sub(q.death.at) < growFor
}

// texts adds the texts of errors to what is wrong with a queue, as far as the request may see
// them. No mutex is held: it calls code of the user's.
func (v *visit) texts(i *queueInfo) {
	for k := range i.Troubles {
		t := &i.Troubles[k]
		if t.err != nil && v.can(Body, i.Topic, i.Queue) {
			r := reader{place: i.Place(), body: true, redact: v.h.options.Redact}
			t.Error = shorter(r.error(t.err), tableBody)
		}
	}
}
