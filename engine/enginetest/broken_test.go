package enginetest

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/gofanout/fanout/engine"
	"github.com/gofanout/fanout/internal/fakeengine"
)

// A fault is one way in which an engine can break its contract. What is nil is
// done right.
type fault struct {
	config     fakeengine.Config
	spec       func(s *engine.QueueSpec)
	topicSpec  func(s *engine.TopicSpec)
	publish    func(t *brokenTopic, ctx context.Context, ms []engine.Message) error
	receive    func(q *brokenQueue, ctx context.Context, most int, lease time.Duration) ([]engine.Received, error)
	ack        func(q *brokenQueue, ctx context.Context, r engine.Receipt) error
	giveBack   func(q *brokenQueue, ctx context.Context, r engine.Receipt, wait time.Duration, state []byte) error
	extend     func(q *brokenQueue, ctx context.Context, r engine.Receipt, lease time.Duration) error
	deadLetter func(q *brokenQueue, ctx context.Context, r engine.Receipt, m engine.Message) error
	redrive    func(q *brokenQueue, ctx context.Context, r engine.Receipt, m engine.Message) error
	stats      func(s *engine.Stats)
	purge      func(q *brokenQueue, ctx context.Context) (int, error)
	list       func(t *brokenTopic, ctx context.Context, infos []engine.QueueInfo) []engine.QueueInfo
	delete     func(q *brokenQueue, ctx context.Context) (dropped, letters int, err error)
	close      func(q *brokenQueue) error
	declared   []engine.Feature // declared although the config is without them
	// found are checks that must find it.
	found []string
}

type brokenEngine struct {
	*fakeengine.Engine
	f *fault
}

func (e brokenEngine) Capabilities() engine.Capabilities {
	caps := e.Engine.Capabilities()
	for _, f := range e.f.declared {
		caps[f] = engine.Support{Kept: true}
	}
	return caps
}

func (e brokenEngine) OpenTopic(ctx context.Context, spec engine.TopicSpec) (engine.Topic, error) {
	if e.f.topicSpec != nil {
		e.f.topicSpec(&spec)
	}
	t, err := e.Engine.OpenTopic(ctx, spec)
	return &brokenTopic{Topic: t, f: e.f, name: spec.Name}, err
}

type brokenTopic struct {
	engine.Topic
	f    *fault
	name string
	mu   sync.Mutex
	n    int // publishes, for faults that come now and then
}

func (t *brokenTopic) count() int {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.n++
	return t.n
}

func (t *brokenTopic) Publish(ctx context.Context, ms []engine.Message) error {
	if t.f.publish != nil {
		return t.f.publish(t, ctx, ms)
	}
	return t.Topic.Publish(ctx, ms)
}

func (t *brokenTopic) ListQueues(ctx context.Context) ([]engine.QueueInfo, error) {
	infos, err := t.Topic.(engine.Lister).ListQueues(ctx)
	if t.f.list != nil && err == nil {
		infos = t.f.list(t, ctx, infos)
	}
	return infos, err
}

func (t *brokenTopic) OpenQueue(ctx context.Context, spec engine.QueueSpec) (engine.Queue, error) {
	if t.f.spec != nil {
		t.f.spec(&spec)
	}
	q, err := t.Topic.OpenQueue(ctx, spec)
	if err != nil {
		return nil, err
	}
	return &brokenQueue{Queue: q, t: t, name: spec.Name, dead: &brokenQueue{Queue: q.DeadLetters(), t: t}}, nil
}

type brokenQueue struct {
	engine.Queue
	t    *brokenTopic
	name string
	dead *brokenQueue
}

func (q *brokenQueue) DeadLetters() engine.Queue {
	if q.dead == nil {
		return nil
	}
	return q.dead
}

func (q *brokenQueue) Receive(ctx context.Context, most int, lease time.Duration) ([]engine.Received, error) {
	if q.t.f.receive != nil {
		return q.t.f.receive(q, ctx, most, lease)
	}
	return q.Queue.Receive(ctx, most, lease)
}

func (q *brokenQueue) Ack(ctx context.Context, r engine.Receipt) error {
	if q.t.f.ack != nil {
		return q.t.f.ack(q, ctx, r)
	}
	return q.Queue.Ack(ctx, r)
}

func (q *brokenQueue) Return(ctx context.Context, r engine.Receipt, wait time.Duration, state []byte) error {
	if q.t.f.giveBack != nil {
		return q.t.f.giveBack(q, ctx, r, wait, state)
	}
	return q.Queue.Return(ctx, r, wait, state)
}

func (q *brokenQueue) Extend(ctx context.Context, r engine.Receipt, lease time.Duration) error {
	if q.t.f.extend != nil {
		return q.t.f.extend(q, ctx, r, lease)
	}
	return q.Queue.Extend(ctx, r, lease)
}

func (q *brokenQueue) DeadLetter(ctx context.Context, r engine.Receipt, m engine.Message) error {
	if q.t.f.deadLetter != nil {
		return q.t.f.deadLetter(q, ctx, r, m)
	}
	return q.Queue.DeadLetter(ctx, r, m)
}

func (q *brokenQueue) Redrive(ctx context.Context, r engine.Receipt, m engine.Message) error {
	if q.t.f.redrive != nil {
		return q.t.f.redrive(q, ctx, r, m)
	}
	return q.Queue.Redrive(ctx, r, m)
}

func (q *brokenQueue) Stats(ctx context.Context) (engine.Stats, error) {
	s, err := q.Queue.Stats(ctx)
	if q.t.f.stats != nil {
		q.t.f.stats(&s)
	}
	return s, err
}

func (q *brokenQueue) Purge(ctx context.Context) (int, error) {
	if q.t.f.purge != nil {
		return q.t.f.purge(q, ctx)
	}
	return q.Queue.Purge(ctx)
}

func (q *brokenQueue) Delete(ctx context.Context) (dropped, letters int, err error) {
	if q.t.f.delete != nil {
		return q.t.f.delete(q, ctx)
	}
	return q.Queue.Delete(ctx)
}

// purgeInstead empties a queue, and its dead letters if so asked, where it was to be deleted.
func purgeInstead(letters bool) func(*brokenQueue, context.Context) (int, int, error) {
	return func(q *brokenQueue, ctx context.Context) (dropped, dead int, err error) {
		again, err := q.t.Topic.OpenQueue(ctx, engine.QueueSpec{Name: q.name})
		if err != nil {
			return 0, 0, err
		}
		defer again.Close()
		if dropped, err = again.Purge(ctx); err != nil || !letters {
			return dropped, 1, err
		}
		dead, err = again.DeadLetters().Purge(ctx)
		return dropped, dead, err
	}
}

func (q *brokenQueue) Close() error {
	if q.t.f.close != nil {
		return q.t.f.close(q)
	}
	return q.Queue.Close()
}

// each publishes every message alone, changed by f, which may drop it.
func each(f func(m *engine.Message) bool) func(*brokenTopic, context.Context, []engine.Message) error {
	return func(t *brokenTopic, ctx context.Context, ms []engine.Message) error {
		kept := []engine.Message{}
		for _, m := range ms {
			if f(&m) {
				kept = append(kept, m)
			}
		}
		return t.Topic.Publish(ctx, kept)
	}
}

// received changes what was received.
func received(f func(r *engine.Received)) func(*brokenQueue, context.Context, int, time.Duration) ([]engine.Received, error) {
	return func(q *brokenQueue, ctx context.Context, most int, lease time.Duration) ([]engine.Received, error) {
		rs, err := q.Queue.Receive(ctx, most, lease)
		for i := range rs {
			f(&rs[i])
		}
		return rs, err
	}
}

// lease asks for another lease.
func lease(f func(d time.Duration) time.Duration) func(*brokenQueue, context.Context, int, time.Duration) ([]engine.Received, error) {
	return func(q *brokenQueue, ctx context.Context, most int, d time.Duration) ([]engine.Received, error) {
		return q.Queue.Receive(ctx, most, f(d))
	}
}

func without(fs ...engine.Feature) fakeengine.Config {
	return fakeengine.Config{MaxBody: small.MaxBody, Without: fs}
}

// faults are engines that break one rule each, and the checks that find it.
var faults = map[string]*fault{
	"loses on return": {giveBack: func(q *brokenQueue, ctx context.Context, r engine.Receipt, _ time.Duration, _ []byte) error {
		return q.Queue.Ack(ctx, r)
	}, found: []string{"return at once", "order through returns", "state"}},
	"returns without waiting": {giveBack: func(q *brokenQueue, ctx context.Context, r engine.Receipt, _ time.Duration, s []byte) error {
		return q.Queue.Return(ctx, r, 0, s)
	}, found: []string{"return after a wait", "wait of a dead letter"}},
	"return is forgotten": {giveBack: func(*brokenQueue, context.Context, engine.Receipt, time.Duration, []byte) error { return nil },
		found: []string{"return at once", "stale after a return"}},
	"returns nothing after close": {giveBack: func(q *brokenQueue, ctx context.Context, r engine.Receipt, w time.Duration, s []byte) error {
		if _, err := q.Queue.Stats(ctx); errors.Is(err, engine.ErrClosed) {
			return err
		}
		return q.Queue.Return(ctx, r, w, s)
	}, found: []string{"return after close"}},
	"forgets a return after close": {giveBack: func(q *brokenQueue, ctx context.Context, r engine.Receipt, w time.Duration, s []byte) error {
		if _, err := q.Queue.Stats(ctx); errors.Is(err, engine.ErrClosed) {
			return nil
		}
		return q.Queue.Return(ctx, r, w, s)
	}, found: []string{"return after close"}},
	"drops state": {giveBack: func(q *brokenQueue, ctx context.Context, r engine.Receipt, w time.Duration, _ []byte) error {
		return q.Queue.Return(ctx, r, w, nil)
	}, found: []string{"state", "state of a letter", "reopen and state"}},
	"keeps the first state": {giveBack: func(q *brokenQueue, ctx context.Context, r engine.Receipt, w time.Duration, s []byte) error {
		if len(s) == 0 {
			s = []byte("old")
		}
		return q.Queue.Return(ctx, r, w, s)
	}, found: []string{"state"}},
	"forgets deliveries":       {receive: received(func(r *engine.Received) { r.Deliveries = 1 }), found: []string{"lease counts deliveries", "return at once"}},
	"counts deliveries from 0": {receive: received(func(r *engine.Received) { r.Deliveries-- }), found: []string{"fan-out", "at most"}},
	"ignores the lease":        {receive: lease(func(time.Duration) time.Duration { return 0 }), found: []string{"lease ends", "lease longer than the queue's", "lease of one"}},
	"halves the lease":         {receive: lease(func(d time.Duration) time.Duration { return d / 2 }), found: []string{"lease ends"}},
	"leases for ever":          {receive: lease(func(d time.Duration) time.Duration { return 1000 * time.Hour }), found: []string{"lease ends", "lease of the queue", "stale ack"}},
	"never hides":              {receive: lease(func(d time.Duration) time.Duration { return time.Nanosecond }), found: []string{"at most", "lease ends"}},
	"receives too many": {receive: func(q *brokenQueue, ctx context.Context, most int, d time.Duration) ([]engine.Received, error) {
		return q.Queue.Receive(ctx, most+1, d)
	}, found: []string{"at most"}},
	"does not wait": {receive: func(q *brokenQueue, ctx context.Context, most int, d time.Duration) ([]engine.Received, error) {
		short, cancel := context.WithTimeout(ctx, time.Millisecond)
		defer cancel()
		rs, err := q.Queue.Receive(short, most, d)
		if len(rs) == 0 && short.Err() != nil {
			return nil, ctx.Err()
		}
		return rs, err
	}, found: []string{"receive waits"}},
	"receive hides its error": {receive: func(q *brokenQueue, ctx context.Context, most int, d time.Duration) ([]engine.Received, error) {
		rs, err := q.Queue.Receive(ctx, most, d)
		if ctx.Err() != nil {
			return nil, nil
		}
		return rs, err
	}, found: []string{"contexts", "fan-out"}},
	"takes and loses": {receive: func(q *brokenQueue, ctx context.Context, most int, d time.Duration) ([]engine.Received, error) {
		rs, err := q.Queue.Receive(ctx, most, d)
		select { // the response is on its way
		case <-time.After(50 * time.Millisecond):
		case <-ctx.Done():
			for _, r := range rs {
				_ = q.Queue.Ack(context.WithoutCancel(ctx), r.Receipt)
			}
			return nil, ctx.Err()
		}
		return rs, err
	}, found: []string{"receive loses nothing"}},
	"does not acknowledge": {ack: func(*brokenQueue, context.Context, engine.Receipt) error { return nil }, found: []string{"acknowledged in its lease", "order by key"}},
	"acknowledges stale":   {config: without(engine.Fencing), declared: []engine.Feature{engine.Fencing}, found: []string{"stale ack", "stale return", "stale extend", "stale dead-letter", "stale redrive", "stale elsewhere"}},
	"hides that it was stale": {ack: func(q *brokenQueue, ctx context.Context, r engine.Receipt) error {
		_ = q.Queue.Ack(ctx, r)
		return nil
	}, found: []string{"stale ack", "stale after a return", "close queue", "stale elsewhere"}},
	"extend does nothing": {extend: func(*brokenQueue, context.Context, engine.Receipt, time.Duration) error { return nil }, found: []string{"extend", "extend to less"}},
	"extend only lengthens": {extend: func(q *brokenQueue, ctx context.Context, r engine.Receipt, d time.Duration) error {
		return q.Queue.Extend(ctx, r, max(d, 1000*time.Hour))
	}, found: []string{"extend", "extend to less"}},
	"loses dead letters": {deadLetter: func(q *brokenQueue, ctx context.Context, r engine.Receipt, _ engine.Message) error {
		return q.Queue.Ack(ctx, r)
	}, found: []string{"dead letter", "redrive", "reopen dead letters"}},
	"copies dead letters": {deadLetter: func(q *brokenQueue, ctx context.Context, r engine.Receipt, m engine.Message) error {
		if err := q.Queue.DeadLetter(ctx, r, m); err != nil {
			return err
		}
		return q.t.Topic.Publish(ctx, []engine.Message{m})
	}, found: []string{"dead letter", "redrive"}},
	"dead letters without state": {deadLetter: func(q *brokenQueue, ctx context.Context, r engine.Receipt, m engine.Message) error {
		m.State = nil
		return q.Queue.DeadLetter(ctx, r, m)
	}, found: []string{"dead letter", "dead letters of another"}},
	"dead letters without attributes": {deadLetter: func(q *brokenQueue, ctx context.Context, r engine.Receipt, m engine.Message) error {
		m.Attributes = nil
		return q.Queue.DeadLetter(ctx, r, m)
	}, found: []string{"dead letter"}},
	"first gone, then there": {deadLetter: func(q *brokenQueue, ctx context.Context, r engine.Receipt, m engine.Message) error {
		if err := ctx.Err(); err != nil {
			_ = q.Queue.Ack(context.WithoutCancel(ctx), r)
			return err
		}
		return q.Queue.DeadLetter(ctx, r, m)
	}, found: []string{"never in neither"}},
	"redrives to all queues": {redrive: func(q *brokenQueue, ctx context.Context, r engine.Receipt, m engine.Message) error {
		if err := q.Queue.Ack(ctx, r); err != nil {
			return err
		}
		return q.t.Topic.Publish(ctx, []engine.Message{m})
	}, found: []string{"redrive"}},
	"redrives and keeps": {redrive: func(q *brokenQueue, ctx context.Context, r engine.Receipt, m engine.Message) error {
		// The letter is there again when its lease ends.
		return nil
	}, found: []string{"redrive", "redrive and die again"}},
	"redrives without state": {redrive: func(q *brokenQueue, ctx context.Context, r engine.Receipt, m engine.Message) error {
		m.State = nil
		return q.Queue.Redrive(ctx, r, m)
	}, found: []string{"redrive"}},
	"loses a publish": {publish: func(t *brokenTopic, ctx context.Context, ms []engine.Message) error {
		if t.count()%3 == 0 {
			return nil
		}
		return t.Topic.Publish(ctx, ms)
	}, found: []string{"deduplication", "compete"}},
	"loses the end of large batches": {publish: func(t *brokenTopic, ctx context.Context, ms []engine.Message) error {
		return t.Topic.Publish(ctx, ms[:min(len(ms), 10)])
	}, found: []string{"large batch"}},
	"publishes twice": {publish: func(t *brokenTopic, ctx context.Context, ms []engine.Message) error {
		if err := t.Topic.Publish(ctx, ms); err != nil {
			return err
		}
		return t.Topic.Publish(ctx, ms)
	}, found: []string{"fan-out"}},
	"refuses in silence": {publish: func(t *brokenTopic, ctx context.Context, ms []engine.Message) error {
		_ = t.Topic.Publish(ctx, ms)
		return nil
	}, found: []string{"too large", "all or none", "close topic", "odd messages"}},
	"publishes what it can": {config: without(engine.AllOrNone), declared: []engine.Feature{engine.AllOrNone}, found: []string{"all or none", "batch refused in part"}},
	"names the wrong message": {config: without(engine.AllOrNone), publish: func(t *brokenTopic, ctx context.Context, ms []engine.Message) error {
		err := t.Topic.Publish(ctx, ms)
		if p, ok := err.(*engine.PartialError); ok {
			err = &engine.PartialError{Failed: map[int]error{0: p.Failed[1]}}
		}
		return err
	}, found: []string{"batch refused in part"}},
	"reverses batches": {publish: func(t *brokenTopic, ctx context.Context, ms []engine.Message) error {
		reversed := []engine.Message{}
		for i := range ms {
			reversed = append(reversed, ms[len(ms)-1-i])
		}
		return t.Topic.Publish(ctx, reversed)
	}, found: []string{"order, one at a time"}},
	"has no order": {topicSpec: func(s *engine.TopicSpec) { s.Ordering = false }, publish: each(func(m *engine.Message) bool {
		m.OrderingKey = ""
		return true
	}), found: []string{"order, one at a time", "order through leases"}},
	"does not deduplicate": {topicSpec: func(s *engine.TopicSpec) { s.Deduplication = 0 }, publish: each(func(m *engine.Message) bool {
		m.DeduplicationID = ""
		return true
	}), found: []string{"deduplication", "deduplication in a batch", "deduplicate elsewhere"}},
	"deduplicates for ever": {topicSpec: func(s *engine.TopicSpec) { s.Deduplication *= 1000 }, found: []string{"deduplication ends"}},
	"deduplicates by ID": {topicSpec: func(s *engine.TopicSpec) { s.Deduplication = time.Hour }, publish: each(func(m *engine.Message) bool {
		m.DeduplicationID = m.ID
		return true
	}), found: []string{"same ID", "deduplication"}},
	"ignores delays": {publish: each(func(m *engine.Message) bool { m.Delay = 0; return true }), found: []string{"delay of a message"}},
	"delays all of a batch": {publish: func(t *brokenTopic, ctx context.Context, ms []engine.Message) error {
		for i := range ms {
			ms[i].Delay = ms[0].Delay
		}
		return t.Topic.Publish(ctx, ms)
	}},
	"ignores the queue's delay": {spec: func(s *engine.QueueSpec) { s.Delay = 0 }, found: []string{"delay of a queue"}},
	"ignores policies":          {spec: func(s *engine.QueueSpec) { s.FilterPolicy = "" }, found: []string{"filter policy", "filter policy in a batch"}},
	"ignores the capacity":      {spec: func(s *engine.QueueSpec) { s.Capacity = 0 }, found: []string{"bounded", "bounded for all or none"}},
	"ignores the dead capacity": {spec: func(s *engine.QueueSpec) { s.DeadCapacity = 0 }, found: []string{"bounded dead letters"}},
	"folds names": {topicSpec: func(s *engine.TopicSpec) { s.Name = strings.NewReplacer(".", "-", "/", "-", "_", "-").Replace(s.Name) },
		spec: func(s *engine.QueueSpec) { s.Name = "q" }, found: []string{"names"}},
	"shares queues among topics": {topicSpec: func(s *engine.TopicSpec) { s.Name = "topic" }, found: []string{"topics apart"}},
	"drops attributes":           {publish: each(func(m *engine.Message) bool { m.Attributes = nil; return true }), found: []string{"round trip", "filter policy"}},
	"drops empty attributes": {publish: func(t *brokenTopic, ctx context.Context, ms []engine.Message) error {
		kept := []engine.Message{}
		for _, m := range ms {
			attributes := map[string]string{}
			for k, v := range m.Attributes {
				if v != "" {
					attributes[k] = v
				}
			}
			m.Attributes = attributes
			kept = append(kept, m)
		}
		return t.Topic.Publish(ctx, kept)
	}, found: []string{"odd messages"}},
	"makes bodies text":         {publish: each(func(m *engine.Message) bool { m.Body = []byte(strings.ToValidUTF8(string(m.Body), "?")); return true }), found: []string{"odd messages"}},
	"own IDs":                   {publish: each(func(m *engine.Message) bool { m.ID = fmt.Sprintf("%x", m.ID); return true }), found: []string{"fan-out", "round trip"}},
	"drops content types":       {receive: received(func(r *engine.Received) { r.ContentType = "" }), found: []string{"round trip"}},
	"drops times":               {receive: received(func(r *engine.Received) { r.PublishedAt = time.Now() }), found: []string{"round trip", "lease ends"}},
	"drops times to live":       {receive: received(func(r *engine.Received) { r.TimeToLive = 0 }), found: []string{"round trip"}},
	"drops keys":                {receive: received(func(r *engine.Received) { r.OrderingKey = "" }), found: []string{"order after a dead letter"}},
	"counts in flight as ready": {stats: func(s *engine.Stats) { s.Ready, s.InFlight = s.Ready+s.InFlight, 0 }, found: []string{"exact stats"}},
	"ages by the receipt":       {stats: func(s *engine.Stats) { s.OldestAge = min(s.OldestAge, time.Second) }, found: []string{"oldest age"}},
	"lists no closed queues": {list: func(_ *brokenTopic, _ context.Context, infos []engine.QueueInfo) []engine.QueueInfo {
		return slices.DeleteFunc(infos, func(i engine.QueueInfo) bool { return i.Stats.Ready == 4 })
	}, found: []string{"list queues"}},
	"lists without order": {list: func(_ *brokenTopic, _ context.Context, infos []engine.QueueInfo) []engine.QueueInfo {
		slices.Reverse(infos)
		return infos
	}, found: []string{"list queues"}},
	"lists dead-letter queues": {list: func(_ *brokenTopic, _ context.Context, infos []engine.QueueInfo) []engine.QueueInfo {
		for _, i := range infos {
			infos = append(infos, engine.QueueInfo{Name: i.Name + "/dead", Stats: i.Letters})
		}
		return infos
	}, found: []string{"list queues"}},
	"counts no letters in lists": {list: func(_ *brokenTopic, _ context.Context, infos []engine.QueueInfo) []engine.QueueInfo {
		for k := range infos {
			infos[k].Letters = engine.Stats{}
		}
		return infos
	}, found: []string{"list queues"}},
	"negative stats":     {stats: func(s *engine.Stats) { s.Ready-- }, found: []string{"stats"}},
	"purge does nothing": {purge: func(*brokenQueue, context.Context) (int, error) { return 0, nil }, found: []string{"purge", "purge dead letters", "exact stats"}},
	"purges dead letters too": {purge: func(q *brokenQueue, ctx context.Context) (int, error) {
		if q.dead != nil {
			_, _ = q.dead.Queue.Purge(ctx)
		}
		return q.Queue.Purge(ctx)
	}, found: []string{"purge"}},
	"does not count what it purges": {purge: func(q *brokenQueue, ctx context.Context) (int, error) {
		_, err := q.Queue.Purge(ctx)
		return 0, err
	}, found: []string{"purge"}},
	"close empties the queue": {close: func(q *brokenQueue) error {
		_, _ = q.Queue.Purge(context.Background())
		return q.Queue.Close()
	}, found: []string{"closed queue gets messages"}},
	"delete does nothing":        {delete: func(*brokenQueue, context.Context) (int, int, error) { return 2, 1, nil }, found: []string{"delete and open again"}},
	"deletes no letters":         {delete: purgeInstead(false), found: []string{"delete and open again"}},
	"purges instead of deleting": {delete: purgeInstead(true), found: []string{"deleted elsewhere"}},
	"does not count what it deletes": {delete: func(q *brokenQueue, ctx context.Context) (int, int, error) {
		_, _, err := q.Queue.Delete(ctx)
		return 0, 0, err
	}, found: []string{"delete"}},
	"deleting twice fails": {delete: func(q *brokenQueue, ctx context.Context) (int, int, error) {
		n, letters, err := q.Queue.Delete(ctx)
		if err == nil && n+letters == 0 {
			err = fmt.Errorf("queue %q does not exist", q.name)
		}
		return n, letters, err
	}, found: []string{"delete again"}},
	"delete hides its context's end": {delete: func(q *brokenQueue, ctx context.Context) (int, int, error) {
		n, letters, err := q.Queue.Delete(ctx)
		if ctx.Err() != nil {
			err = fmt.Errorf("queue %q: not deleted", q.name)
		}
		return n, letters, err
	}, found: []string{"delete and context"}},
	"close does nothing": {close: func(*brokenQueue) error { return nil }, found: []string{"close queue"}},
	"closing twice fails": {close: func(q *brokenQueue) error {
		if _, err := q.Queue.Stats(context.Background()); err != nil {
			return err
		}
		return q.Queue.Close()
	}, found: []string{"close queue"}},
}

// brokenSettings are those of the table.
func brokenSettings(f *fault) *settings {
	wrap := func(e engine.Engine) engine.Engine { return brokenEngine{e.(*fakeengine.Engine), f} }
	inner := func(e engine.Engine) engine.Engine { return e.(brokenEngine).Engine }
	return settingsOf([]Option{InVirtualTime(), TooLarge(small.MaxBody + 1),
		Sibling(func(t testing.TB, e engine.Engine) engine.Engine { return wrap(sibling(t, inner(e))) }),
		Reopen(func(t testing.TB, e engine.Engine) engine.Engine { return wrap(crash(t, inner(e))) })})
}

func TestEachBrokenRuleIsFound(t *testing.T) {
	for name, f := range faults {
		t.Run(name, func(t *testing.T) {
			if f.config.MaxBody == 0 {
				f.config = small
			}
			found, said := runBroken(t, &kit{suite: "contract", o: brokenSettings(f), checks: contractChecks(),
				make: func(testing.TB) engine.Engine { return brokenEngine{fakeengine.New(f.config), f} }})
			t.Logf("found by %d checks: %q\n%s", len(found), found, said)
			require.NotEmpty(t, found, "no check finds an engine that %s", name)
			for _, want := range f.found {
				require.Contains(t, found, want)
			}
		})
	}
}

// runBroken runs a suite's checks in virtual time and returns those that fail, and what
// the first of them says.
func runBroken(t *testing.T, k *kit) (found []string, said string) {
	for _, c := range k.checks {
		j := &job{kit: k, check: c}
		synctest.Test(t, func(t *testing.T) {
			if e := k.make(t); e == nil || k.applies(c, e.Capabilities()) == "" {
				j.do(t)
			}
		})
		if j.seen != nil && j.seen.Failed() {
			found = append(found, c.name)
			if said == "" {
				said = j.seen.text()
			}
			if !strings.Contains(j.seen.text(), c.rule) {
				t.Errorf("check %q fails without its sentence:\n%s", c.name, j.seen.text())
			}
		}
	}
	return found, said
}
