package fanoutnats

import (
	"context"
	"errors"
	"strconv"
	"strings"
	"time"

	"github.com/gofanout/fanout/engine"
	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
)

// A record is what Return was given for one message, and how many of its deliveries
// nobody received, in the stream of records under the message's own subject, of
// which the stream keeps one. It goes when the message is settled. If a crash comes between, it stays until sweep: its
// message never comes again, nor does its number.

// records is the prefix of the subjects of the queue's records.
func (q *queue) records() string { return q.topic.names.records(q.token, q.source != nil) }

func (q *queue) recordOf(sequence uint64) string {
	return q.records() + strconv.FormatUint(sequence, 10)
}

// remember writes l's record.
func (q *queue) remember(ctx context.Context, l *lease, wait time.Duration, state []byte) error {
	msg, err := q.recorded(l, wait, state)
	if err != nil {
		return err
	}
	_, err = q.topic.engine.storeAgain(ctx, msg)
	return err
}

// recorded makes l's record.
func (q *queue) recorded(l *lease, wait time.Duration, state []byte) (*nats.Msg, error) {
	msg := &nats.Msg{Subject: q.recordOf(l.sequence), Data: state, Header: nats.Header{
		headerWait:      []string{strconv.FormatInt(int64(max(wait, 0)), 10)},
		headerUncounted: []string{strconv.FormatUint(l.uncounted, 10)},
	}}
	return msg, fits(msg, q.topic.engine.nc.MaxPayload(), 0)
}

// note says by a record that the first delivery of a message with a delay counts: it
// was due then. Nothing is waited for. If it gets lost, so does the attempt of a
// process that dies with it.
func (q *queue) note(l *lease, r engine.Received) {
	msg, err := q.recorded(l, 0, r.State)
	if err == nil && q.topic.engine.nc.PublishMsg(msg) == nil {
		l.noted = true
	}
}

// uncount has the delivery of l not counted: it was to nobody. If that fails it
// counts, as that to a process that is gone does.
func (q *queue) uncount(ctx context.Context, l *lease, r engine.Received, wait time.Duration) {
	l.uncounted++
	_ = q.remember(ctx, l, wait, r.State)
}

// recall reads the record of a message into l and r, and says when the message was
// to come again. Without a record it does nothing.
func (q *queue) recall(ctx context.Context, l *lease, into *engine.Received) (due time.Time, err error) {
	r, err := ask(ctx, q.topic.engine, "STREAM.MSG.GET."+q.topic.names.state, func(ctx context.Context) (*jetstream.RawStreamMsg, error) {
		return q.topic.records.GetLastMsgForSubject(ctx, q.recordOf(l.sequence))
	})
	if errors.Is(err, jetstream.ErrMsgNotFound) {
		return time.Time{}, nil
	}
	if err != nil {
		return time.Time{}, err
	}
	l.record, into.State = r.Sequence, nil
	if len(r.Data) > 0 {
		into.State = r.Data
	}
	if n, err := strconv.ParseUint(r.Header.Get(headerUncounted), 10, 64); err == nil && n < l.deliveries {
		l.uncounted = n
		into.Deliveries = max(into.Deliveries-int(n), 1)
	}
	wait, err := strconv.ParseInt(r.Header.Get(headerWait), 10, 64)
	if err != nil {
		wait = 0 // somebody else's: the state counts
	}
	return r.Time.Add(time.Duration(wait)), nil
}

// forget removes l's record, once the message is settled. If it fails, sweep
// will.
func (q *queue) forget(ctx context.Context, l *lease) {
	if l.record == 0 && l.noted {
		// It was sent and nothing more is known. Another one comes after it, and takes its
		// place; a removal might come before it.
		if msg, err := q.recorded(l, 0, nil); err == nil {
			l.record, _ = q.topic.engine.storeAgain(ctx, msg)
		}
	}
	if l.record != 0 {
		_ = do(ctx, q.topic.engine, "STREAM.MSG.DELETE."+q.topic.names.state, func(ctx context.Context) error {
			return q.topic.records.DeleteMsg(ctx, l.record)
		})
	}
}

// sweep removes the records of messages that are settled: those below the
// consumer's floor.
func (q *queue) sweep(ctx context.Context) error {
	info, err := q.consumerInfo(ctx)
	if err != nil {
		return err
	}
	s, err := ask(ctx, q.topic.engine, "STREAM.INFO."+q.topic.names.state, func(ctx context.Context) (*jetstream.StreamInfo, error) {
		return q.topic.records.Info(ctx, jetstream.WithSubjectFilter(q.records()+">"))
	})
	if err != nil {
		return err
	}
	for subject := range s.State.Subjects {
		sequence, err := strconv.ParseUint(strings.TrimPrefix(subject, q.records()), 10, 64)
		if err != nil || sequence > info.AckFloor.Stream {
			continue
		}
		if err := q.purge(ctx, q.topic.records, subject); err != nil {
			return err
		}
	}
	return nil
}
