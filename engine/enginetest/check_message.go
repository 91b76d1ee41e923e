package enginetest

import (
	"bytes"
	"fmt"
	"maps"
	"strings"
	"time"

	"github.com/gofanout/fanout/engine"
)

const carried = "An engine carries the message as it is; what it cannot hold it refuses with an error that says so."

func messageChecks() []check {
	return []check{
		{name: "round trip", rule: carried, run: checkRoundTrip},
		{name: "odd messages", rule: carried, run: checkOddMessages},
		{name: "large body", rule: carried, run: func(x *fixture) {
			top := x.topic()
			q := x.open(top, "q")
			m := message("large")
			m.Body = []byte(`"` + strings.Repeat("x", x.o.body-2) + `"`)
			x.publish(top, m)
			x.same(x.receive(q, 0).Message, m)
		}},
		{name: "too large", rule: "ErrTooLarge is returned for a message above the engine's limits.", unless: unlimited, run: func(x *fixture) {
			top := x.topic()
			q := x.open(top, "q")
			x.mustBe(top.Publish(x.ctx, []engine.Message{x.refused("large")}), engine.ErrTooLarge, "Publish of %d bytes", x.o.tooLarge)
			x.none(q, x.quiet(), "the message was refused")
		}},
		{name: "same ID", rule: "ID need not be unique.", run: func(x *fixture) {
			top := x.topic()
			q := x.open(top, "q")
			x.publish(top, message("a"))
			x.publish(top, message("a"), message("a"))
			for range 3 {
				x.ack(q, x.receiveID(q, x.long(), "a"))
			}
		}},
		{name: "the caller's to change", rule: "What an engine returns is the caller's to keep and to change.", run: checkCallersOwn},
	}
}

func unlimited(x *fixture) string {
	if x.o.tooLarge == 0 {
		return "the engine has no limit that TooLarge tells"
	}
	return ""
}

// refused makes a message that the engine can't take.
func (x *fixture) refused(id string) engine.Message {
	m := message(id)
	m.Body = bytes.Repeat([]byte("x"), x.o.tooLarge)
	return m
}

// same ends the check if got doesn't say what want does.
func (x *fixture) same(got, want engine.Message) {
	equal(x, got.ID, want.ID, "ID")
	if !bytes.Equal(got.Body, want.Body) {
		x.fail("body of message %q: got %d bytes, %.60q, not %d, %.60q", want.ID, len(got.Body), got.Body, len(want.Body), want.Body)
	}
	equal(x, got.ContentType, want.ContentType, "content type of message %q", want.ID)
	if len(got.Attributes)+len(want.Attributes) > 0 && !maps.Equal(got.Attributes, want.Attributes) {
		x.fail("attributes of message %q: got %q, not %q", want.ID, got.Attributes, want.Attributes)
	}
	if off := got.PublishedAt.Sub(want.PublishedAt).Abs(); off > time.Millisecond {
		x.fail("PublishedAt of message %q: got %v, not %v", want.ID, got.PublishedAt, want.PublishedAt)
	}
	equal(x, got.TimeToLive, want.TimeToLive, "TimeToLive of message %q", want.ID)
	equal(x, got.OrderingKey, want.OrderingKey, "OrderingKey of message %q", want.ID)
	equal(x, string(got.State), string(want.State), "State of message %q", want.ID)
}

func checkRoundTrip(x *fixture) {
	top := x.topic()
	q := x.open(top, "q")
	m := message("0198c0de-7000-7000-8000-000000000001")
	m.Body = []byte(`{"text":"Grüße, 日本, 🐟 & <b>\"quotes\"</b>\n"}`)
	m.TimeToLive = 90 * time.Minute
	m.Attributes = map[string]string{}
	for i := range x.o.attributes {
		m.Attributes[fmt.Sprintf("key-%d", i)] = fmt.Sprintf("value %d: Grüße, 日本 🐟", i)
	}
	plain := message("plain")
	x.publish(top, m, plain)
	all := x.collect(q, 2)
	x.mustHold(all, m.ID, plain.ID)
	x.same(all[m.ID].Message, m)
	x.same(all[plain.ID].Message, plain)
}

// checkOddMessages publishes what some engines can't hold: each must come as it
// was published, or not be published.
func checkOddMessages(x *fixture) {
	top := x.topic()
	q := x.open(top, "q")
	every := make([]byte, 256)
	for i := range every {
		every[i] = byte(i)
	}
	odd := map[string]func(m *engine.Message){
		"an empty body":           func(m *engine.Message) { m.Body = nil },
		"every byte":              func(m *engine.Message) { m.Body, m.ContentType = every, "application/octet-stream" },
		"no content type":         func(m *engine.Message) { m.ContentType = "" },
		"an empty attribute":      func(m *engine.Message) { m.Attributes = map[string]string{"empty": ""} },
		"an attribute with lines": func(m *engine.Message) { m.Attributes = map[string]string{"lines": " one\r\ntwo\x01 "} },
		"a name that looks inner": func(m *engine.Message) {
			m.Attributes = map[string]string{"id": "mine", "state": "mine", "fanout": "mine"}
		},
		"a name that isn't ASCII": func(m *engine.Message) {
			m.Attributes = map[string]string{"größe": "1", "with space": "2", "a:b": "3"}
		},
		"names that differ in case": func(m *engine.Message) { m.Attributes = map[string]string{"key": "1", "Key": "2"} },
		"an empty map":              func(m *engine.Message) { m.Attributes = map[string]string{} },
		"many attributes": func(m *engine.Message) {
			m.Attributes = map[string]string{}
			for i := range 20 {
				m.Attributes[fmt.Sprint("a", i)] = "v"
			}
		},
		"no time of publication": func(m *engine.Message) { m.PublishedAt = time.Time{} },
	}
	taken := map[string]engine.Message{}
	for name, change := range odd {
		for _, id := range []string{name, "id of " + name + ": 日本 🐟 / \\ \" '"} {
			m := message(id)
			change(&m)
			if err := top.Publish(x.ctx, []engine.Message{m}); err == nil {
				taken[id] = m
			} else if err.Error() == "" {
				x.fail("%s was refused with an error without text", name)
			}
		}
	}
	got := x.collect(q, len(taken))
	for id, m := range taken {
		r, ok := got[id]
		if !ok {
			x.fail("message %q was published and did not come", id)
		}
		x.same(r.Message, m)
	}
	x.none(q, x.quiet(), "what was refused is not published")
}

func checkCallersOwn(x *fixture) {
	top := x.topic()
	a, b := x.open(top, "a"), x.open(top, "b")
	m, given := message("a"), message("a")
	m.Attributes = map[string]string{"key": "value"}
	given.Attributes = map[string]string{"key": "value"}
	given.PublishedAt = m.PublishedAt
	x.publish(top, given)
	scribble(&given)
	inA := x.receive(a, x.long())
	x.same(inA.Message, m)
	scribble(&inA.Message)
	x.same(x.receive(b, x.long()).Message, m)
	x.giveBack(a, inA, 0, "")
	again := x.receive(a, x.long())
	again.State = nil
	x.same(again.Message, m)
}

func scribble(m *engine.Message) {
	for i := range m.Body {
		m.Body[i] = '!'
	}
	for i := range m.State {
		m.State[i] = '!'
	}
	m.Attributes["key"], m.Attributes["other"] = "changed", "added"
}
