package fanoutnats

import (
	"fmt"
	"math"
	"net/url"
	"strconv"
	"strings"
	"time"

	"github.com/gofanout/fanout/engine"
	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
)

// Headers of a message. The body is the user's as it is, so that any client of
// NATS can read it; only a letter's has its state in front of it, because a server
// takes 64 KiB of headers at most.
const (
	headerID          = "Fanout-Id"
	headerContentType = "Fanout-Content-Type"
	headerAttributes  = "Fanout-Attributes"
	headerOrderingKey = "Fanout-Ordering-Key"
	headerDedup       = "Fanout-Deduplication-Id"
	headerDelay       = "Fanout-Delay"
	headerPublished   = "Fanout-Published-At"
	headerTimeToLive  = "Fanout-Time-To-Live"
	headerStateLength = "Fanout-State-Length"
	headerWait        = "Fanout-Wait"      // of a record: how long the message was returned for
	headerUncounted   = "Fanout-Uncounted" // of a record: how many deliveries nobody received
)

// encode makes a NATS message of m, or returns ErrTooLarge if a server that takes
// limit bytes would refuse it.
func encode(subject string, m engine.Message, limit int64) (*nats.Msg, error) {
	h := nats.Header{}
	set := func(key, value string) {
		if value != "" {
			h[key] = []string{value}
		}
	}
	number := func(key string, n int64) {
		if n != 0 {
			h[key] = []string{strconv.FormatInt(n, 10)}
		}
	}
	set(headerID, escape(m.ID))
	set(headerContentType, escape(m.ContentType))
	set(headerOrderingKey, escape(m.OrderingKey))
	set(headerDedup, escape(m.DeduplicationID))
	if len(m.Attributes) > 0 {
		values := make(url.Values, len(m.Attributes))
		for k, v := range m.Attributes {
			values.Set(k, v)
		}
		set(headerAttributes, values.Encode())
	}
	number(headerDelay, int64(m.Delay))
	if !m.PublishedAt.IsZero() {
		number(headerPublished, m.PublishedAt.UnixNano())
	}
	number(headerTimeToLive, int64(m.TimeToLive))
	number(headerStateLength, int64(len(m.State)))

	body := m.Body
	if len(m.State) > 0 {
		body = make([]byte, 0, len(m.State)+len(m.Body))
		body = append(append(body, m.State...), m.Body...)
	}
	msg := &nats.Msg{Subject: subject, Header: h, Data: body}
	return msg, fits(msg, limit, 0)
}

// fits returns ErrTooLarge if a server that takes limit bytes would refuse msg, with a
// state that is still to come. It leaves room for the headers that a publish adds, and
// for the length of a state.
func fits(msg *nats.Msg, limit, state int64) error {
	const more = 256 + len(headerStateLength) + 16
	headers := len("NATS/1.0\r\n\r\n") + more
	for k, vs := range msg.Header {
		for _, v := range vs {
			headers += len(k) + len(": \r\n") + len(v)
		}
	}
	if headers > math.MaxUint16 {
		return fmt.Errorf("%w: %d bytes of attributes and other headers, at most %d", engine.ErrTooLarge, headers, math.MaxUint16)
	}
	if size := int64(headers+len(msg.Data)) + state; limit > 0 && size > limit {
		return fmt.Errorf("%w: %d bytes with headers and history, the server takes %d", engine.ErrTooLarge, size, limit)
	}
	return nil
}

// decode reads a message. One that does not come from this package has no ID, and
// gets one of its place in the stream, and its time there. A header that makes no sense is as if it were
// not there: the body is the user's, who can tell.
func decode(msg *nats.Msg, meta *nats.MsgMetadata) engine.Message {
	text := func(key string) string {
		v := msg.Header.Get(key)
		if s, err := url.PathUnescape(v); err == nil {
			return s
		}
		return v
	}
	number := func(key string) int64 {
		n, err := strconv.ParseInt(msg.Header.Get(key), 10, 64)
		if err != nil {
			return 0
		}
		return n
	}
	m := engine.Message{
		ID:              text(headerID),
		ContentType:     text(headerContentType),
		OrderingKey:     text(headerOrderingKey),
		DeduplicationID: text(headerDedup),
		Delay:           time.Duration(number(headerDelay)),
		TimeToLive:      time.Duration(number(headerTimeToLive)),
		Body:            msg.Data,
	}
	if m.ID == "" {
		m.ID = meta.Stream + "-" + strconv.FormatUint(meta.Sequence.Stream, 10)
		m.PublishedAt = meta.Timestamp
	}
	if at := number(headerPublished); at != 0 {
		m.PublishedAt = time.Unix(0, at)
	}
	if values, err := url.ParseQuery(msg.Header.Get(headerAttributes)); err == nil && len(values) > 0 {
		m.Attributes = make(map[string]string, len(values))
		for k := range values {
			m.Attributes[k] = values.Get(k)
		}
	}
	if n := number(headerStateLength); n > 0 && n <= int64(len(m.Body)) {
		m.State, m.Body = m.Body[:n:n], m.Body[n:]
	}
	return m
}

// escape makes s safe for a header: visible ASCII stays, but for '%'.
func escape(s string) string {
	safe := func(c byte) bool { return c > ' ' && c < 0x7f && c != '%' }
	clean := true
	for i := range len(s) {
		clean = clean && safe(s[i])
	}
	if clean {
		return s
	}
	var b strings.Builder
	for i := range len(s) {
		if safe(s[i]) {
			b.WriteByte(s[i])
		} else {
			fmt.Fprintf(&b, "%%%02X", s[i])
		}
	}
	return b.String()
}

// setID makes the server store msg once within the stream's window.
func setID(msg *nats.Msg, id string) {
	msg.Header[jetstream.MsgIDHeader] = []string{id}
}
