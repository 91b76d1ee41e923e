package fanoutnats

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"sync/atomic"
	"time"

	"github.com/gofanout/fanout/engine"
	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
	"github.com/nats-io/nuid"
)

// Headers and limits of an atomic batch publish.
const (
	headerBatch       = "Nats-Batch-Id"
	headerBatchNumber = "Nats-Batch-Sequence"
	headerBatchCommit = "Nats-Batch-Commit"
	maxBatch          = 1000
)

// again is how long a publish waits before it tries again what no server has
// taken.
const again = 100 * time.Millisecond

// Publish stores ms in the topic's stream, all of them or none. See
// [engine.Topic].
func (t *topic) Publish(caller context.Context, ms []engine.Message) error {
	if t.closed.Load() {
		return engine.ErrClosed
	}
	if len(ms) > maxBatch {
		return fmt.Errorf("fanoutnats: topic %q: %w: a batch of %d messages, at most %d", t.spec.Name, engine.ErrTooLarge, len(ms), maxBatch)
	}
	msgs := make([]*nats.Msg, 0, len(ms))
	seen := map[string]bool{}
	own := nuid.Next()
	for k := range ms {
		limit := t.engine.nc.MaxPayload()
		msg, err := encode(t.names.all(), ms[k], limit)
		if err == nil {
			err = fits(msg, limit, engine.MinState) // or it could not become a dead letter
		}
		if err != nil {
			return t.wrap(caller, fmt.Sprintf("message %d", k), err)
		}
		if id := ms[k].DeduplicationID; id != "" {
			if seen[id] {
				continue
			}
			seen[id] = true
			setID(msg, "id-"+escape(id))
		} else if own != "" {
			setID(msg, ownID+own) // one is enough: a batch is stored as a whole
			own = ""
		}
		msgs = append(msgs, msg)
	}
	if len(msgs) == 0 {
		return nil
	}
	if err := caller.Err(); err != nil {
		return err // nothing was sent
	}
	ctx, cancel := t.engine.limit(caller)
	defer cancel()
	what := "publish"
	if len(msgs) > 1 {
		what = "publish a batch"
		select {
		case t.sending <- struct{}{}:
			defer t.done()
		case <-ctx.Done():
			return t.wrap(caller, what, ctx.Err())
		}
	}
	last, err := t.store(ctx, msgs)
	t.stored.raise(last)
	return t.wrap(caller, what, err)
}

// ownID begins the ID of a message that has no DeduplicationID: with it this package
// repeats what was not answered, and a server drops what it has. It is another one for
// each Publish, so that nothing else is dropped.
const ownID = "publish-"

// A floor is the last sequence that this process knows to be stored: a server that
// says that there is nothing, and hasn't got that far, is behind.
type floor struct{ atomic.Uint64 }

func (f *floor) raise(to uint64) {
	for old := f.Load(); to > old && !f.CompareAndSwap(old, to); old = f.Load() {
	}
}

// store stores msgs, all of them or none, and returns the last one's sequence if it is
// known. What nobody has taken is sent again until ctx ends: while a leader is elected
// there is nobody. What was not answered is sent again while the stream would drop it as
// a duplicate. If it is not known in the end whether they are stored it is
// engine.ErrUnconfirmed.
func (t *topic) store(ctx context.Context, msgs []*nats.Msg) (last uint64, err error) {
	began, unsure := time.Now(), false
	if failure := t.engine.settings.failures.Lasting(); failure != nil {
		return 0, failure
	}
	for {
		once, cancel := ctx, context.CancelFunc(func() {})
		repeat := time.Since(began)+2*patience < t.window
		if repeat {
			once, cancel = context.WithTimeout(ctx, patience)
		}
		last, err = t.storeAll(once, msgs)
		cancel()
		failure := t.engine.settings.failures.Since(began)
		if code(err) == codeBatchIncomplete {
			// It may be that it could not be written, of which a server says nothing.
			failure = t.engine.settings.failures.After(began, size(msgs))
		}
		if failure != nil && err != nil && !errors.Is(err, failure) {
			err = fmt.Errorf("%w: %w", failure, err) // which is why
		}
		switch lost := unanswered(err); {
		case err == nil:
			return last, nil
		case lost && repeat && ctx.Err() == nil && failure == nil:
			unsure = true
		case untaken(err) && failure == nil && sleep(ctx, again):
		case lost || unsure:
			return 0, fmt.Errorf("%w: %w", engine.ErrUnconfirmed, err)
		default:
			return 0, err
		}
	}
}

// size is how many bytes msgs have, about.
func size(msgs []*nats.Msg) (n int64) {
	for _, m := range msgs {
		n += int64(m.Size())
	}
	return n
}

// unanswered reports whether err says that something was sent, and nothing more is
// known: not if a server refused it, or it was not sent.
func unanswered(err error) bool {
	var api *jetstream.APIError
	switch {
	case err == nil, errors.As(err, &api):
		return false
	}
	for _, known := range []error{
		nats.ErrNoResponders, nats.ErrPermissionViolation, nats.ErrMaxPayload, nats.ErrConnectionClosed,
		nats.ErrConnectionDraining, nats.ErrReconnectBufExceeded, nats.ErrBadSubject,
	} {
		if errors.Is(err, known) {
			return false
		}
	}
	return true
}

// storeAgain is store for a message that may be stored twice: the stream drops one of
// them.
func (e *Engine) storeAgain(ctx context.Context, msg *nats.Msg) (uint64, error) {
	if failure := e.settings.failures.Lasting(); failure != nil {
		return 0, failure
	}
	return askOn(ctx, e, msg.Subject, func(ctx context.Context) (uint64, error) { return e.request(ctx, msg) })
}

// storeOnce publishes msg, waits until a stream has it, and returns its sequence.
func (e *Engine) storeOnce(ctx context.Context, msg *nats.Msg) (uint64, error) {
	return heed(ctx, e, msg.Subject, func(ctx context.Context) (uint64, error) { return e.request(ctx, msg) })
}

func (e *Engine) request(ctx context.Context, msg *nats.Msg) (uint64, error) {
	answer, err := e.nc.RequestMsgWithContext(ctx, msg)
	if err != nil {
		return 0, err
	}
	var ack struct {
		Error *jetstream.APIError `json:"error"`
		jetstream.PubAck
	}
	if err := json.Unmarshal(answer.Data, &ack); err != nil {
		return 0, fmt.Errorf("the answer is no PubAck: %w", err)
	}
	if ack.Error != nil {
		return 0, ack.Error
	}
	if ack.Sequence == 0 {
		return 0, errors.New("the answer is no PubAck: it has no sequence")
	}
	return ack.Sequence, nil
}

// untaken reports whether err says that nothing was stored, and that it may work
// if it is sent again.
func untaken(err error) bool {
	if errors.Is(err, nats.ErrNoResponders) {
		return true
	}
	switch code(err) {
	case codeNotLeader, codeNotAvailable, codeBatchIncomplete, codeBatchTooMany:
		return true
	}
	return false
}

// sleep waits for d, and reports false if ctx ends first.
func sleep(ctx context.Context, d time.Duration) bool {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return true
	case <-ctx.Done():
		return false
	}
}

// storeAll stores one message, or several as one atomic batch. A server refuses a batch
// with a duplicate in it, without saying which: they are found, and left out.
func (t *topic) storeAll(ctx context.Context, msgs []*nats.Msg) (last uint64, err error) {
	for len(msgs) > 0 {
		if len(msgs) == 1 {
			return t.engine.storeOnce(ctx, msgs[0])
		}
		if last, err = t.engine.sendBatch(ctx, msgs); code(err) != codeBatchDuplicate {
			return last, err
		}
		if msgs, err = t.withoutDuplicates(ctx, msgs); err != nil {
			return 0, err
		}
	}
	return 0, nil
}

func (t *topic) done() { <-t.sending }

// sendBatch sends msgs; the last one commits them and is answered.
func (e *Engine) sendBatch(ctx context.Context, msgs []*nats.Msg) (last uint64, err error) {
	id := nuid.Next()
	for k, msg := range msgs {
		msg.Header[headerBatch] = []string{id}
		msg.Header[headerBatchNumber] = []string{strconv.Itoa(k + 1)}
		if k == len(msgs)-1 {
			msg.Header[headerBatchCommit] = []string{"1"}
			break
		}
		if err := e.nc.PublishMsg(msg); err != nil {
			return 0, err
		}
	}
	return e.storeOnce(ctx, msgs[len(msgs)-1])
}

// withoutDuplicates returns those of msgs that are no duplicates: none if this batch is
// stored already.
func (t *topic) withoutDuplicates(ctx context.Context, msgs []*nats.Msg) ([]*nats.Msg, error) {
	for _, msg := range msgs {
		id := msg.Header[jetstream.MsgIDHeader]
		if id == nil || !strings.HasPrefix(id[0], ownID) {
			continue
		}
		if stored, err := t.engine.duplicate(ctx, msg.Subject, id); err != nil || stored {
			return nil, err
		}
	}
	var fresh []*nats.Msg
	for _, msg := range msgs {
		for _, key := range []string{headerBatch, headerBatchNumber, headerBatchCommit} {
			delete(msg.Header, key)
		}
		duplicate := false
		if id := msg.Header[jetstream.MsgIDHeader]; id != nil {
			var err error
			if duplicate, err = t.engine.duplicate(ctx, msg.Subject, id); err != nil {
				return nil, err
			}
		}
		if !duplicate {
			fresh = append(fresh, msg)
		}
	}
	return fresh, nil
}

// duplicate asks whether a message with this ID would be one, without publishing
// it: it sends a batch whose second message is for another stream and so can't be
// committed. A server looks at the messages of a batch in their order.
func (e *Engine) duplicate(ctx context.Context, subject string, id []string) (bool, error) {
	for {
		_, err := e.sendBatch(ctx, []*nats.Msg{
			{Subject: subject, Header: nats.Header{jetstream.MsgIDHeader: id}},
			{Subject: subject, Header: nats.Header{jetstream.ExpectedStreamHeader: []string{"none"}}},
		})
		switch {
		case code(err) == codeBatchDuplicate:
			return true, nil
		case code(err) == codeNotThisStream:
			return false, nil
		case err == nil:
			return false, errors.New("a batch for another stream was stored")
		case !untaken(err) || !sleep(ctx, again):
			return false, err
		}
	}
}
