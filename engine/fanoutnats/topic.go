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

// A topic is three streams. It owns no goroutine and nothing that has to be
// closed: its queues do.
type topic struct {
	engine *Engine
	spec   engine.TopicSpec
	names  names

	// From openStreams on.
	messages, letters, records jetstream.Stream

	stored  floor // of the messages for all queues
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
	t.messages, err = t.openStream(ctx, messages)
	return err
}

// openStream makes a stream or finds it, and compares.
func (t *topic) openStream(ctx context.Context, want jetstream.StreamConfig) (jetstream.Stream, error) {
	js := t.engine.js
	find := func(ctx context.Context) (jetstream.Stream, error) { return js.Stream(ctx, want.Name) }
	s, err := ask(ctx, find)
	if errors.Is(err, jetstream.ErrStreamNotFound) {
		s, err = ask(ctx, func(ctx context.Context) (jetstream.Stream, error) { return js.CreateStream(ctx, want) })
		if code(err) == jetstream.JSErrCodeStreamNameInUse {
			s, err = ask(ctx, find) // made by somebody else meanwhile
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
	case t.engine.settings.replicasSet && has.Replicas != want.Replicas:
		return nil, mismatch(what, "replicas", has.Replicas, want.Replicas)
	case want.AllowAtomicPublish && !has.AllowAtomicPublish:
		return nil, fmt.Errorf("stream %s: no atomic batch publish; the servers must be 2.14 or newer", want.Name)
	}
	return t.widen(ctx, s, want)
}

// widen gives the stream the deduplication window that is asked for, if it has none
// or a shorter one. A longer one is another process's promise, and is refused.
func (t *topic) widen(ctx context.Context, s jetstream.Stream, want jetstream.StreamConfig) (jetstream.Stream, error) {
	has := s.CachedInfo().Config
	asked := want.Metadata[metaDedup]
	if asked == "" || has.Metadata[metaDedup] == asked {
		return s, nil
	}
	if has.Metadata[metaDedup] != "" && has.Duplicates > want.Duplicates {
		return nil, mismatch("stream "+want.Name, "deduplication window", has.Duplicates, want.Duplicates)
	}
	has.Duplicates = want.Duplicates
	has.Metadata[metaDedup] = asked
	s, err := ask(ctx, func(ctx context.Context) (jetstream.Stream, error) { return t.engine.js.UpdateStream(ctx, has) })
	if err != nil {
		return nil, fmt.Errorf("stream %s: deduplication window: %w", want.Name, explain(err))
	}
	return s, nil
}

// Close refuses what comes after it; the queues are closed already.
func (t *topic) Close() error {
	t.closed.Store(true)
	return nil
}

// wrap names the topic in an error of a call that was made with ctx.
func (t *topic) wrap(ctx context.Context, what string, err error) error {
	if err == nil {
		return nil
	}
	return fmt.Errorf("fanoutnats: topic %q: %s: %w", t.spec.Name, what, t.engine.late(ctx, explain(err)))
}
