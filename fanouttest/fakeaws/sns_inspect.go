package fakeaws

import (
	"slices"
	"time"
)

// A Topic looks into one topic of the fake. It can be made before the topic is
// created. Its methods may be called concurrently.
type Topic struct {
	cloud *cloud
	place place
	name  string
}

// Topic returns a look into the topic with the name, in the region and account
// of the view.
func (a *AWS) Topic(name string) *Topic {
	return &Topic{cloud: a.cloud, place: place{account: a.account, region: a.region}, name: name}
}

// ARN returns the topic's ARN.
func (t *Topic) ARN() string { return arn{"sns", t.place, t.name}.String() }

// Published returns what was published to the topic, in its order, and where it
// was delivered. Duplicates that a FIFO topic dropped are not among it. Fakes of
// [Start] keep no such history: there it is always empty.
func (t *Topic) Published() []Published {
	t.cloud.mu.Lock()
	defer t.cloud.mu.Unlock()
	if r := t.cloud.regions[t.place]; r != nil {
		if found := r.sns.topics[t.name]; found != nil {
			all := slices.Clone(found.published)
			for k := range all {
				all[k].Deliveries = slices.Clone(all[k].Deliveries)
			}
			return all
		}
	}
	return nil
}

// Published is a message that was published to a topic.
type Published struct {
	ID         string
	Body       string
	Subject    string
	Attributes map[string]Attribute
	Time       time.Time
	// Group, DeduplicationID and Sequence are those of a FIFO topic.
	Group           string
	DeduplicationID string
	Sequence        string
	// Deliveries has an element for each subscription that there was, in the
	// order in which they were made.
	Deliveries []TopicDelivery
}

// A TopicDelivery says what became of a message at one subscription.
type TopicDelivery struct {
	// Subscription is its ARN, and Endpoint where it delivers to.
	Subscription, Endpoint string
	Outcome                Outcome
	// Attempts is how often it was tried: those that have begun.
	Attempts int
	// Error says why the last attempt failed, empty if it did not.
	Error string
}

// An Outcome says what became of a message at a subscription.
type Outcome string

// The outcomes of deliveries.
const (
	UnderWay     Outcome = "under way" // it is being tried, or will be tried again
	Delivered    Outcome = "delivered"
	Filtered     Outcome = "filtered"      // the filter policy does not want it
	NotConfirmed Outcome = "not confirmed" // the subscription waits for its confirmation
	DeadLettered Outcome = "dead letter"   // it is in the subscription's dead-letter queue
	Lost         Outcome = "lost"          // nobody has it
)
