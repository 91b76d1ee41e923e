package fakeaws

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"time"
	"unicode/utf8"
)

// A notification is a message that was published to a topic.
type notification struct {
	id         string
	sequence   string // of a FIFO topic
	body       string // for protocols that bodies does not name
	bodies     map[string]string
	subject    string
	attributes map[string]snsAttributeValue
	group      string
	dedupID    string
	at         time.Time
}

// text returns the message's body for a protocol.
func (n *notification) text(protocol string) string {
	if b, ok := n.bodies[protocol]; ok {
		return b
	}
	return n.body
}

// publish implements Publish.
func (c *call) publish(in *publishInput) (*publishOutput, error) {
	if in.PhoneNumber != nil {
		return nil, invalidParameter("PhoneNumber Reason: fakeaws sends no text messages")
	}
	topicARN := in.TopicArn
	if topicARN == nil {
		topicARN = in.TargetArn
	}
	if topicARN == nil {
		return nil, invalidParameter("TopicArn or TargetArn Reason: no value for required parameter")
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	t, err := c.topicLocked("TopicArn", topicARN)
	if err != nil {
		return nil, err
	}
	n, size, err := t.check(&publishBatchEntry{Message: in.Message, Subject: in.Subject, MessageStructure: in.MessageStructure,
		MessageAttributes: in.MessageAttributes, MessageDeduplicationId: in.MessageDeduplicationId, MessageGroupId: in.MessageGroupId})
	if err != nil {
		return nil, err
	}
	if size > t.mostSize() {
		return nil, invalidParameter("Message too long")
	}
	c.publishLocked(t, n)
	return &publishOutput{MessageId: n.id, SequenceNumber: n.sequence}, nil
}

// publishBatch implements PublishBatch.
func (c *call) publishBatch(in *publishBatchInput) (*publishBatchOutput, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	t, err := c.topicLocked("TopicArn", in.TopicArn)
	if err != nil {
		return nil, err
	}
	entries := in.PublishBatchRequestEntries
	switch {
	case len(entries) == 0:
		return nil, errSNSEmptyBatch.with("The batch request doesn't contain any entries.")
	case len(entries) > mostBatch:
		return nil, errSNSTooManyEntries.with("The batch request contains more entries than permissible.")
	}
	seen := map[string]bool{}
	total := 0
	for k := range entries {
		e := &entries[k]
		id := deref(e.Id)
		switch {
		case !entryIDPattern.MatchString(id):
			return nil, errSNSInvalidBatchID.with("The Id of a batch entry in a batch request doesn't abide by the specification.")
		case seen[id]:
			return nil, errSNSBatchIDs.with("Two or more batch entries in the request have the same Id.")
		case t.fifo && deref(e.MessageGroupId) == "":
			return nil, invalidParameter("The MessageGroupId parameter is required for FIFO topics")
		}
		seen[id] = true
		total += sizeOf(e)
	}
	if total > t.mostSize() {
		return nil, errSNSBatchTooLong.with("The length of all the batch messages put together is more than the limit.")
	}
	out := &publishBatchOutput{}
	for k := range entries {
		e := &entries[k]
		err := c.entryFault(*e.Id)
		var n *notification
		if err == nil {
			n, _, err = t.check(e)
		}
		if err != nil {
			out.Failed = append(out.Failed, failure(*e.Id, err))
			continue
		}
		c.publishLocked(t, n)
		out.Successful = append(out.Successful, publishBatchResult{Id: *e.Id, MessageId: n.id, SequenceNumber: n.sequence})
	}
	return out, nil
}

// sizeOf is what a message counts: body, attributes and subject.
func sizeOf(e *publishBatchEntry) int {
	size := len(deref(e.Message))
	for name, a := range e.MessageAttributes {
		size += len(name) + len(deref(a.DataType)) + len(deref(a.StringValue)) + len(a.BinaryValue)
	}
	return size
}

// check checks a message as SNS does.
func (t *topic) check(e *publishBatchEntry) (*notification, int, error) {
	n := &notification{body: deref(e.Message), subject: deref(e.Subject), attributes: e.MessageAttributes, group: deref(e.MessageGroupId), dedupID: deref(e.MessageDeduplicationId)}
	if n.body == "" {
		return nil, 0, invalidParameter("Empty message")
	}
	if !utf8.ValidString(n.body) {
		return nil, 0, invalidParameter("Message Reason: a message must be UTF-8 text")
	}
	if e.Subject != nil && (n.subject == "" || utf8.RuneCountInString(n.subject) > 100 || strings.ContainsFunc(n.subject, func(r rune) bool { return r < ' ' })) {
		return nil, 0, invalidParameter("Subject")
	}
	switch structure := deref(e.MessageStructure); structure {
	case "":
	case "json":
		if err := json.Unmarshal([]byte(n.body), &n.bodies); err != nil {
			return nil, 0, invalidParameter("Message Structure - JSON message body failed to parse")
		}
		body, ok := n.bodies["default"]
		if !ok {
			return nil, 0, invalidParameter("Message Structure - No default entry in JSON message body")
		}
		n.body = body
	default:
		return nil, 0, invalidParameter("MessageStructure")
	}
	for name, a := range e.MessageAttributes {
		if err := checkTopicMessageAttribute(name, a); err != nil {
			return nil, 0, err
		}
	}
	for parameter, id := range map[string]*string{"MessageGroupId": e.MessageGroupId, "MessageDeduplicationId": e.MessageDeduplicationId} {
		if id != nil && !tokenPattern.MatchString(*id) {
			return nil, 0, invalidParameter("%s Reason: can only include alphanumeric and punctuation characters, 1 to 128 in length", parameter)
		}
	}
	if !t.fifo {
		if e.MessageDeduplicationId != nil {
			return nil, 0, invalidParameter("MessageDeduplicationId Reason: The request includes MessageDeduplicationId parameter that is not valid for this topic type")
		}
		return n, sizeOf(e), nil
	}
	if n.group == "" {
		return nil, 0, invalidParameter("The MessageGroupId parameter is required for FIFO topics")
	}
	if n.dedupID == "" {
		if t.attribute("ContentBasedDeduplication") != "true" {
			return nil, 0, invalidParameter("The topic should either have ContentBasedDeduplication enabled or MessageDeduplicationId provided explicitly")
		}
		sum := sha256.Sum256([]byte(deref(e.Message)))
		n.dedupID = hex.EncodeToString(sum[:])
	}
	return n, sizeOf(e), nil
}

func checkTopicMessageAttribute(name string, a snsAttributeValue) error {
	if deref(a.DataType) == "String.Array" {
		var elements []any
		if err := json.Unmarshal([]byte(deref(a.StringValue)), &elements); err != nil {
			return errSNSParameterValue.with("The message attribute '%s' must be a JSON array.", name)
		}
	}
	err := checkAttribute(name, attributeValue{DataType: a.DataType, StringValue: a.StringValue, BinaryValue: a.BinaryValue})
	if e, ok := asAPIError(err); ok {
		return errSNSParameterValue.with("%s", e.message)
	}
	return err
}

// publishLocked gives a message to all subscriptions that want it, unless it is
// a duplicate, and completes it.
func (c *call) publishLocked(t *topic, n *notification) {
	now := c.clock()
	n.id, n.at = newID(), c.wall(now)
	if t.fifo {
		key := n.dedupID
		if t.attribute("FifoThroughputScope") == "MessageGroup" {
			key = n.group + " " + key
		}
		if first := t.recent.find(key, now); first != nil {
			n.id, n.sequence = first.messageID, first.sequence
			return
		}
		t.sequence++
		n.sequence = fmt.Sprintf("1%019d", t.sequence*1000)
		t.recent.add(key, n.id, n.sequence, now)
	}
	p := Published{ID: n.id, Body: n.body, Subject: n.subject, Time: n.at, Group: n.group, DeduplicationID: n.dedupID, Sequence: n.sequence}
	for name, a := range n.attributes {
		if p.Attributes == nil {
			p.Attributes = map[string]Attribute{}
		}
		p.Attributes[name] = Attribute{Type: deref(a.DataType), String: deref(a.StringValue), Binary: slices.Clone(a.BinaryValue)}
	}
	p.Deliveries = make([]TopicDelivery, len(t.subscriptions))
	for k, s := range t.subscriptions {
		d := &p.Deliveries[k]
		d.Endpoint, d.Subscription = s.endpoint, s.arn
		switch {
		case s.token != "":
			d.Outcome = NotConfirmed
		case !s.wants(n, now):
			d.Outcome = Filtered
		default:
			c.deliverLocked(s, n, d)
		}
	}
	if c.tb != nil {
		t.published = append(t.published, p)
	}
}

// deliverLocked delivers a message to a subscription, or begins to. It writes to
// told what became of it, now and, under the lock, later.
func (c *call) deliverLocked(s *subscription, n *notification, told *TopicDelivery) {
	switch s.protocol {
	case "sqs":
		c.enqueueLocked(s, n, told)
	case "http", "https":
		c.postLocked(s, n, told)
	case "lambda":
		c.invokeFunctionLocked(s, n, told)
	}
}

// enqueueLocked sends a message to a subscription's queue. SNS does not try
// again: that the queue is not there, or does not permit it, is the client's
// fault.
func (c *call) enqueueLocked(s *subscription, n *notification, told *TopicDelivery) {
	m := s.contentOf(c, n)
	told.Attempts = 1
	code, why := c.sendFromTopicLocked(s.topic, s.endpoint, m)
	if code == "" {
		told.Outcome = Delivered
		return
	}
	c.failLocked(s, m, code, why, told)
}

// failLocked is called when a message will not be delivered to a subscription:
// it sends it to the subscription's dead-letter queue, if it has one.
func (c *call) failLocked(s *subscription, m content, code, why string, told *TopicDelivery) {
	told.Outcome, told.Error = Lost, why
	if s.dead != "" {
		letter := m
		letter.attributes = map[string]attributeValue{}
		for name, a := range m.attributes {
			letter.attributes[name] = a
		}
		for name, value := range map[string]string{"RequestID": c.requestID, "ErrorCode": code, "ErrorMessage": why} {
			letter.attributes[name] = attributeValue{DataType: ptr("String"), StringValue: &value}
		}
		if len(letter.attributes) > mostAttributes {
			letter.attributes = nil
		}
		letter.digest()
		code, whyNot := c.sendFromTopicLocked(s.topic, s.dead, letter)
		if code == "" {
			told.Outcome = DeadLettered
			return
		}
		told.Error += "; and its dead-letter queue: " + whyNot
	}
	c.warnings = append(c.warnings, fmt.Sprintf("fakeaws: a message from topic %s to %s was lost: %s", s.topic.name, s.endpoint, told.Error))
}

func ptr[T any](v T) *T { return &v }

// sendFromTopicLocked sends a message from a topic to a queue. It returns a
// code and a reason if the queue does not take it.
func (c *call) sendFromTopicLocked(t *topic, queueARN string, m content) (code, why string) {
	q := c.queueByARNLocked(queueARN)
	if q == nil {
		return "AWS.SimpleQueueService.NonExistentQueue", "there is no queue " + queueARN
	}
	v := q.rules.judge(q.attributes.given["Policy"], access{service: "sns.amazonaws.com", action: "sqs:SendMessage", resource: q.arn, sourceARN: t.arn, sourceAccount: t.region.account})
	switch {
	case v != allowed:
		return "AccessDenied", fmt.Sprintf("the policy of queue %s does not allow sns.amazonaws.com to SendMessage from %s", q.name, t.arn)
	case len(m.attributes) > mostAttributes:
		return "InvalidParameterValue", fmt.Sprintf("it has %d attributes, and a message in SQS up to %d", len(m.attributes), mostAttributes)
	case m.size > q.attributes.mostSize:
		return "InvalidParameterValue", fmt.Sprintf("it has %d bytes, and queue %s takes %d", m.size, q.name, q.attributes.mostSize)
	case !validText(m.body):
		return "InvalidMessageContents", "it has characters that SQS does not take"
	}
	if q.fifo {
		m.deduplicationKey = q.deduplicationKey(&m)
	} else {
		m.deduplicationID = ""
		if t.fifo {
			m.groupID = ""
		}
	}
	c.sendLocked(q, m, q.attributes.delay)
	q.serveLocked(c.clock())
	return "", ""
}

// envelope is what SNS puts around a message that is not delivered raw.
type envelope struct {
	Type              string
	MessageID         string `json:"MessageId"`
	Token             string `json:",omitempty"`
	SequenceNumber    string `json:",omitempty"`
	TopicArn          string
	Subject           string `json:",omitempty"`
	Message           string
	SubscribeURL      string `json:",omitempty"`
	Timestamp         string
	SignatureVersion  string                       `json:",omitempty"`
	Signature         string                       `json:",omitempty"`
	SigningCertURL    string                       `json:",omitempty"`
	UnsubscribeURL    string                       `json:",omitempty"`
	MessageAttributes map[string]envelopeAttribute `json:",omitempty"`
}

type envelopeAttribute struct{ Type, Value string }

// timestamp writes a time as SNS does.
func timestamp(t time.Time) string { return t.UTC().Format("2006-01-02T15:04:05.000Z") }

// contentOf makes the message for SQS of one that was published.
func (s *subscription) contentOf(c *call, n *notification) content {
	m := content{groupID: n.group, deduplicationID: n.dedupID}
	if s.raw {
		m.body = n.text(s.protocol)
		for name, a := range n.attributes {
			if m.attributes == nil {
				m.attributes = map[string]attributeValue{}
			}
			m.attributes[name] = attributeValue{DataType: a.DataType, StringValue: a.StringValue, BinaryValue: a.BinaryValue}
		}
	} else {
		e := s.envelopeOf(c, n)
		if c.signedEnvelopes {
			e.sign(s.topic.signatureVersion(), c.snsURL(s.topic))
		}
		m.body = e.encode()
	}
	m.digest()
	return m
}

// envelopeOf puts the envelope around a message that was published.
func (s *subscription) envelopeOf(c *call, n *notification) envelope {
	e := envelope{Type: typeNotification, MessageID: n.id, SequenceNumber: n.sequence, TopicArn: s.topic.arn, Subject: n.subject, Message: n.text(s.protocol),
		Timestamp: timestamp(n.at), UnsubscribeURL: c.snsURL(s.topic) + "/?Action=Unsubscribe&SubscriptionArn=" + s.arn}
	for name, a := range n.attributes {
		if e.MessageAttributes == nil {
			e.MessageAttributes = map[string]envelopeAttribute{}
		}
		value := deref(a.StringValue)
		if a.BinaryValue != nil {
			value = encodeBase64(a.BinaryValue)
		}
		e.MessageAttributes[name] = envelopeAttribute{Type: deref(a.DataType), Value: value}
	}
	return e
}

func (e *envelope) encode() string {
	text, _ := encodeJSON(e) // strings do not fail
	return string(text)
}

// digest completes a message that was not sent by a client.
func (m *content) digest() {
	m.bodyMD5, m.attributesMD5 = md5Of(m.body), md5OfAttributes(m.attributes)
	m.size = len(m.body)
	for name, a := range m.attributes {
		m.size += len(name) + len(deref(a.DataType)) + len(deref(a.StringValue)) + len(a.BinaryValue)
	}
}

// snsURL returns scheme and host of URLs that SNS hands out.
func (c *call) snsURL(t *topic) string {
	if c.base != "" {
		return c.base
	}
	return "https://" + snsHost(t.region.region)
}

func snsHost(region string) string { return "sns." + region + ".amazonaws.com" }

// confirmationLocked sends what asks the owner of an endpoint to confirm a
// subscription.
func (c *call) confirmationLocked(s *subscription) {
	s.asked = c.clock()
	e := c.tokenEnvelope(s, typeConfirmation, "You have chosen to subscribe to the topic "+s.topic.arn+".\nTo confirm the subscription, visit the SubscribeURL included in this message.", s.token)
	if s.overHTTP() {
		c.postConfirmationLocked(s, e)
		return
	}
	if c.signedEnvelopes {
		e.sign(s.topic.signatureVersion(), c.snsURL(s.topic))
	}
	m := content{body: e.encode(), groupID: "confirmation", deduplicationID: e.MessageID}
	m.digest()
	if _, why := c.sendFromTopicLocked(s.topic, s.endpoint, m); why != "" {
		c.warnings = append(c.warnings, fmt.Sprintf("fakeaws: the confirmation of a subscription of topic %s was lost: %s", s.topic.name, why))
	}
}

// tokenEnvelope returns a message whose URL confirms a subscription.
func (c *call) tokenEnvelope(s *subscription, kind, text, token string) envelope {
	return envelope{Type: kind, MessageID: newID(), Token: token, TopicArn: s.topic.arn, Timestamp: timestamp(c.wall(c.clock())), Message: text,
		SubscribeURL: c.snsURL(s.topic) + "/?Action=ConfirmSubscription&TopicArn=" + s.topic.arn + "&Token=" + token}
}
