package fanoutnats

import (
	"context"
	"errors"
	"fmt"

	"github.com/gofanout/fanout/engine"
	"github.com/nats-io/nats.go/jetstream"
)

// errDeleted is what a queue says that was deleted, by whoever.
var errDeleted = fmt.Errorf("%w: the queue was deleted", engine.ErrClosed)

// Delete removes the queue's two consumers, and with them what only they wait for: the
// messages, the letters and the records. See [engine.Queue].
func (q *queue) Delete(caller context.Context) (dropped, letters int, err error) {
	if q.dead == nil {
		return 0, 0, fmt.Errorf("fanoutnats: dead-letter queue of queue %q: it is deleted with its queue", q.spec.Name)
	}
	if err := caller.Err(); err != nil {
		return 0, 0, err
	}
	ctx, cancel := q.topic.engine.limit(caller)
	defer cancel()
	// The messages first: what is received no more becomes no letter.
	if dropped, err = q.remove(ctx, q.topic.names.one(q.token)); err != nil {
		return 0, 0, q.topic.wrap(caller, fmt.Sprintf("queue %q: delete", q.spec.Name), err)
	}
	if letters, err = q.dead.remove(ctx, q.topic.names.letters(q.token)); err != nil {
		return dropped, 0, q.topic.wrap(caller, fmt.Sprintf("queue %q: delete its dead letters", q.spec.Name), err)
	}
	return dropped, letters, nil
}

// remove removes the consumer, what its own subject holds and the records, and says how
// many messages it had. What is gone already is no error.
func (q *queue) remove(ctx context.Context, own string) (n int, err error) {
	info, err := q.consumerInfo(ctx)
	if err == nil {
		n = int(info.NumPending) + info.NumAckPending
		_, err = askFor(ctx, q, "CONSUMER.DELETE", func(ctx context.Context) (struct{}, error) {
			return struct{}{}, q.stream.DeleteConsumer(ctx, q.token)
		})
	}
	if err == nil || gone(err) {
		err = q.purge(ctx, q.stream, own)
	}
	if err == nil || gone(err) {
		err = q.purge(ctx, q.topic.records, q.records()+">")
	}
	if gone(err) {
		err = nil
	}
	return n, err
}

// gone reports whether err says that there is no such consumer, or no such stream.
func gone(err error) bool {
	return errors.Is(err, jetstream.ErrConsumerNotFound) || errors.Is(err, jetstream.ErrStreamNotFound)
}

// deleted reports whether the servers say that the queue's consumer is gone. It waits
// for their answer a moment only: while a leader is elected there may be none.
func (q *queue) deleted(ctx context.Context) bool {
	ctx, cancel := context.WithTimeout(ctx, 3*again)
	defer cancel()
	_, err := heed(ctx, q.topic.engine, q.topic.engine.api("CONSUMER.INFO."+q.streamName()+"."+q.token), q.consumer.Info)
	return gone(err)
}

// takeBack removes a letter whose queue was deleted while it was made: a new queue of
// that name would find it.
func (q *queue) takeBack(ctx context.Context, letter uint64) error {
	err := do(ctx, q.topic.engine, "STREAM.MSG.DELETE."+q.dead.streamName(), func(ctx context.Context) error {
		return q.dead.stream.DeleteMsg(ctx, letter)
	})
	if gone(err) || errors.Is(err, jetstream.ErrMsgNotFound) {
		return nil // purged meanwhile
	}
	return err
}
