package fakeaws_test

import (
	"encoding/json"
	"fmt"
	"net/http"
	"net/url"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/sns"
	snstypes "github.com/aws/aws-sdk-go-v2/service/sns/types"
	"github.com/stretchr/testify/require"

	"github.com/gofanout/fanout/fanouttest/fakeaws"
)

func newTopic(t testing.TB, a *fakeaws.AWS, name string, attributes ...string) string {
	t.Helper()
	out, err := a.SNS().CreateTopic(t.Context(), &sns.CreateTopicInput{Name: &name, Attributes: pairs(attributes)})
	require.NoError(t, err)
	return *out.TopicArn
}

// permission is a queue's policy that lets a topic send to it.
func permission(topic string) string {
	return fmt.Sprintf(`{"Version":"2012-10-17","Statement":[{"Effect":"Allow","Principal":{"Service":"sns.amazonaws.com"},"Action":"sqs:SendMessage","Resource":"*","Condition":{"ArnEquals":{"aws:SourceArn":%q}}}]}`, topic)
}

func subscribe(t testing.TB, a *fakeaws.AWS, topic string, queue *fakeaws.Queue, attributes ...string) string {
	t.Helper()
	out, err := a.SNS().Subscribe(t.Context(), &sns.SubscribeInput{TopicArn: &topic, Protocol: aws.String("sqs"), Endpoint: aws.String(queue.ARN()), Attributes: pairs(attributes), ReturnSubscriptionArn: true})
	require.NoError(t, err)
	return *out.SubscriptionArn
}

func publish(t testing.TB, a *fakeaws.AWS, topic, body string, change ...func(*sns.PublishInput)) *sns.PublishOutput {
	t.Helper()
	in := &sns.PublishInput{TopicArn: &topic, Message: &body}
	for _, f := range change {
		f(in)
	}
	out, err := a.SNS().Publish(t.Context(), in)
	require.NoError(t, err)
	return out
}

func number(value string) snstypes.MessageAttributeValue {
	return snstypes.MessageAttributeValue{DataType: aws.String("Number"), StringValue: &value}
}

func text(value string) snstypes.MessageAttributeValue {
	return snstypes.MessageAttributeValue{DataType: aws.String("String"), StringValue: &value}
}

// Subject: SNS: envelope and raw; attributes.
func TestAMessageReachesQueuesInItsEnvelopeAndRaw(t *testing.T) {
	bubble(t, func(t *testing.T, a *fakeaws.AWS) {
		topic := newTopic(t, a, "orders")
		enveloped := newQueue(t, a, "enveloped", "Policy", permission(topic))
		raw := newQueue(t, a, "raw", "Policy", permission(topic))
		inEnvelope := subscribe(t, a, topic, a.Queue("enveloped"))
		subscribe(t, a, topic, a.Queue("raw"), "RawMessageDelivery", "true")
		out := publish(t, a, topic, `{"order":"<17>"}`, func(in *sns.PublishInput) {
			in.Subject = aws.String("an order")
			in.MessageAttributes = map[string]snstypes.MessageAttributeValue{"region": text("eu"), "photo": {DataType: aws.String("Binary"), BinaryValue: []byte{1, 255}}, "tags": {DataType: aws.String("String.Array"), StringValue: aws.String(`["a"]`)}}
		})
		m := receive(t, a, enveloped)[0]
		require.Empty(t, m.MessageAttributes)
		var envelope map[string]any
		require.NoError(t, json.Unmarshal([]byte(*m.Body), &envelope))
		require.Equal(t, map[string]any{"Type": "Notification", "MessageId": *out.MessageId, "TopicArn": topic, "Subject": "an order", "Message": `{"order":"<17>"}`,
			"Timestamp": time.Now().UTC().Format("2006-01-02T15:04:05.000Z"), "UnsubscribeURL": "https://sns.us-east-1.amazonaws.com/?Action=Unsubscribe&SubscriptionArn=" + inEnvelope,
			"MessageAttributes": map[string]any{"region": map[string]any{"Type": "String", "Value": "eu"}, "photo": map[string]any{"Type": "Binary", "Value": "Af8="}, "tags": map[string]any{"Type": "String.Array", "Value": `["a"]`}}}, envelope)
		m = receive(t, a, raw)[0]
		require.Equal(t, `{"order":"<17>"}`, *m.Body)
		require.Equal(t, "eu", *m.MessageAttributes["region"].StringValue)
		require.Equal(t, []byte{1, 255}, m.MessageAttributes["photo"].BinaryValue)
		require.Equal(t, "String.Array", *m.MessageAttributes["tags"].DataType)

		published := a.Topic("orders").Published()
		require.Len(t, published, 1)
		require.Equal(t, *out.MessageId, published[0].ID)
		require.Equal(t, []fakeaws.Outcome{fakeaws.Delivered, fakeaws.Delivered}, []fakeaws.Outcome{published[0].Deliveries[0].Outcome, published[0].Deliveries[1].Outcome})

		// The URL of the envelope works.
		r, err := a.HTTPClient().Get(envelope["UnsubscribeURL"].(string))
		require.NoError(t, err)
		require.Equal(t, http.StatusOK, r.StatusCode)
		publish(t, a, topic, "after")
		require.Empty(t, receive(t, a, enveloped))
		require.Len(t, receive(t, a, raw), 1)

		publish(t, a, topic, `{"default":"d","sqs":"for queues"}`, func(in *sns.PublishInput) { in.MessageStructure = aws.String("json") })
		require.Equal(t, []string{"for queues"}, bodies(receive(t, a, raw)))
		publish(t, a, topic, "many", func(in *sns.PublishInput) {
			in.MessageAttributes = map[string]snstypes.MessageAttributeValue{}
			for k := range 10 {
				in.MessageAttributes[fmt.Sprint("a", k)] = text("x")
			}
		})
		require.Len(t, receive(t, a, raw), 1)
	})
}

// Subject: permission of the topic on the queue: a missing policy means silence,
// which a test can see. Subscription dead-letter queue.
func TestDeliveriesThatFail(t *testing.T) {
	a := fakeaws.New(t)
	topic := newTopic(t, a, "orders")
	newQueue(t, a, "forbidden")
	newQueue(t, a, "other", "Policy", permission(topic+"x"))
	dead := newQueue(t, a, "dead", "Policy", permission(topic))
	subscribe(t, a, topic, a.Queue("forbidden"))
	subscribe(t, a, topic, a.Queue("other"))
	subscribe(t, a, topic, a.Queue("none"), "RawMessageDelivery", "true", "RedrivePolicy", fmt.Sprintf(`{"deadLetterTargetArn":%q}`, a.Queue("dead").ARN()))
	publish(t, a, topic, "m")
	p := a.Topic("orders").Published()[0]
	require.Equal(t, fakeaws.Lost, p.Deliveries[0].Outcome)
	require.Equal(t, "the policy of queue forbidden does not allow sns.amazonaws.com to SendMessage from "+topic, p.Deliveries[0].Error)
	require.Equal(t, fakeaws.Lost, p.Deliveries[1].Outcome)
	require.Equal(t, fakeaws.DeadLettered, p.Deliveries[2].Outcome)
	letter := receive(t, a, dead)[0]
	require.Equal(t, "m", *letter.Body)
	require.Equal(t, "AWS.SimpleQueueService.NonExistentQueue", *letter.MessageAttributes["ErrorCode"].StringValue)
	require.Zero(t, a.Queue("forbidden").Len()+a.Queue("other").Len())
	require.NoError(t, set(a, "forbidden", "Policy", permission(topic)))
	publish(t, a, topic, "n")
	require.Equal(t, 1, a.Queue("forbidden").Len())
}

// Subject: filter policies on attributes and on the body; scope.
func TestFilterPolicies(t *testing.T) {
	type message struct {
		body       string
		attributes map[string]snstypes.MessageAttributeValue
	}
	at := func(name string, v snstypes.MessageAttributeValue) message {
		return message{"x", map[string]snstypes.MessageAttributeValue{name: v}}
	}
	array := snstypes.MessageAttributeValue{DataType: aws.String("String.Array"), StringValue: aws.String(`["a",7,true]`)}
	for k, row := range []struct {
		policy, scope string
		m             message
		want          bool
	}{
		{`{"region":["eu"]}`, "", at("region", text("eu")), true},
		{`{"region":["eu"]}`, "", at("region", text("us")), false},
		{`{"region":["eu"]}`, "", message{body: "x"}, false},
		{`{"cents":[{"numeric":[">=",100]}]}`, "", at("cents", number("100.0")), true},
		{`{"cents":[{"numeric":[">=",100]}]}`, "", at("cents", text("100")), false}, // a String is no number
		{`{"cents":[100]}`, "", at("cents", number("1e2")), true},
		{`{"cents":["100"]}`, "", at("cents", number("100")), false}, // and a Number no string
		{`{"region":[{"anything-but":["eu"]}]}`, "", at("region", text("us")), true},
		{`{"region":[{"prefix":"eu-"},{"suffix":"-2"}]}`, "", at("region", text("us-2")), true},
		{`{"region":[{"exists":false}]}`, "", at("other", text("x")), true},
		{`{"tags":["a"]}`, "", at("tags", array), true},
		{`{"tags":[7]}`, "", at("tags", array), true},
		{`{"tags":["7"]}`, "", at("tags", array), false},
		{`{"$or":[{"a":["1"]},{"b":["2"]}]}`, "", at("b", text("2")), true},
		{`{}`, "", message{body: "x"}, true},
		{`{"order":{"region":["eu"]},"total":[{"numeric":[">",10]}]}`, "MessageBody", message{body: `{"order":{"region":"eu"},"total":11}`}, true},
		{`{"order":{"region":["eu"]},"total":[{"numeric":[">",10]}]}`, "MessageBody", message{body: `{"order":{"region":"eu"},"total":"11"}`}, false},
		{`{"items":{"sku":["b"]}}`, "MessageBody", message{body: `{"items":[{"sku":"a"},{"sku":"b"}]}`}, true},
		{`{"items":{"sku":["c"]}}`, "MessageBody", message{body: `{"items":[{"sku":"a"},{"sku":"b"}]}`}, false},
		{`{"a":[null]}`, "MessageBody", message{body: `{"a":null}`}, true},
		{`{"a":["x"]}`, "MessageBody", message{body: `not JSON`}, false},
		{`{"a":["x"]}`, "MessageBody", message{body: `["x"]`}, false},
		{`{"a":["x"]}`, "MessageBody", at("a", text("x")), false},
		{`{"a":["x"]}`, "MessageAttributes", at("a", text("x")), true},
	} {
		a := fakeaws.New(t)
		topic := newTopic(t, a, "orders")
		newQueue(t, a, "q", "Policy", permission(topic))
		attributes := []string{"FilterPolicy", row.policy}
		if row.scope != "" {
			attributes = append(attributes, "FilterPolicyScope", row.scope)
		}
		subscribe(t, a, topic, a.Queue("q"), attributes...)
		publish(t, a, topic, row.m.body, func(in *sns.PublishInput) { in.MessageAttributes = row.m.attributes })
		require.Equal(t, row.want, a.Queue("q").Len() == 1, "%d: %s %+v", k, row.policy, row.m)
	}
	a := fakeaws.New(t)
	topic := newTopic(t, a, "orders")
	s := subscribe(t, a, topic, a.Queue("q"))
	setAttribute := func(name, value string) error {
		_, err := a.SNS().SetSubscriptionAttributes(t.Context(), &sns.SetSubscriptionAttributesInput{SubscriptionArn: &s, AttributeName: &name, AttributeValue: &value})
		return err
	}
	require.NoError(t, setAttribute("FilterPolicy", `{"a":["x"]}`))
	for _, bad := range []string{`{"a":[]}`, `{"a":[{"wildcard":"x*"}]}`, `{"a":"x"}`, `x`, `{"a":["1"],"b":["1"],"c":["1"],"d":["1"],"e":["1"],"f":["1"]}`} {
		require.Equal(t, "InvalidParameter", code(setAttribute("FilterPolicy", bad)), bad)
	}
	require.Equal(t, "InvalidParameter", code(setAttribute("FilterPolicyScope", "Headers")))
	for k := range 199 {
		subscribe(t, a, topic, a.Queue(fmt.Sprint("more", k)), "FilterPolicy", `{"a":["x"]}`)
	}
	_, err := a.SNS().Subscribe(t.Context(), &sns.SubscribeInput{TopicArn: &topic, Protocol: aws.String("sqs"), Endpoint: aws.String(a.Queue("one-more").ARN()), Attributes: map[string]string{"FilterPolicy": `{"a":["x"]}`}})
	require.Equal(t, "FilterPolicyLimitExceeded", code(err))
	require.NoError(t, setAttribute("FilterPolicy", `{"a":["x"]}`), "it has one of the 200 already")
	require.Equal(t, "InvalidParameter", code(setAttribute("RawMessageDelivery", "yes")))
	require.Equal(t, "InvalidParameter", code(setAttribute("Nonsense", "yes")))
	out, err := a.SNS().GetSubscriptionAttributes(t.Context(), &sns.GetSubscriptionAttributesInput{SubscriptionArn: &s})
	require.NoError(t, err)
	require.Equal(t, map[string]string{"SubscriptionArn": s, "TopicArn": topic, "Owner": "123456789012", "Endpoint": a.Queue("q").ARN(), "Protocol": "sqs", "RawMessageDelivery": "false",
		"FilterPolicy": `{"a":["x"]}`, "FilterPolicyScope": "MessageAttributes", "PendingConfirmation": "false", "ConfirmationWasAuthenticated": "true",
		"SubscriptionPrincipal": "arn:aws:iam::123456789012:root"}, out.Attributes)
}

// A change of a filter policy takes time, if the test wants it.
func TestAChangeOfAFilterPolicyTakesTime(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a := fakeaws.New(t, fakeaws.WithFilterPolicyDelay(15*time.Minute))
		topic := newTopic(t, a, "orders")
		q := newQueue(t, a, "q", "Policy", permission(topic))
		s := subscribe(t, a, topic, a.Queue("q"), "RawMessageDelivery", "true", "FilterPolicy", `{"region":["eu"]}`)
		change := func(policy string) {
			_, err := a.SNS().SetSubscriptionAttributes(t.Context(), &sns.SetSubscriptionAttributesInput{SubscriptionArn: &s, AttributeName: aws.String("FilterPolicy"), AttributeValue: &policy})
			require.NoError(t, err)
		}
		got := func() []string {
			for _, region := range []string{"eu", "us", "ap"} {
				publish(t, a, topic, region, func(in *sns.PublishInput) {
					in.MessageAttributes = map[string]snstypes.MessageAttributeValue{"region": text(region)}
				})
			}
			ms := receive(t, a, q)
			require.NoError(t, sweep(a, q, ms...))
			return bodies(ms)
		}
		require.Equal(t, []string{"eu"}, got(), "the first one holds at once")
		change(`{"region":["us"]}`)
		time.Sleep(15*time.Minute - time.Nanosecond)
		require.Equal(t, []string{"eu"}, got())
		time.Sleep(time.Nanosecond)
		require.Equal(t, []string{"us"}, got())
		change(`{"region":["ap"]}`)
		time.Sleep(10 * time.Minute)
		change(`{}`)
		time.Sleep(15*time.Minute - time.Nanosecond)
		require.Equal(t, []string{"us"}, got())
		time.Sleep(time.Nanosecond)
		require.Equal(t, []string{"eu", "us", "ap"}, got())
		_, err := fakeaws.Start(fakeaws.WithFilterPolicyDelay(-1))
		require.EqualError(t, err, "fakeaws: WithFilterPolicyDelay(-1ns): want 0 or more")
	})
}

// Subject: FIFO topics; deduplication from SNS FIFO to SQS FIFO.
func TestFIFOTopics(t *testing.T) {
	bubble(t, func(t *testing.T, a *fakeaws.AWS) {
		topic := newTopic(t, a, "orders.fifo", "FifoTopic", "true")
		fifo := newQueue(t, a, "q.fifo", "FifoQueue", "true", "Policy", permission(topic)) // it needs no deduplication by content
		standard := newQueue(t, a, "q", "Policy", permission(topic))
		subscribe(t, a, topic, a.Queue("q.fifo"), "RawMessageDelivery", "true")
		subscribe(t, a, topic, a.Queue("q"), "RawMessageDelivery", "true")
		in := func(group, id string) func(*sns.PublishInput) {
			return func(in *sns.PublishInput) { in.MessageGroupId, in.MessageDeduplicationId = &group, &id }
		}
		first := publish(t, a, topic, "1", in("g", "a"))
		second := publish(t, a, topic, "2", in("g", "b"))
		again := publish(t, a, topic, "3", in("h", "a"))
		require.Equal(t, *first.MessageId, *again.MessageId)
		require.Less(t, *first.SequenceNumber, *second.SequenceNumber)
		ms := receive(t, a, fifo)
		require.Equal(t, []string{"1", "2"}, bodies(ms))
		require.Equal(t, "a", ms[0].Attributes["MessageDeduplicationId"])
		require.Equal(t, "g", ms[0].Attributes["MessageGroupId"])
		require.Equal(t, []string{"1", "2"}, bodies(receive(t, a, standard)))
		time.Sleep(5 * time.Minute)
		publish(t, a, topic, "4", in("h", "a"))
		require.Contains(t, bodies(receive(t, a, fifo)), "4")

		for want, change := range map[string]func(*sns.PublishInput){
			"MessageGroupId parameter is required":   func(*sns.PublishInput) {},
			"should either have ContentBasedDedupli": func(in *sns.PublishInput) { in.MessageGroupId = aws.String("g") },
		} {
			p := &sns.PublishInput{TopicArn: &topic, Message: aws.String("m")}
			change(p)
			_, err := a.SNS().Publish(t.Context(), p)
			require.Equal(t, "InvalidParameter", code(err))
			require.ErrorContains(t, err, want)
		}
		plain := newTopic(t, a, "plain")
		_, err := a.SNS().Subscribe(t.Context(), &sns.SubscribeInput{TopicArn: &plain, Protocol: aws.String("sqs"), Endpoint: aws.String(a.Queue("q.fifo").ARN())})
		require.Equal(t, "InvalidParameter", code(err))
	})
}

// Subject: PublishBatch in part; limits of messages.
func TestPublishBatchAndLimits(t *testing.T) {
	a := fakeaws.New(t)
	topic := newTopic(t, a, "orders")
	batch := func(entries ...snstypes.PublishBatchRequestEntry) (*sns.PublishBatchOutput, error) {
		return a.SNS().PublishBatch(t.Context(), &sns.PublishBatchInput{TopicArn: &topic, PublishBatchRequestEntries: entries})
	}
	entry := func(id, body string) snstypes.PublishBatchRequestEntry {
		return snstypes.PublishBatchRequestEntry{Id: &id, Message: &body}
	}
	out, err := batch(entry("a", "1"), entry("b", ""), entry("c", "2"))
	require.NoError(t, err)
	require.Equal(t, []string{"a", "c"}, []string{*out.Successful[0].Id, *out.Successful[1].Id})
	require.Equal(t, "InvalidParameter", *out.Failed[0].Code)
	require.Len(t, a.Topic("orders").Published(), 2)
	a.Inject(fakeaws.Fault{Operation: "PublishBatch", Resource: "orders", Entries: []string{"b"}, Error: &fakeaws.InternalFailure})
	out, err = batch(entry("a", "1"), entry("b", "2"))
	require.NoError(t, err)
	require.Equal(t, "InternalFailure", *out.Failed[0].Code)
	for want, entries := range map[string][]snstypes.PublishBatchRequestEntry{
		"EmptyBatchRequest":        {},
		"BatchEntryIdsNotDistinct": {entry("a", "1"), entry("a", "2")},
		"InvalidBatchEntryId":      {entry("a b", "1")},
		"BatchRequestTooLong":      {entry("a", strings.Repeat("x", 1<<17)), entry("b", strings.Repeat("x", 1<<17+1))},
	} {
		_, err := batch(entries...)
		require.Equal(t, want, code(err))
	}
	send := func(change func(*sns.PublishInput)) string {
		in := &sns.PublishInput{TopicArn: &topic, Message: aws.String("m")}
		change(in)
		_, err := a.SNS().Publish(t.Context(), in)
		return code(err)
	}
	body := func(n int) func(*sns.PublishInput) {
		return func(in *sns.PublishInput) { in.Message = aws.String(strings.Repeat("x", n)) }
	}
	require.Equal(t, "", send(body(256<<10)))
	require.Equal(t, "InvalidParameter", send(body(256<<10+1)))
	_, err = a.SNS().SetTopicAttributes(t.Context(), &sns.SetTopicAttributesInput{TopicArn: &topic, AttributeName: aws.String("MaximumMessageSize"), AttributeValue: aws.String("1048576")})
	require.NoError(t, err)
	require.Equal(t, "", send(body(1<<20)))
	require.Equal(t, "InvalidParameter", send(body(1<<20+1)))
	require.Equal(t, "InvalidParameter", send(func(in *sns.PublishInput) { in.Message = aws.String("\xfc") }))
	require.Equal(t, "InvalidParameter", send(func(in *sns.PublishInput) { in.Subject = aws.String(strings.Repeat("s", 101)) }))
	require.Equal(t, "InvalidParameter", send(func(in *sns.PublishInput) { in.MessageStructure = aws.String("json") }))
	require.Equal(t, "InvalidParameter", send(func(in *sns.PublishInput) { in.MessageDeduplicationId = aws.String("x") }))
	require.Equal(t, "ParameterValueInvalid", send(func(in *sns.PublishInput) {
		in.MessageAttributes = map[string]snstypes.MessageAttributeValue{"a": number("x")}
	}))
	require.Equal(t, "NotFound", send(func(in *sns.PublishInput) { in.TopicArn = aws.String(a.Topic("none").ARN()) }))
	require.Equal(t, "InvalidParameter", send(func(in *sns.PublishInput) { in.TopicArn = aws.String("orders") }))
}

// Subject: pending confirmation.
func TestASubscriptionOfAnotherAccountsQueueWaitsForItsConfirmation(t *testing.T) {
	a := fakeaws.New(t)
	other := a.Account("210987654321")
	topic := newTopic(t, a, "orders")
	q := newQueue(t, other, "q", "Policy", permission(topic))
	out, err := a.SNS().Subscribe(t.Context(), &sns.SubscribeInput{TopicArn: &topic, Protocol: aws.String("sqs"), Endpoint: aws.String(other.Queue("q").ARN())})
	require.NoError(t, err)
	require.Equal(t, "pending confirmation", *out.SubscriptionArn)
	publish(t, a, topic, "too early")
	require.Equal(t, fakeaws.NotConfirmed, a.Topic("orders").Published()[0].Deliveries[0].Outcome)
	ms := receive(t, other, q)
	require.Len(t, ms, 1)
	var confirmation struct{ Type, Token, SubscribeURL, TopicArn string }
	require.NoError(t, json.Unmarshal([]byte(*ms[0].Body), &confirmation))
	require.Equal(t, "SubscriptionConfirmation", confirmation.Type)
	_, err = a.SNS().ConfirmSubscription(t.Context(), &sns.ConfirmSubscriptionInput{TopicArn: &topic, Token: aws.String("x")})
	require.Equal(t, "InvalidParameter", code(err))
	list, err := a.SNS().ListSubscriptions(t.Context(), &sns.ListSubscriptionsInput{})
	require.NoError(t, err)
	require.Equal(t, "PendingConfirmation", *list.Subscriptions[0].SubscriptionArn)
	r, err := a.HTTPClient().Get(confirmation.SubscribeURL)
	require.NoError(t, err)
	require.Equal(t, http.StatusOK, r.StatusCode)
	publish(t, a, topic, "in time")
	require.Len(t, receive(t, other, q), 1)
	attributes, err := a.SNS().GetTopicAttributes(t.Context(), &sns.GetTopicAttributesInput{TopicArn: &topic})
	require.NoError(t, err)
	require.Equal(t, "1", attributes.Attributes["SubscriptionsConfirmed"])
	_, err = other.SNS().Publish(t.Context(), &sns.PublishInput{TopicArn: &topic, Message: aws.String("m")})
	require.Equal(t, "AuthorizationError", code(err))
	_, err = a.SNS().AddPermission(t.Context(), &sns.AddPermissionInput{TopicArn: &topic, Label: aws.String("l"), AWSAccountId: []string{"210987654321"}, ActionName: []string{"Publish"}})
	require.NoError(t, err)
	publish(t, other, topic, "allowed")
	_, err = a.SNS().RemovePermission(t.Context(), &sns.RemovePermissionInput{TopicArn: &topic, Label: aws.String("l")})
	require.NoError(t, err)
	_, err = other.SNS().Publish(t.Context(), &sns.PublishInput{TopicArn: &topic, Message: aws.String("m")})
	require.Equal(t, "AuthorizationError", code(err))
}

func TestTopicsAreCreatedListedAndDeleted(t *testing.T) {
	a := fakeaws.New(t)
	create := func(name string, attributes ...string) error {
		_, err := a.SNS().CreateTopic(t.Context(), &sns.CreateTopicInput{Name: &name, Attributes: pairs(attributes), Tags: []snstypes.Tag{{Key: aws.String("k"), Value: aws.String("v")}}})
		return err
	}
	require.NoError(t, create("t", "DisplayName", "d"))
	require.NoError(t, create("t", "DisplayName", "d"))
	require.NoError(t, create("t"))
	require.Equal(t, "InvalidParameter", code(create("t", "DisplayName", "e")))
	for _, name := range []string{"", "a b", strings.Repeat("x", 257), "x.fifo"} {
		require.Equal(t, "InvalidParameter", code(create(name)), name)
	}
	require.Equal(t, "InvalidParameter", code(create("x", "FifoTopic", "true")))
	require.Equal(t, "InvalidParameter", code(create("x", "Nonsense", "true")))
	require.Equal(t, "InvalidParameter", code(create("x", "ContentBasedDeduplication", "true")))
	for k := range 120 {
		require.NoError(t, create(fmt.Sprintf("topic-%03d", k)))
	}
	var found []string
	pages := sns.NewListTopicsPaginator(a.SNS(), &sns.ListTopicsInput{})
	n := 0
	for ; pages.HasMorePages(); n++ {
		page, err := pages.NextPage(t.Context())
		require.NoError(t, err)
		for _, topic := range page.Topics {
			found = append(found, *topic.TopicArn)
		}
	}
	require.Equal(t, 2, n)
	require.Len(t, found, 121)
	topic := a.Topic("t").ARN()
	tags := func() []snstypes.Tag {
		out, err := a.SNS().ListTagsForResource(t.Context(), &sns.ListTagsForResourceInput{ResourceArn: &topic})
		require.NoError(t, err)
		return out.Tags
	}
	_, err := a.SNS().TagResource(t.Context(), &sns.TagResourceInput{ResourceArn: &topic, Tags: []snstypes.Tag{{Key: aws.String("l"), Value: aws.String("w")}}})
	require.NoError(t, err)
	require.Len(t, tags(), 2)
	_, err = a.SNS().UntagResource(t.Context(), &sns.UntagResourceInput{ResourceArn: &topic, TagKeys: []string{"k"}})
	require.NoError(t, err)
	require.Equal(t, "l", *tags()[0].Key)
	s := subscribe(t, a, topic, a.Queue("q"))
	require.Equal(t, s, subscribe(t, a, topic, a.Queue("q")), "the same again")
	_, err = a.SNS().Subscribe(t.Context(), &sns.SubscribeInput{TopicArn: &topic, Protocol: aws.String("sqs"), Endpoint: aws.String(a.Queue("q").ARN()), Attributes: map[string]string{"RawMessageDelivery": "true"}})
	require.Equal(t, "InvalidParameter", code(err))
	_, err = a.SNS().Subscribe(t.Context(), &sns.SubscribeInput{TopicArn: &topic, Protocol: aws.String("fax"), Endpoint: aws.String("1")})
	require.Equal(t, "InvalidParameter", code(err))
	for range 2 {
		_, err = a.SNS().Unsubscribe(t.Context(), &sns.UnsubscribeInput{SubscriptionArn: &s})
		require.NoError(t, err)
		_, err = a.SNS().DeleteTopic(t.Context(), &sns.DeleteTopicInput{TopicArn: &topic})
		require.NoError(t, err)
	}
	_, err = a.SNS().GetTopicAttributes(t.Context(), &sns.GetTopicAttributesInput{TopicArn: &topic})
	require.Equal(t, "NotFound", code(err))
	var typed *snstypes.NotFoundException
	require.ErrorAs(t, err, &typed)
}

func TestUnknownParametersOfSNSAreRefused(t *testing.T) {
	a := fakeaws.New(t)
	for form, want := range map[string]string{
		"Action=Publish&Nonsense=1":                                                           "Publish has no parameter Nonsense",
		"Action=Publish&Message=a&Message=b":                                                  "the parameter Message is given 2 times",
		"Action=Publish&MessageAttributes.entry.1.Name=a":                                     "MessageAttributes.entry.1 must have a name and a value",
		"Action=Publish&MessageAttributes.entry.1.Name=a&MessageAttributes.entry.1.Value.X=1": "Publish has no parameter MessageAttributes.entry.1.Value.X",
		"Action=CreateTopic&Tags.member.2.Key=a":                                              "is not numbered from 1",
		"Action=Subscribe&ReturnSubscriptionArn=perhaps":                                      "wrong type",
	} {
		r, err := a.HTTPClient().PostForm("https://sns.us-east-1.amazonaws.com/", must(url.ParseQuery(form)))
		require.NoError(t, err)
		var b strings.Builder
		_ = r.Write(&b)
		require.Equal(t, 400, r.StatusCode, form)
		require.Contains(t, b.String(), "<Code>ValidationError</Code>")
		require.Contains(t, b.String(), want)
	}
}

func must[T any](v T, err error) T {
	if err != nil {
		panic(err)
	}
	return v
}
