package fanoutaws

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"reflect"
	"slices"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/sns"
)

// ensureSubscription subscribes the queue to the topic, or compares the
// subscription that there is. Whether that is raw doesn't matter: Receive reads
// envelopes too.
func (t *topic) ensureSubscription(ctx context.Context, queueARN, policy string) error {
	if err := t.checkNumbers(policy); err != nil {
		return err
	}
	if policy != "" {
		defer t.filters.forget()
	}
	switch subscription, err := t.subscriptionOf(ctx, queueARN); {
	case err != nil:
		return err
	case subscription == pending:
		return t.errPending(queueARN)
	case subscription != "":
		return t.compareSubscription(ctx, subscription, queueARN, policy)
	}
	if t.e.existing {
		return mismatch("queue "+queueARN, "the subscription", "missing", "one to "+t.arn)
	}
	attributes := map[string]string{"RawMessageDelivery": "true"}
	if policy != "" {
		attributes["FilterPolicy"] = policy
	}
	out, err := t.e.sns.Subscribe(ctx, &sns.SubscribeInput{
		TopicArn: aws.String(t.arn), Protocol: aws.String("sqs"), Endpoint: aws.String(queueARN),
		Attributes: attributes, ReturnSubscriptionArn: true,
	})
	if err != nil {
		return err
	}
	return t.ensureConfirmed(ctx, aws.ToString(out.SubscriptionArn), queueARN)
}

// subscriptionOf returns the ARN of the queue's subscription: "" if there is none, and
// pending if it waits for its confirmation.
func (t *topic) subscriptionOf(ctx context.Context, queueARN string) (subscription string, err error) {
	pages := sns.NewListSubscriptionsByTopicPaginator(t.e.sns, &sns.ListSubscriptionsByTopicInput{TopicArn: aws.String(t.arn)})
	for pages.HasMorePages() {
		page, err := pages.NextPage(ctx)
		if err != nil {
			return "", err
		}
		for _, s := range page.Subscriptions {
			if aws.ToString(s.Protocol) == "sqs" && aws.ToString(s.Endpoint) == queueARN {
				return aws.ToString(s.SubscriptionArn), nil
			}
		}
	}
	return "", nil
}

// pending is what SNS lists instead of an ARN until a subscription is confirmed.
const pending = "PendingConfirmation"

// ensureConfirmed returns an error if a subscription that was just made waits for the
// owner of the queue: one of another account.
func (t *topic) ensureConfirmed(ctx context.Context, subscriptionARN, queueARN string) error {
	of, _ := parseARN(t.arn)
	if q, ok := parseARN(queueARN); !ok || q.account == of.account {
		return nil
	}
	out, err := t.e.sns.GetSubscriptionAttributes(ctx, &sns.GetSubscriptionAttributesInput{SubscriptionArn: aws.String(subscriptionARN)})
	if err == nil && out.Attributes[pending] == "true" {
		return t.errPending(queueARN)
	}
	return err
}

// errPending says what has to be done.
func (t *topic) errPending(queueARN string) error {
	return fmt.Errorf("the subscription of %s to %s is not confirmed: SNS has sent the queue a message of type SubscriptionConfirmation, "+
		"and its SubscribeURL has to be visited (or its Token given to ConfirmSubscription) by the queue's owner; until then the queue gets nothing",
		queueARN, t.arn)
}

// compareSubscription doesn't change a filter policy that differs: other
// processes may have opened the queue with that one.
func (t *topic) compareSubscription(ctx context.Context, subscriptionARN, queueARN, policy string) error {
	out, err := t.e.sns.GetSubscriptionAttributes(ctx, &sns.GetSubscriptionAttributesInput{SubscriptionArn: aws.String(subscriptionARN)})
	if err != nil {
		return err
	}
	have := out.Attributes["FilterPolicy"]
	what := "queue " + queueARN
	switch scope := out.Attributes["FilterPolicyScope"]; {
	case have != "" && scope == "MessageBody":
		return mismatch(what, "FilterPolicyScope", scope, "MessageAttributes")
	case !samePolicy(have, policy):
		return mismatch(what, "FilterPolicy", orNone(have), orNone(policy))
	}
	return nil
}

func orNone(policy string) string {
	if policy == "" {
		return "none"
	}
	return policy
}

// samePolicy compares as JSON. {} is how SNS writes that there is no policy.
func samePolicy(a, b string) bool {
	x, errX := readPolicy(a)
	y, errY := readPolicy(b)
	return errX == nil && errY == nil && reflect.DeepEqual(x, y)
}

func readPolicy(text string) (map[string]any, error) {
	p := map[string]any{}
	if text == "" {
		return p, nil
	}
	d := json.NewDecoder(bytes.NewBufferString(text))
	d.UseNumber() // 100 and 100.0 are different policies, and 1e400 is no error
	return p, d.Decode(&p)
}

// checkNumbers refuses a policy that could never match: SNS compares numbers
// with attributes of type Number, which only WithNumberAttributes makes.
func (t *topic) checkNumbers(policy string) error {
	p, err := readPolicy(policy)
	if err != nil {
		return fmt.Errorf("filter policy: %w", err)
	}
	names := numberNames(p)
	slices.Sort(names)
	for _, name := range names {
		if !t.e.numbers[name] {
			return fmt.Errorf("filter policy: it compares attribute %q with a number, and that is sent as a string: "+
				"make the engine WithNumberAttributes(%q), here and where messages are published", name, name)
		}
	}
	return nil
}

// numberNames are the attributes that a policy compares with numbers.
func numberNames(policy map[string]any) (names []string) {
	for name, conditions := range policy {
		list, _ := conditions.([]any)
		for _, c := range list {
			object, isObject := c.(map[string]any)
			switch {
			case name == "$or" && isObject:
				names = append(names, numberNames(object)...)
			case isNumeric(c):
				names = append(names, name)
			}
		}
	}
	return slices.Compact(names)
}

func isNumeric(condition any) bool {
	switch c := condition.(type) {
	case json.Number:
		return true
	case map[string]any:
		if _, ok := c["numeric"]; ok {
			return true
		}
		return isNumeric(c["anything-but"])
	case []any:
		return slices.ContainsFunc(c, isNumeric)
	}
	return false
}
