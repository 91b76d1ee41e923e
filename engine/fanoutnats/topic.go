package fanoutnats

import (
	"context"
	"errors"
	"fmt"
	"sync/atomic"
	"time"

	"github.com/gofanout/fanout/engine"
	"github.com/nats-io/nats.go/jetstream"
)

// format is the version of how things are kept, in the metadata of each stream.
const (
	format      = "1"
	metaFormat  = "fanout.format"
	metaTopic   = "fanout.topic"
	metaQueue   = "fanout.queue"
	metaDedup   = "fanout.deduplication"
	metaVisible = "fanout.visibility"
)

// batches is how many batches one topic sends at a time. A server takes 50 for a
// stream, from all its clients together.
const batches = 8

// repeats is for how long a publish that is not answered is repeated: in the stream's
// deduplication window, which is that long unless the user wants another one. A server
// keeps what it needs for that in memory, for each message of the window.
const repeats = 20 * time.Second

// A topic is three streams. It owns no goroutine.
type topic struct {
	engine *Engine
	spec   engine.TopicSpec
	names  names

	// From openStreams on.
	messages, letters, records jetstream.Stream

	denied error         // by the server, to ask for the streams: the client may only publish
	window time.Duration // in which the messages' stream drops duplicates; 0 if it isn't known

	stored  floor    // of the messages for all queues
	under   underway // of its queues
	closed  atomic.Bool
	sending chan struct{} // one in it for each batch that is being sent
}

var _ engine.Topic = (*topic)(nil)

func newTopic(e *Engine, spec engine.TopicSpec) *topic {
	return &topic{
		engine: e, spec: spec, names: newNames(e.settings.prefix, spec.Name),
		sending: make(chan struct{}, batches),
	}
}

// openStreams makes the streams that are missing. What refers to others comes last,
// so that whoever finds the messages' stream finds the others.
func (t *topic) openStreams(ctx context.Context) (err error) {
	if t.spec.Ordering {
		return fmt.Errorf("ordering keys are not kept: %s", t.engine.Capabilities()[engine.Ordering].Note)
	}
	s := t.engine.settings
	base := jetstream.StreamConfig{
		Replicas: s.replicas, Storage: s.storage(), MaxMsgs: -1, MaxBytes: -1,
		Metadata: map[string]string{metaFormat: format, metaTopic: t.spec.Name},
	}
	records := base
	records.Name, records.Subjects = t.names.state, []string{t.names.root + ".state.>"}
	records.Description = "fanout: bookkeeping of messages that are being retried"
	records.MaxMsgsPerSubject = 1
	// Records are read from the leader, or an old one might be.
	records.AllowDirect = false

	letters := base
	letters.Name, letters.Subjects = t.names.dead, []string{t.names.letters("*")}
	letters.Description = "fanout: dead letters"
	letters.Retention = jetstream.WorkQueuePolicy

	messages := base
	messages.Name, messages.Subjects = t.names.messages, []string{t.names.all(), t.names.one("*")}
	messages.Description = "fanout: messages"
	messages.Retention = jetstream.InterestPolicy
	messages.Discard = jetstream.DiscardNew
	messages.AllowAtomicPublish = true
	if s.maxMessages > 0 {
		messages.MaxMsgs = s.maxMessages
	}
	if s.maxBytes > 0 {
		messages.MaxBytes = s.maxBytes
	}
	messages.Duplicates = repeats
	if d := t.spec.Deduplication; d > 0 {
		messages.Duplicates = max(d, 100*time.Millisecond) // a server takes no less
		messages.Metadata = map[string]string{metaFormat: format, metaTopic: t.spec.Name, metaDedup: d.String()}
	}

	if t.records, err = t.openStream(ctx, records); err != nil {
		return err
	}
	if t.letters, err = t.openStream(ctx, letters); err != nil {
		return err
	}
	if t.messages, err = t.openStream(ctx, messages); err != nil {
		return err
	}
	t.window = t.messages.CachedInfo().Config.Duplicates
	return nil
}

// openStream makes a stream or finds it, and compares.
func (t *topic) openStream(ctx context.Context, want jetstream.StreamConfig) (jetstream.Stream, error) {
	js := t.engine.js
	find := func(ctx context.Context) (jetstream.Stream, error) {
		return ask(ctx, t.engine, "STREAM.INFO."+want.Name, func(ctx context.Context) (jetstream.Stream, error) { return js.Stream(ctx, want.Name) })
	}
	s, err := find(ctx)
	if errors.Is(err, jetstream.ErrStreamNotFound) {
		s, err = ask(ctx, t.engine, "STREAM.CREATE."+want.Name, func(ctx context.Context) (jetstream.Stream, error) { return js.CreateStream(ctx, want) })
		if code(err) == jetstream.JSErrCodeStreamNameInUse {
			s, err = find(ctx) // made by somebody else meanwhile
		}
	}
	if err != nil {
		return nil, fmt.Errorf("stream %s: %w", want.Name, explain(err))
	}
	has := s.CachedInfo().Config
	what := "stream " + want.Name
	switch {
	case has.Metadata[metaFormat] != format:
		return nil, mismatch(what, "metadata "+metaFormat, fmt.Sprintf("%q", has.Metadata[metaFormat]), fmt.Sprintf("%q", format))
	case has.Metadata[metaTopic] != t.spec.Name:
		return nil, mismatch(what, "metadata "+metaTopic, fmt.Sprintf("%q", has.Metadata[metaTopic]), fmt.Sprintf("%q", t.spec.Name))
	case has.Retention != want.Retention:
		return nil, mismatch(what, "retention", has.Retention, want.Retention)
	case has.Storage != want.Storage:
		return nil, mismatch(what, "storage", has.Storage, want.Storage)
	case has.Discard != want.Discard:
		return nil, mismatch(what, "discard policy", has.Discard, want.Discard)
	case t.engine.settings.replicasSet && has.Replicas != want.Replicas:
		return nil, mismatch(what, "replicas", has.Replicas, want.Replicas)
	case want.AllowAtomicPublish && !has.AllowAtomicPublish:
		return nil, fmt.Errorf("stream %s: no atomic batch publish; the servers must be 2.14 or newer", want.Name)
	}
	return t.widen(ctx, s, want)
}

// widen gives the stream the deduplication window that is asked for, if it has none
// or a shorter one, and the limits, if it has lower ones. A longer window and higher
// limits are other processes' promises, and are refused.
func (t *topic) widen(ctx context.Context, s jetstream.Stream, want jetstream.StreamConfig) (jetstream.Stream, error) {
	has := s.CachedInfo().Config
	what, changed := "stream "+want.Name, false
	if asked := want.Metadata[metaDedup]; asked != "" && has.Metadata[metaDedup] != asked {
		if has.Metadata[metaDedup] != "" && has.Duplicates > want.Duplicates {
			return nil, mismatch(what, "deduplication window", has.Duplicates, want.Duplicates)
		}
		has.Duplicates, changed = want.Duplicates, true
		has.Metadata[metaDedup] = asked
	}
	for _, limit := range []struct {
		name string
		has  *int64
		want int64
	}{{"maximum of messages", &has.MaxMsgs, want.MaxMsgs}, {"maximum of bytes", &has.MaxBytes, want.MaxBytes}} {
		switch {
		case limit.want <= 0 || *limit.has == limit.want:
		case *limit.has <= 0:
			return nil, mismatch(what, limit.name, "unlimited", limit.want)
		case *limit.has > limit.want:
			return nil, mismatch(what, limit.name, *limit.has, limit.want)
		default:
			*limit.has, changed = limit.want, true
		}
	}
	if !changed {
		return s, nil
	}
	s, err := ask(ctx, t.engine, "STREAM.UPDATE."+want.Name, func(ctx context.Context) (jetstream.Stream, error) {
		return t.engine.js.UpdateStream(ctx, has)
	})
	if err != nil {
		return nil, fmt.Errorf("stream %s: update: %w", want.Name, explain(err))
	}
	return s, nil
}

// lingers is how long Close waits, at most, for what is under way.
const lingers = 5 * time.Second

// enter counts what is under way in a queue, for Close to wait for, unless Close has begun.
func (t *topic) enter() bool {
	t.under.begin()
	if t.closed.Load() {
		t.under.end()
		return false
	}
	return true
}

// Close refuses what comes after it, and waits until no server can answer a request of the
// queues any more, and what they got has been given back. It reports what has not ended by
// then: what that brings is hidden until AckWait has passed. See [engine.Topic].
func (t *topic) Close() error {
	t.closed.Store(true)
	began := time.Now()
	left := t.under.wait(lingers)
	ctx, cancel := context.WithTimeout(context.Background(), max(lingers-time.Since(began), time.Millisecond))
	defer cancel()
	// What is given back is sent and not answered. If this fails the connection is gone.
	_ = t.engine.nc.FlushWithContext(ctx)
	if left > 0 {
		return fmt.Errorf("fanoutnats: topic %q: close: %d requests have not ended after %v: messages that they bring come again when their visibility timeouts have passed",
			t.spec.Name, left, lingers)
	}
	return nil
}

// wrap names the topic in an error of a call that was made with ctx.
func (t *topic) wrap(ctx context.Context, what string, err error) error {
	if err == nil {
		return nil
	}
	return fmt.Errorf("fanoutnats: topic %q: %s: %w", t.spec.Name, what, t.engine.late(ctx, explain(err)))
}
