package fanoutnats

import (
	"cmp"
	"context"
	"slices"

	"github.com/gofanout/fanout/engine"
	"github.com/nats-io/nats.go/jetstream"
)

var _ engine.Lister = (*topic)(nil)

// ListQueues lists the consumers of the topic's messages, with those of its letters. A
// consumer that somebody else has made is none of them. See [engine.Lister].
func (t *topic) ListQueues(caller context.Context) ([]engine.QueueInfo, error) {
	if t.closed.Load() {
		return nil, engine.ErrClosed
	}
	if err := caller.Err(); err != nil {
		return nil, err
	}
	if t.denied != nil {
		return nil, t.wrap(caller, "list its queues", t.denied)
	}
	ctx, cancel := t.engine.limit(caller)
	defer cancel()
	queues, err := t.consumers(ctx, t.messages)
	if err != nil {
		return nil, t.wrap(caller, "list its queues", err)
	}
	letters, err := t.consumers(ctx, t.letters)
	if err != nil {
		return nil, t.wrap(caller, "list its dead letters", err)
	}
	infos := make([]engine.QueueInfo, 0, len(queues))
	for name, c := range queues {
		i := engine.QueueInfo{Name: name, Stats: statsOf(c)}
		if l := letters[name]; l != nil {
			i.Letters = statsOf(l)
		}
		infos = append(infos, i)
	}
	slices.SortFunc(infos, func(a, b engine.QueueInfo) int { return cmp.Compare(a.Name, b.Name) })
	return infos, nil
}

// consumers returns the consumers of s that are queues, by the queue's name.
func (t *topic) consumers(ctx context.Context, s jetstream.Stream) (map[string]*jetstream.ConsumerInfo, error) {
	return ask(ctx, t.engine, "CONSUMER.LIST."+s.CachedInfo().Config.Name, func(ctx context.Context) (map[string]*jetstream.ConsumerInfo, error) {
		all := map[string]*jetstream.ConsumerInfo{}
		lister := s.ListConsumers(ctx)
		for info := range lister.Info() {
			if name := info.Config.Metadata[metaQueue]; info.Config.Metadata[metaFormat] == format && token(name) == info.Name {
				all[name] = info
			}
		}
		return all, lister.Err()
	})
}

// statsOf is what the server says that a consumer has.
func statsOf(c *jetstream.ConsumerInfo) engine.Stats {
	return engine.Stats{Ready: int(c.NumPending), InFlight: c.NumAckPending, OldestAge: engine.Unknown}
}
