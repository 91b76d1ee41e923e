package fanoutaws

import (
	"encoding/base64"
	"encoding/json"
	"fmt"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/gofanout/fanout/engine"
)

// packName is the one attribute that is ours. All that a message carries
// besides its body and its user's attributes is in it, and those of the latter
// that are too many: SQS takes ten attributes, and a subscription with raw
// delivery loses messages with more.
const packName = "fanout"

// How a message came to where it is.
const (
	movedDead     = "dead"
	movedRedriven = "redriven"
)

// A pack is the value of that attribute. It is for people to read too.
type pack struct {
	ID          string        `json:"id,omitempty"`
	ID64        []byte        `json:"id64,omitempty"` // instead of ID, if that is no text
	PublishedAt time.Time     `json:"at"`
	TimeToLive  time.Duration `json:"ttl,omitempty"`
	Delay       time.Duration `json:"delay,omitempty"`
	ContentType string        `json:"type,omitempty"`
	// Body says how the body is written: "" as it is, "base64", "empty".
	Body string `json:"body,omitempty"`
	// Key and Dedup are in the message group and the deduplication ID only if
	// those take their characters.
	Key   string `json:"key,omitempty"`
	Dedup string `json:"dedup,omitempty"`
	// Moved is empty as published, "dead" in a letter, "redriven" after that. A
	// letter that turns up in a queue was moved there by SQS, which could not
	// take its spent attempts away. What was moved has waited for its delay.
	Moved string `json:"moved,omitempty"`
	State []byte `json:"state,omitempty"`
	// Attributes are those that the message has no room for.
	Attributes map[string]string `json:"attributes,omitempty"`
}

// An attribute is a message attribute of SNS or SQS: they differ in Go only.
type attribute struct{ typ, value string }

// A wire is a message as SNS and SQS take it.
type wire struct {
	body       string
	attributes map[string]attribute
}

// size is how SNS and SQS count a message.
func (w wire) size() int {
	n := len(w.body)
	for name, a := range w.attributes {
		n += len(name) + len(a.typ) + len(a.value)
	}
	return n
}

// encode makes a message of m. p says what only the caller knows, filtered which
// attributes SNS compares with filter policies.
func encode(m engine.Message, p pack, numbers, filtered map[string]bool) (w wire, err error) {
	if p.Attributes, err = overflow(m.Attributes, filtered); err != nil {
		return wire{}, err
	}
	w.attributes = make(map[string]attribute, min(len(m.Attributes), userMost)+1)
	for name, value := range m.Attributes {
		if err := checkAttribute(name, value); err != nil {
			return wire{}, fmt.Errorf("%w: %w", engine.ErrInvalid, err)
		}
		if _, packed := p.Attributes[name]; !packed {
			w.attributes[name] = attribute{attributeType(name, value, numbers), value}
		}
	}
	switch {
	case len(m.Body) == 0:
		w.body, p.Body = "-", "empty"
	case isText(string(m.Body)):
		w.body = string(m.Body)
	default:
		w.body, p.Body = base64.StdEncoding.EncodeToString(m.Body), "base64"
	}
	if isText(m.ID) {
		p.ID = m.ID
	} else {
		p.ID64 = []byte(m.ID)
	}
	for what, text := range map[string]string{"content type": m.ContentType, "ordering key": m.OrderingKey, "deduplication ID": m.DeduplicationID} {
		if !isText(text) {
			return wire{}, fmt.Errorf("%w: %s %q has characters that SQS doesn't take", engine.ErrInvalid, what, text)
		}
	}
	p.PublishedAt, p.TimeToLive, p.Delay = m.PublishedAt, m.TimeToLive, m.Delay
	p.ContentType, p.Key, p.Dedup, p.State = m.ContentType, m.OrderingKey, m.DeduplicationID, m.State
	packed, err := json.Marshal(p)
	if err != nil {
		return wire{}, err // a time outside of years 0 to 9999
	}
	w.attributes[packName] = attribute{"String", string(packed)}
	return w, nil
}

// A decoded message is one that was received.
type decoded struct {
	engine.Message
	moved string // see pack
}

// decode reads a message as SQS has it. What was not published by this package
// has only what SNS or SQS know of it: fallback.
func decode(body string, attributes map[string]attribute, fallback engine.Message) (decoded, error) {
	packed, ours := attributes[packName]
	if !ours {
		if e, ok := parseEnvelope(body); ok {
			body, attributes = e.Message, e.attributes()
			fallback.ID = e.MessageID
			if !e.Timestamp.IsZero() {
				fallback.PublishedAt = e.Timestamp
			}
			packed, ours = attributes[packName]
		}
	}
	d := decoded{Message: fallback}
	d.Body = []byte(body)
	for name, a := range attributes {
		if name == packName {
			continue
		}
		if d.Attributes == nil {
			d.Attributes = make(map[string]string, len(attributes))
		}
		d.Attributes[name] = a.value
	}
	if !ours {
		return d, nil
	}
	var p pack
	if err := json.Unmarshal([]byte(packed.value), &p); err != nil {
		return d, fmt.Errorf("attribute %s: %w", packName, err)
	}
	return d, d.unpack(p)
}

func (d *decoded) unpack(p pack) error {
	d.ID = p.ID
	if p.ID64 != nil {
		d.ID = string(p.ID64)
	}
	d.PublishedAt, d.TimeToLive, d.Delay = p.PublishedAt, p.TimeToLive, p.Delay
	d.ContentType, d.OrderingKey, d.DeduplicationID = p.ContentType, p.Key, p.Dedup
	d.State, d.moved = p.State, p.Moved
	for name, value := range p.Attributes {
		if d.Attributes == nil {
			d.Attributes = make(map[string]string, len(p.Attributes))
		}
		d.Attributes[name] = value
	}
	switch p.Body {
	case "":
		return nil
	case "empty":
		d.Body = nil
		return nil
	case "base64":
		body, err := base64.StdEncoding.DecodeString(string(d.Body))
		if err == nil {
			d.Body = body
		}
		return err
	}
	return fmt.Errorf("attribute %s: unknown encoding %q of the body", packName, p.Body)
}

// An envelope is what SNS puts around a message for subscriptions that aren't
// raw, such as those that SAM makes by SqsSubscription.
type envelope struct {
	Type              string
	MessageID         string `json:"MessageId"`
	TopicARN          string `json:"TopicArn"`
	Message           string
	Timestamp         time.Time
	Token             string
	SubscribeURL      string
	MessageAttributes map[string]struct{ Type, Value string }
}

func parseEnvelope(body string) (e envelope, ok bool) {
	if !strings.HasPrefix(strings.TrimLeft(body, " \t\r\n"), "{") {
		return e, false
	}
	err := json.Unmarshal([]byte(body), &e)
	return e, err == nil && e.Type == "Notification" && e.TopicARN != ""
}

// isConfirmation reports if m is not somebody's message but SNS's own: it asks the
// queue's owner to confirm a subscription, or says that one has ended.
func isConfirmation(body string, ours bool) (e envelope, ok bool) {
	if ours || !strings.HasPrefix(strings.TrimLeft(body, " \t\r\n"), "{") {
		return e, false
	}
	err := json.Unmarshal([]byte(body), &e)
	return e, err == nil && e.TopicARN != "" && e.SubscribeURL != "" && e.Token != "" &&
		(e.Type == "SubscriptionConfirmation" || e.Type == "UnsubscribeConfirmation")
}

func (e envelope) attributes() map[string]attribute {
	as := make(map[string]attribute, len(e.MessageAttributes))
	for name, a := range e.MessageAttributes {
		value := a.Value
		if strings.HasPrefix(a.Type, "Binary") {
			if b, err := base64.StdEncoding.DecodeString(value); err == nil {
				value = string(b)
			}
		}
		as[name] = attribute{a.Type, value}
	}
	return as
}

func checkAttribute(name, value string) error {
	lower := strings.ToLower(name)
	switch {
	case name == packName:
		return fmt.Errorf("attribute %q is this engine's own", name)
	case name == "" || len(name) > 256 || !only(name, nameCharacters+"."):
		return fmt.Errorf("attribute name %q: SQS takes 1 to 256 letters, digits, hyphens, underscores and periods", name)
	case strings.HasPrefix(lower, "aws.") || strings.HasPrefix(lower, "amazon."),
		name[0] == '.', name[len(name)-1] == '.', strings.Contains(name, ".."):
		return fmt.Errorf("attribute name %q: SQS takes none with AWS. or Amazon. in front, a period at an end, or two in a row", name)
	case value == "":
		return fmt.Errorf("attribute %q is empty, which SQS doesn't take: leave it out", name)
	case !isText(value):
		return fmt.Errorf("attribute %q has characters that SQS doesn't take: encode it", name)
	}
	return nil
}

// attributeType is the type that SNS filters an attribute by.
func attributeType(name, value string, numbers map[string]bool) string {
	if value[0] == '[' && isScalarArray(value) {
		return "String.Array"
	}
	if numbers[name] {
		if f, err := strconv.ParseFloat(value, 64); err == nil && -1e9 <= f && f <= 1e9 && json.Valid([]byte(value)) {
			return "Number"
		}
	}
	return "String"
}

func isScalarArray(value string) bool {
	var elements []any
	if json.Unmarshal([]byte(value), &elements) != nil {
		return false
	}
	for _, e := range elements {
		switch e.(type) {
		case map[string]any, []any:
			return false
		}
	}
	return true
}

// isText reports if SNS and SQS take s: UTF-8 of characters that XML has.
func isText(s string) bool {
	if !utf8.ValidString(s) {
		return false
	}
	for _, r := range s {
		if r < ' ' && r != '\t' && r != '\n' && r != '\r' || r == 0xFFFE || r == 0xFFFF {
			return false
		}
	}
	return true
}
