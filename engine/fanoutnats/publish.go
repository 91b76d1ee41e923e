package fanoutnats

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strconv"
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
	for k := range ms {
		msg, err := encode(t.names.all(), ms[k], t.engine.nc.MaxPayload())
		if err != nil {
			return t.wrap(caller, fmt.Sprintf("message %d", k), err)
		}
		if id := ms[k].DeduplicationID; id != "" {
			if seen[id] {
				continue
			}
			seen[id] = true
			setID(msg, "id-"+escape(id))
		}
		msgs = append(msgs, msg)
	}
	if len(msgs) == 0 {
		return nil
	}
	ctx, cancel := t.engine.limit(caller)
	defer cancel()
	if len(msgs) == 1 {
		last, err := t.engine.store(ctx, msgs[0])
		t.stored.raise(last)
		return t.wrap(caller, "publish", err)
	}
	last, err := t.publishBatch(ctx, msgs)
	t.stored.raise(last)
	return t.wrap(caller, "publish a batch", err)
}

// A floor is the last sequence that this process knows to be stored: a server that
// says that there is nothing, and hasn't got that far, is behind.
type floor struct{ atomic.Uint64 }

func (f *floor) raise(to uint64) {
	for old := f.Load(); to > old && !f.CompareAndSwap(old, to); old = f.Load() {
	}
}

// store publishes msg, waits until a stream has it, and returns its sequence. A message that nobody has
// taken is sent again until ctx ends: while a leader is elected there is nobody.
func (e *Engine) store(ctx context.Context, msg *nats.Msg) (uint64, error) {
	for {
		sequence, err := e.storeOnce(ctx, msg)
		if !untaken(err) || !sleep(ctx, again) {
			return sequence, err
		}
	}
}

// storeAgain is store for a message that may be stored twice: the stream drops one of
// them.
func (e *Engine) storeAgain(ctx context.Context, msg *nats.Msg) (uint64, error) {
	return ask(ctx, func(ctx context.Context) (uint64, error) { return e.storeOnce(ctx, msg) })
}

func (e *Engine) storeOnce(ctx context.Context, msg *nats.Msg) (uint64, error) {
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

// publishBatch stores msgs as one atomic batch. A server refuses a batch with a
// duplicate in it, without saying which: they are found, and left out.
func (t *topic) publishBatch(ctx context.Context, msgs []*nats.Msg) (last uint64, err error) {
	select {
	case t.sending <- struct{}{}:
		defer t.done()
	case <-ctx.Done():
		return 0, ctx.Err()
	}
	for {
		if len(msgs) == 1 {
			last, err = t.engine.storeOnce(ctx, msgs[0])
		} else {
			last, err = t.engine.sendBatch(ctx, msgs)
		}
		switch {
		case code(err) == codeBatchDuplicate:
			if msgs, err = t.withoutDuplicates(ctx, msgs); err != nil || len(msgs) == 0 {
				return 0, err
			}
		case !untaken(err) || !sleep(ctx, again):
			return last, err
		}
	}
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

// withoutDuplicates returns those of msgs that are no duplicates.
func (t *topic) withoutDuplicates(ctx context.Context, msgs []*nats.Msg) ([]*nats.Msg, error) {
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
