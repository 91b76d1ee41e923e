package main

import (
	"context"
	"errors"
	"fmt"
	"runtime"
	"time"

	"github.com/gofanout/fanout"
)

var resident = workload{
	key: "W12", title: "Resident memory: messages that nobody has read, or that are kept",
	note: "bytes for each message that is held, without the message itself. backlog1, backlog16: a million published (5,000 to gocloud-mem and watermill), nobody reads, in one queue and in sixteen; class16: the same by sixteen predicates, each accepts a sixteenth. " +
		"kept, kept-64B, kept-1KiB: received in batches, one in 64 kept and the others acknowledged, with a pointer, 64 bytes and a kilobyte as body; bytes for each that is kept, the body included. " +
		"paused: heap that a flood leaves behind a paused queue, whose filter accepted the first message and none of the flood that another queue takes.",
	cells: func(o options) (cells []cell) {
		million := 1_000_000
		if o.quick {
			million /= 10
		}
		for _, st := range []struct {
			setting string
			queues  int
			takes   choice
			systems []system
		}{
			{"backlog1", 1, nil, []system{channels, find(ours, push64), gocloud, watermillFree}},
			{"backlog16", classes, nil, []system{channels, find(ours, push64), gocloud, watermillFree}},
			{"class16", classes, ofClass, []system{filteringChannels(channels.name, ofClass, nil), find(classSystems(), "fanout-filter64")}},
		} {
			for _, sys := range st.systems {
				n := million
				if sys.costly { // it would take gigabytes
					n = million / 200
				}
				cells = append(cells, cell{at: place{setting: st.setting, system: sys.name}, once: true, measure: func() ([]value, error) {
					return backlog(sys, shape{queues: st.queues, publishers: 1, capacity: n, takes: st.takes}, n)
				}})
			}
		}
		one := func(setting string, measure func() ([]value, error)) {
			cells = append(cells, cell{at: place{setting: setting, system: into64}, once: true, measure: measure})
		}
		one("kept", func() ([]value, error) { return kept(func(int) *payload { return ring[0] }, million) })
		one("kept-64B", func() ([]value, error) { return kept(func(int) [64]byte { return [64]byte{} }, million) })
		one("kept-1KiB", func() ([]value, error) { return kept(func(int) [1024]byte { return [1024]byte{} }, million/10) })
		one("paused", func() ([]value, error) { return besidePaused(10 * million) })
		return cells
	},
}

// backlog measures what n messages take that nobody reads. In the shape there are
// no workers.
func backlog(sys system, s shape, n int) (_ []value, err error) {
	n = n / chunk * chunk
	held := 0
	for q := range s.queues {
		want, _ := s.takes.chosen(q, n)
		held += want
	}
	before := settled()
	bus, err := sys.open(s)
	if err != nil {
		return nil, err
	}
	for k := 0; k < n; k += chunk {
		if err := bus.publish(0, ring[k%ringSize:][:chunk]); err != nil {
			return nil, errors.Join(err, bus.stop())
		}
	}
	after := settled()
	if sys.costly { // what it does in the background has come to rest
		for last := int64(-1); after.bytes != last; after = settled() {
			last = after.bytes
			time.Sleep(20 * time.Millisecond)
			if after.bytes-last < last/100 {
				break
			}
		}
	}
	bytes := after.minus(before).bytes
	err = bus.stop()
	return []value{
		{"bytes-message", "B", float64(bytes) / float64(n)},
		{"bytes", "B", float64(bytes) / float64(held)},
	}, err
}

// kept measures what a queue keeps when of its deliveries one in 64 is not
// acknowledged, for each of those.
func kept[T any](body func(k int) T, n int) (_ []value, err error) {
	ctx := context.Background()
	n = n / chunk * chunk
	topic, err := fanout.NewTopic[T]("bench", silent)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, topic.Close()) }()
	q, err := topic.OpenQueue(ctx, "q", fanout.WithCapacity(n+chunk), fanout.WithVisibilityTimeout(time.Hour))
	if err != nil {
		return nil, err
	}
	ms, ds := make([]fanout.Message[T], chunk), make([]fanout.Delivery[T], chunk)
	all := make([]fanout.Delivery[T], 0, n/chunk)
	before := settled()
	for k := range n / chunk {
		for j := range ms {
			ms[j].Body = body(k*chunk + j)
		}
		if err := topic.PublishMessages(ctx, ms...); err != nil {
			return nil, err
		}
		got, err := q.ReceiveInto(ctx, ds)
		if err != nil {
			return nil, err
		}
		if got != chunk {
			return nil, fmt.Errorf("%d messages were received, not %d", got, chunk)
		}
		all = append(all, ds[0])
		if err := q.AckBatch(ctx, ds[1:]...); err != nil {
			return nil, err
		}
	}
	clear(ds)
	after := settled()
	if s := q.Stats(); s.InFlight != len(all) {
		return nil, fmt.Errorf("%d messages are in flight, not %d", s.InFlight, len(all))
	}
	runtime.KeepAlive(all)
	return []value{{"bytes", "B", float64(after.minus(before).bytes) / float64(len(all))}}, nil
}

// besidePaused measures what n messages that go to others leave behind a paused
// queue.
func besidePaused(n int) (_ []value, err error) {
	ctx := context.Background()
	topic, err := fanout.NewTopic[*payload]("bench", silent)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, topic.Close()) }()
	first := new(payload)
	paused, err := topic.OpenQueue(ctx, "paused", fanout.WithFilter(func(m *payload) bool { return m == first }))
	if err != nil {
		return nil, err
	}
	if err := paused.Pause(ctx); err != nil {
		return nil, err
	}
	busy, err := topic.OpenQueue(ctx, "busy")
	if err != nil {
		return nil, err
	}
	if _, err := busy.Subscribe(ctx, func(context.Context, fanout.Delivery[*payload]) error { return nil }); err != nil {
		return nil, err
	}
	ms := make([]fanout.Message[*payload], chunk)
	flood := func(n int) (footprint, error) {
		for k := 0; k < n; k += chunk {
			for j := range ms {
				ms[j].Body = ring[(k+j)%ringSize]
			}
			if err := topic.PublishMessages(ctx, ms...); err != nil {
				return footprint{}, err
			}
		}
		for busy.Stats().Unsettled() > 0 {
			time.Sleep(time.Millisecond)
		}
		return settled(), nil
	}
	before, err := flood(n / 10) // what is made once has been made, by the runtime too
	if err != nil {
		return nil, err
	}
	if err := topic.Publish(ctx, first); err != nil {
		return nil, err
	}
	after, err := flood(n)
	if err != nil {
		return nil, err
	}
	if got := paused.Stats().Unsettled(); got != 1 {
		return nil, fmt.Errorf("the paused queue holds %d messages, not 1", got)
	}
	return []value{{"left", "B", float64(max(after.minus(before).heap, 0))}}, nil
}
