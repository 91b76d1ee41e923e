package main

import (
	"context"
	"fmt"

	"github.com/gofanout/fanout"
)

// filtering is the yardstick of filters: one publisher that asks each queue's
// predicate in a loop and sends to the channels that match.
const filtering = "chan-filter"

var filters = workload{
	key: "W9", title: "Filters: one publisher, each message to the one queue that accepts it",
	note: "class16: 16 queues by a predicate on the body, each accepts a sixteenth. kind100: 100 queues by the value of an attribute, each accepts a hundredth. " +
		"Ratios are to chan-filter: one publisher that evaluates the same predicates in a loop and sends to the channels that match. ns per delivery, which is one for each message.",
	baseline: filtering,
	cells: func(o options) (cells []cell) {
		for _, st := range []struct {
			setting string
			queues  int
			takes   choice
			systems []system
		}{
			{"class16", classes, ofClass, classSystems()},
			{"kind100", kinds, ofKind, kindSystems()},
		} {
			s := shape{queues: st.queues, workers: 1, publishers: 1, capacity: capacity, takes: st.takes}
			base := filteringChannels(filtering, st.takes, nil)
			for _, sys := range append(append([]system{base}, st.systems...), renamed(base, filtering+"-again")) {
				cells = append(cells, flowCell(o, st.setting, sys, s))
			}
		}
		return cells
	},
}

func ofClass(queue int, m *payload) bool { return m.class == uint32(queue) }
func ofKind(queue int, m *payload) bool  { return m.attrs[kindAttribute] == kindNames[queue] }

var kindNames = func() (out []string) {
	for k := range kinds {
		out = append(out, kindOf(k))
	}
	return out
}()

// filteringChannels are channels whose publisher sends to those that match. If
// index is not nil, it finds the only one.
func filteringChannels(name string, takes choice, index func(s shape) func(*payload) int) system {
	gives := "the publisher asks each predicate; blocks; no ack"
	if index != nil {
		gives = "the publisher looks the channel up in a map; blocks; no ack"
	}
	return system{name: name, gives: gives, drains: true, open: func(s shape) (bus, error) {
		inner, err := channels.open(s)
		if err != nil {
			return nil, err
		}
		b := &filterBus{chanBus: inner.(*chanBus)}
		for q := range s.queues {
			b.predicates = append(b.predicates, func(m *payload) bool { return takes(q, m) })
		}
		if index != nil {
			b.find = index(s)
		}
		return b, nil
	}}
}

type filterBus struct {
	*chanBus
	predicates []func(*payload) bool
	find       func(*payload) int
}

func (b *filterBus) publish(_ int, ms []*payload) error {
	if b.find != nil {
		for _, m := range ms {
			b.chans[b.find(m)] <- m
		}
		return nil
	}
	for _, m := range ms {
		for q, ok := range b.predicates {
			if ok(m) {
				b.chans[q] <- m
			}
		}
	}
	return nil
}

func kindIndex(s shape) func(*payload) int {
	at := make(map[string]int, s.queues)
	for q, name := range kindNames {
		at[name] = q
	}
	return func(m *payload) int { return at[m.attrs[kindAttribute]] }
}

// discarding takes everything and counts what is of the queue's class.
func discarding(b *fanoutBus, s shape, q *fanout.Queue[*payload], queue int) error {
	return subscribeEach(b, s, q, queue, func(t *tally) fanout.Handler[*payload] {
		return func(_ context.Context, d fanout.Delivery[*payload]) error {
			if ofClass(queue, d.Body) {
				t.take(d.Body.word)
			}
			return nil
		}
	})
}

func byClass(queue int) []fanout.QueueOption {
	return []fanout.QueueOption{fanout.WithFilter(func(m *payload) bool { return ofClass(queue, m) })}
}

func classSystems() []system {
	return []system{
		way{name: "fanout-filter", gives: "WithFilter, published one by one", consume: subscribePush, queue: byClass}.system(),
		way{name: "fanout-filter64", gives: "WithFilter, published in batches of 64", batches: true, consume: subscribePush, queue: byClass}.system(),
		way{name: "fanout-discard", gives: "no filter: handlers get all and discard fifteen of sixteen, published one by one", consume: discarding}.system(),
		way{name: "fanout-discard64", gives: "the same, published in batches of 64", batches: true, consume: discarding}.system(),
	}
}

func withKind(to *fanout.Message[*payload], m *payload, _ int) { to.Attributes = m.attrs }

func byPolicy(queue int) []fanout.QueueOption {
	return []fanout.QueueOption{fanout.WithFilterPolicy(fmt.Sprintf(`{%q: [%q]}`, kindAttribute, kindNames[queue]))}
}

func byMessage(queue int) []fanout.QueueOption {
	return []fanout.QueueOption{fanout.WithMessageFilter(func(m fanout.Message[*payload]) bool {
		return m.Attributes[kindAttribute] == kindNames[queue]
	})}
}

func kindSystems() []system {
	return []system{
		filteringChannels("chan-map", ofKind, kindIndex),
		way{name: "fanout-policy", gives: "WithFilterPolicy, published one by one", consume: subscribePush, queue: byPolicy, message: withKind}.system(),
		way{name: "fanout-policy64", gives: "WithFilterPolicy, published in batches of 64", batches: true, consume: subscribePush, queue: byPolicy, message: withKind}.system(),
		way{name: "fanout-message", gives: "WithMessageFilter, published one by one", consume: subscribePush, queue: byMessage, message: withKind}.system(),
		way{name: "fanout-message64", gives: "WithMessageFilter, published in batches of 64", batches: true, consume: subscribePush, queue: byMessage, message: withKind}.system(),
	}
}
