package fakeaws_test

import (
	"context"
	"fmt"
	"maps"
	"net/http"
	"os"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/sns"
	"github.com/aws/aws-sdk-go-v2/service/sqs"
	sqstypes "github.com/aws/aws-sdk-go-v2/service/sqs/types"
	"github.com/stretchr/testify/require"

	"github.com/gofanout/fanout/fanouttest/fakeaws"
)

// endpointVariable names a server to hold the checks of TestFidelity against:
// its URL, or "aws" for AWS itself, with the credentials and the region of the
// usual variables.
const endpointVariable = "FANOUT_AWS_ENDPOINT"

// fidelity is what the checks of TestFidelity have: clients, and nothing that
// looks inside. So they hold for any server.
type fidelity struct {
	*testing.T
	client *sqs.Client
	sns    *sns.Client
	prefix string
	named  int
}

// TestFidelity holds what users meet against the fake, in virtual time, or
// against the server that the variable FANOUT_AWS_ENDPOINT names.
func TestFidelity(t *testing.T) {
	endpoint := os.Getenv(endpointVariable)
	checks := maps.Clone(fidelityChecks)
	maps.Copy(checks, snsFidelityChecks)
	for name, check := range checks {
		t.Run(name, func(t *testing.T) {
			if endpoint == "" {
				bubble(t, func(t *testing.T, a *fakeaws.AWS) { check(&fidelity{T: t, client: a.SQS(), sns: a.SNS(), prefix: "q"}) })
				return
			}
			t.Parallel()
			f := &fidelity{T: t, prefix: fmt.Sprintf("fakeaws-%d-%s", time.Now().UnixNano(), strings.Map(func(r rune) rune {
				if r >= 'a' && r <= 'z' || r >= 'A' && r <= 'Z' || r >= '0' && r <= '9' {
					return r
				}
				return '-'
			}, name))}
			f.client, f.sns = clientsOf(endpoint)
			check(f)
		})
	}
}

// clientsOf returns clients of a server that is not the fake.
func clientsOf(endpoint string) (*sqs.Client, *sns.Client) {
	get := func(name, otherwise string) string {
		if v := os.Getenv(name); v != "" {
			return v
		}
		return otherwise
	}
	c := aws.Config{Region: get("AWS_REGION", "us-east-1"), HTTPClient: http.DefaultClient, Credentials: aws.CredentialsProviderFunc(func(context.Context) (aws.Credentials, error) {
		return aws.Credentials{AccessKeyID: get("AWS_ACCESS_KEY_ID", "test"), SecretAccessKey: get("AWS_SECRET_ACCESS_KEY", "test"), SessionToken: os.Getenv("AWS_SESSION_TOKEN")}, nil
	})}
	if endpoint != "aws" {
		c.BaseEndpoint = &endpoint
	}
	return sqs.NewFromConfig(c), sns.NewFromConfig(c)
}

// name returns a name for a queue or topic that no other has.
func (f *fidelity) name(attributes map[string]string) string {
	f.named++
	name := fmt.Sprintf("%.70s-%d", f.prefix, f.named)
	if attributes["FifoQueue"]+attributes["FifoTopic"] != "" {
		name += ".fifo"
	}
	return name
}

func (f *fidelity) queue(attributes ...string) string {
	f.Helper()
	as := pairs(attributes)
	name := f.name(as)
	out, err := f.client.CreateQueue(context.Background(), &sqs.CreateQueueInput{QueueName: &name, Attributes: as})
	require.NoError(f, err)
	if os.Getenv(endpointVariable) != "" {
		f.Cleanup(func() {
			_, _ = f.client.DeleteQueue(context.Background(), &sqs.DeleteQueueInput{QueueUrl: out.QueueUrl})
		})
	}
	return *out.QueueUrl
}

func (f *fidelity) arn(queue string) string {
	out, err := f.client.GetQueueAttributes(f.Context(), &sqs.GetQueueAttributesInput{QueueUrl: &queue, AttributeNames: []sqstypes.QueueAttributeName{"QueueArn"}})
	require.NoError(f, err)
	return out.Attributes["QueueArn"]
}

func (f *fidelity) send(queue, body string, change ...func(*sqs.SendMessageInput)) *sqs.SendMessageOutput {
	f.Helper()
	in := &sqs.SendMessageInput{QueueUrl: &queue, MessageBody: &body}
	for _, c := range change {
		c(in)
	}
	out, err := f.client.SendMessage(f.Context(), in)
	require.NoError(f, err)
	return out
}

// receive receives until it has n messages or there are none for two seconds.
func (f *fidelity) receive(queue string, n int32, change ...func(*sqs.ReceiveMessageInput)) []sqstypes.Message {
	f.Helper()
	in := &sqs.ReceiveMessageInput{QueueUrl: &queue, MaxNumberOfMessages: n, WaitTimeSeconds: 2,
		MessageSystemAttributeNames: []sqstypes.MessageSystemAttributeName{"All"}, MessageAttributeNames: []string{"All"}}
	for _, c := range change {
		c(in)
	}
	out, err := f.client.ReceiveMessage(f.Context(), in)
	require.NoError(f, err)
	return out.Messages
}

func (f *fidelity) change(queue string, m sqstypes.Message, seconds int32) error {
	_, err := f.client.ChangeMessageVisibility(f.Context(), &sqs.ChangeMessageVisibilityInput{QueueUrl: &queue, ReceiptHandle: m.ReceiptHandle, VisibilityTimeout: seconds})
	return err
}

func (f *fidelity) remove(queue string, m sqstypes.Message) error {
	_, err := f.client.DeleteMessage(f.Context(), &sqs.DeleteMessageInput{QueueUrl: &queue, ReceiptHandle: m.ReceiptHandle})
	return err
}

var fidelityChecks = map[string]func(*fidelity){
	"a FIFO group is blocked by its first message in flight": func(f *fidelity) {
		q := f.queue("FifoQueue", "true")
		for _, m := range []string{"a1", "a2", "a3", "b1"} {
			f.send(q, m, group(m[:1], m))
		}
		first := f.receive(q, 2)
		require.Equal(f, []string{"a1", "a2"}, bodies(first))
		require.Equal(f, []string{"b1"}, bodies(f.receive(q, 10)))
		require.NoError(f, f.remove(q, first[0]))
		require.Empty(f, f.receive(q, 10))
		require.NoError(f, f.change(q, first[1], 0))
		require.Equal(f, []string{"a2", "a3"}, bodies(f.receive(q, 10)))
	},
	"FIFO groups take turns": func(f *fidelity) {
		q := f.queue("FifoQueue", "true")
		for _, m := range []string{"a1", "b1", "b2", "c1", "a2"} {
			f.send(q, m, group(m[:1], m))
		}
		first := f.receive(q, 3)
		require.Equal(f, []string{"a1", "a2", "b1"}, bodies(first))
		for _, m := range first {
			require.NoError(f, f.change(q, m, 0))
		}
		require.Equal(f, []string{"c1", "a1", "a2", "b1", "b2"}, bodies(f.receive(q, 10)))
	},
	"order after a visibility timeout": func(f *fidelity) {
		q := f.queue("FifoQueue", "true", "VisibilityTimeout", "1")
		for k := range 3 {
			f.send(q, fmt.Sprint("m", k), group("g", fmt.Sprint(k)))
		}
		for range 2 {
			require.Equal(f, []string{"m0", "m1", "m2"}, bodies(f.receive(q, 10)))
			time.Sleep(1500 * time.Millisecond)
		}
	},
	"a long poll is woken by a delay": func(f *fidelity) {
		q := f.queue()
		began := time.Now()
		f.send(q, "m", func(in *sqs.SendMessageInput) { in.DelaySeconds = 2 })
		require.Len(f, f.receive(q, 1, wait(10)), 1)
		require.InDelta(f, 2, time.Since(began).Seconds(), 1.5)
	},
	"a long poll is woken by a visibility timeout": func(f *fidelity) {
		q := f.queue("VisibilityTimeout", "2")
		f.send(q, "m")
		require.Len(f, f.receive(q, 1), 1)
		began := time.Now()
		ms := f.receive(q, 1, wait(10))
		require.Len(f, ms, 1)
		require.Equal(f, "2", ms[0].Attributes["ApproximateReceiveCount"])
		require.InDelta(f, 2, time.Since(began).Seconds(), 1.5)
	},
	"a long poll waits": func(f *fidelity) {
		q := f.queue()
		began := time.Now()
		require.Empty(f, f.receive(q, 1, wait(3)))
		require.InDelta(f, 3, time.Since(began).Seconds(), 1)
	},
	"deduplication also after the deletion": func(f *fidelity) {
		q := f.queue("FifoQueue", "true")
		first := f.send(q, "m", group("g", "1"))
		require.NoError(f, f.remove(q, f.receive(q, 1)[0]))
		again := f.send(q, "m", group("g", "1"))
		require.Equal(f, *first.MessageId, *again.MessageId)
		require.Empty(f, f.receive(q, 1))
	},
	"deduplication by content": func(f *fidelity) {
		q := f.queue("FifoQueue", "true", "ContentBasedDeduplication", "true")
		for range 2 {
			f.send(q, "m", func(in *sqs.SendMessageInput) { in.MessageGroupId = aws.String("g") })
		}
		ms := f.receive(q, 10)
		require.Len(f, ms, 1)
		require.Equal(f, "62c66a7a5dd70c3146618063c344e531e6d4b59e379808443ce962b3abd63c5a", ms[0].Attributes["MessageDeduplicationId"])
	},
	"sequence numbers grow": func(f *fidelity) {
		q := f.queue("FifoQueue", "true")
		a, b := f.send(q, "a", group("g", "1")), f.send(q, "b", group("g", "2"))
		require.NotNil(f, a.SequenceNumber)
		require.Less(f, *a.SequenceNumber, *b.SequenceNumber)
	},
	"an old receipt handle deletes nothing": func(f *fidelity) {
		q := f.queue("VisibilityTimeout", "1")
		f.send(q, "m")
		old := f.receive(q, 1)[0]
		time.Sleep(1500 * time.Millisecond)
		require.Len(f, f.receive(q, 1, hide(2)), 1)
		require.NoError(f, f.remove(q, old))
		require.Len(f, f.receive(q, 1, wait(5)), 1)
	},
	"a late receipt handle of a standard queue deletes": func(f *fidelity) {
		q := f.queue("VisibilityTimeout", "1")
		f.send(q, "m")
		m := f.receive(q, 1)[0]
		time.Sleep(1500 * time.Millisecond)
		require.NoError(f, f.remove(q, m))
		require.NoError(f, f.remove(q, m))
		require.Empty(f, f.receive(q, 1))
	},
	"a late receipt handle of a FIFO queue is refused": func(f *fidelity) {
		q := f.queue("FifoQueue", "true", "VisibilityTimeout", "1")
		f.send(q, "m", group("g", "1"))
		m := f.receive(q, 1)[0]
		time.Sleep(1500 * time.Millisecond)
		require.ErrorContains(f, f.remove(q, m), "The receipt handle has expired")
	},
	"a visibility of a visible message is not changed": func(f *fidelity) {
		q := f.queue("VisibilityTimeout", "1")
		f.send(q, "m")
		m := f.receive(q, 1)[0]
		time.Sleep(1500 * time.Millisecond)
		require.Equal(f, "AWS.SimpleQueueService.MessageNotInflight", code(f.change(q, m, 5)))
	},
	"a visibility ends after 12 hours in all": func(f *fidelity) {
		q := f.queue()
		f.send(q, "m")
		m := f.receive(q, 1)[0]
		time.Sleep(time.Second)
		require.Equal(f, "InvalidParameterValue", code(f.change(q, m, 43200)))
		require.NoError(f, f.change(q, m, 43100))
	},
	"garbage as a receipt handle": func(f *fidelity) {
		q := f.queue()
		require.Equal(f, "ReceiptHandleIsInvalid", code(f.remove(q, sqstypes.Message{ReceiptHandle: aws.String("garbage")})))
	},
	"a dead letter goes after the last receive": func(f *fidelity) {
		for _, fifo := range [][]string{nil, {"FifoQueue", "true"}} {
			dead := f.queue(fifo...)
			q := f.queue(append([]string{"VisibilityTimeout", "0", "RedrivePolicy", fmt.Sprintf(`{"deadLetterTargetArn":%q,"maxReceiveCount":2}`, f.arn(dead))}, fifo...)...)
			change := func(*sqs.SendMessageInput) {}
			if fifo != nil {
				change = group("g", "1")
			}
			sent := f.send(q, "m", change)
			for range 2 {
				require.Len(f, f.receive(q, 1), 1)
			}
			require.Empty(f, f.receive(q, 1))
			letters := f.receive(dead, 1, wait(5))
			require.Len(f, letters, 1)
			require.Equal(f, *sent.MessageId, *letters[0].MessageId)
			require.Equal(f, f.arn(q), letters[0].Attributes["DeadLetterQueueSourceArn"])
		}
	},
	"a move task brings letters back": func(f *fidelity) {
		dead := f.queue()
		q := f.queue("VisibilityTimeout", "0", "RedrivePolicy", fmt.Sprintf(`{"deadLetterTargetArn":%q,"maxReceiveCount":1}`, f.arn(dead)))
		sent := f.send(q, "m")
		require.Len(f, f.receive(q, 1), 1)
		require.Empty(f, f.receive(q, 1))
		time.Sleep(2 * time.Second)
		_, err := f.client.StartMessageMoveTask(f.Context(), &sqs.StartMessageMoveTaskInput{SourceArn: aws.String(f.arn(dead))})
		require.NoError(f, err)
		ms := f.receive(q, 1, wait(20))
		require.Len(f, ms, 1)
		require.Equal(f, "1", ms[0].Attributes["ApproximateReceiveCount"])
		require.NotEqual(f, *sent.MessageId, *ms[0].MessageId)
	},
	"batches answer in part": func(f *fidelity) {
		q := f.queue()
		out, err := f.client.SendMessageBatch(f.Context(), &sqs.SendMessageBatchInput{QueueUrl: &q, Entries: []sqstypes.SendMessageBatchRequestEntry{
			{Id: aws.String("a"), MessageBody: aws.String("1")}, {Id: aws.String("b"), MessageBody: aws.String("\x01")}, {Id: aws.String("c"), MessageBody: aws.String("2")}}})
		require.NoError(f, err)
		require.Len(f, out.Successful, 2)
		require.Len(f, out.Failed, 1)
		require.Equal(f, "InvalidMessageContents", *out.Failed[0].Code)
	},
	"limits": func(f *fidelity) {
		q := f.queue()
		for body, want := range map[string]string{strings.Repeat("x", 1<<20): "", strings.Repeat("x", 1<<20+1): "InvalidParameterValue", "\x00": "InvalidMessageContents"} {
			_, err := f.client.SendMessage(f.Context(), &sqs.SendMessageInput{QueueUrl: &q, MessageBody: &body})
			require.Equal(f, want, code(err))
		}
		_, err := f.client.ReceiveMessage(f.Context(), &sqs.ReceiveMessageInput{QueueUrl: &q, MaxNumberOfMessages: 11})
		require.Equal(f, "InvalidParameterValue", code(err))
		_, err = f.client.SendMessage(f.Context(), &sqs.SendMessageInput{QueueUrl: &q, MessageBody: aws.String("m"), DelaySeconds: 901})
		require.Equal(f, "InvalidParameterValue", code(err))
	},
	"create again, purge again": func(f *fidelity) {
		q := f.queue("DelaySeconds", "1")
		name := q[strings.LastIndex(q, "/")+1:]
		_, err := f.client.CreateQueue(f.Context(), &sqs.CreateQueueInput{QueueName: &name})
		require.NoError(f, err)
		_, err = f.client.CreateQueue(f.Context(), &sqs.CreateQueueInput{QueueName: &name, Attributes: map[string]string{"DelaySeconds": "2"}})
		require.Equal(f, "QueueAlreadyExists", code(err))
		for _, want := range []string{"", "AWS.SimpleQueueService.PurgeQueueInProgress"} {
			_, err = f.client.PurgeQueue(f.Context(), &sqs.PurgeQueueInput{QueueUrl: &q})
			require.Equal(f, want, code(err))
		}
		_, err = f.client.DeleteQueue(f.Context(), &sqs.DeleteQueueInput{QueueUrl: &q})
		require.NoError(f, err)
		_, err = f.client.CreateQueue(f.Context(), &sqs.CreateQueueInput{QueueName: &name})
		require.Equal(f, "AWS.SimpleQueueService.QueueDeletedRecently", code(err))
	},
	"digests": func(f *fidelity) {
		q := f.queue()
		out := f.send(q, "m", func(in *sqs.SendMessageInput) {
			in.MessageAttributes = map[string]sqstypes.MessageAttributeValue{"MyAttribute": {DataType: aws.String("String"), StringValue: aws.String("foobar")}}
		})
		require.Equal(f, "adb59cd4678ea5a855436b949cd07ab6", *out.MD5OfMessageAttributes)
		require.Equal(f, "adb59cd4678ea5a855436b949cd07ab6", *f.receive(q, 1)[0].MD5OfMessageAttributes)
	},
	"counts": func(f *fidelity) {
		q := f.queue()
		for range 3 {
			f.send(q, "m")
		}
		f.send(q, "m", func(in *sqs.SendMessageInput) { in.DelaySeconds = 60 })
		require.Len(f, f.receive(q, 1), 1)
		time.Sleep(2 * time.Second)
		out, err := f.client.GetQueueAttributes(f.Context(), &sqs.GetQueueAttributesInput{QueueUrl: &q, AttributeNames: []sqstypes.QueueAttributeName{"All"}})
		require.NoError(f, err)
		n := func(name string) int { k, _ := strconv.Atoi(out.Attributes[name]); return k }
		require.Equal(f, []int{2, 1, 1}, []int{n("ApproximateNumberOfMessages"), n("ApproximateNumberOfMessagesNotVisible"), n("ApproximateNumberOfMessagesDelayed")})
	},
}
