package fakeaws

import (
	"encoding/json"
	"fmt"
	"maps"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"unicode/utf8"
)

// snsRegion is what one account's SNS has in one region.
type snsRegion struct {
	topics map[string]*topic
}

// A topic is one topic of SNS.
//
// Invariants: subscriptions are in the order in which they were made. All is
// guarded by the cloud's lock.
type topic struct {
	region        *region
	name          string
	arn           string
	fifo          bool
	attributes    map[string]string
	rules         readPolicy
	tags          map[string]string
	subscriptions []*subscription
	deleted       int                      // subscriptions
	left          map[string]*subscription // those that have ended, by the token that brings them back
	sequence      uint64
	recent        recentIDs
	published     []Published // if the fake keeps it
}

var (
	topicNamePattern = regexp.MustCompile(`^[A-Za-z0-9_-]{1,256}$`)
	feedbackPattern  = regexp.MustCompile(`^(HTTP|Firehose|Lambda|Application|SQS)(SuccessFeedbackRoleArn|FailureFeedbackRoleArn|SuccessFeedbackSampleRate)$`)
)

// topicChoices are the attributes of topics that have few values.
var topicChoices = map[string][]string{
	"FifoTopic":                 {"true", "false"},
	"ContentBasedDeduplication": {"true", "false"},
	"FifoThroughputScope":       {"Topic", "MessageGroup"},
	"SignatureVersion":          {"1", "2"},
	"TracingConfig":             {"PassThrough", "Active"},
}

// The limits of what is published.
const (
	defaultTopicSize = 256 << 10
	mostTopicSize    = 1 << 20
	mostTopicTags    = 50
)

// checkTopicAttribute returns the error that SNS answers to a value, nil if it
// can be.
func (t *topic) checkAttribute(name, value string) error {
	if choices, ok := topicChoices[name]; ok {
		fifoOnly := name == "ContentBasedDeduplication" || name == "FifoThroughputScope"
		if fifoOnly && !t.fifo || !slices.Contains(choices, value) {
			return invalidParameter("Attributes Reason: %s: Invalid value %q", name, value)
		}
		return nil
	}
	switch name {
	case "DisplayName":
		if utf8.RuneCountInString(value) > 100 {
			return invalidParameter("Attributes Reason: DisplayName: must be at most 100 characters long")
		}
	case "DeliveryPolicy":
		if _, err := deliveryPolicyOf(value, "", false); err != nil {
			return invalidParameter("DeliveryPolicy: %v", err)
		}
	case "Policy":
		if value != "" && !(json.Valid([]byte(value)) && strings.HasPrefix(strings.TrimSpace(value), "{")) {
			return invalidParameter("Attributes Reason: %s: Invalid JSON", name)
		}
	case "MaximumMessageSize":
		if n, err := strconv.Atoi(value); err != nil || n < 1024 || n > mostTopicSize {
			return invalidParameter("Attributes Reason: MaximumMessageSize: must be from 1024 to %d", mostTopicSize)
		}
	case "KmsMasterKeyId":
	default:
		if !feedbackPattern.MatchString(name) {
			return invalidParameter("Attributes Reason: Unknown attribute %s", name)
		}
	}
	return nil
}

// createTopic implements CreateTopic.
func (c *call) createTopic(in *createTopicInput) (*topicOutput, error) {
	name := deref(in.Name)
	base, fifo := strings.CutSuffix(name, ".fifo")
	if !topicNamePattern.MatchString(base) || len(name) > 256 || fifo != (in.Attributes["FifoTopic"] == "true") {
		if fifo || in.Attributes["FifoTopic"] == "true" {
			return nil, invalidParameter("Topic Name Reason: Fifo Topic names must end with .fifo and must be made up of only uppercase and lowercase ASCII letters, numbers, underscores, and hyphens, and must be between 1 and 256 characters long.")
		}
		return nil, invalidParameter("Topic Name")
	}
	if in.DataProtectionPolicy != nil {
		return nil, invalidParameter("DataProtectionPolicy Reason: fakeaws has no data protection")
	}
	tags := tagMap(in.Tags)
	if err := checkTopicTags(tags); err != nil {
		return nil, err
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	r := c.regionOfLocked()
	t := &topic{region: r, name: name, arn: arn{"sns", r.place, name}.String(), fifo: fifo, attributes: map[string]string{}, tags: tags}
	for attribute, value := range in.Attributes {
		if err := t.checkAttribute(attribute, value); err != nil {
			return nil, err
		}
		t.attributes[attribute] = value
	}
	if old := r.sns.topics[name]; old != nil {
		for attribute, value := range in.Attributes {
			if old.attribute(attribute) != value {
				return nil, invalidParameter("Attributes Reason: Topic already exists with different attributes")
			}
		}
		if len(in.Tags) > 0 && !maps.Equal(tags, old.tags) {
			return nil, invalidParameter("Tags Reason: Topic already exists with different tags")
		}
		return &topicOutput{old.arn}, nil
	}
	if r.sns.topics == nil {
		r.sns.topics = map[string]*topic{}
	}
	r.sns.topics[name] = t
	return &topicOutput{t.arn}, nil
}

// attribute returns an attribute's value, the default if none was given.
func (t *topic) attribute(name string) string {
	if v, ok := t.attributes[name]; ok {
		return v
	}
	switch {
	case name == "FifoTopic", name == "ContentBasedDeduplication":
		return "false"
	case name == "FifoThroughputScope" && t.fifo:
		return "Topic"
	}
	return ""
}

// signatureVersion is how its messages are signed.
func (t *topic) signatureVersion() string {
	if t.attributes["SignatureVersion"] == "2" {
		return "2"
	}
	return "1"
}

// mostSize is how long a message may be.
func (t *topic) mostSize() int {
	if n, err := strconv.Atoi(t.attributes["MaximumMessageSize"]); err == nil {
		return n
	}
	return defaultTopicSize
}

// topicLocked returns the topic with an ARN, if the caller may use it.
func (c *call) topicLocked(parameter string, topicARN *string) (*topic, error) {
	a, ok := parseARN(deref(topicARN))
	if !ok || a.service != "sns" {
		return nil, invalidParameter("%s Reason: An ARN must have at least 6 elements, not %d", parameter, strings.Count(deref(topicARN), ":")+1)
	}
	if a.region != c.place.region {
		return nil, invalidParameter("%s", parameter)
	}
	var t *topic
	if r := c.regions[a.place]; r != nil {
		t = r.sns.topics[a.resource]
	}
	if t == nil {
		return nil, errSNSNotFound.with("Topic does not exist")
	}
	t.expireLocked(c.clock())
	v := t.rules.judge(t.attributes["Policy"], access{account: c.account, action: "sns:" + strings.TrimSuffix(c.operation, "Batch"), resource: t.arn})
	if v == denied || c.account != a.account && v != allowed {
		return nil, errSNSAuthorization.with("User: arn:aws:iam::%s:root is not authorized to perform: SNS:%s on resource: %s because no resource-based policy allows the SNS:%s action",
			c.account, c.operation, t.arn, c.operation)
	}
	return t, nil
}

// deleteTopic implements DeleteTopic. Deleting a topic that is not there
// succeeds.
func (c *call) deleteTopic(in *topicInput) (*emptyOutput, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	t, err := c.topicLocked("TopicArn", in.TopicArn)
	if e, ok := asAPIError(err); ok && e.shape == errSNSNotFound.shape {
		return &emptyOutput{}, nil
	}
	if err != nil {
		return nil, err
	}
	delete(t.region.sns.topics, t.name)
	return &emptyOutput{}, nil
}

// getTopicAttributes implements GetTopicAttributes.
func (c *call) getTopicAttributes(in *topicInput) (*snsAttributesOutput, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	t, err := c.topicLocked("TopicArn", in.TopicArn)
	if err != nil {
		return nil, err
	}
	all := map[string]string{"DisplayName": ""}
	if t.fifo {
		maps.Copy(all, map[string]string{"ContentBasedDeduplication": "false", "FifoThroughputScope": "Topic"})
	}
	maps.Copy(all, t.attributes)
	if all["Policy"] == "" {
		all["Policy"] = fmt.Sprintf(`{"Version":"2008-10-17","Id":"__default_policy_ID","Statement":[{"Sid":"__default_statement_ID","Effect":"Allow","Principal":{"AWS":"*"},"Action":["SNS:GetTopicAttributes","SNS:SetTopicAttributes","SNS:AddPermission","SNS:RemovePermission","SNS:DeleteTopic","SNS:Subscribe","SNS:ListSubscriptionsByTopic","SNS:Publish"],"Resource":%q,"Condition":{"StringEquals":{"AWS:SourceOwner":%q}}}]}`,
			t.arn, t.region.account)
	}
	all["TopicArn"], all["Owner"] = t.arn, t.region.account
	all["EffectiveDeliveryPolicy"] = t.effectiveDeliveryPolicy()
	confirmed := 0
	for _, s := range t.subscriptions {
		if s.token == "" {
			confirmed++
		}
	}
	all["SubscriptionsConfirmed"] = strconv.Itoa(confirmed)
	all["SubscriptionsPending"] = strconv.Itoa(len(t.subscriptions) - confirmed)
	all["SubscriptionsDeleted"] = strconv.Itoa(t.deleted)
	return &snsAttributesOutput{all}, nil
}

// setTopicAttributes implements SetTopicAttributes.
func (c *call) setTopicAttributes(in *setTopicAttributesInput) (*emptyOutput, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	t, err := c.topicLocked("TopicArn", in.TopicArn)
	if err != nil {
		return nil, err
	}
	name := deref(in.AttributeName)
	if name == "FifoTopic" {
		return nil, invalidParameter("AttributeName")
	}
	if err := t.checkAttribute(name, deref(in.AttributeValue)); err != nil {
		return nil, err
	}
	t.attributes[name] = deref(in.AttributeValue)
	return &emptyOutput{}, nil
}

// listTopics implements ListTopics.
func (c *call) listTopics(in *listTopicsInput) (*listTopicsOutput, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	arns := []string{}
	for _, t := range c.regionOfLocked().sns.topics {
		arns = append(arns, t.arn)
	}
	page, next, err := snsPage(arns, in.NextToken)
	if err != nil {
		return nil, err
	}
	out := &listTopicsOutput{NextToken: next}
	for _, a := range page {
		out.Topics = append(out.Topics, topicOutput{a})
	}
	return out, nil
}

// snsPage returns one page, of 100, of what is sorted by ARN.
func snsPage(arns []string, token *string) (page []string, next string, err error) {
	const size = 100
	slices.Sort(arns)
	if last := deref(token); last != "" {
		if !strings.HasPrefix(last, "arn:") {
			return nil, "", invalidParameter("NextToken")
		}
		k, found := slices.BinarySearch(arns, last)
		if found {
			k++
		}
		arns = arns[k:]
	}
	if len(arns) > size {
		return arns[:size], arns[size-1], nil
	}
	return arns, "", nil
}

// addTopicPermission implements AddPermission.
func (c *call) addTopicPermission(in *addTopicPermissionInput) (*emptyOutput, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	t, err := c.topicLocked("TopicArn", in.TopicArn)
	if err != nil {
		return nil, err
	}
	if deref(in.Label) == "" || len(in.AWSAccountId) == 0 || len(in.ActionName) == 0 {
		return nil, invalidParameter("Label, AWSAccountId and ActionName must be given")
	}
	s := statement{Sid: *in.Label, Effect: "Allow", Principal: principals{}, Resource: oneOrMore{t.arn}}
	for _, id := range in.AWSAccountId {
		if !accountPattern.MatchString(id) {
			return nil, invalidParameter("AWSAccountId %s", id)
		}
		s.Principal["AWS"] = append(s.Principal["AWS"], "arn:aws:iam::"+id+":root")
	}
	for _, action := range in.ActionName {
		if _, ok := snsOperations[action]; !ok {
			return nil, invalidParameter("Policy statement action out of service scope!")
		}
		s.Action = append(s.Action, "SNS:"+action)
	}
	p, err := t.policy()
	if err != nil {
		return nil, err
	}
	if slices.ContainsFunc(p.Statement, func(s statement) bool { return s.Sid == *in.Label }) {
		return nil, invalidParameter("Statement already exists")
	}
	p.Statement = append(p.Statement, s)
	return &emptyOutput{}, t.setPolicy(p)
}

// removeTopicPermission implements RemovePermission.
func (c *call) removeTopicPermission(in *removeTopicPermissionInput) (*emptyOutput, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	t, err := c.topicLocked("TopicArn", in.TopicArn)
	if err != nil {
		return nil, err
	}
	p, err := t.policy()
	if err != nil {
		return nil, err
	}
	p.Statement = slices.DeleteFunc(p.Statement, func(s statement) bool { return s.Sid == deref(in.Label) })
	return &emptyOutput{}, t.setPolicy(p)
}

func (t *topic) policy() (p policy, err error) {
	document := t.attributes["Policy"]
	if document == "" {
		return policy{Version: "2008-10-17", ID: "__default_policy_ID"}, nil
	}
	if err := json.Unmarshal([]byte(document), &p); err != nil {
		return p, invalidParameter("Policy: %v", err)
	}
	return p, nil
}

func (t *topic) setPolicy(p policy) error {
	document, err := encodeJSON(p)
	if err != nil {
		return errInternal.with("%v", err)
	}
	t.attributes["Policy"] = string(document)
	return nil
}

func tagMap(tags []snsTag) map[string]string {
	m := map[string]string{}
	for _, t := range tags {
		m[t.Key] = t.Value
	}
	return m
}

func checkTopicTags(tags map[string]string) error {
	if len(tags) > mostTopicTags {
		return errSNSTagLimit.with("Could not complete request: tag quota of per resource exceeded")
	}
	for key, value := range tags {
		if key == "" || utf8.RuneCountInString(key) > 128 || utf8.RuneCountInString(value) > 256 || strings.HasPrefix(strings.ToLower(key), "aws:") {
			return invalidParameter("Tags Reason: tag %q", key)
		}
	}
	return nil
}

// taggedLocked returns the topic whose tags a request is about.
func (c *call) taggedLocked(resource *string) (*topic, error) {
	t, err := c.topicLocked("ResourceArn", resource)
	if e, ok := asAPIError(err); ok && e.shape == errSNSNotFound.shape {
		return nil, errSNSResourceNotFound.with("Resource does not exist")
	}
	return t, err
}

// tagResource implements TagResource.
func (c *call) tagResource(in *tagResourceInput) (*emptyOutput, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	t, err := c.taggedLocked(in.ResourceArn)
	if err != nil {
		return nil, err
	}
	tags := maps.Clone(t.tags)
	maps.Copy(tags, tagMap(in.Tags))
	if err := checkTopicTags(tags); err != nil {
		return nil, err
	}
	t.tags = tags
	return &emptyOutput{}, nil
}

// untagResource implements UntagResource.
func (c *call) untagResource(in *untagResourceInput) (*emptyOutput, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	t, err := c.taggedLocked(in.ResourceArn)
	if err != nil {
		return nil, err
	}
	for _, key := range in.TagKeys {
		delete(t.tags, key)
	}
	return &emptyOutput{}, nil
}

// listTagsForResource implements ListTagsForResource.
func (c *call) listTagsForResource(in *resourceInput) (*listTagsOutput, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	t, err := c.taggedLocked(in.ResourceArn)
	if err != nil {
		return nil, err
	}
	out := &listTagsOutput{}
	for _, key := range slices.Sorted(maps.Keys(t.tags)) {
		out.Tags = append(out.Tags, snsTag{key, t.tags[key]})
	}
	return out, nil
}
