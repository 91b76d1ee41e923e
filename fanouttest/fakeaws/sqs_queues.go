package fakeaws

import (
	"maps"
	"net/url"
	"regexp"
	"strings"
	"time"
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
	return q, nil
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
	switch {
	case in.Attributes["FifoQueue"] == "true" && (!fifo || !queueNamePattern.MatchString(base) || len(name) > 80):
		return nil, errInvalidParameterValue.with("The name of a FIFO queue can only include alphanumeric characters, hyphens, or underscores, must end with .fifo suffix and be 1 to 80 in length")
	case in.Attributes["FifoQueue"] != "true" && !queueNamePattern.MatchString(name):
		return nil, errInvalidParameterValue.with("Can only include alphanumeric characters, hyphens, or underscores. 1 to 80 in length")
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	now := c.clock()
	r := c.regionOfLocked()
	if q := r.queues[name]; q != nil {
		for attribute, value := range in.Attributes {
			if q.attributes.given[attribute] != value {
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
	c.serials++
	q.serial, q.attributes, q.created, q.modified = c.serials, attributes, now, now
	q.tags = maps.Clone(in.Tags)
	if r.queues == nil {
		r.queues = map[string]*queue{}
	}
	r.queues[name] = q
	return &queueURLOutput{c.queueURL(q)}, nil
}
