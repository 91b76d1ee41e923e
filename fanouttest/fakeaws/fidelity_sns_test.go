package fakeaws_test

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"strings"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/sns"
	snstypes "github.com/aws/aws-sdk-go-v2/service/sns/types"
	"github.com/aws/aws-sdk-go-v2/service/sqs"
	sqstypes "github.com/aws/aws-sdk-go-v2/service/sqs/types"
	"github.com/stretchr/testify/require"
)

// topic creates a topic and returns its ARN.
func (f *fidelity) topic(attributes ...string) string {
	f.Helper()
	as := pairs(attributes)
	name := f.name(as)
	out, err := f.sns.CreateTopic(f.Context(), &sns.CreateTopicInput{Name: &name, Attributes: as})
	require.NoError(f, err)
	if os.Getenv(endpointVariable) != "" {
		f.Cleanup(func() {
			_, _ = f.sns.DeleteTopic(context.Background(), &sns.DeleteTopicInput{TopicArn: out.TopicArn})
		})
	}
	return *out.TopicArn
}

// permit lets a topic send to a queue.
func (f *fidelity) permit(topic, queue string) {
	f.Helper()
	_, err := f.client.SetQueueAttributes(f.Context(), &sqs.SetQueueAttributesInput{QueueUrl: &queue, Attributes: map[string]string{"Policy": permission(topic)}})
	require.NoError(f, err)
}

// subscribe subscribes a queue that the topic may send to.
func (f *fidelity) subscribe(topic, queue string, attributes ...string) string {
	f.Helper()
	f.permit(topic, queue)
	out, err := f.sns.Subscribe(f.Context(), &sns.SubscribeInput{TopicArn: &topic, Protocol: aws.String("sqs"), Endpoint: aws.String(f.arn(queue)), Attributes: pairs(attributes), ReturnSubscriptionArn: true})
	require.NoError(f, err)
	return *out.SubscriptionArn
}

func (f *fidelity) publish(topic, body string, change ...func(*sns.PublishInput)) *sns.PublishOutput {
	f.Helper()
	in := &sns.PublishInput{TopicArn: &topic, Message: &body}
	for _, c := range change {
		c(in)
	}
	out, err := f.sns.Publish(f.Context(), in)
	require.NoError(f, err)
	return out
}

// gather receives and deletes until a poll is empty.
func (f *fidelity) gather(queue string) []sqstypes.Message {
	f.Helper()
	var all []sqstypes.Message
	for {
		ms := f.receive(queue, 10, wait(3))
		if len(ms) == 0 {
			return all
		}
		for _, m := range ms {
			require.NoError(f, f.remove(queue, m))
		}
		all = append(all, ms...)
	}
}

func with(attributes map[string]snstypes.MessageAttributeValue) func(*sns.PublishInput) {
	return func(in *sns.PublishInput) { in.MessageAttributes = attributes }
}

func inGroup(group, id string) func(*sns.PublishInput) {
	return func(in *sns.PublishInput) { in.MessageGroupId, in.MessageDeduplicationId = &group, &id }
}

var snsFidelityChecks = map[string]func(*fidelity){
	"SNS: the envelope": func(f *fidelity) {
		topic, q := f.topic(), f.queue()
		s := f.subscribe(topic, q)
		out := f.publish(topic, "m", with(map[string]snstypes.MessageAttributeValue{"n": number("1"), "b": {DataType: aws.String("Binary"), BinaryValue: []byte{1}}}), func(in *sns.PublishInput) { in.Subject = aws.String("s") })
		ms := f.gather(q)
		require.Len(f, ms, 1)
		require.Empty(f, ms[0].MessageAttributes)
		var e map[string]any
		require.NoError(f, json.Unmarshal([]byte(*ms[0].Body), &e))
		require.Equal(f, []any{"Notification", *out.MessageId, topic, "s", "m"}, []any{e["Type"], e["MessageId"], e["TopicArn"], e["Subject"], e["Message"]})
		require.Regexp(f, `^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z$`, e["Timestamp"])
		require.Contains(f, e["UnsubscribeURL"], "Action=Unsubscribe&SubscriptionArn="+s)
		require.Equal(f, map[string]any{"n": map[string]any{"Type": "Number", "Value": "1"}, "b": map[string]any{"Type": "Binary", "Value": "AQ=="}}, e["MessageAttributes"])
	},
	"SNS: raw delivery": func(f *fidelity) {
		topic, q := f.topic(), f.queue()
		f.subscribe(topic, q, "RawMessageDelivery", "true")
		f.publish(topic, "m", with(map[string]snstypes.MessageAttributeValue{"n": number("1"), "b": {DataType: aws.String("Binary"), BinaryValue: []byte{1}}}))
		ms := f.gather(q)
		require.Len(f, ms, 1)
		require.Equal(f, "m", *ms[0].Body)
		require.Equal(f, "1", *ms[0].MessageAttributes["n"].StringValue)
		require.Equal(f, []byte{1}, ms[0].MessageAttributes["b"].BinaryValue)
	},
	"SNS: a text for each protocol": func(f *fidelity) {
		topic, q := f.topic(), f.queue()
		f.subscribe(topic, q, "RawMessageDelivery", "true")
		f.publish(topic, `{"default":"d","sqs":"for queues"}`, func(in *sns.PublishInput) { in.MessageStructure = aws.String("json") })
		require.Equal(f, []string{"for queues"}, bodies(f.gather(q)))
		_, err := f.sns.Publish(f.Context(), &sns.PublishInput{TopicArn: &topic, Message: aws.String(`{"sqs":"x"}`), MessageStructure: aws.String("json")})
		require.Equal(f, "InvalidParameter", code(err))
	},
	"SNS: filter policies on attributes": func(f *fidelity) {
		topic := f.topic()
		queues := map[string]string{}
		for policy := range map[string]bool{`{"region":["eu"]}`: true, `{"cents":[{"numeric":[">=",100]}]}`: true, `{"cents":["100"]}`: true, `{"region":[{"exists":false}]}`: true, `{"tags":["b"]}`: true, `{"region":[{"anything-but":["eu"]}]}`: true} {
			q := f.queue()
			f.subscribe(topic, q, "RawMessageDelivery", "true", "FilterPolicy", policy)
			queues[policy] = q
		}
		f.publish(topic, "eu", with(map[string]snstypes.MessageAttributeValue{"region": text("eu"), "cents": number("1e2")}))
		f.publish(topic, "us", with(map[string]snstypes.MessageAttributeValue{"region": text("us"), "cents": text("100")}))
		f.publish(topic, "tags", with(map[string]snstypes.MessageAttributeValue{"tags": {DataType: aws.String("String.Array"), StringValue: aws.String(`["a","b"]`)}}))
		got := map[string][]string{}
		for policy, q := range queues {
			got[policy] = bodies(f.gather(q))
		}
		require.Equal(f, map[string][]string{`{"region":["eu"]}`: {"eu"}, `{"cents":[{"numeric":[">=",100]}]}`: {"eu"}, `{"cents":["100"]}`: {"us"}, `{"region":[{"exists":false}]}`: {"tags"}, `{"tags":["b"]}`: {"tags"}, `{"region":[{"anything-but":["eu"]}]}`: {"us"}}, got)
	},
	"SNS: a filter policy on the body": func(f *fidelity) {
		topic, q := f.topic(), f.queue()
		f.subscribe(topic, q, "RawMessageDelivery", "true", "FilterPolicyScope", "MessageBody", "FilterPolicy", `{"order":{"region":["eu"]},"total":[{"numeric":[">",10]}]}`)
		for _, body := range []string{`{"order":{"region":"eu"},"total":11}`, `{"order":{"region":"us"},"total":11}`, `{"order":{"region":"eu"},"total":"11"}`, `no JSON`} {
			f.publish(topic, body)
		}
		require.Equal(f, []string{`{"order":{"region":"eu"},"total":11}`}, bodies(f.gather(q)))
	},
	"SNS: a filter policy that is wrong": func(f *fidelity) {
		topic, q := f.topic(), f.queue()
		for _, policy := range []string{`{"a":[]}`, `{"a":"x"}`, `x`, `{"a":["1"],"b":["1"],"c":["1"],"d":["1"],"e":["1"],"f":["1"]}`} {
			_, err := f.sns.Subscribe(f.Context(), &sns.SubscribeInput{TopicArn: &topic, Protocol: aws.String("sqs"), Endpoint: aws.String(f.arn(q)), Attributes: map[string]string{"FilterPolicy": policy}})
			require.Equal(f, "InvalidParameter", code(err), policy)
		}
	},
	"SNS: from a FIFO topic to a FIFO queue": func(f *fidelity) {
		topic, q := f.topic("FifoTopic", "true"), f.queue("FifoQueue", "true")
		f.subscribe(topic, q, "RawMessageDelivery", "true")
		first := f.publish(topic, "1", inGroup("g", "a"))
		second := f.publish(topic, "2", inGroup("g", "b"))
		again := f.publish(topic, "3", inGroup("g", "a"))
		require.Equal(f, *first.MessageId, *again.MessageId)
		require.Less(f, *first.SequenceNumber, *second.SequenceNumber)
		ms := f.receive(q, 10, wait(5))
		require.Equal(f, []string{"1", "2"}, bodies(ms))
		require.Equal(f, []string{"g", "a"}, []string{ms[0].Attributes["MessageGroupId"], ms[0].Attributes["MessageDeduplicationId"]})
		_, err := f.sns.Publish(f.Context(), &sns.PublishInput{TopicArn: &topic, Message: aws.String("m"), MessageDeduplicationId: aws.String("x")})
		require.Equal(f, "InvalidParameter", code(err))
		_, err = f.sns.Publish(f.Context(), &sns.PublishInput{TopicArn: &topic, Message: aws.String("m"), MessageGroupId: aws.String("x")})
		require.Equal(f, "InvalidParameter", code(err))
	},
	"SNS: a FIFO queue needs a FIFO topic": func(f *fidelity) {
		topic, q := f.topic(), f.queue("FifoQueue", "true")
		_, err := f.sns.Subscribe(f.Context(), &sns.SubscribeInput{TopicArn: &topic, Protocol: aws.String("sqs"), Endpoint: aws.String(f.arn(q))})
		require.Equal(f, "InvalidParameter", code(err))
	},
	"SNS: batches answer in part": func(f *fidelity) {
		topic := f.topic()
		batch := func(entries ...snstypes.PublishBatchRequestEntry) (*sns.PublishBatchOutput, error) {
			return f.sns.PublishBatch(f.Context(), &sns.PublishBatchInput{TopicArn: &topic, PublishBatchRequestEntries: entries})
		}
		entry := func(id, body string) snstypes.PublishBatchRequestEntry {
			return snstypes.PublishBatchRequestEntry{Id: &id, Message: &body}
		}
		out, err := batch(entry("a", "1"), entry("b", ""), entry("c", "2"))
		require.NoError(f, err)
		require.Len(f, out.Successful, 2)
		require.Len(f, out.Failed, 1)
		require.Equal(f, "InvalidParameter", *out.Failed[0].Code)
		for want, entries := range map[string][]snstypes.PublishBatchRequestEntry{
			"EmptyBatchRequest":        {},
			"BatchEntryIdsNotDistinct": {entry("a", "1"), entry("a", "2")},
			"BatchRequestTooLong":      {entry("a", strings.Repeat("x", 1<<17)), entry("b", strings.Repeat("x", 1<<17+1))},
		} {
			_, err := batch(entries...)
			require.Equal(f, want, code(err))
		}
	},
	"SNS: limits": func(f *fidelity) {
		topic := f.topic()
		for name, in := range map[string]sns.PublishInput{
			"256 KiB":        {Message: aws.String(strings.Repeat("x", 256<<10))},
			"! a byte more":  {Message: aws.String(strings.Repeat("x", 256<<10+1))},
			"! no body":      {Message: aws.String("")},
			"! long subject": {Message: aws.String("m"), Subject: aws.String(strings.Repeat("s", 101))},
			"! an ID":        {Message: aws.String("m"), MessageDeduplicationId: aws.String("x")},
		} {
			in.TopicArn = &topic
			_, err := f.sns.Publish(f.Context(), &in)
			want := ""
			if name[0] == '!' {
				want = "InvalidParameter"
			}
			require.Equal(f, want, code(err), name)
		}
		_, err := f.sns.Publish(f.Context(), &sns.PublishInput{TopicArn: aws.String(topic + "x"), Message: aws.String("m")})
		require.Equal(f, "NotFound", code(err))
		_, err = f.sns.Publish(f.Context(), &sns.PublishInput{TopicArn: &topic, Message: aws.String("m"), MessageAttributes: map[string]snstypes.MessageAttributeValue{"a": number("seven")}})
		require.Equal(f, "ParameterValueInvalid", code(err))
	},
	"SNS: without the queue's permission nothing comes": func(f *fidelity) {
		topic, q := f.topic(), f.queue()
		f.subscribe(topic, q)
		f.permit(topic+"x", q)
		f.publish(topic, "m")
		require.Empty(f, f.gather(q))
	},
	"SNS: the dead-letter queue of a subscription": func(f *fidelity) {
		topic, q, dead := f.topic(), f.queue(), f.queue()
		f.permit(topic, dead)
		f.subscribe(topic, q, "RawMessageDelivery", "true", "RedrivePolicy", fmt.Sprintf(`{"deadLetterTargetArn":%q}`, f.arn(dead)))
		f.permit(topic+"x", q)
		f.publish(topic, "m")
		ms := f.gather(dead)
		require.Equal(f, []string{"m"}, bodies(ms))
		require.Empty(f, f.gather(q))
	},
	"SNS: create, subscribe and unsubscribe again": func(f *fidelity) {
		topic, q := f.topic("DisplayName", "d"), f.queue()
		name := topic[strings.LastIndex(topic, ":")+1:]
		again, err := f.sns.CreateTopic(f.Context(), &sns.CreateTopicInput{Name: &name})
		require.NoError(f, err)
		require.Equal(f, topic, *again.TopicArn)
		s := f.subscribe(topic, q)
		require.Equal(f, s, f.subscribe(topic, q))
		_, err = f.sns.Subscribe(f.Context(), &sns.SubscribeInput{TopicArn: &topic, Protocol: aws.String("sqs"), Endpoint: aws.String(f.arn(q)), Attributes: map[string]string{"RawMessageDelivery": "true"}})
		require.Equal(f, "InvalidParameter", code(err))
		for range 2 {
			_, err = f.sns.Unsubscribe(f.Context(), &sns.UnsubscribeInput{SubscriptionArn: &s})
			require.NoError(f, err)
		}
		f.publish(topic, "m")
		require.Empty(f, f.gather(q))
		_, err = f.sns.GetSubscriptionAttributes(f.Context(), &sns.GetSubscriptionAttributesInput{SubscriptionArn: &s})
		require.Equal(f, "NotFound", code(err))
	},
	"SNS: HTTP endpoints": func(f *fidelity) {
		topic := f.topic()
		subscribe := func(protocol, endpoint, policy string) error {
			in := &sns.SubscribeInput{TopicArn: &topic, Protocol: &protocol, Endpoint: &endpoint}
			if policy != "" {
				in.Attributes = map[string]string{"DeliveryPolicy": policy}
			}
			out, err := f.sns.Subscribe(f.Context(), in)
			if err == nil {
				require.Equal(f, "pending confirmation", *out.SubscriptionArn)
			}
			return err
		}
		require.Equal(f, "InvalidParameter", code(subscribe("https", "http://example.com/hook", "")))
		require.Equal(f, "InvalidParameter", code(subscribe("https", "https://example.com/hook", `{"healthyRetryPolicy":{"numRetries":101}}`)))
		require.Equal(f, "InvalidParameter", code(subscribe("https", "https://example.com/hook", `{"healthyRetryPolicy":{"minDelayTarget":21,"maxDelayTarget":20}}`)))
		require.NoError(f, subscribe("https", "https://example.com/hook", ""))
		list, err := f.sns.ListSubscriptionsByTopic(f.Context(), &sns.ListSubscriptionsByTopicInput{TopicArn: &topic})
		require.NoError(f, err)
		require.Len(f, list.Subscriptions, 1)
		require.Equal(f, "PendingConfirmation", *list.Subscriptions[0].SubscriptionArn)
		_, err = f.sns.ConfirmSubscription(f.Context(), &sns.ConfirmSubscriptionInput{TopicArn: &topic, Token: aws.String("x")})
		require.Equal(f, "InvalidParameter", code(err))
	},
	"SNS: the effective delivery policy": func(f *fidelity) {
		topic := f.topic()
		out, err := f.sns.GetTopicAttributes(f.Context(), &sns.GetTopicAttributesInput{TopicArn: &topic})
		require.NoError(f, err)
		require.JSONEq(f, `{"http":{"defaultHealthyRetryPolicy":{"minDelayTarget":20,"maxDelayTarget":20,"numRetries":3,"numMaxDelayRetries":0,"numNoDelayRetries":0,"numMinDelayRetries":0,"backoffFunction":"linear"},
			"disableSubscriptionOverrides":false,"defaultRequestPolicy":{"headerContentType":"text/plain; charset=UTF-8"}}}`, out.Attributes["EffectiveDeliveryPolicy"])
	},
}
