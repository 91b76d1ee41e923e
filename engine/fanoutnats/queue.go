package fanoutnats

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"sync"
	"time"

	"github.com/gofanout/fanout/engine"
	"github.com/nats-io/nats.go/jetstream"
)

// A queue is a durable pull consumer of the topic's messages, or of its letters. It
// has no goroutine: the server ends leases.
//
// Invariants: each lease is in leases, under its sequence, if and only if it is
// alive; none is added when closed.
type queue struct {
	topic    *topic
	spec     engine.QueueSpec
	token    string // of its name: the consumer's
	stream   jetstream.Stream
	consumer jetstream.Consumer
	dead     *queue        // nil for one that is one
	source   *queue        // of a dead-letter queue, else nil
	ackWait  time.Duration // how long a server hides a delivery
	next     string        // subject of pull requests
	stored   floor         // of the messages for this queue only

	mu     sync.Mutex // guards the fields below
	closed bool
	leases map[uint64]*lease
	purged uint64 // up to this sequence nothing counts any more
	swept  int    // how many were left when those that had ended were removed
	idle   []*pull

	closing chan struct{} // closed by Close
}

var _ engine.Queue = (*queue)(nil)

// OpenQueue makes the queue's two consumers, or finds them. See [engine.Topic].
func (t *topic) OpenQueue(caller context.Context, spec engine.QueueSpec) (engine.Queue, error) {
	if t.closed.Load() {
		return nil, engine.ErrClosed
	}
	if t.denied != nil {
		return nil, t.wrap(caller, fmt.Sprintf("queue %q: open", spec.Name), t.denied)
	}
	ctx, cancel := t.engine.limit(caller)
	defer cancel()
	if spec.Visibility <= 0 {
		spec.Visibility = 30 * time.Second
	}
	q := t.newQueue(spec, t.messages)
	q.dead = t.newQueue(spec, t.letters)
	q.dead.source = q
	// The letters' consumer first: once there is a queue there is a place for its
	// letters.
	for _, each := range []*queue{q.dead, q} {
		if err := each.open(ctx); err != nil {
			err = q.wrap(caller, "open", err)
			return nil, errors.Join(err, q.Close())
		}
	}
	return q, nil
}

func (t *topic) newQueue(spec engine.QueueSpec, stream jetstream.Stream) *queue {
	return &queue{
		topic: t, spec: spec, token: token(spec.Name), stream: stream,
		leases:  map[uint64]*lease{},
		closing: make(chan struct{}),
	}
}

// open makes or finds the consumer.
func (q *queue) open(ctx context.Context) error {
	want := jetstream.ConsumerConfig{
		Durable: q.token, AckPolicy: jetstream.AckExplicitPolicy,
		AckWait: q.spec.Visibility + 2*margin(q.spec.Visibility),
		// Without limits: delayed messages are pending, and a message that is not
		// delivered any more would be in nobody's hands.
		MaxDeliver: -1, MaxAckPending: -1,
		Metadata: map[string]string{metaFormat: format, metaQueue: q.spec.Name, metaVisible: q.spec.Visibility.String()},
	}
	if q.source != nil {
		want.FilterSubjects = []string{q.topic.names.letters(q.token)}
		want.DeliverPolicy = jetstream.DeliverAllPolicy
	} else {
		want.FilterSubjects = []string{q.topic.names.all(), q.topic.names.one(q.token)}
		// From the next message on. DeliverNew says so too, but can't be reset by
		// Purge.
		info, err := q.streamInfo(ctx)
		if err != nil {
			return err
		}
		want.DeliverPolicy = jetstream.DeliverByStartSequencePolicy
		want.OptStartSeq = info.State.LastSeq + 1
	}
	c, err := q.openConsumer(ctx, want)
	if err != nil {
		return fmt.Errorf("consumer %s of %s: %w", q.token, q.streamName(), err)
	}
	q.consumer = c
	q.ackWait = c.CachedInfo().Config.AckWait
	q.next = q.topic.engine.api("CONSUMER.MSG.NEXT." + q.streamName() + "." + q.token)
	return q.sweep(ctx)
}

func (q *queue) openConsumer(ctx context.Context, want jetstream.ConsumerConfig) (jetstream.Consumer, error) {
	find := func(ctx context.Context) (jetstream.Consumer, error) {
		return askFor(ctx, q, "CONSUMER.INFO", func(ctx context.Context) (jetstream.Consumer, error) { return q.stream.Consumer(ctx, q.token) })
	}
	c, err := find(ctx)
	if errors.Is(err, jetstream.ErrConsumerNotFound) {
		c, err = askFor(ctx, q, "CONSUMER.CREATE", func(ctx context.Context) (jetstream.Consumer, error) { return q.stream.CreateConsumer(ctx, want) })
		switch {
		case err == nil:
			return c, q.everywhere(ctx, c)
		case errors.Is(err, jetstream.ErrConsumerExists), code(err) == jetstream.JSErrCodeConsumerAlreadyExists:
			c, err = find(ctx) // made by somebody else meanwhile
		}
	}
	if err != nil {
		return nil, err
	}
	has := c.CachedInfo().Config
	switch {
	case has.Metadata[metaFormat] != format:
		return nil, mismatch("consumer "+q.token, "metadata "+metaFormat, strconv.Quote(has.Metadata[metaFormat]), strconv.Quote(format))
	case has.Metadata[metaQueue] != q.spec.Name:
		return nil, mismatch("consumer "+q.token, "metadata "+metaQueue, strconv.Quote(has.Metadata[metaQueue]), strconv.Quote(q.spec.Name))
	case has.AckWait < want.AckWait:
		// A longer one harms nobody who thinks it is shorter. A shorter one would: it
		// stays long, and the leases are ended here.
		has.AckWait = want.AckWait
		has.Metadata[metaVisible] = want.Metadata[metaVisible]
		return askFor(ctx, q, "CONSUMER.CREATE", func(ctx context.Context) (jetstream.Consumer, error) { return q.stream.UpdateConsumer(ctx, has) })
	}
	return c, nil
}

// everywhere waits until each server that is up and keeps the stream knows the new
// consumer. One that doesn't would not keep a message for it, and might be the one
// that is left.
func (q *queue) everywhere(ctx context.Context, c jetstream.Consumer) error {
	info := c.CachedInfo()
	for {
		behind := false
		if info.Cluster != nil {
			for _, r := range info.Cluster.Replicas {
				behind = behind || !r.Current && !r.Offline
			}
		}
		if !behind {
			return nil
		}
		if !sleep(ctx, again/4) {
			return fmt.Errorf("not all replicas know the consumer: %w", ctx.Err())
		}
		var err error
		if info, err = askFor(ctx, q, "CONSUMER.INFO", c.Info); err != nil {
			return err
		}
	}
}

// DeadLetters returns the queue of the queue's letters. See [engine.Queue].
func (q *queue) DeadLetters() engine.Queue {
	if q.dead == nil {
		return nil
	}
	return q.dead
}

// Stats asks the consumer. See [engine.Queue].
func (q *queue) Stats(caller context.Context) (engine.Stats, error) {
	if q.isClosed() {
		return engine.Stats{}, engine.ErrClosed
	}
	ctx, cancel := q.topic.engine.limit(caller)
	defer cancel()
	info, err := q.consumerInfo(ctx)
	// In a cluster a consumer's leader may not have the stream's last messages yet.
	// Nobody who has published is to hear that there is nothing.
	for since := time.Now(); err == nil && q.behind(info) && time.Since(since) < patience; {
		if !sleep(ctx, again/4) {
			err = ctx.Err()
			break
		}
		info, err = q.consumerInfo(ctx)
	}
	if err != nil {
		return engine.Stats{}, q.wrap(caller, "stats", err)
	}
	return statsOf(info), nil
}

// behind reports whether a consumer that knows of nothing to deliver hasn't seen all
// that this process has stored.
func (q *queue) behind(info *jetstream.ConsumerInfo) bool {
	last := q.stored.Load()
	if q.source == nil {
		last = max(last, q.topic.stored.Load())
	}
	q.mu.Lock()
	seen := max(info.Delivered.Stream, q.purged)
	q.mu.Unlock()
	return info.NumPending == 0 && seen < last
}

// Purge moves the consumer past all that is in the stream, or empties a dead-letter
// queue's subject. See [engine.Queue].
func (q *queue) Purge(caller context.Context) (int, error) {
	if q.isClosed() {
		return 0, engine.ErrClosed
	}
	ctx, cancel := q.topic.engine.limit(caller)
	defer cancel()
	info, err := q.consumerInfo(ctx)
	if err != nil {
		return 0, q.wrap(caller, "purge", err)
	}
	s, err := q.streamInfo(ctx)
	if err != nil {
		return 0, q.wrap(caller, "purge", err)
	}
	last := s.State.LastSeq
	if q.source != nil {
		err = q.purge(ctx, q.stream, q.topic.names.letters(q.token))
	} else {
		_, err = askFor(ctx, q, "CONSUMER.RESET", func(ctx context.Context) (*jetstream.ConsumerResetResponse, error) {
			return q.stream.ResetConsumerToSequence(ctx, q.token, last+1)
		})
	}
	if err != nil {
		return 0, q.wrap(caller, "purge", err)
	}
	q.mu.Lock()
	q.purged = last // some may be on their way
	q.mu.Unlock()
	q.dropLeases()
	if err := q.purge(ctx, q.topic.records, q.records()+">"); err != nil {
		return 0, q.wrap(caller, "purge the records", err)
	}
	return int(info.NumPending) + info.NumAckPending, nil
}

// Close ends what waits, and the subscriptions: the topic's Close waits for both. What is
// leased can be returned still; else it stays so until its lease, or the server's AckWait,
// has passed. See [engine.Queue].
func (q *queue) Close() error {
	q.mu.Lock()
	if q.closed {
		q.mu.Unlock()
		return nil
	}
	q.closed = true
	idle := q.idle
	q.idle = nil
	q.mu.Unlock()

	close(q.closing)
	for _, p := range idle {
		p.end()
	}
	if q.dead != nil {
		return q.dead.Close()
	}
	return nil
}

func (q *queue) isClosed() bool {
	q.mu.Lock()
	defer q.mu.Unlock()
	return q.closed
}

func (q *queue) streamInfo(ctx context.Context) (*jetstream.StreamInfo, error) {
	return ask(ctx, q.topic.engine, "STREAM.INFO."+q.streamName(), func(ctx context.Context) (*jetstream.StreamInfo, error) { return q.stream.Info(ctx) })
}

func (q *queue) consumerInfo(ctx context.Context) (*jetstream.ConsumerInfo, error) {
	return askFor(ctx, q, "CONSUMER.INFO", q.consumer.Info)
}

// askFor asks what is about q's consumer.
func askFor[T any](ctx context.Context, q *queue, what string, f func(context.Context) (T, error)) (T, error) {
	return ask(ctx, q.topic.engine, what+"."+q.streamName()+"."+q.token, f)
}

// purge removes a subject's messages from s.
func (q *queue) purge(ctx context.Context, s jetstream.Stream, subject string) error {
	return do(ctx, q.topic.engine, "STREAM.PURGE."+s.CachedInfo().Config.Name, func(ctx context.Context) error {
		return s.Purge(ctx, jetstream.WithPurgeSubject(subject))
	})
}

func (q *queue) streamName() string { return q.stream.CachedInfo().Config.Name }

// wrap names the queue in an error of a call that was made with ctx.
func (q *queue) wrap(ctx context.Context, what string, err error) error {
	if err == nil {
		return nil
	}
	name := fmt.Sprintf("queue %q", q.spec.Name)
	if q.source != nil {
		name = "dead-letter queue of " + name
	}
	if q.consumer != nil && gone(err) {
		err = errDeleted
	}
	return q.topic.wrap(ctx, name+": "+what, err)
}
