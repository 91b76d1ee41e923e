package fakeaws

import (
	"encoding/json"
	"fmt"
	"io"
	"math"
	"mime"
	"slices"
	"strings"
	"time"
)

// Retries of deliveries to HTTP(S) endpoints. A policy has four phases: retries
// without a delay, with the least delay, with delays that grow from the least to
// the most, and with the most. AWS's documentation names the fields, their
// limits and defaults, and draws the four functions by which delays grow, but
// gives no formulas for them.

// A retryPolicy says when a delivery is tried again. Delays are in seconds; the
// fields of a policy that was not completed may be nil.
type retryPolicy struct {
	MinDelayTarget     *int    `json:"minDelayTarget,omitempty"`
	MaxDelayTarget     *int    `json:"maxDelayTarget,omitempty"`
	NumRetries         *int    `json:"numRetries,omitempty"`
	NumMaxDelayRetries *int    `json:"numMaxDelayRetries,omitempty"`
	NumNoDelayRetries  *int    `json:"numNoDelayRetries,omitempty"`
	NumMinDelayRetries *int    `json:"numMinDelayRetries,omitempty"`
	BackoffFunction    *string `json:"backoffFunction,omitempty"`
}

type throttlePolicy struct {
	MaxReceivesPerSecond *int `json:"maxReceivesPerSecond,omitempty"`
}

type requestPolicy struct {
	HeaderContentType *string `json:"headerContentType,omitempty"`
}

// A deliveryPolicy is that of a subscription.
type deliveryPolicy struct {
	HealthyRetryPolicy *retryPolicy    `json:"healthyRetryPolicy"`
	SicklyRetryPolicy  *struct{}       `json:"sicklyRetryPolicy"` // always null
	ThrottlePolicy     *throttlePolicy `json:"throttlePolicy"`
	RequestPolicy      *requestPolicy  `json:"requestPolicy"`
	Guaranteed         bool            `json:"guaranteed"` // always false
}

// A topicDeliveryPolicy is that of a topic: the defaults of its subscriptions.
type topicDeliveryPolicy struct {
	HTTP *httpDeliveryPolicy `json:"http"`
}

type httpDeliveryPolicy struct {
	DefaultHealthyRetryPolicy    *retryPolicy    `json:"defaultHealthyRetryPolicy,omitempty"`
	DisableSubscriptionOverrides bool            `json:"disableSubscriptionOverrides"`
	DefaultThrottlePolicy        *throttlePolicy `json:"defaultThrottlePolicy,omitempty"`
	DefaultRequestPolicy         *requestPolicy  `json:"defaultRequestPolicy,omitempty"`
}

const (
	mostRetries     = 100
	mostRetryDelay  = 3600 // seconds, for one delay and for all together
	defaultType     = "text/plain; charset=UTF-8"
	deliveryTimeout = 15 * time.Second
)

var (
	backoffFunctions = []string{"linear", "arithmetic", "geometric", "exponential"}
	// contentTypes are those of enveloped messages; raw ones may have more.
	contentTypes    = []string{"text/plain", "application/json"}
	rawContentTypes = []string{"text/plain", "application/json", "text/css", "text/csv", "text/html", "text/xml", "application/atom+xml", "application/octet-stream",
		"application/soap+xml", "application/x-www-form-urlencoded", "application/xhtml+xml", "application/xml"}
)

// decodeStrictly reads JSON and refuses fields that it does not know.
func decodeStrictly(text string, into any) error {
	d := json.NewDecoder(strings.NewReader(text))
	d.DisallowUnknownFields()
	if err := d.Decode(into); err != nil {
		return err
	}
	if _, err := d.Token(); err != io.EOF {
		return fmt.Errorf("there is more after the value")
	}
	return nil
}

// parseTopicDeliveryPolicy reads the DeliveryPolicy of a topic. It returns nil
// for an empty one.
func parseTopicDeliveryPolicy(text string) (*httpDeliveryPolicy, error) {
	if text == "" {
		return nil, nil
	}
	var p topicDeliveryPolicy
	if err := decodeStrictly(text, &p); err != nil {
		return nil, err
	}
	return p.HTTP, nil
}

// deliveryPolicyOf returns the policy that holds for a subscription: its own
// over the topic's over SNS's defaults, each field by itself. Texts may be
// empty.
func deliveryPolicyOf(topicText, text string, raw bool) (*deliveryPolicy, error) {
	effective := &deliveryPolicy{
		HealthyRetryPolicy: &retryPolicy{MinDelayTarget: ptr(20), MaxDelayTarget: ptr(20), NumRetries: ptr(3), NumMaxDelayRetries: ptr(0), NumNoDelayRetries: ptr(0), NumMinDelayRetries: ptr(0), BackoffFunction: ptr("linear")},
		RequestPolicy:      &requestPolicy{HeaderContentType: ptr(defaultType)},
	}
	p, err := parseTopicDeliveryPolicy(topicText)
	if err != nil {
		return nil, err
	}
	if p != nil {
		effective.override(p.DefaultHealthyRetryPolicy, p.DefaultThrottlePolicy, p.DefaultRequestPolicy)
	}
	if text != "" && (p == nil || !p.DisableSubscriptionOverrides) {
		var own deliveryPolicy
		if err := decodeStrictly(text, &own); err != nil {
			return nil, err
		}
		if own.Guaranteed || own.SicklyRetryPolicy != nil {
			return nil, fmt.Errorf("guaranteed and sicklyRetryPolicy cannot be set")
		}
		effective.override(own.HealthyRetryPolicy, own.ThrottlePolicy, own.RequestPolicy)
	}
	return effective, effective.check(raw)
}

// effectiveDeliveryPolicy returns the attribute of that name.
func (t *topic) effectiveDeliveryPolicy() string {
	p, _ := deliveryPolicyOf(t.attributes["DeliveryPolicy"], "", false) // it was checked when it was set
	own, _ := parseTopicDeliveryPolicy(t.attributes["DeliveryPolicy"])
	out := httpDeliveryPolicy{DefaultHealthyRetryPolicy: p.HealthyRetryPolicy, DisableSubscriptionOverrides: own != nil && own.DisableSubscriptionOverrides,
		DefaultThrottlePolicy: p.ThrottlePolicy, DefaultRequestPolicy: p.RequestPolicy}
	text, _ := encodeJSON(topicDeliveryPolicy{&out}) // texts and numbers do not fail
	return string(text)
}

// deliveryPolicy returns the policy that holds for the subscription.
func (s *subscription) deliveryPolicy() *deliveryPolicy {
	p, _ := deliveryPolicyOf(s.topic.attributes["DeliveryPolicy"], s.attributes["DeliveryPolicy"], s.raw) // each was checked when it was set
	return p
}

// override takes the fields that are set.
func (p *deliveryPolicy) override(retry *retryPolicy, throttle *throttlePolicy, request *requestPolicy) {
	if r, to := retry, p.HealthyRetryPolicy; r != nil {
		take(&to.MinDelayTarget, r.MinDelayTarget)
		take(&to.MaxDelayTarget, r.MaxDelayTarget)
		take(&to.NumRetries, r.NumRetries)
		take(&to.NumMaxDelayRetries, r.NumMaxDelayRetries)
		take(&to.NumNoDelayRetries, r.NumNoDelayRetries)
		take(&to.NumMinDelayRetries, r.NumMinDelayRetries)
		take(&to.BackoffFunction, r.BackoffFunction)
		if r.MinDelayTarget != nil && r.MaxDelayTarget == nil && *to.MaxDelayTarget < *r.MinDelayTarget {
			to.MaxDelayTarget = r.MinDelayTarget
		}
		if r.MaxDelayTarget != nil && r.MinDelayTarget == nil && *to.MinDelayTarget > *r.MaxDelayTarget {
			to.MinDelayTarget = r.MaxDelayTarget
		}
	}
	if throttle != nil && throttle.MaxReceivesPerSecond != nil {
		p.ThrottlePolicy = throttle
	}
	if request != nil && request.HeaderContentType != nil {
		p.RequestPolicy = request
	}
}

func take[T any](to **T, from *T) {
	if from != nil {
		*to = from
	}
}

// check checks a completed policy.
func (p *deliveryPolicy) check(raw bool) error {
	r := p.HealthyRetryPolicy
	for _, n := range []struct {
		name            string
		value, low, top int
	}{
		{"minDelayTarget", *r.MinDelayTarget, 1, *r.MaxDelayTarget},
		{"maxDelayTarget", *r.MaxDelayTarget, *r.MinDelayTarget, mostRetryDelay},
		{"numRetries", *r.NumRetries, 0, mostRetries},
		{"numNoDelayRetries", *r.NumNoDelayRetries, 0, *r.NumRetries},
		{"numMinDelayRetries", *r.NumMinDelayRetries, 0, *r.NumRetries},
		{"numMaxDelayRetries", *r.NumMaxDelayRetries, 0, *r.NumRetries},
	} {
		if n.value < n.low || n.value > n.top {
			return fmt.Errorf("healthyRetryPolicy.%s is %d, it must be from %d to %d", n.name, n.value, n.low, n.top)
		}
	}
	if phases := *r.NumNoDelayRetries + *r.NumMinDelayRetries + *r.NumMaxDelayRetries; phases > *r.NumRetries {
		return fmt.Errorf("healthyRetryPolicy has %d retries in its phases, numRetries is %d", phases, *r.NumRetries)
	}
	if !slices.Contains(backoffFunctions, *r.BackoffFunction) {
		return fmt.Errorf("healthyRetryPolicy.backoffFunction is %q, it must be one of %s", *r.BackoffFunction, strings.Join(backoffFunctions, ", "))
	}
	total := time.Duration(0)
	for k := range *r.NumRetries {
		total += r.delay(k)
	}
	if total > mostRetryDelay*time.Second {
		return fmt.Errorf("healthyRetryPolicy has delays of %v in all, it can have %d seconds", total, mostRetryDelay)
	}
	if t := p.ThrottlePolicy; t != nil && *t.MaxReceivesPerSecond < 1 {
		return fmt.Errorf("throttlePolicy.maxReceivesPerSecond is %d, it must be at least 1", *t.MaxReceivesPerSecond)
	}
	kind, _, err := mime.ParseMediaType(*p.RequestPolicy.HeaderContentType)
	allowed := contentTypes
	if raw {
		allowed = rawContentTypes
	}
	if err != nil || !slices.Contains(allowed, kind) {
		return fmt.Errorf("requestPolicy.headerContentType is %q, it must be one of %s", *p.RequestPolicy.HeaderContentType, strings.Join(allowed, ", "))
	}
	return nil
}

// delay returns how long after a failed attempt the retry with number k, from 0,
// begins. k is below NumRetries.
func (r *retryPolicy) delay(k int) time.Duration {
	least, most := float64(*r.MinDelayTarget), float64(*r.MaxDelayTarget)
	if k < *r.NumNoDelayRetries {
		return 0
	}
	k -= *r.NumNoDelayRetries
	if k < *r.NumMinDelayRetries {
		return seconds(least)
	}
	k -= *r.NumMinDelayRetries
	grows := *r.NumRetries - *r.NumNoDelayRetries - *r.NumMinDelayRetries - *r.NumMaxDelayRetries
	if k >= grows {
		return seconds(most)
	}
	if grows == 1 {
		return seconds(least)
	}
	last := float64(grows - 1)
	x := float64(k) / last // from 0 to 1
	switch *r.BackoffFunction {
	case "arithmetic": // steps that grow by the same each time
		x = float64(k*(k+1)) / (last * (last + 1))
	case "geometric": // the same factor each time
		return seconds(least * math.Pow(most/least, x))
	case "exponential": // steps that double
		x = math.Expm1(float64(k)*math.Ln2) / math.Expm1(last*math.Ln2)
	}
	return seconds(least + (most-least)*x)
}

// seconds returns a duration, in whole milliseconds.
func seconds(s float64) time.Duration {
	return time.Duration(math.Round(s*1000)) * time.Millisecond
}
