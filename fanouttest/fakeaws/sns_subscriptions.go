package fakeaws

import (
	"encoding/json"
	"maps"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"

	filter "github.com/gofanout/fanout/internal/policy"
)

// A subscription is one subscription of a topic.
type subscription struct {
	topic       *topic
	arn         string
	owner       string // account
	protocol    string
	endpoint    string
	attributes  map[string]string
	token       string  // while it waits for its confirmation, else empty
	confirmedBy string  // the token that confirmed it, empty if none was needed
	asked       instant // when it was last asked for its confirmation
	byVisit     bool    // it was confirmed without a signature
	locked      bool    // only signed requests end it

	free instant // when its throttle permits the next delivery

	raw    bool
	filter bodyFilter
	before bodyFilter // what holds until changes do, see WithFilterPolicyDelay
	until  instant    // when they do
	dead   string     // ARN of its dead-letter queue, empty if it has none
}

// A bodyFilter is a compiled filter policy.
type bodyFilter struct {
	body   bool           // it is about the body, not the attributes
	policy *filter.Policy // nil if all messages are wanted
}

// confirmationTime is how long a subscription waits for its confirmation.
const confirmationTime = 48 * time.Hour

// expireLocked ends subscriptions that nobody has confirmed in time.
func (t *topic) expireLocked(now instant) {
	t.subscriptions = slices.DeleteFunc(t.subscriptions, func(s *subscription) bool { return s.token != "" && now-s.asked >= confirmationTime })
	maps.DeleteFunc(t.left, func(_ string, s *subscription) bool { return now-s.asked >= confirmationTime })
}

// mostFilterPolicies is how many subscriptions of a topic can have one.
const mostFilterPolicies = 200

func cutLast(resource string) (name, id string, ok bool) {
	k := strings.LastIndexByte(resource, ':')
	if k < 0 {
		return resource, "", false
	}
	return resource[:k], resource[k+1:], true
}

// subscriptionLocked returns the subscription with an ARN.
func (c *call) subscriptionLocked(subscriptionARN *string) (*subscription, error) {
	a, ok := parseARN(deref(subscriptionARN))
	name, _, hasID := cutLast(a.resource)
	if !ok || a.service != "sns" || !hasID {
		return nil, invalidParameter("SubscriptionArn Reason: An ARN must have at least 6 elements")
	}
	if r := c.regions[a.place]; r != nil {
		if t := r.sns.topics[name]; t != nil {
			t.expireLocked(c.clock())
			for _, s := range t.subscriptions {
				if s.arn == *subscriptionARN {
					visit := c.operation == "Unsubscribe" && c.anonymous
					if visit && s.locked || !visit && c.account != s.owner && c.account != t.region.account {
						return nil, errSNSAuthorization.with("User is not authorized to perform: SNS:%s on resource: %s", c.operation, s.arn)
					}
					return s, nil
				}
			}
		}
	}
	return nil, errSNSNotFound.with("Subscription does not exist")
}

// subscribe implements Subscribe.
func (c *call) subscribe(in *subscribeInput) (*subscriptionOutput, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	t, err := c.topicLocked("TopicArn", in.TopicArn)
	if err != nil {
		return nil, err
	}
	s := &subscription{topic: t, owner: c.account, protocol: deref(in.Protocol), endpoint: deref(in.Endpoint), attributes: map[string]string{}}
	owner, err := c.checkEndpointLocked(s)
	if err != nil {
		return nil, err
	}
	for _, name := range slices.Sorted(maps.Keys(in.Attributes)) {
		if err := s.setLocked(c.cloud, name, in.Attributes[name]); err != nil {
			return nil, err
		}
	}
	if err := s.compile(); err != nil {
		return nil, err
	}
	for _, old := range t.subscriptions {
		if old.protocol != s.protocol || old.endpoint != s.endpoint {
			continue
		}
		if !maps.Equal(old.attributes, s.attributes) {
			return nil, invalidParameter("Attributes Reason: Subscription already exists with different attributes")
		}
		if old.token != "" {
			return c.askLocked(old, in), nil
		}
		return &subscriptionOutput{old.arn}, nil
	}
	s.arn = t.arn + ":" + newID()
	t.subscriptions = append(t.subscriptions, s)
	// The owner of the endpoint confirms by subscribing it; others have to be
	// confirmed by who can read what comes to it.
	if c.account != owner {
		s.token = newToken()
		return c.askLocked(s, in), nil
	}
	return &subscriptionOutput{s.arn}, nil
}

func newToken() string { return strings.ReplaceAll(newID()+newID(), "-", "") }

// askLocked asks for the confirmation of a subscription.
func (c *call) askLocked(s *subscription, in *subscribeInput) *subscriptionOutput {
	c.confirmationLocked(s)
	if !deref(in.ReturnSubscriptionArn) {
		return &subscriptionOutput{"pending confirmation"}
	}
	return &subscriptionOutput{s.arn}
}

// checkEndpointLocked checks protocol and endpoint. It returns the account
// whose subscribing needs no confirmation, empty if there is none.
func (c *call) checkEndpointLocked(s *subscription) (owner string, err error) {
	switch s.protocol {
	case "sqs":
		a, ok := parseARN(s.endpoint)
		switch {
		case !ok || a.service != "sqs":
			return "", invalidParameter("SQS endpoint ARN")
		case strings.HasSuffix(a.resource, ".fifo") && !s.topic.fifo:
			return "", invalidParameter("Invalid parameter: Endpoint Reason: FIFO SQS Queues can not be subscribed to standard SNS topics")
		}
		return a.account, nil
	case "http", "https":
		u, err := url.Parse(s.endpoint)
		switch {
		case err != nil || u.Scheme != s.protocol || u.Host == "":
			return "", invalidParameter("Endpoint Reason: Endpoint must match the specified protocol")
		case s.topic.fifo:
			return "", invalidParameter("Invalid protocol type: %s", s.protocol)
		}
		if e := c.endpointLocked(u); e != nil && e.autoConfirm {
			return c.account, nil
		}
		return "", nil
	case "lambda":
		return s.checkFunction()
	}
	return "", invalidParameter("Protocol Reason: fakeaws has no subscriptions of the protocol %q", s.protocol)
}

// setLocked checks an attribute of a subscription and sets it. The caller
// compiles the subscription afterwards.
func (s *subscription) setLocked(c *cloud, name, value string) error {
	switch name {
	case "RawMessageDelivery":
		if value = strings.ToLower(value); value != "true" && value != "false" {
			return invalidParameter("Attributes Reason: RawMessageDelivery: Invalid value [%s]. Must be true or false.", value)
		}
		if value == "true" && s.protocol == "lambda" {
			return invalidParameter("Attributes Reason: RawMessageDelivery: Delivery protocol [lambda] does not support raw message delivery.")
		}
	case "FilterPolicyScope":
		if value != "MessageAttributes" && value != "MessageBody" {
			return invalidParameter("Attributes Reason: FilterPolicyScope: Invalid value [%s]. Please use either MessageBody or MessageAttributes", value)
		}
	case "FilterPolicy": // see compile
	case "RedrivePolicy":
		if value == "" || value == "{}" {
			delete(s.attributes, name)
			return nil
		}
		var p struct {
			Target *string `json:"deadLetterTargetArn"`
		}
		if err := json.Unmarshal([]byte(value), &p); err != nil || p.Target == nil {
			return invalidParameter("RedrivePolicy: failed to parse JSON.")
		}
		a, ok := parseARN(*p.Target)
		switch {
		case !ok || a.service != "sqs":
			return invalidParameter("RedrivePolicy: deadLetterTargetArn is an invalid arn")
		case a.region != s.topic.region.region || a.account != s.topic.region.account:
			return invalidParameter("RedrivePolicy: the dead-letter queue must be in the account and region of the subscription")
		case strings.HasSuffix(a.resource, ".fifo") != s.topic.fifo:
			return invalidParameter("RedrivePolicy: must use a FIFO queue as DLQ for a FIFO topic, and a standard queue for a standard topic")
		}
	case "DeliveryPolicy", "SubscriptionRoleArn":
	default:
		return invalidParameter("AttributeName")
	}
	s.attributes[name] = value
	return nil
}

// compile sets the fields that come from the attributes.
func (s *subscription) compile() error {
	s.raw = s.attributes["RawMessageDelivery"] == "true"
	s.filter = bodyFilter{body: s.attributes["FilterPolicyScope"] == "MessageBody"}
	s.dead = ""
	if _, err := deliveryPolicyOf("", s.attributes["DeliveryPolicy"], s.raw); err != nil {
		return invalidParameter("DeliveryPolicy: %v", err)
	}
	if text := s.attributes["FilterPolicy"]; text != "" && text != "{}" {
		if s.filter.body {
			flat, err := flattenPolicy(text)
			if err != nil {
				return invalidParameter("FilterPolicy: %v", err)
			}
			text = flat
		}
		others := 0
		for _, o := range s.topic.subscriptions {
			if o != s && o.filter.policy != nil {
				others++
			}
		}
		if others >= mostFilterPolicies {
			return errSNSFilterPolicyLimit.with("Could not complete request: the topic has %d filter policies already.", others)
		}
		p, err := filter.Parse(text)
		if err != nil {
			return invalidParameter("FilterPolicy: %v", err)
		}
		s.filter.policy = p
	}
	if text := s.attributes["RedrivePolicy"]; text != "" {
		var p struct {
			Target string `json:"deadLetterTargetArn"`
		}
		_ = json.Unmarshal([]byte(text), &p) // it was checked when it was set
		s.dead = p.Target
	}
	return nil
}

// filterAt returns the filter policy that holds.
func (s *subscription) filterAt(now instant) bodyFilter {
	if now < s.until {
		return s.before
	}
	return s.filter
}

// confirmSubscription implements ConfirmSubscription.
func (c *call) confirmSubscription(in *confirmSubscriptionInput) (*subscriptionOutput, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	a, ok := parseARN(deref(in.TopicArn))
	if !ok {
		return nil, invalidParameter("TopicArn")
	}
	var t *topic
	if r := c.regions[a.place]; r != nil {
		t = r.sns.topics[a.resource]
	}
	if t == nil {
		return nil, errSNSNotFound.with("Topic does not exist")
	}
	t.expireLocked(c.clock())
	authenticate := deref(in.AuthenticateOnUnsubscribe)
	if authenticate != "" && authenticate != "true" && authenticate != "false" {
		return nil, invalidParameter("AuthenticateOnUnsubscribe")
	}
	token := deref(in.Token)
	if s := t.left[token]; s != nil {
		// It had ended, and its endpoint wants it back.
		delete(t.left, token)
		for _, other := range t.subscriptions {
			if other.protocol == s.protocol && other.endpoint == s.endpoint {
				return &subscriptionOutput{other.arn}, nil
			}
		}
		s.token = token
		t.subscriptions = append(t.subscriptions, s)
		t.deleted--
	}
	for _, s := range t.subscriptions {
		if token == "" || s.token != token && s.confirmedBy != token {
			continue
		}
		if s.token != "" {
			s.token, s.confirmedBy, s.byVisit = "", token, c.anonymous
			s.locked = authenticate == "true" && !c.anonymous
		}
		return &subscriptionOutput{s.arn}, nil
	}
	return nil, invalidParameter("Token")
}

// unsubscribe implements Unsubscribe. Ending a subscription that is not there
// succeeds.
func (c *call) unsubscribe(in *subscriptionInput) (*emptyOutput, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	s, err := c.subscriptionLocked(in.SubscriptionArn)
	if e, ok := asAPIError(err); ok && e.shape == errSNSNotFound.shape {
		return &emptyOutput{}, nil
	}
	if err != nil {
		return nil, err
	}
	if s.token != "" {
		return nil, invalidParameter("SubscriptionArn Reason: This operation is not permitted for a pending subscription")
	}
	t := s.topic
	t.subscriptions = slices.DeleteFunc(t.subscriptions, func(o *subscription) bool { return o == s })
	t.deleted++
	if (c.anonymous || c.account != s.owner) && s.overHTTP() {
		c.farewellLocked(s)
	}
	return &emptyOutput{}, nil
}

// farewellLocked tells an endpoint that its subscription was ended by somebody
// else than its owner, and how to get it back.
func (c *call) farewellLocked(s *subscription) {
	token := newToken()
	if s.topic.left == nil {
		s.topic.left = map[string]*subscription{}
	}
	s.topic.left[token], s.asked = s, c.clock()
	c.postConfirmationLocked(s, c.tokenEnvelope(s, typeUnsubscription, "You have chosen to deactivate subscription "+s.arn+".\nTo cancel this operation and restore the subscription, visit the SubscribeURL included in this message.", token))
}

// getSubscriptionAttributes implements GetSubscriptionAttributes.
func (c *call) getSubscriptionAttributes(in *subscriptionInput) (*snsAttributesOutput, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	s, err := c.subscriptionLocked(in.SubscriptionArn)
	if err != nil {
		return nil, err
	}
	all := map[string]string{"RawMessageDelivery": "false"}
	maps.Copy(all, s.attributes)
	if all["FilterPolicy"] != "" && all["FilterPolicyScope"] == "" {
		all["FilterPolicyScope"] = "MessageAttributes"
	}
	if s.overHTTP() {
		text, err := encodeJSON(s.deliveryPolicy())
		if err != nil {
			return nil, errInternal.with("%v", err)
		}
		all["EffectiveDeliveryPolicy"] = string(text)
		if s.attributes["DeliveryPolicy"] == "" {
			delete(all, "DeliveryPolicy")
		}
	}
	pending := "false"
	if s.token != "" {
		pending = "true"
	}
	maps.Copy(all, map[string]string{"SubscriptionArn": s.arn, "TopicArn": s.topic.arn, "Owner": s.owner, "Endpoint": s.endpoint, "Protocol": s.protocol,
		"PendingConfirmation": pending, "ConfirmationWasAuthenticated": strconv.FormatBool(s.token == "" && !s.byVisit), "SubscriptionPrincipal": "arn:aws:iam::" + s.owner + ":root"})
	return &snsAttributesOutput{all}, nil
}

// setSubscriptionAttributes implements SetSubscriptionAttributes.
func (c *call) setSubscriptionAttributes(in *setSubscriptionAttributesInput) (*emptyOutput, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	s, err := c.subscriptionLocked(in.SubscriptionArn)
	if err != nil {
		return nil, err
	}
	before, holds := maps.Clone(s.attributes), s.filterAt(c.clock())
	err = s.setLocked(c.cloud, deref(in.AttributeName), deref(in.AttributeValue))
	if err == nil {
		err = s.compile()
	}
	if err != nil {
		s.attributes = before
		_ = s.compile() // these were valid
		return nil, err
	}
	if name := deref(in.AttributeName); c.policyDelay > 0 && (name == "FilterPolicy" || name == "FilterPolicyScope") {
		s.before, s.until = holds, c.clock()+c.policyDelay
	}
	return &emptyOutput{}, nil
}

// listSubscriptions implements ListSubscriptions.
func (c *call) listSubscriptions(in *listTopicsInput) (*listSubscriptionsOutput, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	var all []*subscription
	for _, t := range c.regionOfLocked().sns.topics {
		t.expireLocked(c.clock())
		all = append(all, t.subscriptions...)
	}
	return subscriptionPage(all, in.NextToken)
}

// listSubscriptionsByTopic implements ListSubscriptionsByTopic.
func (c *call) listSubscriptionsByTopic(in *listSubscriptionsByTopicInput) (*listSubscriptionsOutput, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	t, err := c.topicLocked("TopicArn", in.TopicArn)
	if err != nil {
		return nil, err
	}
	return subscriptionPage(t.subscriptions, in.NextToken)
}

func subscriptionPage(all []*subscription, token *string) (*listSubscriptionsOutput, error) {
	byARN := map[string]*subscription{}
	for _, s := range all {
		byARN[s.arn] = s
	}
	page, next, err := snsPage(slices.Collect(maps.Keys(byARN)), token)
	if err != nil {
		return nil, err
	}
	out := &listSubscriptionsOutput{NextToken: next}
	for _, a := range page {
		s := byARN[a]
		entry := snsSubscription{Endpoint: s.endpoint, Owner: s.owner, Protocol: s.protocol, SubscriptionArn: s.arn, TopicArn: s.topic.arn}
		if s.token != "" {
			entry.SubscriptionArn = "PendingConfirmation"
		}
		out.Subscriptions = append(out.Subscriptions, entry)
	}
	return out, nil
}
