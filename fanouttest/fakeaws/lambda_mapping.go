package fakeaws

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/aws/smithy-go"
)

// A Mapping is an event source mapping: Lambda receives the messages of a queue
// for a function, invokes it with batches of them as [events.SQSEvent], and
// deletes what it has handled. Messages of a batch that failed stay in flight
// until their visibility timeout ends, and then come again. [Queue.Map] makes
// one. Its methods may be called concurrently.
//
// A mapping works as soon as there is a message, at the same instant. It owns a
// goroutine for each batch under way, and none otherwise.
//
// [events.SQSEvent]: https://pkg.go.dev/github.com/aws/aws-lambda-go/events#SQSEvent
type Mapping struct {
	id       string
	queue    *queue
	function *Function
	settings mappingSettings

	// The fields below are guarded by the cloud's lock.
	stopped bool
	running int // batches under way
	open    []delivery
	size    int         // of the open batch's payload, in bytes
	full    bool        // the next message would make it too long
	closes  instant     // when the open batch's window ends
	timer   *time.Timer // runs while a batch is open
}

// mappingSettings are what options of mappings write to.
type mappingSettings struct {
	batchSize   int
	window      time.Duration
	concurrency int
	limited     bool // concurrency was set
	partial     bool
}

// A MappingOption configures an event source mapping.
type MappingOption func(*mappingSettings)

// WithBatchSize sets how many messages a batch can have: 1 to 10, and up to
// 10,000 if the queue is a standard one and there is a batching window. The
// default is 10.
func WithBatchSize(messages int) MappingOption {
	return func(s *mappingSettings) { s.batchSize = messages }
}

// WithBatchingWindow sets how long a batch waits to get full, from its first
// message on, in whole seconds up to 5 minutes. FIFO queues have none. The
// default is not to wait.
func WithBatchingWindow(d time.Duration) MappingOption {
	return func(s *mappingSettings) { s.window = d }
}

// WithMaximumConcurrency sets how many batches there can be under way at once,
// from 2 to 1000. The default is 5, with which Lambda begins; the fake does not
// scale.
func WithMaximumConcurrency(batches int) MappingOption {
	return func(s *mappingSettings) { s.concurrency, s.limited = batches, true }
}

// WithReportBatchItemFailures makes the function's answer count: the messages
// whose IDs are in its batchItemFailures come again, and the others are deleted.
// An answer that names a message that is not in the batch, or that cannot be
// read, has all of them come again. Without this option the answer is ignored.
func WithReportBatchItemFailures() MappingOption {
	return func(s *mappingSettings) { s.partial = true }
}

// The limits and defaults of mappings.
const (
	defaultBatch       = 10
	largestBatch       = 10_000
	longestWindow      = 300 * time.Second
	defaultConcurrency = 5
	leastConcurrency   = 2
	mostConcurrency    = 1000
)

// Map has Lambda invoke a function with the queue's messages, until
// [Mapping.Delete], or until the queue, the function or the fake ends. What
// Lambda refuses is refused with its error, a [smithy.APIError]: a queue that
// does not exist or is in another region, a visibility timeout below the
// function's timeout, a batch that is too large. A visibility timeout of less
// than six times the function's timeout and the window is a warning in the
// test's log: messages may come again while they wait for their turn.
func (q *Queue) Map(f *Function, options ...MappingOption) (*Mapping, error) {
	if f == nil || f.cloud != q.cloud {
		return nil, errors.New("fakeaws: Map: want a function of the same fake")
	}
	m := &Mapping{id: newID(), function: f, settings: mappingSettings{batchSize: defaultBatch, concurrency: defaultConcurrency}}
	for _, o := range options {
		o(&m.settings)
	}
	warning, err := m.startMapping(q)
	if err != nil {
		return nil, err
	}
	if warning != "" {
		q.cloud.log(warning)
	}
	return m, nil
}

// startMapping checks the mapping and starts it.
func (m *Mapping) startMapping(q *Queue) (warning string, err error) {
	c := q.cloud
	c.mu.Lock()
	defer c.mu.Unlock()
	if r := c.regions[q.place]; r != nil {
		m.queue = r.queues[q.name]
	}
	if err := m.checkLocked(q); err != nil {
		return "", err
	}
	visibility, timeout := m.queue.attributes.visibility, m.function.settings.timeout
	if advised := 6*timeout + m.settings.window; visibility < advised {
		warning = fmt.Sprintf("fakeaws: queue %s has a visibility timeout of %v; for function %s with a timeout of %v AWS advises %v at least: six times that, and the batching window",
			q.name, visibility, m.function.name, timeout, advised)
	}
	m.queue.mappings = append(m.queue.mappings, m)
	m.queue.serveLocked(c.clock())
	return warning, nil
}

// refusal is an error of Lambda's.
func refusal(code, format string, args ...any) error {
	return &smithy.GenericAPIError{Code: code, Message: fmt.Sprintf(format, args...), Fault: smithy.FaultClient}
}

// checkLocked returns the error that Lambda has for a mapping.
func (m *Mapping) checkLocked(q *Queue) error {
	const invalid, constraint = "InvalidParameterValueException", "ValidationException"
	s := m.settings
	switch {
	case m.function.deleted || m.function.cloud.ended:
		return refusal("ResourceNotFoundException", "Function not found: %s", m.function.ARN())
	case m.queue == nil:
		return refusal(invalid, "Error occurred while ReceiveMessage. SQS Error Code: AWS.SimpleQueueService.NonExistentQueue. SQS Error Message: The specified queue %s does not exist.", q.ARN())
	case q.place.region != m.function.place.region:
		return refusal(invalid, "The queue %s is in another region than the function %s.", q.ARN(), m.function.ARN())
	case s.batchSize < 1 || s.batchSize > largestBatch:
		return refusal(constraint, "Value '%d' at 'batchSize' failed to satisfy constraint: Member must be between 1 and %d", s.batchSize, largestBatch)
	case s.window < 0 || s.window > longestWindow || s.window%time.Second != 0:
		return refusal(constraint, "Value '%v' at 'maximumBatchingWindowInSeconds' failed to satisfy constraint: Member must be whole seconds between 0 and 300", s.window)
	case s.limited && (s.concurrency < leastConcurrency || s.concurrency > mostConcurrency):
		return refusal(constraint, "Value '%d' at 'scalingConfig.maximumConcurrency' failed to satisfy constraint: Member must be between %d and %d", s.concurrency, leastConcurrency, mostConcurrency)
	case m.queue.fifo && s.window > 0:
		return refusal(invalid, "Batching window is not supported for FIFO queues")
	case m.queue.fifo && s.batchSize > mostBatch:
		return refusal(invalid, "The batch size of FIFO queues must be between 1 and %d", mostBatch)
	case s.batchSize > mostBatch && s.window == 0:
		return refusal(invalid, "Maximum batch window in seconds must be greater than 0 if maximum batch size is greater than %d", mostBatch)
	case m.queue.attributes.visibility < m.function.settings.timeout:
		return refusal(invalid, "Queue visibility timeout: %d seconds is less than Function timeout: %d seconds",
			m.queue.attributes.visibility/time.Second, m.function.settings.timeout/time.Second)
	}
	for _, o := range m.queue.mappings {
		if o.function == m.function {
			return refusal("ResourceConflictException", "An event source mapping with SQS arn (\"%s\") and function (\"%s\") already exists. Please update or delete the existing mapping with UUID %s", q.ARN(), m.function.name, o.id)
		}
	}
	return nil
}

// ID returns the mapping's UUID.
func (m *Mapping) ID() string { return m.id }

// Delete ends the mapping. Batches under way are handled and settled; those that
// were not full yet come again after the visibility timeout. Deleting it again
// does nothing.
func (m *Mapping) Delete() {
	m.queue.cloud.mu.Lock()
	defer m.queue.cloud.mu.Unlock()
	m.stopLocked()
}

func (m *Mapping) stopLocked() {
	m.stopped = true
	m.queue.mappings = slices.DeleteFunc(m.queue.mappings, func(o *Mapping) bool { return o == m })
	m.clearLocked()
	m.queue.armLocked(m.queue.cloud.clock())
}

// clearLocked makes the open batch empty.
func (m *Mapping) clearLocked() {
	m.open, m.size, m.full = nil, 0, false
	if m.timer != nil {
		m.timer.Stop()
		m.timer = nil
	}
}

// pumpLocked receives what there is, and starts the batches that are full or
// have waited for long enough.
func (m *Mapping) pumpLocked(now instant) {
	for !m.stopped && m.running < m.settings.concurrency {
		m.receiveLocked(now)
		switch {
		case len(m.open) == 0:
			m.clearLocked()
			return
		case !m.full && len(m.open) < m.settings.batchSize && now < m.closes:
			if m.timer == nil {
				m.timer = time.AfterFunc(m.closes-now, m.queue.serve)
			}
			return
		}
		m.startLocked()
	}
}

// receiveLocked fills the open batch, which is not full: pumpLocked starts those
// that are. It drops what has become visible again meanwhile.
func (m *Mapping) receiveLocked(now instant) {
	q := m.queue
	m.open = slices.DeleteFunc(m.open, func(d delivery) bool {
		known := q.byNumber[d.number]
		return known == nil || known.stamp != d.stamp || known.state != inFlight
	})
	if len(m.open) == 0 {
		m.closes = now + m.settings.window
		m.size, m.full = len(`{"Records":[]}`), false
	}
	// A message that would be visible again at once could be received without
	// end, at one instant.
	visibility := max(q.attributes.visibility, time.Second)
	m.open = append(m.open, q.takeLocked(receive{most: m.settings.batchSize - len(m.open), visibility: visibility, fits: m.fits}, now)...)
}

// fits says whether a message that will be received has room in the open batch,
// and counts it in if so.
func (m *Mapping) fits(msg *message) bool {
	text, err := encodeJSON(m.recordOf(&delivery{message: *msg, handle: m.queue.handleOf(msg)}))
	size := m.size + len(text) + 32 // a comma, and what the receive will add
	if err == nil && size > mostPayload {
		m.full = true
		return false
	}
	m.size = size
	return true
}

// A batch is one invocation of the function for a queue.
type batch struct {
	mapping   *Mapping
	messages  []delivery
	requestID string
	payload   []byte
	expires   instant       // when the first message becomes visible again
	turn      chan struct{} // closed when there is room for its run; nil if there was
}

// startLocked starts the open batch.
func (m *Mapping) startLocked() {
	f := m.function
	b := &batch{mapping: m, messages: m.open, requestID: newID(), expires: never}
	event := sqsEvent{}
	for k := range b.messages {
		event.Records = append(event.Records, m.recordOf(&b.messages[k]))
		b.expires = min(b.expires, b.messages[k].due)
	}
	b.payload, _ = encodeJSON(event) // strings do not fail
	m.clearLocked()
	m.running++
	if !f.enterLocked() {
		b.turn = make(chan struct{})
		f.waiting = append(f.waiting, b.turn)
	}
	f.cloud.laterLocked(0, b.run)
}

// run invokes the function with the batch, and settles its messages.
func (b *batch) run(context.Context) {
	f := b.mapping.function
	if !b.await() {
		b.settle(nil, fmt.Sprintf("function %s was throttled", f.name))
		return
	}
	out := f.runNow(b.requestID, b.mapping.queue.arn, b.payload)
	switch {
	case out.closed:
	case out.fault != nil:
		b.settle(nil, fmt.Sprintf("function %s failed", f.name))
	default:
		b.settle(b.handled(out.response))
	}
}

// await waits until there is room for the batch's run, until its messages become
// visible again, or until the fake ends. It says whether there is room.
func (b *batch) await() bool {
	f := b.mapping.function
	c := f.cloud
	if b.turn == nil {
		return true
	}
	timer := time.NewTimer(b.expires - c.clock())
	defer timer.Stop()
	select {
	case <-b.turn:
	case <-timer.C:
	case <-c.closed:
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if k := slices.Index(f.waiting, b.turn); k >= 0 {
		f.waiting = slices.Delete(f.waiting, k, k+1)
		return false
	}
	if c.clock() >= b.expires {
		f.leaveLocked()
		return false
	}
	return true
}

// handled returns the messages that the function's answer says are handled, and
// why the others are not.
func (b *batch) handled(response []byte) (handled []delivery, why string) {
	m := b.mapping
	failed, err := itemFailures(response)
	if !m.settings.partial {
		if err == nil && len(failed) > 0 {
			why = fmt.Sprintf("function %s answered with %d batchItemFailures, which are ignored and deleted without WithReportBatchItemFailures", m.function.name, len(failed))
		}
		return b.messages, why
	}
	known := map[string]bool{}
	for _, d := range b.messages {
		known[d.id] = true
	}
	wrong := map[string]bool{}
	for _, id := range failed {
		if !known[id] {
			err = fmt.Errorf("batchItemFailures names %q, which is not in the batch", id)
		}
		wrong[id] = true
	}
	if err != nil {
		return nil, fmt.Sprintf("function %s answered what Lambda takes for a failure of the whole batch: %v", m.function.name, err)
	}
	behind := map[string]string{} // by group, its first message that failed
	for _, d := range b.messages {
		if !wrong[d.id] {
			if first := behind[d.groupID]; first != "" && m.queue.fifo {
				why = fmt.Sprintf("function %s handled message %s of group %s after message %s of the same group failed: the order is lost; report those behind it, too", m.function.name, d.id, d.groupID, first)
			}
			handled = append(handled, d)
			continue
		}
		if behind[d.groupID] == "" {
			behind[d.groupID] = d.id
		}
	}
	return handled, why
}

// itemFailures reads the IDs of the messages that a function could not handle.
func itemFailures(response []byte) (ids []string, err error) {
	if len(response) == 0 || string(response) == `""` {
		return nil, nil
	}
	var answer map[string]json.RawMessage // names count as they are written
	if err := json.Unmarshal(response, &answer); err != nil {
		return nil, fmt.Errorf("it is no JSON object: %s", shortened(response))
	}
	var items []map[string]json.RawMessage
	if text := answer["batchItemFailures"]; text != nil {
		if err := json.Unmarshal(text, &items); err != nil {
			return nil, fmt.Errorf("batchItemFailures is no list of objects: %s", shortened(text))
		}
	}
	for _, item := range items {
		var id string
		if err := json.Unmarshal(item["itemIdentifier"], &id); err != nil || id == "" {
			return nil, errors.New("an element of batchItemFailures has no itemIdentifier")
		}
		ids = append(ids, id)
	}
	return ids, nil
}

func shortened(text []byte) string {
	if len(text) > 100 {
		return string(text[:100]) + ".."
	}
	return string(text)
}

// settle deletes the messages that were handled. The others come again when
// their visibility timeout ends.
func (b *batch) settle(handled []delivery, why string) {
	m := b.mapping
	q := m.queue
	c := q.cloud
	var lines []string
	if why != "" {
		lines = append(lines, "fakeaws: queue "+q.name+": "+why)
	}
	c.mu.Lock()
	now := c.clock()
	m.running--
	if !q.stopped {
		q.advanceLocked(now)
		for _, d := range handled {
			if err := q.deleteLocked(&d.handle); err != nil {
				lines = append(lines, fmt.Sprintf("fakeaws: queue %s: message %s was handled, and comes again: %v", q.name, d.id, err))
			}
		}
		q.serveLocked(now)
	}
	c.mu.Unlock()
	c.log(lines...)
}
