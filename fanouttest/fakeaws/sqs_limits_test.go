package fakeaws_test

import (
	"crypto/md5"
	"encoding/binary"
	"encoding/hex"
	"fmt"
	"net/http"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/sqs"
	sqstypes "github.com/aws/aws-sdk-go-v2/service/sqs/types"
	"github.com/stretchr/testify/require"

	"github.com/gofanout/fanout/fanouttest/fakeaws"
)

// Subject: limits. Each row is a call that is just right, or just not.
func TestLimitsOfMessages(t *testing.T) {
	a := fakeaws.New(t)
	standard, fifo := newQueue(t, a, "orders"), newQueue(t, a, "orders.fifo", "FifoQueue", "true")
	small := newQueue(t, a, "small", "MaximumMessageSize", "1024")
	str := func(kind, value string) sqstypes.MessageAttributeValue {
		return sqstypes.MessageAttributeValue{DataType: &kind, StringValue: &value}
	}
	with := func(name string, v sqstypes.MessageAttributeValue) map[string]sqstypes.MessageAttributeValue {
		return map[string]sqstypes.MessageAttributeValue{name: v}
	}
	many := func(n int) map[string]sqstypes.MessageAttributeValue {
		as := map[string]sqstypes.MessageAttributeValue{}
		for k := range n {
			as[fmt.Sprint("a", k)] = str("String", "x")
		}
		return as
	}
	ok := aws.String("ok")
	for name, row := range map[string]struct {
		queue string
		in    sqs.SendMessageInput
		want  string
	}{
		"a MiB":                       {standard, sqs.SendMessageInput{MessageBody: aws.String(strings.Repeat("x", 1<<20))}, ""},
		"a MiB and a byte":            {standard, sqs.SendMessageInput{MessageBody: aws.String(strings.Repeat("x", 1<<20+1))}, "InvalidParameterValue"},
		"the queue's most":            {small, sqs.SendMessageInput{MessageBody: aws.String(strings.Repeat("x", 1024))}, ""},
		"more than the queue's most":  {small, sqs.SendMessageInput{MessageBody: aws.String(strings.Repeat("x", 1025))}, "InvalidParameterValue"},
		"attributes count":            {small, sqs.SendMessageInput{MessageBody: aws.String(strings.Repeat("x", 1024-8)), MessageAttributes: with("a", str("String", "x"))}, ""},
		"attributes count, too":       {small, sqs.SendMessageInput{MessageBody: aws.String(strings.Repeat("x", 1024-7)), MessageAttributes: with("a", str("String", "x"))}, "InvalidParameterValue"},
		"no body":                     {standard, sqs.SendMessageInput{MessageBody: aws.String("")}, "MissingParameter"},
		"a character that XML lacks":  {standard, sqs.SendMessageInput{MessageBody: aws.String("a\x00b")}, "InvalidMessageContents"},
		"U+FFFF":                      {standard, sqs.SendMessageInput{MessageBody: aws.String("\uffff")}, "InvalidMessageContents"},
		"tab, line feed, all planes":  {standard, sqs.SendMessageInput{MessageBody: aws.String("\t\r\n\u00e4\U0001f600\ufffd")}, ""},
		"delay":                       {standard, sqs.SendMessageInput{MessageBody: ok, DelaySeconds: 900}, ""},
		"delay too long":              {standard, sqs.SendMessageInput{MessageBody: ok, DelaySeconds: 901}, "InvalidParameterValue"},
		"delay negative":              {standard, sqs.SendMessageInput{MessageBody: ok, DelaySeconds: -1}, "InvalidParameterValue"},
		"delay in FIFO":               {fifo, sqs.SendMessageInput{MessageBody: ok, DelaySeconds: 1, MessageGroupId: ok, MessageDeduplicationId: ok}, "InvalidParameterValue"},
		"ten attributes":              {standard, sqs.SendMessageInput{MessageBody: ok, MessageAttributes: many(10)}, ""},
		"eleven attributes":           {standard, sqs.SendMessageInput{MessageBody: ok, MessageAttributes: many(11)}, "InvalidParameterValue"},
		"a name of 256":               {standard, sqs.SendMessageInput{MessageBody: ok, MessageAttributes: with(strings.Repeat("n", 256), str("String", "x"))}, ""},
		"a name of 257":               {standard, sqs.SendMessageInput{MessageBody: ok, MessageAttributes: with(strings.Repeat("n", 257), str("String", "x"))}, "InvalidParameterValue"},
		"a reserved name":             {standard, sqs.SendMessageInput{MessageBody: ok, MessageAttributes: with("aWs.x", str("String", "x"))}, "InvalidParameterValue"},
		"another reserved name":       {standard, sqs.SendMessageInput{MessageBody: ok, MessageAttributes: with("AMAZON.x", str("String", "x"))}, "InvalidParameterValue"},
		"a name with a dot first":     {standard, sqs.SendMessageInput{MessageBody: ok, MessageAttributes: with(".x", str("String", "x"))}, "InvalidParameterValue"},
		"a name with two dots":        {standard, sqs.SendMessageInput{MessageBody: ok, MessageAttributes: with("x..y", str("String", "x"))}, "InvalidParameterValue"},
		"a name with letters":         {standard, sqs.SendMessageInput{MessageBody: ok, MessageAttributes: with("attr.1øßä", str("String", "x"))}, ""},
		"a name with a bracket":       {standard, sqs.SendMessageInput{MessageBody: ok, MessageAttributes: with("x(y", str("String", "x"))}, "InvalidParameterValue"},
		"an unknown type":             {standard, sqs.SendMessageInput{MessageBody: ok, MessageAttributes: with("x", str("Text", "x"))}, "InvalidParameterValue"},
		"a custom type":               {standard, sqs.SendMessageInput{MessageBody: ok, MessageAttributes: with("x", str("Number.int", "17"))}, ""},
		"a custom type without name":  {standard, sqs.SendMessageInput{MessageBody: ok, MessageAttributes: with("x", str("String.", "x"))}, "InvalidParameterValue"},
		"a type too long":             {standard, sqs.SendMessageInput{MessageBody: ok, MessageAttributes: with("x", str("String."+strings.Repeat("x", 250), "x"))}, "InvalidParameterValue"},
		"an empty value":              {standard, sqs.SendMessageInput{MessageBody: ok, MessageAttributes: with("x", str("String", ""))}, "InvalidParameterValue"},
		"a bad character in a value":  {standard, sqs.SendMessageInput{MessageBody: ok, MessageAttributes: with("x", str("String", "\x08"))}, "InvalidMessageContents"},
		"no number":                   {standard, sqs.SendMessageInput{MessageBody: ok, MessageAttributes: with("x", str("Number", "seven"))}, "InvalidParameterValue"},
		"a number too large":          {standard, sqs.SendMessageInput{MessageBody: ok, MessageAttributes: with("x", str("Number", "1e127"))}, "InvalidParameterValue"},
		"a list":                      {standard, sqs.SendMessageInput{MessageBody: ok, MessageAttributes: with("x", sqstypes.MessageAttributeValue{DataType: aws.String("String"), StringListValues: []string{"a"}})}, "AWS.SimpleQueueService.UnsupportedOperation"},
		"another system attribute":    {standard, sqs.SendMessageInput{MessageBody: ok, MessageSystemAttributes: map[string]sqstypes.MessageSystemAttributeValue{"Other": {DataType: aws.String("String"), StringValue: ok}}}, "InvalidParameterValue"},
		"a trace":                     {standard, sqs.SendMessageInput{MessageBody: ok, MessageSystemAttributes: map[string]sqstypes.MessageSystemAttributeValue{"AWSTraceHeader": {DataType: aws.String("String"), StringValue: ok}}}, ""},
		"a group in a standard queue": {standard, sqs.SendMessageInput{MessageBody: ok, MessageGroupId: aws.String("tenant")}, ""},
		"an empty group":              {standard, sqs.SendMessageInput{MessageBody: ok, MessageGroupId: aws.String("")}, "InvalidParameterValue"},
		"a group too long":            {standard, sqs.SendMessageInput{MessageBody: ok, MessageGroupId: aws.String(strings.Repeat("g", 129))}, "InvalidParameterValue"},
		"a group with a space":        {standard, sqs.SendMessageInput{MessageBody: ok, MessageGroupId: aws.String("a b")}, "InvalidParameterValue"},
		"an ID in a standard queue":   {standard, sqs.SendMessageInput{MessageBody: ok, MessageDeduplicationId: ok}, "InvalidParameterValue"},
		"FIFO":                        {fifo, sqs.SendMessageInput{MessageBody: ok, MessageGroupId: aws.String("g" + strings.Repeat("!", 127)), MessageDeduplicationId: aws.String(strings.Repeat("d", 128))}, ""},
		"FIFO without a group":        {fifo, sqs.SendMessageInput{MessageBody: ok, MessageDeduplicationId: ok}, "MissingParameter"},
		"FIFO without an ID":          {fifo, sqs.SendMessageInput{MessageBody: ok, MessageGroupId: ok}, "InvalidParameterValue"},
		"FIFO with an ID too long":    {fifo, sqs.SendMessageInput{MessageBody: ok, MessageGroupId: ok, MessageDeduplicationId: aws.String(strings.Repeat("d", 129))}, "InvalidParameterValue"},
	} {
		t.Run(name, func(t *testing.T) {
			row.in.QueueUrl = &row.queue
			_, err := a.SQS().SendMessage(t.Context(), &row.in)
			require.Equal(t, row.want, code(err), "%v", err)
		})
	}
}

func TestLimitsOfReceives(t *testing.T) {
	a := fakeaws.New(t)
	q, fifo := newQueue(t, a, "orders"), newQueue(t, a, "orders.fifo", "FifoQueue", "true")
	send(t, a, q, "m")
	for k, row := range []struct {
		in   sqs.ReceiveMessageInput
		want string
	}{
		{sqs.ReceiveMessageInput{MaxNumberOfMessages: 11}, "InvalidParameterValue"},
		{sqs.ReceiveMessageInput{MaxNumberOfMessages: -1}, "InvalidParameterValue"},
		{sqs.ReceiveMessageInput{WaitTimeSeconds: 21}, "InvalidParameterValue"},
		{sqs.ReceiveMessageInput{WaitTimeSeconds: -1}, "InvalidParameterValue"},
		{sqs.ReceiveMessageInput{VisibilityTimeout: 43201}, "InvalidParameterValue"},
		{sqs.ReceiveMessageInput{ReceiveRequestAttemptId: aws.String("x")}, "InvalidParameterValue"},
		{sqs.ReceiveMessageInput{MaxNumberOfMessages: 10, WaitTimeSeconds: 20, VisibilityTimeout: 43200}, ""},
	} {
		row.in.QueueUrl = &q
		_, err := a.SQS().ReceiveMessage(t.Context(), &row.in)
		require.Equal(t, row.want, code(err), k)
	}
	_, err := a.SQS().ReceiveMessage(t.Context(), &sqs.ReceiveMessageInput{QueueUrl: &fifo, ReceiveRequestAttemptId: aws.String("a b")})
	require.Equal(t, "InvalidParameterValue", code(err))
}

func TestAttributesOfQueues(t *testing.T) {
	bubble(t, func(t *testing.T, a *fakeaws.AWS) {
		created := time.Now()
		q := newQueue(t, a, "orders")
		stamp := fmt.Sprint(created.Unix())
		want := map[string]string{
			"ApproximateNumberOfMessages": "0", "ApproximateNumberOfMessagesDelayed": "0", "ApproximateNumberOfMessagesNotVisible": "0",
			"CreatedTimestamp": stamp, "LastModifiedTimestamp": stamp, "DelaySeconds": "0", "MaximumMessageSize": "1048576",
			"MessageRetentionPeriod": "345600", "QueueArn": "arn:aws:sqs:us-east-1:123456789012:orders",
			"ReceiveMessageWaitTimeSeconds": "0", "SqsManagedSseEnabled": "true", "VisibilityTimeout": "30",
		}
		require.Equal(t, want, attributesOf(t, a, q))
		f := newQueue(t, a, "orders.fifo", "FifoQueue", "true")
		fifo := map[string]string{"FifoQueue": "true", "ContentBasedDeduplication": "false", "DeduplicationScope": "queue", "FifoThroughputLimit": "perQueue"}
		for name, value := range want {
			fifo[name] = value
		}
		fifo["QueueArn"] += ".fifo"
		require.Equal(t, fifo, attributesOf(t, a, f))

		time.Sleep(time.Hour)
		require.NoError(t, set(a, q, "DelaySeconds", "900", "MessageRetentionPeriod", "1209600"))
		require.Equal(t, map[string]string{"DelaySeconds": "900", "LastModifiedTimestamp": fmt.Sprint(created.Add(time.Hour).Unix())},
			attributesOf(t, a, q, "DelaySeconds", "LastModifiedTimestamp", "Policy"))
		_, err := a.SQS().GetQueueAttributes(t.Context(), &sqs.GetQueueAttributesInput{QueueUrl: &q, AttributeNames: []sqstypes.QueueAttributeName{"Nonsense"}})
		require.Equal(t, "InvalidAttributeName", code(err))
		require.Empty(t, attributesOf(t, a, q, []sqstypes.QueueAttributeName{}...))

		for name, values := range map[string][2]string{ // the limits, and just beyond
			"DelaySeconds": {"0 900", "-1 901 x 1.5"}, "MaximumMessageSize": {"1024 1048576", "1023 1048577"},
			"MessageRetentionPeriod": {"60 1209600", "59 1209601"}, "ReceiveMessageWaitTimeSeconds": {"0 20", "-1 21"},
			"VisibilityTimeout": {"0 43200", "-1 43201"}, "KmsDataKeyReusePeriodSeconds": {"60 86400", "59 86401"},
			"SqsManagedSseEnabled": {"true false True", "yes"}, "Policy": {`{"Statement":[]}`, `[] x`},
		} {
			for _, v := range strings.Fields(values[0]) {
				require.NoError(t, set(a, q, name, v), "%s %s", name, v)
			}
			for _, v := range strings.Fields(values[1]) {
				require.Equal(t, "InvalidAttributeValue", code(set(a, q, name, v)), "%s %s", name, v)
			}
		}
		for _, name := range []string{"FifoQueue", "ContentBasedDeduplication", "DeduplicationScope", "FifoThroughputLimit", "QueueArn", "ApproximateNumberOfMessages", "Nonsense"} {
			require.Equal(t, "InvalidAttributeName", code(set(a, q, name, "true")), name)
		}
		require.Equal(t, "InvalidAttributeValue", code(set(a, f, "FifoQueue", "false")))
		require.Equal(t, "InvalidAttributeValue", code(set(a, f, "DeduplicationScope", "everything")))
		require.Equal(t, "InvalidAttributeValue", code(set(a, f, "FifoThroughputLimit", "perMessageGroupId")), "it needs the scope")
		require.NoError(t, set(a, f, "FifoThroughputLimit", "perMessageGroupId", "DeduplicationScope", "messageGroup"))

		require.NoError(t, set(a, q, "KmsMasterKeyId", "alias/x"))
		got := attributesOf(t, a, q)
		require.Equal(t, "false", got["SqsManagedSseEnabled"])
		require.Equal(t, "InvalidAttributeName", code(set(a, q, "KmsMasterKeyId", "alias/x", "SqsManagedSseEnabled", "true")))
	})
}

// Subject: CreateQueue again: same attributes are fine, others are
// QueueNameExists.
func TestCreateQueueAgain(t *testing.T) {
	a := fakeaws.New(t)
	create := func(name string, attributes ...string) error {
		_, err := a.SQS().CreateQueue(t.Context(), &sqs.CreateQueueInput{QueueName: &name, Attributes: pairs(attributes)})
		return err
	}
	require.NoError(t, create("orders", "DelaySeconds", "1"))
	require.NoError(t, create("orders", "DelaySeconds", "1"))
	require.NoError(t, create("orders"), "attributes that are not given do not differ")
	require.NoError(t, create("orders", "VisibilityTimeout", "30"), "the default is what it has")
	err := create("orders", "DelaySeconds", "2")
	require.Equal(t, "QueueAlreadyExists", code(err))
	var typed *sqstypes.QueueNameExists
	require.ErrorAs(t, err, &typed)
	require.Equal(t, "QueueAlreadyExists", code(create("orders", "VisibilityTimeout", "31")))
	require.Equal(t, "InvalidAttributeName", code(create("orders", "Nonsense", "31")))

	for name, want := range map[string]string{
		strings.Repeat("q", 80): "", strings.Repeat("q", 81): "InvalidParameterValue", "a b": "InvalidParameterValue", "a/b": "InvalidParameterValue",
		"": "MissingParameter", "x.fifo": "InvalidParameterValue", "A-b_0": "",
	} {
		require.Equal(t, want, code(create(name)), name)
	}
	require.NoError(t, create("x.fifo", "FifoQueue", "true"))
	require.NoError(t, create(strings.Repeat("q", 75)+".fifo", "FifoQueue", "true"))
	require.Equal(t, "InvalidParameterValue", code(create(strings.Repeat("q", 76)+".fifo", "FifoQueue", "true")))
	require.Equal(t, "InvalidParameterValue", code(create("x", "FifoQueue", "true")))
	require.Equal(t, "InvalidAttributeName", code(create("y", "FifoQueue", "false")))
	require.Equal(t, "InvalidAttributeValue", code(create("z", "DelaySeconds", "901")))
	require.False(t, a.Queue("z").Exists())
}

// Subject: within 60 s of deletion QueueDeletedRecently; purge once in 60 s.
func TestDeletionAndPurge(t *testing.T) {
	bubble(t, func(t *testing.T, a *fakeaws.AWS) {
		q := newQueue(t, a, "orders")
		send(t, a, q, "1")
		send(t, a, q, "2", func(in *sqs.SendMessageInput) { in.DelaySeconds = 10 })
		m := receive(t, a, q)[0]
		purge := func() error {
			_, err := a.SQS().PurgeQueue(t.Context(), &sqs.PurgeQueueInput{QueueUrl: &q})
			return err
		}
		require.NoError(t, purge())
		require.Zero(t, a.Queue("orders").Len(), "delayed ones and those in flight too")
		require.NoError(t, remove(a, q, m))
		send(t, a, q, "3")
		time.Sleep(time.Minute - time.Nanosecond)
		err := purge()
		require.Equal(t, "AWS.SimpleQueueService.PurgeQueueInProgress", code(err))
		var typed *sqstypes.PurgeQueueInProgress
		require.ErrorAs(t, err, &typed)
		time.Sleep(time.Nanosecond)
		require.NoError(t, purge())

		polled := make(chan error)
		go func() {
			_, err := a.SQS().ReceiveMessage(t.Context(), &sqs.ReceiveMessageInput{QueueUrl: &q, WaitTimeSeconds: 20})
			polled <- err
		}()
		synctest.Wait()
		_, err = a.SQS().DeleteQueue(t.Context(), &sqs.DeleteQueueInput{QueueUrl: &q})
		require.NoError(t, err)
		require.Equal(t, "AWS.SimpleQueueService.NonExistentQueue", code(<-polled), "long polls end")
		_, err = a.SQS().DeleteQueue(t.Context(), &sqs.DeleteQueueInput{QueueUrl: &q})
		require.Equal(t, "AWS.SimpleQueueService.NonExistentQueue", code(err))
		time.Sleep(time.Minute - time.Nanosecond)
		_, err = a.SQS().CreateQueue(t.Context(), &sqs.CreateQueueInput{QueueName: aws.String("orders")})
		require.Equal(t, "AWS.SimpleQueueService.QueueDeletedRecently", code(err))
		time.Sleep(time.Nanosecond)
		newQueue(t, a, "orders")
		require.Empty(t, receive(t, a, q))
		require.Equal(t, "ReceiptHandleIsInvalid", code(remove(a, q, m)), "the handle of the queue before")
	})
}

func TestRetention(t *testing.T) {
	bubble(t, func(t *testing.T, a *fakeaws.AWS) {
		q := newQueue(t, a, "orders", "MessageRetentionPeriod", "60", "VisibilityTimeout", "600")
		send(t, a, q, "in flight")
		m := receive(t, a, q)[0]
		send(t, a, q, "visible")
		time.Sleep(time.Minute - time.Nanosecond)
		require.Equal(t, 2, a.Queue("orders").Len())
		time.Sleep(time.Nanosecond)
		require.Zero(t, a.Queue("orders").Len())
		require.NoError(t, remove(a, q, m))

		require.NoError(t, set(a, q, "MessageRetentionPeriod", "345600"))
		send(t, a, q, "m")
		time.Sleep(2 * time.Minute)
		require.NoError(t, set(a, q, "MessageRetentionPeriod", "60"))
		require.Zero(t, a.Queue("orders").Len(), "a change is for those that are there, too")
	})
}

func TestDelays(t *testing.T) {
	bubble(t, func(t *testing.T, a *fakeaws.AWS) {
		q := newQueue(t, a, "orders", "DelaySeconds", "10")
		send(t, a, q, "queue's")
		send(t, a, q, "own", func(in *sqs.SendMessageInput) { in.DelaySeconds = 3 })
		require.Equal(t, "2", attributesOf(t, a, q)["ApproximateNumberOfMessagesDelayed"])
		began := time.Now()
		require.Equal(t, []string{"own"}, bodies(receive(t, a, q, wait(20))))
		require.Equal(t, 3*time.Second, time.Since(began))
		require.NoError(t, set(a, q, "DelaySeconds", "0"))
		require.Equal(t, []string{"queue's"}, bodies(receive(t, a, q, wait(20))))
		require.Equal(t, 10*time.Second, time.Since(began), "in a standard queue a change is for new messages")

		f := newQueue(t, a, "orders.fifo", "FifoQueue", "true", "DelaySeconds", "10")
		send(t, a, f, "m", group("g", "1"))
		began = time.Now()
		time.AfterFunc(2*time.Second, func() { _ = set(a, f, "DelaySeconds", "5") })
		require.Equal(t, []string{"m"}, bodies(receive(t, a, f, wait(20))))
		require.Equal(t, 5*time.Second, time.Since(began), "in a FIFO queue it is for those that are there, too")
	})
}

// The digest is that of the documentation, made here a second time: for each
// attribute by name the length and bytes of name, type and value.
func TestDigests(t *testing.T) {
	a := fakeaws.New(t)
	q := newQueue(t, a, "orders")
	attributes := map[string]sqstypes.MessageAttributeValue{
		"b": {DataType: aws.String("Number.int"), StringValue: aws.String("17")},
		"a": {DataType: aws.String("Binary"), BinaryValue: []byte{0, 255}},
	}
	digest := func(fields ...any) string {
		h := md5.New()
		for _, f := range fields {
			switch f := f.(type) {
			case byte:
				h.Write([]byte{f})
			case string:
				_ = binary.Write(h, binary.BigEndian, uint32(len(f)))
				h.Write([]byte(f))
			}
		}
		return hex.EncodeToString(h.Sum(nil))
	}
	a2 := digest("a", "Binary", byte(2), "\x00\xff")
	both := digest("a", "Binary", byte(2), "\x00\xff", "b", "Number.int", byte(1), "17")
	system := map[string]sqstypes.MessageSystemAttributeValue{"AWSTraceHeader": {DataType: aws.String("String"), StringValue: aws.String("Root=1")}}
	out := send(t, a, q, "hello", func(in *sqs.SendMessageInput) { in.MessageAttributes, in.MessageSystemAttributes = attributes, system })
	require.Equal(t, "5d41402abc4b2a76b9719d911017c592", *out.MD5OfMessageBody)
	require.Equal(t, both, *out.MD5OfMessageAttributes)
	require.Equal(t, digest("AWSTraceHeader", "String", byte(1), "Root=1"), *out.MD5OfMessageSystemAttributes)
	m := receive(t, a, q, hide(0), func(in *sqs.ReceiveMessageInput) { in.VisibilityTimeout = 1 })[0]
	require.Equal(t, both, *m.MD5OfMessageAttributes)
	require.Equal(t, attributes, m.MessageAttributes)
	require.Equal(t, "Root=1", m.Attributes["AWSTraceHeader"])
	require.NoError(t, change(a, q, m, 0))
	for _, names := range [][]string{{"a"}, {"a*", "a"}, {"a.*"}} {
		m = receive(t, a, q, func(in *sqs.ReceiveMessageInput) { in.MessageAttributeNames = names })[0]
		require.Equal(t, a2, *m.MD5OfMessageAttributes, "that of the attributes that are given: %v", names)
		require.NoError(t, change(a, q, m, 0))
	}
	m = receive(t, a, q, func(in *sqs.ReceiveMessageInput) {
		in.MessageAttributeNames, in.MessageSystemAttributeNames = nil, []sqstypes.MessageSystemAttributeName{"SenderId"}
		//lint:ignore SA1019 The old list must still work.
		in.AttributeNames = []sqstypes.QueueAttributeName{"ApproximateReceiveCount"}
	})[0]
	require.Nil(t, m.MD5OfMessageAttributes)
	require.Empty(t, m.MessageAttributes)
	require.Len(t, m.Attributes, 2, "the old and the new list of names")
}

func TestReceiveRequestAttempts(t *testing.T) {
	bubble(t, func(t *testing.T, a *fakeaws.AWS) {
		q := newQueue(t, a, "orders.fifo", "FifoQueue", "true")
		for k := range 3 {
			send(t, a, q, fmt.Sprint("m", k), group("g", fmt.Sprint(k)))
		}
		attempt := func(id string, n int32) []sqstypes.Message {
			return receive(t, a, q, most(n), func(in *sqs.ReceiveMessageInput) { in.ReceiveRequestAttemptId = &id })
		}
		first := attempt("x", 2)
		time.Sleep(20 * time.Second)
		require.Equal(t, first, attempt("x", 2), "the same messages with the same receipt handles, and no receive more")
		time.Sleep(29 * time.Second)
		require.Empty(t, attempt("y", 2), "they are hidden anew")
		require.NoError(t, remove(a, q, first[0]))
		require.Empty(t, attempt("x", 2), "one was deleted: it is a new receive")
		require.NoError(t, change(a, q, first[1], 0))
		ms := attempt("x", 2)
		require.Equal(t, []string{"m1", "m2"}, bodies(ms))
		require.NoError(t, change(a, q, ms[0], 60))
		require.Empty(t, attempt("x", 2), "one was changed: it is a new receive")
	})
}

func TestListsAndURLs(t *testing.T) {
	a := fakeaws.New(t)
	for k := range 5 {
		newQueue(t, a, fmt.Sprint("q", k))
	}
	newQueue(t, a, "other")
	list := func(in sqs.ListQueuesInput) (names []string, token *string) {
		out, err := a.SQS().ListQueues(t.Context(), &in)
		require.NoError(t, err)
		for _, u := range out.QueueUrls {
			names = append(names, strings.TrimPrefix(u, "https://sqs.us-east-1.amazonaws.com/123456789012/"))
		}
		return names, out.NextToken
	}
	names, token := list(sqs.ListQueuesInput{})
	require.Equal(t, []string{"other", "q0", "q1", "q2", "q3", "q4"}, names)
	require.Nil(t, token)
	names, token = list(sqs.ListQueuesInput{QueueNamePrefix: aws.String("q"), MaxResults: aws.Int32(3)})
	require.Equal(t, []string{"q0", "q1", "q2"}, names)
	names, token = list(sqs.ListQueuesInput{QueueNamePrefix: aws.String("q"), MaxResults: aws.Int32(3), NextToken: token})
	require.Equal(t, []string{"q3", "q4"}, names)
	require.Nil(t, token)
	_, err := a.SQS().ListQueues(t.Context(), &sqs.ListQueuesInput{MaxResults: aws.Int32(1001)})
	require.Equal(t, "InvalidParameterValue", code(err))

	out, err := a.SQS().GetQueueUrl(t.Context(), &sqs.GetQueueUrlInput{QueueName: aws.String("q1")})
	require.NoError(t, err)
	require.Equal(t, a.Queue("q1").URL(), *out.QueueUrl)
	_, err = a.SQS().GetQueueUrl(t.Context(), &sqs.GetQueueUrlInput{QueueName: aws.String("none")})
	require.Equal(t, "AWS.SimpleQueueService.NonExistentQueue", code(err))
	send(t, a, "q1", "by its name")
	require.Equal(t, 1, a.Queue("q1").Len())
	for _, u := range []string{"http://sqs.us-east-1.amazonaws.com/x/q1", "://", "http://h/123456789012/"} {
		_, err = a.SQS().SendMessage(t.Context(), &sqs.SendMessageInput{QueueUrl: &u, MessageBody: aws.String("m")})
		require.Equal(t, "InvalidAddress", code(err), u)
	}
}

func TestTags(t *testing.T) {
	a := fakeaws.New(t)
	q := newQueue(t, a, "orders")
	tags := func() map[string]string {
		out, err := a.SQS().ListQueueTags(t.Context(), &sqs.ListQueueTagsInput{QueueUrl: &q})
		require.NoError(t, err)
		return out.Tags
	}
	tag := func(tags map[string]string) error {
		_, err := a.SQS().TagQueue(t.Context(), &sqs.TagQueueInput{QueueUrl: &q, Tags: tags})
		return err
	}
	require.Empty(t, tags())
	require.NoError(t, tag(map[string]string{"team": "a", "Team": "b"}))
	require.NoError(t, tag(map[string]string{"team": "c"}))
	require.Equal(t, map[string]string{"team": "c", "Team": "b"}, tags())
	_, err := a.SQS().UntagQueue(t.Context(), &sqs.UntagQueueInput{QueueUrl: &q, TagKeys: []string{"team", "none"}})
	require.NoError(t, err)
	require.Equal(t, map[string]string{"Team": "b"}, tags())
	require.Equal(t, "InvalidParameterValue", code(tag(map[string]string{strings.Repeat("k", 129): "v"})))
	require.Equal(t, "InvalidParameterValue", code(tag(map[string]string{"k": strings.Repeat("v", 257)})))
	many := map[string]string{}
	for k := range 51 {
		many[fmt.Sprint(k)] = "v"
	}
	require.Equal(t, "InvalidParameterValue", code(tag(many)))
	out, err := a.SQS().CreateQueue(t.Context(), &sqs.CreateQueueInput{QueueName: aws.String("tagged"), Tags: map[string]string{"a": "b"}})
	require.NoError(t, err)
	q = *out.QueueUrl
	require.Equal(t, map[string]string{"a": "b"}, tags())
}

func TestPermissions(t *testing.T) {
	a := fakeaws.New(t)
	q := newQueue(t, a, "orders")
	other := a.Account("210987654321")
	try := func() string {
		_, err := other.SQS().SendMessage(t.Context(), &sqs.SendMessageInput{QueueUrl: &q, MessageBody: aws.String("m")})
		return code(err)
	}
	add := func(label string, actions ...string) error {
		_, err := a.SQS().AddPermission(t.Context(), &sqs.AddPermissionInput{QueueUrl: &q, Label: &label, AWSAccountIds: []string{"210987654321"}, Actions: actions})
		return err
	}
	require.Equal(t, "AccessDenied", try(), "another account needs a permission")
	require.NoError(t, add("senders", "SendMessage"))
	require.Equal(t, "", try())
	require.JSONEq(t, `{"Version":"2008-10-17","Id":"arn:aws:sqs:us-east-1:123456789012:orders/SQSDefaultPolicy","Statement":[{"Sid":"senders","Effect":"Allow",
		"Principal":{"AWS":"arn:aws:iam::210987654321:root"},"Action":"SQS:SendMessage","Resource":"arn:aws:sqs:us-east-1:123456789012:orders"}]}`,
		attributesOf(t, a, q, "Policy")["Policy"])
	require.Equal(t, "InvalidParameterValue", code(add("senders", "SendMessage")))
	require.Equal(t, "InvalidParameterValue", code(add("x", "Nonsense")))
	require.Equal(t, "OverLimit", code(add("x", "SendMessage", "a", "b", "c", "d", "e", "f", "g")))
	_, err := other.SQS().SendMessageBatch(t.Context(), &sqs.SendMessageBatchInput{QueueUrl: &q, Entries: []sqstypes.SendMessageBatchRequestEntry{{Id: aws.String("1"), MessageBody: aws.String("m")}}})
	require.NoError(t, err, "SendMessage allows batches, too")
	_, err = other.SQS().PurgeQueue(t.Context(), &sqs.PurgeQueueInput{QueueUrl: &q})
	require.Equal(t, "AccessDenied", code(err))
	url, err := other.SQS().GetQueueUrl(t.Context(), &sqs.GetQueueUrlInput{QueueName: aws.String("orders"), QueueOwnerAWSAccountId: aws.String("123456789012")})
	require.Equal(t, "AWS.SimpleQueueService.NonExistentQueue", code(err), "%v", url)
	_, err = a.SQS().RemovePermission(t.Context(), &sqs.RemovePermissionInput{QueueUrl: &q, Label: aws.String("senders")})
	require.NoError(t, err)
	_, err = a.SQS().RemovePermission(t.Context(), &sqs.RemovePermissionInput{QueueUrl: &q, Label: aws.String("senders")})
	require.Equal(t, "InvalidParameterValue", code(err))
	require.Equal(t, "AccessDenied", try())

	require.NoError(t, set(a, q, "Policy", `{"Statement":{"Effect":"Allow","Principal":"*","Action":"sqs:Send*","Resource":"*"}}`))
	require.Equal(t, "", try())
	require.NoError(t, set(a, q, "Policy", `{"Statement":[{"Effect":"Allow","Principal":"*","Action":"sqs:*","Resource":"*"},
		{"Effect":"Deny","Principal":{"AWS":["210987654321"]},"Action":["sqs:SendMessage"],"Resource":"*"}]}`))
	require.Equal(t, "AccessDenied", try(), "a denial goes first")
	send(t, a, q, "by the owner")
}

// What the fake does not know it refuses.
func TestUnknownParametersAreRefused(t *testing.T) {
	a := fakeaws.New(t)
	newQueue(t, a, "orders")
	post := func(target, body string) (int, string, string) {
		r, err := http.NewRequest("POST", "https://sqs.us-east-1.amazonaws.com/", strings.NewReader(body))
		require.NoError(t, err)
		r.Header.Set("X-Amz-Target", target)
		r.Header.Set("X-Amzn-Query-Mode", "true")
		r.Header.Set("Content-Type", "application/x-amz-json-1.0")
		out, err := a.HTTPClient().Do(r)
		require.NoError(t, err)
		var b strings.Builder
		_ = out.Write(&b)
		_, text, _ := strings.Cut(b.String(), "\r\n\r\n")
		return out.StatusCode, out.Header.Get("X-Amzn-Query-Error"), text
	}
	for body, want := range map[string]string{
		`{"QueueUrl":"orders","MessageBody":"m","Nonsense":1}`:                                                      "SendMessage has no parameter Nonsense",
		`{"QueueUrl":"orders","messagebody":"m"}`:                                                                   "SendMessage has no parameter messagebody",
		`{"QueueUrl":"orders","MessageBody":"m","MessageAttributes":{"a":{"DataType":"String","Stringvalue":"x"}}}`: "SendMessage has no parameter MessageAttributes.a.Stringvalue",
		`{"QueueUrl":"orders","MessageBody":7}`:                                                                     "the parameter MessageBody has a value of the wrong type: 7",
		`{"QueueUrl":"orders","MessageBody":"m","DelaySeconds":1.5}`:                                                "the parameter DelaySeconds has a value of the wrong type: 1.5",
		`[]`: "the request is no JSON object: []",
	} {
		status, header, text := post("AmazonSQS.SendMessage", body)
		require.Equal(t, 400, status)
		require.Equal(t, "MalformedInput;Sender", header)
		require.Contains(t, text, want)
	}
	status, header, text := post("AmazonSQS.Nonsense", "{}")
	require.Equal(t, 400, status)
	require.Equal(t, "InvalidAction;Sender", header)
	require.Contains(t, text, "com.amazon.coral.service#UnknownOperationException")
	_, _, text = post("DynamoDB_20120810.GetItem", "{}")
	require.Contains(t, text, "fakeaws serves SQS and SNS")
	status, header, text = post("AmazonSQS.SendMessage", `{"QueueUrl":"none","MessageBody":"m"}`)
	require.Equal(t, 400, status)
	require.Equal(t, "AWS.SimpleQueueService.NonExistentQueue;Sender", header)
	require.JSONEq(t, `{"__type":"com.amazonaws.sqs#QueueDoesNotExist","message":"The specified queue does not exist."}`, text)
}
