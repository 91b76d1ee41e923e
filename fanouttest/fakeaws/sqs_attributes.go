package fakeaws

import (
	"cmp"
	"encoding/json"
	"maps"
	"slices"
	"strconv"
	"strings"
	"time"
)

// queueAttributes are a queue's attributes: as they were given, and what the
// queue needs of them.
type queueAttributes struct {
	given map[string]string

	delay        instant
	visibility   instant
	wait         instant
	retained     instant
	mostSize     int
	redrive      *redrivePolicy
	redriveAllow redriveAllowPolicy
	byContent    bool
	byGroup      bool // DeduplicationScope is messageGroup
}

// retention is how long messages stay.
func (a *queueAttributes) retention() instant { return a.retained }

// attributeDefaults are the attributes that every queue has.
var attributeDefaults = map[string]string{
	"DelaySeconds":                  "0",
	"MaximumMessageSize":            "1048576",
	"MessageRetentionPeriod":        "345600",
	"ReceiveMessageWaitTimeSeconds": "0",
	"VisibilityTimeout":             "30",
	"SqsManagedSseEnabled":          "true",
}

// fifoDefaults are those that every FIFO queue has besides.
var fifoDefaults = map[string]string{
	"FifoQueue":                 "true",
	"ContentBasedDeduplication": "false",
	"DeduplicationScope":        "queue",
	"FifoThroughputLimit":       "perQueue",
}

// attributeRanges are the limits of attributes that are numbers.
var attributeRanges = map[string][2]int{
	"DelaySeconds":                  {0, 900},
	"MaximumMessageSize":            {1024, 1 << 20},
	"MessageRetentionPeriod":        {60, 14 * 24 * 3600},
	"ReceiveMessageWaitTimeSeconds": {0, 20},
	"VisibilityTimeout":             {0, 43200},
	"KmsDataKeyReusePeriodSeconds":  {60, 86400},
}

// attributeChoices are the values that others can have.
var attributeChoices = map[string][]string{
	"SqsManagedSseEnabled":      {"true", "false"},
	"ContentBasedDeduplication": {"true", "false"},
	"DeduplicationScope":        {"queue", "messageGroup"},
	"FifoThroughputLimit":       {"perQueue", "perMessageGroupId"},
	"FifoQueue":                 {"true"},
}

// attributesInText are those whose values are checked elsewhere or not at all.
var attributesInText = []string{"Policy", "RedrivePolicy", "RedriveAllowPolicy", "KmsMasterKeyId"}

// attributesCounted are those that only the queue itself sets.
var attributesCounted = []string{"QueueArn", "ApproximateNumberOfMessages", "ApproximateNumberOfMessagesNotVisible",
	"ApproximateNumberOfMessagesDelayed", "CreatedTimestamp", "LastModifiedTimestamp"}

// redrivePolicy is the attribute RedrivePolicy.
type redrivePolicy struct {
	target string
	most   int
}

// redriveAllowPolicy is the attribute RedriveAllowPolicy.
type redriveAllowPolicy struct {
	permission string // empty, allowAll, denyAll or byQueue
	sources    []string
}

// allows says whether the queue with the ARN may name this queue as its
// dead-letter queue.
func (p redriveAllowPolicy) allows(source string) bool {
	switch p.permission {
	case "denyAll":
		return false
	case "byQueue":
		return slices.Contains(p.sources, source)
	}
	return true
}

// newAttributes returns a new queue's attributes.
func newAttributes(fifo bool) queueAttributes {
	a := queueAttributes{given: maps.Clone(attributeDefaults)}
	if fifo {
		maps.Copy(a.given, fifoDefaults)
	}
	a.derive()
	return a
}

// derive sets the fields that come from the given attributes, which are valid.
func (a *queueAttributes) derive() {
	seconds := func(name string) instant {
		n, _ := strconv.Atoi(a.given[name])
		return instant(n) * time.Second
	}
	a.delay = seconds("DelaySeconds")
	a.visibility = seconds("VisibilityTimeout")
	a.wait = seconds("ReceiveMessageWaitTimeSeconds")
	a.retained = seconds("MessageRetentionPeriod")
	a.mostSize, _ = strconv.Atoi(a.given["MaximumMessageSize"])
	a.byContent = a.given["ContentBasedDeduplication"] == "true"
	a.byGroup = a.given["DeduplicationScope"] == "messageGroup"
	a.redrive, _ = parseRedrivePolicy(a.given["RedrivePolicy"])
	a.redriveAllow, _ = parseRedriveAllowPolicy(a.given["RedriveAllowPolicy"])
}

// withLocked returns the attributes with changes, or the error that SQS
// answers. An empty value takes an attribute away, where SQS lets it.
func (q *queue) withLocked(changes map[string]string) (queueAttributes, error) {
	next := queueAttributes{given: maps.Clone(q.attributes.given)}
	for _, name := range slices.Sorted(maps.Keys(changes)) {
		value := changes[name]
		if e := q.checkAttributeLocked(name, value); e != nil {
			return next, e
		}
		if value == "" {
			delete(next.given, name)
			continue
		}
		next.given[name] = normal(name, value)
	}
	if changes["KmsMasterKeyId"] != "" {
		if changes["SqsManagedSseEnabled"] == "true" {
			return next, errInvalidAttributeName.with("You can use one type of server-side encryption (SSE) at one time. You can either enable KMS SSE or SQS SSE.")
		}
		next.given["SqsManagedSseEnabled"] = "false"
	}
	if q.fifo && next.given["FifoThroughputLimit"] == "perMessageGroupId" && next.given["DeduplicationScope"] != "messageGroup" {
		return next, errInvalidAttributeValue.with("The perMessageGroupId value of FifoThroughputLimit requires the messageGroup value of DeduplicationScope.")
	}
	next.derive()
	return next, nil
}

// checkAttributeLocked returns the error that SQS answers to a value, nil if it
// can be.
func (q *queue) checkAttributeLocked(name, value string) error {
	invalid := errInvalidAttributeValue.with("Invalid value for the parameter %s.", name)
	if _, ok := fifoDefaults[name]; ok && !q.fifo {
		if name == "DeduplicationScope" || name == "FifoThroughputLimit" {
			return errInvalidAttributeName.with("You can specify the %s only when FifoQueue is set to true.", name)
		}
		return errInvalidAttributeName.with("Unknown Attribute %s.", name)
	}
	if limits, ok := attributeRanges[name]; ok {
		n, err := strconv.Atoi(value)
		if err != nil || n < limits[0] || n > limits[1] {
			return invalid
		}
		return nil
	}
	if choices, ok := attributeChoices[name]; ok {
		if !slices.Contains(choices, normal(name, value)) {
			return invalid
		}
		return nil
	}
	if !slices.Contains(attributesInText, name) {
		return errInvalidAttributeName.with("Unknown Attribute %s.", name)
	}
	if value == "" {
		return nil
	}
	switch name {
	case "RedrivePolicy":
		return q.checkRedriveLocked(value)
	case "RedriveAllowPolicy":
		if _, ok := parseRedriveAllowPolicy(value); !ok {
			return errInvalidAttributeValue.with("Value %s for parameter RedriveAllowPolicy is invalid. Reason: Amazon SQS can't create the redrive allow policy, as it's in an unsupported format.", value)
		}
	case "Policy":
		if !json.Valid([]byte(value)) || !strings.HasPrefix(strings.TrimSpace(value), "{") {
			return invalid
		}
	}
	return nil
}

// normal returns an attribute's value as SQS keeps it: it takes True for true.
func normal(name, value string) string {
	if choices := attributeChoices[name]; slices.Contains(choices, "true") {
		return strings.ToLower(value)
	}
	return value
}

// checkRedriveLocked checks a redrive policy against the queue that it names.
func (q *queue) checkRedriveLocked(value string) error {
	invalid := func(reason string) error {
		return errInvalidParameterValue.with("Value %s for parameter RedrivePolicy is invalid. Reason: %s", value, reason)
	}
	p, reason := parseRedrivePolicy(value)
	if reason != "" {
		return invalid(reason)
	}
	target, ok := parseARN(p.target)
	if !ok || target.service != "sqs" {
		return invalid("Invalid value for deadLetterTargetArn.")
	}
	if target.place != q.region.place {
		return invalid("Dead letter target owner should be same as the source.")
	}
	dead := q.region.queues[target.resource]
	if dead == nil {
		return errQueueDoesNotExist.with("Value %s for parameter RedrivePolicy is invalid. Reason: Dead letter target does not exist.", value)
	}
	if dead.fifo != q.fifo {
		return invalid("Dead-letter queue must be same type of queue as the source.")
	}
	if dead == q {
		return invalid("Dead-letter queue must not be the queue itself.")
	}
	if !dead.attributes.redriveAllow.allows(q.arn) {
		return invalid("The dead-letter queue's redrive allow policy does not permit this queue as its source.")
	}
	return nil
}

// parseRedrivePolicy reads a redrive policy, or says what is wrong with it.
// maxReceiveCount may be a number or a string.
func parseRedrivePolicy(value string) (*redrivePolicy, string) {
	if value == "" {
		return nil, ""
	}
	var p struct {
		DeadLetterTargetArn *string `json:"deadLetterTargetArn"`
		MaxReceiveCount     any     `json:"maxReceiveCount"`
	}
	const unreadable = "Redrive policy is not a valid JSON map."
	if err := json.Unmarshal([]byte(value), &p); err != nil {
		return nil, unreadable
	}
	if p.DeadLetterTargetArn == nil {
		return nil, "Redrive policy does not contain mandatory attribute: deadLetterTargetArn."
	}
	const wrongCount = "Invalid value for maxReceiveCount: it must be an integer from 1 to 1000."
	var most int
	switch n := p.MaxReceiveCount.(type) {
	case nil:
		return nil, "Redrive policy does not contain mandatory attribute: maxReceiveCount."
	case float64:
		most = int(n)
		if float64(most) != n {
			return nil, wrongCount
		}
	case string:
		var err error
		if most, err = strconv.Atoi(n); err != nil {
			return nil, wrongCount
		}
	default:
		return nil, wrongCount
	}
	if most < 1 || most > 1000 {
		return nil, wrongCount
	}
	return &redrivePolicy{target: *p.DeadLetterTargetArn, most: most}, ""
}

// parseRedriveAllowPolicy reads a redrive allow policy.
func parseRedriveAllowPolicy(value string) (redriveAllowPolicy, bool) {
	if value == "" {
		return redriveAllowPolicy{}, true
	}
	var p struct {
		RedrivePermission string   `json:"redrivePermission"`
		SourceQueueArns   []string `json:"sourceQueueArns"`
	}
	if err := json.Unmarshal([]byte(value), &p); err != nil {
		return redriveAllowPolicy{}, false
	}
	switch p.RedrivePermission {
	case "allowAll", "denyAll":
		if p.SourceQueueArns != nil {
			return redriveAllowPolicy{}, false
		}
	case "byQueue":
		if len(p.SourceQueueArns) == 0 || len(p.SourceQueueArns) > 10 {
			return redriveAllowPolicy{}, false
		}
	default:
		return redriveAllowPolicy{}, false
	}
	return redriveAllowPolicy{permission: p.RedrivePermission, sources: p.SourceQueueArns}, true
}

// knownAttribute says whether a queue can have the attribute.
func knownAttribute(name string) bool {
	_, a := attributeRanges[name]
	_, b := attributeChoices[name]
	return a || b || slices.Contains(attributesInText, name) || slices.Contains(attributesCounted, name)
}

// allAttributesLocked returns the queue's attributes, those that it counts too.
func (q *queue) allAttributesLocked() map[string]string {
	all := maps.Clone(q.attributes.given)
	if all["KmsMasterKeyId"] != "" && all["KmsDataKeyReusePeriodSeconds"] == "" {
		all["KmsDataKeyReusePeriodSeconds"] = "300"
	}
	all["QueueArn"] = q.arn
	all["ApproximateNumberOfMessages"] = strconv.Itoa(q.counts[visible])
	all["ApproximateNumberOfMessagesNotVisible"] = strconv.Itoa(q.counts[inFlight])
	all["ApproximateNumberOfMessagesDelayed"] = strconv.Itoa(q.counts[delayed])
	all["CreatedTimestamp"] = strconv.FormatInt(q.cloud.wall(q.created).Unix(), 10)
	all["LastModifiedTimestamp"] = strconv.FormatInt(q.cloud.wall(q.modified).Unix(), 10)
	return all
}

// delayAgainLocked gives the messages that are delayed or that nobody has
// received the queue's new delay: in FIFO queues a change holds for those that
// are there, too.
func (q *queue) delayAgainLocked(now instant) {
	var changed []*message
	for _, m := range q.byNumber {
		if m.state == delayed || m.state == visible && m.receivesHere == 0 {
			changed = append(changed, m)
		}
	}
	slices.SortFunc(changed, func(a, b *message) int { return cmp.Compare(a.number, b.number) })
	for _, m := range changed {
		if m.state == delayed {
			q.showLocked(m)
		}
		if due := m.enqueued + q.attributes.delay; due > now {
			q.hideLocked(m, delayed, due)
		}
	}
}
