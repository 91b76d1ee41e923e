package fakeaws

import (
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"math/big"
	"regexp"
	"strings"
	"time"
	"unicode/utf8"
)

// The limits of messages.
const (
	mostBatch      = 10
	mostBatchSize  = 1 << 20
	mostAttributes = 10
	mostDelay      = 900
)

var (
	attributeNamePattern = regexp.MustCompile(`^[\p{L}\p{N}_.-]{1,256}$`)
	tokenPattern         = regexp.MustCompile(`^[!-~]{1,128}$`) // letters, digits and punctuation
	tracePattern         = regexp.MustCompile(`^[ -~]+$`)
)

// sendMessage implements SendMessage.
func (c *call) sendMessage(in *sendMessageInput) (*sendMessageOutput, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	q, err := c.queueOfLocked(in.QueueUrl)
	if err != nil {
		return nil, err
	}
	m, due, err := q.checkSend(in, q.attributes.mostSize)
	if err != nil {
		return nil, err
	}
	out := c.sendLocked(q, m, due)
	q.serveLocked(c.clock())
	return out, nil
}

// sendLocked puts a message that was checked into a queue, unless it is a
// duplicate. The caller serves the queue's long polls afterwards.
func (c *call) sendLocked(q *queue, m content, delay instant) *sendMessageOutput {
	now := c.clock()
	q.advanceLocked(now)
	out := &sendMessageOutput{MD5OfMessageBody: m.bodyMD5, MD5OfMessageAttributes: m.attributesMD5, MD5OfMessageSystemAttributes: m.systemMD5}
	if q.fifo {
		if first := q.recent.find(m.deduplicationKey, now); first != nil {
			out.MessageId, out.SequenceNumber = first.messageID, first.sequence
			return out
		}
	}
	msg := &message{content: m, id: newID(), sender: senderID(c.account), sent: now, enqueued: now}
	if q.fifo {
		msg.sequence = q.nextSequence()
		q.recent.add(m.deduplicationKey, msg.id, msg.sequence, now)
	}
	q.addLocked(msg, now, now+delay)
	if c.fault != nil && c.fault.Twice && !q.fifo {
		q.addLocked(&message{content: m, id: msg.id, sender: msg.sender, sent: now, enqueued: now}, now, now+delay)
	}
	out.MessageId, out.SequenceNumber = msg.id, msg.sequence
	return out
}

// nextSequence returns a number that is larger than the last one, and not the
// one after it, as in SQS.
func (q *queue) nextSequence() string { return fmt.Sprintf("188%017d", (q.numbers+1)*256) }

// senderID is what SenderId says of an account.
func senderID(account string) string { return "AIDAFAKEAWS" + account }

// checkSend checks a message as SQS does, and completes it.
func (q *queue) checkSend(in *sendMessageInput, mostSize int) (m content, delay instant, err error) {
	body := deref(in.MessageBody)
	if body == "" {
		return m, 0, missing("MessageBody")
	}
	if !validText(body) {
		return m, 0, errInvalidMessageContents.with("Invalid characters found. Valid unicode characters are #x9 | #xA | #xD | #x20 to #xD7FF | #xE000 to #xFFFD | #x10000 to #x10FFFF")
	}
	delay = q.attributes.delay
	if d := in.DelaySeconds; d != nil {
		switch {
		case *d < 0 || *d > mostDelay:
			return m, 0, invalidValue(*d, "DelaySeconds", "DelaySeconds must be >= 0 and <= 900.")
		case q.fifo && *d != 0:
			return m, 0, invalidValue(*d, "DelaySeconds", "The request include parameter that is not valid for this queue type.")
		case !q.fifo:
			delay = instant(*d) * time.Second
		}
	}
	m = content{body: body, attributes: in.MessageAttributes, groupID: deref(in.MessageGroupId), deduplicationID: deref(in.MessageDeduplicationId)}
	if m.size, err = checkAttributes(in.MessageAttributes); err != nil {
		return m, 0, err
	}
	m.size += len(body)
	if m.size > mostSize {
		return m, 0, errInvalidParameterValue.with("One or more parameters are invalid. Reason: Message must be shorter than %d bytes.", mostSize)
	}
	for name, a := range in.MessageSystemAttributes {
		if name != "AWSTraceHeader" {
			return m, 0, errInvalidParameterValue.with("Message system attribute name '%s' is invalid.", name)
		}
		if deref(a.DataType) != "String" || !tracePattern.MatchString(deref(a.StringValue)) {
			return m, 0, errInvalidParameterValue.with("The message system attribute '%s' must be a String with a trace header.", name)
		}
		m.trace = &a
	}
	if err := q.checkTokens(in, &m); err != nil {
		return m, 0, err
	}
	m.bodyMD5, m.attributesMD5, m.systemMD5 = md5Of(body), md5OfAttributes(in.MessageAttributes), md5OfAttributes(in.MessageSystemAttributes)
	return m, delay, nil
}

// checkTokens checks the IDs for groups and deduplication.
func (q *queue) checkTokens(in *sendMessageInput, m *content) error {
	const wrongForm = "%s can only include alphanumeric and punctuation characters. 1 to 128 in length."
	if in.MessageGroupId != nil && !tokenPattern.MatchString(m.groupID) {
		return invalidValue(m.groupID, "MessageGroupId", fmt.Sprintf(wrongForm, "MessageGroupId"))
	}
	if in.MessageDeduplicationId != nil && !tokenPattern.MatchString(m.deduplicationID) {
		return invalidValue(m.deduplicationID, "MessageDeduplicationId", fmt.Sprintf(wrongForm, "MessageDeduplicationId"))
	}
	if !q.fifo {
		if in.MessageDeduplicationId != nil {
			return invalidValue(m.deduplicationID, "MessageDeduplicationId", "The request include parameter that is not valid for this queue type.")
		}
		return nil
	}
	if m.groupID == "" {
		return missing("MessageGroupId")
	}
	if m.deduplicationID == "" {
		if !q.attributes.byContent {
			return noDeduplicationID()
		}
		sum := sha256.Sum256([]byte(m.body))
		m.deduplicationID = hex.EncodeToString(sum[:])
	}
	m.deduplicationKey = q.deduplicationKey(m)
	return nil
}

func noDeduplicationID() *apiError {
	return errInvalidParameterValue.with("The queue should either have ContentBasedDeduplication enabled or MessageDeduplicationId provided explicitly")
}

// deduplicationKey is what messages are told apart by.
func (q *queue) deduplicationKey(m *content) string {
	if q.attributes.byGroup {
		return m.groupID + " " + m.deduplicationID
	}
	return m.deduplicationID
}

// invalidValue is the error for a value that a parameter cannot have.
func invalidValue(value any, parameter, reason string) *apiError {
	return errInvalidParameterValue.with("Value %v for parameter %s is invalid. Reason: %s", value, parameter, reason)
}

// checkAttributes checks message attributes as SQS does, and returns their size.
func checkAttributes(attributes map[string]attributeValue) (size int, err error) {
	if len(attributes) > mostAttributes {
		return 0, errInvalidParameterValue.with("Number of message attributes [%d] exceeds the allowed maximum [%d].", len(attributes), mostAttributes)
	}
	for name, a := range attributes {
		if err := checkAttribute(name, a); err != nil {
			return 0, err
		}
		size += len(name) + len(*a.DataType) + len(deref(a.StringValue)) + len(a.BinaryValue)
	}
	return size, nil
}

func checkAttribute(name string, a attributeValue) error {
	lower := strings.ToLower(name)
	if !attributeNamePattern.MatchString(name) || strings.HasPrefix(lower, "aws.") || strings.HasPrefix(lower, "amazon.") ||
		strings.HasPrefix(name, ".") || strings.HasSuffix(name, ".") || strings.Contains(name, "..") {
		return errInvalidParameterValue.with("The message attribute name '%s' is invalid. Attribute name can contain A-Z, a-z, 0-9, underscore (_), hyphen (-), and period (.) characters, must not start with AWS. or Amazon., must not start or end with a period, and can be up to 256 long.", name)
	}
	kind, custom, isCustom := strings.Cut(deref(a.DataType), ".")
	if len(deref(a.DataType)) > 256 || isCustom && custom == "" {
		return errInvalidParameterValue.with("The message attribute '%s' has an invalid message attribute type: it can be up to 256 long and must not end with a period.", name)
	}
	if len(a.StringListValues) > 0 || len(a.BinaryListValues) > 0 {
		return errUnsupportedOperation.with("Message attribute list values in SendMessage operation are not supported.")
	}
	if a.StringValue != nil && a.BinaryValue != nil {
		return errInvalidParameterValue.with("The message attribute '%s' has both a string and a binary value.", name)
	}
	empty := errInvalidParameterValue.with("Message (user) attribute '%s' must contain a non-empty value of type '%s'.", name, deref(a.DataType))
	switch kind {
	case "String", "Number":
		if deref(a.StringValue) == "" {
			return empty
		}
		if !validText(*a.StringValue) {
			return errInvalidMessageContents.with("The message attribute '%s' has invalid characters.", name)
		}
		if kind == "Number" && !validNumber(*a.StringValue) {
			return errInvalidParameterValue.with("Can't cast the value of message (user) attribute '%s' to a number.", name)
		}
	case "Binary":
		if len(a.BinaryValue) == 0 {
			return empty
		}
	default:
		return errInvalidParameterValue.with("The message attribute '%s' has an invalid message attribute type, the set of supported type prefixes is Binary, Number, and String.", name)
	}
	return nil
}

var numberPattern = regexp.MustCompile(`^[+-]?([0-9]+\.?[0-9]*|\.[0-9]+)([eE][+-]?[0-9]{1,3})?$`)

// validNumber says whether a text is a number as SQS takes it: up to 38 digits,
// between 10^-128 and 10^126.
func validNumber(s string) bool {
	s = strings.TrimSpace(s)
	if len(s) > 200 || !numberPattern.MatchString(s) {
		return false
	}
	f, _, err := big.ParseFloat(s, 10, 200, big.ToNearestEven)
	if err != nil {
		return false
	}
	limit, _, _ := big.ParseFloat("1e126", 10, 200, big.ToNearestEven)
	return f.Abs(f).Cmp(limit) <= 0
}

// validText says whether SQS takes a text: XML 1.0's characters.
func validText(s string) bool {
	for k, r := range s {
		switch {
		case r == 0x9, r == 0xA, r == 0xD, r >= 0x20 && r <= 0xD7FF, r >= 0xE000 && r <= 0xFFFD && r != utf8.RuneError, r >= 0x10000 && r <= 0x10FFFF:
		case r == utf8.RuneError:
			if _, n := utf8.DecodeRuneInString(s[k:]); n == 1 {
				return false
			}
		default:
			return false
		}
	}
	return true
}
