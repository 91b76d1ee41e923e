package fanoutnats

import (
	"encoding/json"
	"fmt"
	"strings"
	"sync"
	"time"

	"github.com/nats-io/nats.go"
)

const (
	// pullExpires is how long a server keeps a pull request that it has no messages
	// for; then it says so.
	pullExpires = 2 * time.Second
	// heartbeat is how often the server says meanwhile that it has the request. If it
	// says nothing for silence, the request is lost with it.
	heartbeat = 700 * time.Millisecond
	silence   = 1500 * time.Millisecond
)

// lateMost is how long the answer is awaited to a request that was taken for lost: while
// the topic's Close waits.
const lateMost = lingers - rest

// held is how long a message that came when nobody waited for it is kept for the
// next Receive, before it is given back for anybody.
const held = time.Second

// maxPull is how many bytes a pull request asks for, one message more or less. A
// server cuts off a client that has 64 MiB to read.
const maxPull = 16 << 20

// A pull is the inbox of one Receive at a time, and the request that it has sent.
// The adapter asks for itself, and not through package jetstream, because of the
// messages that come when their Receive has gone: there they would be dropped, and
// hidden until AckWait has passed. In a cluster that can't be prevented: it takes a
// while until all servers know that an inbox is gone. So it stays, with the request
// that is open, for the next Receive.
type pull struct {
	queue *queue
	inbox string
	sub   *nats.Subscription

	mu       sync.Mutex // guards the fields below; taken after queue.mu if both are
	msgs     []*nats.Msg
	first    time.Time   // when the first of msgs came
	heard    time.Time   // when the request was sent, or the server's last heartbeat came
	want     int         // how many messages it can still bring
	open     bool        // the server has it, as far as is known
	bringing bool        // it has ended with messages, which may come after its end
	err      error       // why it ended, if it is a failure
	taken    bool        // by a Receive
	gone     bool        // nobody waits any more, and never will
	until    time.Time   // a server may send messages until then, for this request or for those before
	mixed    bool        // those before may still bring messages, too: want and the end of one say nothing of until
	draining bool        // the inbox is about to be gone; set if gone
	timer    *time.Timer // runs giveBack; nil if not taken and without messages

	news chan struct{} // has one if there is something new; sent by arrived
}

// newPull subscribes to an inbox. It is taken.
func (q *queue) newPull() (*pull, error) {
	p := &pull{queue: q, inbox: q.topic.engine.nc.NewInbox(), taken: true, news: make(chan struct{}, 1)}
	var err error
	if p.sub, err = q.topic.engine.nc.Subscribe(p.inbox, p.arrived); err != nil {
		return nil, err
	}
	// What was asked for is taken, or it would stay away until AckWait has passed.
	return p, p.sub.SetPendingLimits(-1, -1)
}

// promising says how soon a message is to be expected: 2 if there is one, 1 if
// there is a request, 0 if there is nothing.
func (p *pull) promising() int {
	p.mu.Lock()
	defer p.mu.Unlock()
	switch {
	case len(p.msgs) > 0:
		return 2
	case p.open:
		return 1
	}
	return 0
}

// take gives the pull to a Receive.
func (p *pull) take() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.taken = true
	if p.timer != nil {
		p.timer.Stop()
		p.timer = nil
	}
}

// free is take's opposite.
func (p *pull) free() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.taken = false
	p.keepLocked()
}

// keepLocked keeps messages that nobody has taken for a while.
func (p *pull) keepLocked() {
	if !p.taken && len(p.msgs) > 0 && p.timer == nil {
		p.timer = time.AfterFunc(held, p.giveBack)
	}
}

// giveBack gives back the messages that nobody has taken.
//
// Started by keepLocked, held later; ends when the server has been told; joined by the
// topic's Close.
func (p *pull) giveBack() {
	if !p.queue.enter() {
		return
	}
	defer p.queue.topic.under.end()
	p.mu.Lock()
	if p.taken {
		p.mu.Unlock()
		return
	}
	p.timer = nil
	msgs := p.msgs
	p.msgs = nil
	p.mu.Unlock()
	p.queue.giveBack(0, msgs...)
}

// request asks the server for up to most messages, if there is neither a message nor
// a request yet: those that it has now, or the first that it gets.
func (p *pull) request(most int) error {
	p.mu.Lock()
	if len(p.msgs) > 0 || p.open {
		p.mu.Unlock()
		return nil
	}
	now := time.Now()
	p.want, p.open, p.bringing, p.err, p.heard = most, true, false, nil, now
	p.mixed = now.Before(p.until)
	p.mayComeLocked(now.Add(pullExpires + rest))
	p.mu.Unlock()
	ask, err := json.Marshal(struct {
		Batch    int           `json:"batch"`
		MaxBytes int64         `json:"max_bytes"`
		Expires  time.Duration `json:"expires"`
		NoWait   bool          `json:"no_wait"`
		Beat     time.Duration `json:"idle_heartbeat"`
	}{most, maxPull + p.queue.topic.engine.nc.MaxPayload(), pullExpires, true, heartbeat})
	if err != nil {
		return err
	}
	return p.queue.topic.engine.nc.PublishRequest(p.queue.next, p.inbox, ask)
}

// arrived takes what comes to the inbox. The client's library calls it, in the
// goroutine of the subscription.
func (p *pull) arrived(m *nats.Msg) {
	p.mu.Lock()
	message := m.Reply != ""
	switch {
	case p.gone:
		if message {
			p.broughtLocked()
		} else {
			p.endLocked(m.Header.Get("Status"), m.Header.Get("Description"))
		}
		over := !p.mayLocked()
		p.mu.Unlock()
		if message {
			p.queue.giveBack(0, m)
		}
		if over {
			p.drain()
		}
		return
	case message:
		if len(p.msgs) == 0 {
			p.first = time.Now()
		}
		p.msgs = append(p.msgs, m)
		p.broughtLocked()
		p.keepLocked()
	default:
		p.endLocked(m.Header.Get("Status"), m.Header.Get("Description"))
	}
	p.mu.Unlock()
	select {
	case p.news <- struct{}{}:
	default: // there is one already
	}
}

// broughtLocked counts a message of the request.
func (p *pull) broughtLocked() {
	p.want--
	p.open = p.open && p.want > 0
	p.bringing = p.bringing && p.want > 0
	if p.want <= 0 && !p.mixed {
		p.until = time.Time{} // all have come
	}
}

// mayComeLocked notes that a server may send messages until then.
func (p *pull) mayComeLocked(until time.Time) {
	if until.After(p.until) {
		p.until = until
	}
}

// mayLocked reports whether a server may still send messages.
func (p *pull) mayLocked() bool { return time.Now().Before(p.until) }

// endLocked understands the end of a request, or that it goes on.
func (p *pull) endLocked(status, text string) {
	if status == "100" { // a heartbeat
		p.heard = time.Now()
		p.mayComeLocked(p.heard.Add(silence)) // longer, if the server got the request late
		return
	}
	p.open = false
	// In a cluster any end may overtake messages, which wait until replicas have them.
	if late := time.Now().Add(rest); !p.mixed && late.Before(p.until) {
		p.until = late
	}
	switch {
	case status == "404":
		// "No more messages": said only after the first. On a consumer with replicas
		// it overtakes them.
		p.bringing = true
	case status == "408": // expired
	case status == "503":
		p.err = nats.ErrNoResponders
		if !p.mixed {
			p.until = time.Time{} // nobody has it
		}
	case status == "409" && strings.EqualFold(text, "batch completed"):
		// It may overtake the messages, too.
		p.bringing = p.want > 0
	case status == "409" && passing(text): // it is asked again
	case status == "409" && strings.EqualFold(text, "consumer deleted"):
		p.err = errDeleted
	default:
		p.err = fmt.Errorf("the server refuses a pull request: %s %s", status, text)
	}
}

// passing reports whether a conflict goes away by itself.
func passing(text string) bool {
	for _, s := range []string{"leadership change", "server shutdown", "exceeded maxwaiting", "exceeds maxbytes"} {
		if strings.Contains(strings.ToLower(text), s) {
			return true
		}
	}
	return false
}

// look says how long to wait for news: not at all if that is 0. Then some says
// whether there are messages, and if there are none, err may say why.
func (p *pull) look() (some bool, wait time.Duration, err error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	some = len(p.msgs) > 0
	switch {
	case some && p.open, !some && p.bringing:
		return some, rest, nil
	case some:
		return true, 0, nil
	case p.open:
		return false, max(time.Until(p.heard)+silence, time.Millisecond), nil
	default:
		return false, 0, p.err
	}
}

// refuse ends a request that the server has refused.
func (p *pull) refuse(err error) {
	p.mu.Lock()
	p.open, p.bringing, p.err = false, false, err
	p.mu.Unlock()
	select {
	case p.news <- struct{}{}:
	default: // there is one already
	}
}

// lose forgets a request that the server says nothing of. It may have it still, or get it
// late, and answer it then: the inbox stays for that.
func (p *pull) lose() {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.open {
		p.mayComeLocked(time.Now().Add(lateMost))
	}
	p.open, p.bringing = false, false
}

// messages takes up to most of the messages that have come, and says when the first
// did.
func (p *pull) messages(most int) ([]*nats.Msg, time.Time) {
	p.mu.Lock()
	defer p.mu.Unlock()
	msgs := p.msgs
	p.msgs = nil
	if len(msgs) > most {
		msgs, p.msgs = msgs[:most:most], msgs[most:]
	}
	return msgs, p.first
}

// end gives up the inbox, for good. What still comes is given back. With one server it is
// gone at once. In a cluster other servers know that later, and what they send meanwhile
// would be lost, and hidden until AckWait has passed: there it stays as long as a server may
// answer a request, one that was taken for lost and one that has ended included.
func (p *pull) end() {
	p.take()
	p.queue.topic.under.begin()
	alone := p.queue.topic.engine.alone()
	p.mu.Lock()
	p.gone = true
	msgs := p.msgs
	p.msgs = nil
	wait := !alone && p.mayLocked()
	if wait {
		p.timer = time.AfterFunc(time.Until(p.until), p.drainInTime)
	}
	p.mu.Unlock()
	p.queue.giveBack(0, msgs...)
	if !wait {
		p.drain()
	}
}

// drainInTime drains the inbox, or waits again if more may come by now. Its timer runs it.
func (p *pull) drainInTime() {
	p.mu.Lock()
	if wait := time.Until(p.until); wait > 0 && !p.draining {
		p.timer.Reset(wait)
		p.mu.Unlock()
		return
	}
	p.mu.Unlock()
	p.drain()
}

// drain removes the inbox, once what has come was given back.
func (p *pull) drain() {
	p.mu.Lock()
	if p.draining {
		p.mu.Unlock()
		return
	}
	p.draining = true
	if p.timer != nil {
		p.timer.Stop()
		p.timer = nil
	}
	p.mu.Unlock()
	var once sync.Once
	p.sub.SetClosedHandler(func(string) { once.Do(p.queue.topic.under.end) })
	if p.sub.Drain() != nil { // the connection is closed, and it is gone with it
		once.Do(p.queue.topic.under.end)
	}
}
