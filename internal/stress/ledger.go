package main

import (
	"fmt"
	"strings"
	"time"

	"github.com/gofanout/fanout"
)

// A ticket is what is published: the number of a message in its topic's
// journal.
type ticket uint32

// What became of a publish.
const (
	neverTried uint8 = iota
	underWay
	accepted
	refused
)

// A message is what its publisher knows of it. It belongs to the publisher
// until that has ended. Instants are nanoseconds since the round began.
type message struct {
	call, ret int64  // when the publish was called, and when it had returned
	publisher uint32 // 0: a handler
	batch     uint32 // the ticket of the first of its batch
	key       int16  // of ordering, -1 is none
	state     uint8
}

// A journal is what is known of a topic's messages.
type journal struct {
	messages []message
	// order is the order of publication, as the witness saw it: a queue without
	// bound, with one worker, that is there all along. It is nil if delays
	// changed the order.
	order []ticket
	// place is where a message stands in order, -1 if nowhere.
	place []int32
	ids   map[string]ticket // of those whose ID the topic made
}

// deed is what happened to a message, as its consumer saw it.
type deed uint8

const (
	got         deed = iota + 1 // a consumer got it
	gotAcked                    // a consumer got it, and owned it, though it had been acknowledged
	settledAs                   // a call settled it, with cause
	returned                    // a handler returned what stands for cause, without having settled it
	extended                    // its deadline was moved
	refusedAs                   // a settlement was refused, with refusal
	wronglyDone                 // a settlement that should have been refused, or refused otherwise
	letterGot                   // a consumer of the dead-letter queue got it
	letterAcked                 // acknowledged there
	letterBack                  // given back there
	letterLeft                  // it was there at the end
	left                        // its queue held it when it was closed
)

var deedNames = [...]string{
	"", "delivered", "DELIVERED THOUGH ACKNOWLEDGED", "settled", "handler returned", "extended", "settlement refused",
	"WRONGLY SETTLED", "letter delivered", "letter acknowledged", "letter given back", "in the dead-letter queue", "left over",
}

// Why a settlement was refused.
const (
	stale uint8 = iota + 1
	settled
	closed
	foreign
	otherwise
)

var refusalNames = [...]string{"accepted", "stale", "settled before", "closed", "of another queue", "another error"}

// An event is an entry in the ledger of a queue. Entries are in the order in
// which they were made.
type event struct {
	at      int64
	msg     ticket
	worker  uint32 // the consumer's number, and after eight bits its worker's
	attempt uint16
	deed    deed
	detail  uint8 // a cause or a refusal; of got whether the delivery was certainly owned
}

func (e event) String() string {
	what := deedNames[e.deed]
	switch e.deed {
	case settledAs, returned:
		what += " " + fanout.Cause(e.detail).String()
	case refusedAs, wronglyDone:
		what += ": " + refusalNames[e.detail]
	}
	return fmt.Sprintf("%14v  consumer %d worker %d  attempt %d  %s",
		time.Duration(e.at), e.worker>>8, e.worker&0xff, e.attempt, what)
}

// told is an event that a hook was told of a queue.
type told struct {
	seq     uint64
	id      string
	count   int32
	attempt int32
	what    hook
	cause   fanout.Cause
	reason  fanout.DropReason
	letters bool // of the dead-letter queue
}

type hook uint8

const (
	toldDelivered hook = iota + 1
	toldSettled
	toldDead
	toldParked
	toldRedriven
	toldDropped
)

var hookNames = [...]string{"", "delivered", "settled", "dead-lettered", "parked", "redriven", "dropped"}

func (t told) String() string {
	return fmt.Sprintf("%14s  event %d  attempt %d  %s %v %v", "hook", t.seq, t.attempt, hookNames[t.what], t.cause, t.reason)
}

// A record is all that is known of a queue once it is closed.
type record struct {
	topic, name string
	spec        spec
	accepts     func(ticket) bool
	// When opening and closing it was called, and when that had returned.
	openCall, openRet, closeCall, closeRet int64

	events []event
	told   []told
	hooked bool // told holds everything, not only what was dropped
	purged int  // messages, as Purge returned
	moved  int  // dead letters, as Redrive returned
	purges bool // somebody tried

	stats     fanout.Stats
	letters   fanout.Stats
	ownLetter bool // letters are this queue's alone
}

// A violation is a promise that was not kept.
type violation struct {
	promise string
	what    string
	ledger  string
}

func (v violation) String() string {
	s := v.promise + ": " + v.what
	if v.ledger != "" {
		s += "\n" + v.ledger
	}
	return s
}

// tell returns all that the ledger knows of a message in a queue.
func (r *record) tell(j *journal, m ticket) string {
	var b strings.Builder
	if int(m) < len(j.messages) {
		p := j.messages[m]
		state := [...]string{"was never published", "publish under way", "publish accepted", "publish refused"}[p.state]
		fmt.Fprintf(&b, "  message %d of topic %s: %s by publisher %d, called at %v, returned at %v, batch %d, key %d\n",
			m, r.topic, state, p.publisher, time.Duration(p.call), time.Duration(p.ret), p.batch, p.key)
	}
	fmt.Fprintf(&b, "  queue %s: %v\n  open from %v (%v) to %v (%v)\n  %+v\n", r.name, r.spec,
		time.Duration(r.openCall), time.Duration(r.openRet), time.Duration(r.closeCall), time.Duration(r.closeRet), r.stats)
	for _, e := range r.events {
		if e.msg == m {
			fmt.Fprintf(&b, "  %v\n", e)
		}
	}
	for _, t := range r.told {
		if n, ok := j.ticketOf(t.id); ok && n == m {
			fmt.Fprintf(&b, "  %v\n", t)
		}
	}
	return b.String()
}
