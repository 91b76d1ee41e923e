package fakeaws

import (
	"encoding/base64"
	"maps"
	"net/url"
	"regexp"
	"slices"
	"strings"
	"time"
	"unicode/utf8"
)

var (
	queueNamePattern = regexp.MustCompile(`^[A-Za-z0-9_-]{1,80}$`)
	queueHostPattern = regexp.MustCompile(`^sqs\.([a-z0-9-]+)\.amazonaws\.com$`)
)

// url returns the queue's URL, as the caller sees it.
func (c *call) queueURL(q *queue) string {
	base := c.base
	if base == "" {
		base = "https://sqs." + q.region.region + ".amazonaws.com"
	}
	return base + "/" + q.region.account + "/" + q.name
}

// queueOfLocked returns the queue with a URL. Of the URL only the path counts,
// except that a URL of another region is not valid here.
func (c *call) queueOfLocked(queueURL *string) (*queue, error) {
	if deref(queueURL) == "" {
		return nil, missing("QueueUrl")
	}
	invalid := errInvalidAddress.with("The address %s is not valid for this endpoint.", *queueURL)
	if queueNamePattern.MatchString(strings.TrimSuffix(*queueURL, ".fifo")) {
		return c.queueNamedLocked(c.place, *queueURL) // SQS takes a name, too
	}
	u, err := url.Parse(*queueURL)
	if err != nil {
		return nil, invalid
	}
	if m := queueHostPattern.FindStringSubmatch(u.Host); m != nil && m[1] != c.place.region {
		return nil, invalid
	}
	account, name, ok := strings.Cut(strings.TrimPrefix(u.Path, "/"), "/")
	if !ok || !accountPattern.MatchString(account) || name == "" {
		return nil, invalid
	}
	return c.queueNamedLocked(place{account: account, region: c.place.region}, name)
}

// queueNamedLocked returns a queue by its name, if the caller may use it.
func (c *call) queueNamedLocked(p place, name string) (*queue, error) {
	var q *queue
	if r := c.regions[p]; r != nil {
		q = r.queues[name]
	}
	if q == nil {
		return nil, errQueueDoesNotExist.with("The specified queue does not exist.")
	}
	if err := c.mayLocked(q); err != nil {
		return nil, err
	}
	return q, nil
}

// ownOperations are those that only a queue's own account may call, whatever
// its policy says.
var ownOperations = []string{"AddPermission", "CreateQueue", "DeleteQueue", "ListQueueTags", "RemovePermission",
	"SetQueueAttributes", "TagQueue", "UntagQueue"}

// mayLocked returns an error if the caller may not do this to the queue. The
// queue's own account may do what the policy does not deny, others what it
// allows.
func (c *call) mayLocked(q *queue) error {
	action := strings.TrimSuffix(c.operation, "Batch")
	v := q.rules.judge(q.attributes.given["Policy"], access{account: c.account, action: "sqs:" + action, resource: q.arn})
	own := c.account == q.region.account
	if v == denied || !own && (v != allowed || slices.Contains(ownOperations, c.operation)) {
		reason := "because no resource-based policy allows"
		if v == denied {
			reason = "with an explicit deny in a resource-based policy to"
		}
		return errAccessDenied.with("User: arn:aws:iam::%s:root is not authorized to perform: sqs:%s on resource: %s %s the sqs:%s action",
			c.account, strings.ToLower(action), q.arn, reason, strings.ToLower(action))
	}
	return nil
}

// missing is the error for a parameter that must be given.
func missing(parameter string) *apiError {
	return errMissingParameter.with("The request must contain the parameter %s.", parameter)
}

// createQueue implements CreateQueue.
func (c *call) createQueue(in *createQueueInput) (*queueURLOutput, error) {
	name := deref(in.QueueName)
	if name == "" {
		return nil, missing("QueueName")
	}
	base, fifo := strings.CutSuffix(name, ".fifo")
	wantsFIFO := strings.EqualFold(in.Attributes["FifoQueue"], "true")
	switch {
	case wantsFIFO && (!fifo || !queueNamePattern.MatchString(base) || len(name) > 80):
		return nil, errInvalidParameterValue.with("The name of a FIFO queue can only include alphanumeric characters, hyphens, or underscores, must end with .fifo suffix and be 1 to 80 in length")
	case !wantsFIFO && !queueNamePattern.MatchString(name):
		return nil, errInvalidParameterValue.with("Can only include alphanumeric characters, hyphens, or underscores. 1 to 80 in length")
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	now := c.clock()
	r := c.regionOfLocked()
	if q := r.queues[name]; q != nil {
		for attribute, value := range in.Attributes {
			if q.attributes.given[attribute] != normal(attribute, value) {
				if e := q.checkAttributeLocked(attribute, value); e != nil {
					return nil, e
				}
				return nil, errQueueNameExists.with("A queue already exists with the same name and a different value for attribute %s", attribute)
			}
		}
		return &queueURLOutput{c.queueURL(q)}, nil
	}
	if deleted, ok := r.deleted[name]; ok {
		if now < deleted+time.Minute {
			return nil, errQueueDeletedRecently.with("You must wait 60 seconds after deleting a queue before you can create another with the same name.")
		}
		delete(r.deleted, name)
	}
	q := newQueue(c.cloud, r, name)
	q.fifo = fifo
	q.attributes = newAttributes(fifo)
	attributes, err := q.withLocked(in.Attributes)
	if err != nil {
		return nil, err
	}
	if err := checkTags(in.Tags); err != nil {
		return nil, err
	}
	c.serials++
	q.serial, q.attributes, q.created, q.modified = c.serials, attributes, now, now
	q.tags = maps.Clone(in.Tags)
	if r.queues == nil {
		r.queues = map[string]*queue{}
	}
	r.queues[name] = q
	return &queueURLOutput{c.queueURL(q)}, nil
}

// getQueueURL implements GetQueueUrl.
func (c *call) getQueueURL(in *getQueueURLInput) (*queueURLOutput, error) {
	if deref(in.QueueName) == "" {
		return nil, missing("QueueName")
	}
	p := c.place
	if id := in.QueueOwnerAWSAccountId; id != nil {
		if !accountPattern.MatchString(*id) {
			return nil, invalidValue(*id, "QueueOwnerAWSAccountId", "An account ID has twelve digits.")
		}
		p.account = *id
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	q, err := c.queueNamedLocked(p, *in.QueueName)
	if err != nil {
		return nil, errQueueDoesNotExist.with("The specified queue does not exist.")
	}
	return &queueURLOutput{c.queueURL(q)}, nil
}

// deleteQueue implements DeleteQueue.
func (c *call) deleteQueue(in *queueInput) (*emptyOutput, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	q, err := c.queueOfLocked(in.QueueUrl)
	if err != nil {
		return nil, err
	}
	q.stopLocked()
	q.clearLocked()
	r := q.region
	delete(r.queues, q.name)
	if r.deleted == nil {
		r.deleted = map[string]instant{}
	}
	r.deleted[q.name] = c.clock()
	c.tellLocked()
	return &emptyOutput{}, nil
}

// purgeQueue implements PurgeQueue.
func (c *call) purgeQueue(in *queueInput) (*emptyOutput, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	q, err := c.queueOfLocked(in.QueueUrl)
	if err != nil {
		return nil, err
	}
	now := c.clock()
	if now < q.purged+time.Minute {
		return nil, errPurgeQueueInProgress.with("Only one PurgeQueue operation on %s is allowed every 60 seconds.", q.name)
	}
	q.purged = now
	q.clearLocked()
	q.serveLocked(now)
	return &emptyOutput{}, nil
}

// listQueues implements ListQueues.
func (c *call) listQueues(in *listQueuesInput) (*listQueuesOutput, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	var names []string
	for name := range c.regionOfLocked().queues {
		if strings.HasPrefix(name, deref(in.QueueNamePrefix)) {
			names = append(names, name)
		}
	}
	urls, next, err := c.pageLocked(names, in.MaxResults, in.NextToken)
	if err != nil {
		return nil, err
	}
	return &listQueuesOutput{QueueUrls: urls, NextToken: next}, nil
}

// listDeadLetterSourceQueues implements ListDeadLetterSourceQueues.
func (c *call) listDeadLetterSourceQueues(in *listDeadLetterSourceQueuesInput) (*listDeadLetterSourceQueuesOutput, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	dead, err := c.queueOfLocked(in.QueueUrl)
	if err != nil {
		return nil, err
	}
	var names []string
	for _, q := range dead.sourcesLocked() {
		names = append(names, q.name)
	}
	urls, next, err := c.pageLocked(names, in.MaxResults, in.NextToken)
	if err != nil {
		return nil, err
	}
	if urls == nil {
		urls = []string{}
	}
	return &listDeadLetterSourceQueuesOutput{QueueUrls: urls, NextToken: next}, nil
}

// sourcesLocked returns the queues whose dead-letter queue this is.
func (q *queue) sourcesLocked() (sources []*queue) {
	for _, s := range q.region.queues {
		if p := s.attributes.redrive; p != nil && p.target == q.arn {
			sources = append(sources, s)
		}
	}
	return sources
}

// mostResults is how many a list has at most.
const mostResults = 1000

// pageLocked returns the URLs of one page of the caller's queues, by name, and
// the token for the next page. As in SQS there is one only if the caller gave a
// number.
func (c *call) pageLocked(names []string, most *int32, token *string) (urls []string, next string, err error) {
	n := mostResults
	if most != nil {
		if *most < 1 || *most > mostResults {
			return nil, "", invalidValue(*most, "MaxResults", "MaxResults must be an integer between 1 and 1000.")
		}
		n = int(*most)
	}
	slices.Sort(names)
	if deref(token) != "" {
		if most == nil {
			return nil, "", errInvalidParameterValue.with("MaxResults must be given with NextToken.")
		}
		last, err := base64.StdEncoding.DecodeString(*token)
		if err != nil {
			return nil, "", invalidValue(*token, "NextToken", "It is not one that was returned.")
		}
		k, found := slices.BinarySearch(names, string(last))
		if found {
			k++
		}
		names = names[k:]
	}
	if len(names) > n {
		names = names[:n]
		if most != nil {
			next = base64.StdEncoding.EncodeToString([]byte(names[n-1]))
		}
	}
	for _, name := range names {
		urls = append(urls, c.queueURL(c.regionOfLocked().queues[name]))
	}
	return urls, next, nil
}

// getQueueAttributes implements GetQueueAttributes.
func (c *call) getQueueAttributes(in *getQueueAttributesInput) (*getQueueAttributesOutput, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	q, err := c.queueOfLocked(in.QueueUrl)
	if err != nil {
		return nil, err
	}
	now := c.clock()
	q.advanceLocked(now)
	all := q.allAttributesLocked()
	out := &getQueueAttributesOutput{Attributes: map[string]string{}}
	for _, name := range in.AttributeNames {
		if name == "All" {
			maps.Copy(out.Attributes, all)
			continue
		}
		value, ok := all[name]
		switch {
		case ok:
			out.Attributes[name] = value
		case !knownAttribute(name):
			return nil, errInvalidAttributeName.with("Unknown Attribute %s.", name)
		}
	}
	return out, nil
}

// setQueueAttributes implements SetQueueAttributes.
func (c *call) setQueueAttributes(in *setQueueAttributesInput) (*emptyOutput, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	q, err := c.queueOfLocked(in.QueueUrl)
	if err != nil {
		return nil, err
	}
	if len(in.Attributes) == 0 {
		return nil, missing("Attribute.Name")
	}
	now := c.clock()
	q.advanceLocked(now)
	if value, ok := in.Attributes["FifoQueue"]; ok && q.fifo && normal("FifoQueue", value) != "true" {
		return nil, errInvalidAttributeValue.with("Invalid value for the parameter FifoQueue. Reason: Modifying queue type is not supported.")
	}
	next, err := q.withLocked(in.Attributes)
	if err != nil {
		return nil, err
	}
	before := q.attributes
	q.attributes, q.modified = next, now
	if q.fifo && before.delay != next.delay {
		q.delayAgainLocked(now)
	}
	q.serveLocked(now)
	return &emptyOutput{}, nil
}

// tagQueue implements TagQueue.
func (c *call) tagQueue(in *tagQueueInput) (*emptyOutput, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	q, err := c.queueOfLocked(in.QueueUrl)
	if err != nil {
		return nil, err
	}
	if len(in.Tags) == 0 {
		return nil, missing("Tags")
	}
	tags := maps.Clone(q.tags)
	if tags == nil {
		tags = map[string]string{}
	}
	maps.Copy(tags, in.Tags)
	if err := checkTags(tags); err != nil {
		return nil, err
	}
	q.tags = tags
	return &emptyOutput{}, nil
}

// checkTags checks a queue's tags.
func checkTags(tags map[string]string) error {
	if len(tags) > 50 {
		return errInvalidParameterValue.with("Too many tags added for queue: %d. The maximum is 50.", len(tags))
	}
	for key, value := range tags {
		if key == "" || utf8.RuneCountInString(key) > 128 || strings.HasPrefix(strings.ToLower(key), "aws:") {
			return invalidValue(key, "Tags", "A tag's key has 1 to 128 characters and must not start with aws:.")
		}
		if utf8.RuneCountInString(value) > 256 {
			return invalidValue(value, "Tags", "A tag's value has up to 256 characters.")
		}
	}
	return nil
}

// untagQueue implements UntagQueue.
func (c *call) untagQueue(in *untagQueueInput) (*emptyOutput, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	q, err := c.queueOfLocked(in.QueueUrl)
	if err != nil {
		return nil, err
	}
	if len(in.TagKeys) == 0 {
		return nil, missing("TagKeys")
	}
	for _, key := range in.TagKeys {
		delete(q.tags, key)
	}
	return &emptyOutput{}, nil
}

// listQueueTags implements ListQueueTags.
func (c *call) listQueueTags(in *queueInput) (*listQueueTagsOutput, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	q, err := c.queueOfLocked(in.QueueUrl)
	if err != nil {
		return nil, err
	}
	return &listQueueTagsOutput{Tags: maps.Clone(q.tags)}, nil
}
