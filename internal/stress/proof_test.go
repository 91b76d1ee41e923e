package main

import (
	"slices"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/gofanout/fanout"
)

// A healthy ledger: six messages, each delivered and acknowledged in order by
// one worker.
func healthy() (*journal, *record) {
	j := &journal{ids: map[string]ticket{}}
	r := &record{
		topic: "t", name: "q", spec: spec{capacity: 3, attempts: 2, keep: 1, inOrder: true}, hooked: true, ownLetter: true,
		accepts: func(ticket) bool { return true }, openCall: 1, openRet: 2, closeCall: 1000, closeRet: 1001,
	}
	for k := range ticket(6) {
		at := int64(100 + 10*k)
		j.messages = append(j.messages, message{call: at, ret: at + 5, publisher: 1, batch: uint32(k), key: -1, state: accepted})
		j.order = append(j.order, k)
		r.events = append(r.events,
			event{at: at + 7, msg: k, worker: 256, attempt: 1, deed: got, detail: 1},
			event{at: at + 8, msg: k, worker: 256, attempt: 1, deed: settledAs, detail: uint8(fanout.Acked)})
		r.told = append(r.told,
			told{seq: uint64(2*k + 1), id: idOf(k), count: 1, attempt: 1, what: toldDelivered},
			told{seq: uint64(2*k + 2), id: idOf(k), count: 1, attempt: 1, what: toldSettled, cause: fanout.Acked})
	}
	j.place = places(j.order, len(j.messages))
	r.stats = fanout.Stats{Capacity: 3, Published: 6, Delivered: 6, Acked: 6}
	return j, r
}

func without(events []event, m ticket, what ...deed) []event {
	return slices.DeleteFunc(events, func(e event) bool { return e.msg == m && slices.Contains(what, e.deed) })
}

func promises(found []violation) (names []string) {
	for _, v := range found {
		names = append(names, v.promise)
	}
	return names
}

func TestAHealthyLedgerIsProven(t *testing.T) {
	j, r := healthy()
	var scratch []tally
	require.Empty(t, j.prove(r, &scratch))
	require.Empty(t, j.provePublication(r))
}

func TestTheProofFindsEachViolation(t *testing.T) {
	acked := uint8(fanout.Acked)
	for name, c := range map[string]struct {
		promise string
		breakIt func(j *journal, r *record)
	}{
		"lost before its delivery": {"nothing lost", func(j *journal, r *record) {
			r.events = without(r.events, 3, got, settledAs)
			r.stats.Delivered, r.stats.Acked = 5, 5
		}},
		"lost before its delivery, and not counted": {"nothing lost", func(j *journal, r *record) {
			r.events = without(r.events, 3, got, settledAs)
			r.stats.Published, r.stats.Delivered, r.stats.Acked = 5, 5, 5
		}},
		"lost after its delivery": {"nothing lost", func(j *journal, r *record) {
			r.events = without(r.events, 3, settledAs)
			r.stats.Acked = 5
		}},
		"lost though its handler returned nil": {"nothing lost", func(j *journal, r *record) {
			r.events = append(without(r.events, 3, settledAs), event{msg: 3, deed: returned, detail: acked})
			r.stats.Acked = 5
		}},
		"lost, and something else purged": {"nothing lost", func(j *journal, r *record) {
			r.events = without(without(r.events, 3, settledAs), 4, settledAs)
			r.stats.Acked, r.stats.Dropped, r.purged = 4, 1, 1
		}},
		"acknowledged twice": {"one end", func(j *journal, r *record) {
			r.events = append(r.events, event{at: 900, msg: 2, worker: 256, attempt: 1, deed: settledAs, detail: acked})
			r.stats.Acked++
		}},
		"acknowledged, and dead": {"one end", func(j *journal, r *record) {
			r.events = append(r.events, event{at: 900, msg: 2, deed: letterLeft})
		}},
		"acknowledged, and left over": {"one end", func(j *journal, r *record) {
			r.events = append(r.events, event{at: 900, msg: 2, deed: left})
		}},
		"dropped, and delivered": {"one end", func(j *journal, r *record) {
			r.told = append(r.told, told{seq: 99, id: idOf(2), count: 1, what: toldDropped, reason: fanout.DroppedOldest})
		}},
		"delivered after its acknowledgement": {"no delivery after the acknowledgement", func(j *journal, r *record) {
			r.events = append(r.events, event{at: 900, msg: 2, deed: gotAcked})
		}},
		"delivered after its acknowledgement, as the hooks tell it": {"a message's life", func(j *journal, r *record) {
			r.told = append(r.told, told{seq: 99, id: idOf(2), count: 1, attempt: 2, what: toldDelivered})
		}},
		"one attempt too many": {"a message's life", func(j *journal, r *record) {
			r.told = slices.DeleteFunc(r.told, func(e told) bool { return e.id == idOf(2) })
			for k := range int32(3) {
				r.told = append(r.told, told{seq: uint64(20 + 2*k), id: idOf(2), attempt: k + 1, what: toldDelivered},
					told{seq: uint64(21 + 2*k), id: idOf(2), attempt: k + 1, what: toldSettled, cause: fanout.Failed})
			}
		}},
		"an attempt that is not counted": {"a message's life", func(j *journal, r *record) {
			r.told = slices.DeleteFunc(r.told, func(e told) bool { return e.id == idOf(2) })
			for k := range int32(2) {
				r.told = append(r.told, told{seq: uint64(20 + 2*k), id: idOf(2), attempt: 1, what: toldDelivered},
					told{seq: uint64(21 + 2*k), id: idOf(2), attempt: 1, what: toldSettled, cause: fanout.Failed})
			}
		}},
		"more held than the capacity": {"bounded", func(j *journal, r *record) {
			for k := range r.events {
				r.events[k].at += 35
			}
		}},
		"more left over than the capacity": {"bounded", func(j *journal, r *record) {
			for k := range ticket(4) {
				r.events = append(without(r.events, k, settledAs), event{msg: k, deed: left})
			}
		}},
		"out of order": {"order", func(j *journal, r *record) {
			r.events[4], r.events[6] = r.events[6], r.events[4]
		}},
		"a key out of order": {"order of a key", func(j *journal, r *record) {
			r.spec.inOrder = false
			j.messages[2].key, j.messages[3].key = 1, 1
			r.events[4], r.events[6] = r.events[6], r.events[4]
		}},
		"a hole in the order": {"order", func(j *journal, r *record) {
			r.openRet = 900 // so that no single message must be there
			r.events = without(r.events, 3, got, settledAs)
			r.stats.Published, r.stats.Delivered, r.stats.Acked = 5, 5, 5
		}},
		"refused, but delivered": {"all or none", func(j *journal, r *record) { j.messages[2].state = refused }},
		"refused, but left over": {"all or none", func(j *journal, r *record) {
			j.messages[2].state = refused
			r.events = append(without(r.events, 2, got, settledAs), event{msg: 2, deed: left})
		}},
		"not accepted by the filter": {"filters", func(j *journal, r *record) {
			r.accepts = func(m ticket) bool { return m != 2 }
		}},
		"published before the queue was opened": {"stray", func(j *journal, r *record) { r.openCall, r.openRet = 107, 108 }},
		"published after the queue was closed":  {"stray", func(j *journal, r *record) { r.closeCall, r.closeRet = 147, 148 }},
		"a stale settlement that settled": {"fenced", func(j *journal, r *record) {
			r.events = append(r.events, event{msg: 2, deed: wronglyDone})
		}},
		"a delivery not counted": {"books", func(j *journal, r *record) { r.stats.Delivered-- }},
		"a failure of nobody":    {"books", func(j *journal, r *record) { r.stats.Failed++ }},
		"a panic not counted": {"books", func(j *journal, r *record) {
			r.events = append(r.events, event{msg: 2, deed: settledAs, detail: uint8(fanout.Panicked)})
		}},
		"a dead letter of nobody": {"books", func(j *journal, r *record) { r.letters.Published++ }},
		"a cause told to the hooks only": {"books", func(j *journal, r *record) {
			r.told[1].cause = fanout.Failed
		}},
		"a drop of a message that nobody published": {"hooks", func(j *journal, r *record) {
			r.told = append(r.told, told{seq: 99, id: "m77", count: 1, what: toldDropped, reason: fanout.DroppedNewest})
		}},
		"a number given to two events": {"hooks", func(j *journal, r *record) { r.told[1].seq = 1 }},
	} {
		t.Run(name, func(t *testing.T) {
			j, r := healthy()
			c.breakIt(j, r)
			var scratch []tally
			found := j.prove(r, &scratch)
			require.Contains(t, promises(found), c.promise)
		})
	}
}

func TestTheProofOfTheOrderOfPublicationFindsEachViolation(t *testing.T) {
	for name, c := range map[string]struct {
		promise string
		breakIt func(j *journal)
	}{
		"calls that did not overlap": {"order", func(j *journal) {
			j.messages[2].publisher = 2
			j.order[2], j.order[3] = 3, 2
		}},
		"one publisher's messages": {"order", func(j *journal) {
			j.messages[2].ret, j.messages[3].call = 200, 110
			j.order[2], j.order[3] = 3, 2
		}},
		"another message inside a batch": {"batches", func(j *journal) {
			j.messages[4].batch, j.messages[4].publisher, j.messages[3].publisher = 3, 2, 2
			j.messages[5] = message{call: 100, ret: 160, publisher: 3, batch: 5, key: -1, state: accepted}
			j.order = []ticket{0, 1, 2, 3, 5, 4}
		}},
		"published, and seen by nobody": {"all or none", func(j *journal) { j.order = j.order[:5] }},
	} {
		t.Run(name, func(t *testing.T) {
			j, r := healthy()
			c.breakIt(j)
			j.place = places(j.order, len(j.messages))
			require.Contains(t, promises(j.provePublication(r)), c.promise)
		})
	}
}

func TestAPurgeExplainsWhatIsMissing(t *testing.T) {
	j, r := healthy()
	r.hooked = false
	r.events = without(without(r.events, 3, settledAs), 4, got, settledAs)
	r.stats.Delivered, r.stats.Acked, r.stats.Dropped, r.purged = 5, 4, 2, 2
	var scratch []tally
	require.Empty(t, j.prove(r, &scratch))
}

func TestAViolationTellsAllThatIsKnownOfTheMessage(t *testing.T) {
	j, r := healthy()
	j.messages[2].state = refused
	var scratch []tally
	found := j.prove(r, &scratch)
	require.NotEmpty(t, found)
	text := found[0].String()
	for _, want := range []string{
		"message 2", "publish refused by publisher 1", "queue q", "127ns  consumer 1 worker 0  attempt 1  delivered",
		"128ns  consumer 1 worker 0  attempt 1  settled acked", "event 5  attempt 1  delivered",
	} {
		require.Contains(t, text, want)
	}
}
