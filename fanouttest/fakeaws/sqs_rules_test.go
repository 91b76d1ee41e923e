package fakeaws_test

import (
	"context"
	"fmt"
	"strconv"
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

// group makes a message one of a FIFO queue's.
func group(group, id string) func(*sqs.SendMessageInput) {
	return func(in *sqs.SendMessageInput) { in.MessageGroupId, in.MessageDeduplicationId = &group, &id }
}

func most(n int32) func(*sqs.ReceiveMessageInput) {
	return func(in *sqs.ReceiveMessageInput) { in.MaxNumberOfMessages = n }
}

func change(a *fakeaws.AWS, queue string, m sqstypes.Message, seconds int32) error {
	_, err := a.SQS().ChangeMessageVisibility(context.Background(), &sqs.ChangeMessageVisibilityInput{QueueUrl: &queue, ReceiptHandle: m.ReceiptHandle, VisibilityTimeout: seconds})
	return err
}

func remove(a *fakeaws.AWS, queue string, m sqstypes.Message) error {
	_, err := a.SQS().DeleteMessage(context.Background(), &sqs.DeleteMessageInput{QueueUrl: &queue, ReceiptHandle: m.ReceiptHandle})
	return err
}

func attributesOf(t testing.TB, a *fakeaws.AWS, queue string, names ...sqstypes.QueueAttributeName) map[string]string {
	t.Helper()
	if names == nil {
		names = []sqstypes.QueueAttributeName{"All"}
	}
	out, err := a.SQS().GetQueueAttributes(t.Context(), &sqs.GetQueueAttributesInput{QueueUrl: &queue, AttributeNames: names})
	require.NoError(t, err)
	return out.Attributes
}

func set(a *fakeaws.AWS, queue string, attributes ...string) error {
	_, err := a.SQS().SetQueueAttributes(context.Background(), &sqs.SetQueueAttributesInput{QueueUrl: &queue, Attributes: pairs(attributes)})
	return err
}

func redrive(queue *fakeaws.Queue, most int) string {
	return fmt.Sprintf(`{"deadLetterTargetArn":%q,"maxReceiveCount":%d}`, queue.ARN(), most)
}

// Subject: a FIFO group is blocked while one of it is in flight, other groups go
// on; a batch may take several of one group, in order.
func TestAGroupIsBlockedWhileItsFirstMessageIsInFlight(t *testing.T) {
	bubble(t, func(t *testing.T, a *fakeaws.AWS) {
		q := newQueue(t, a, "orders.fifo", "FifoQueue", "true")
		for _, m := range []string{"a1", "a2", "b1", "a3", "b2"} {
			send(t, a, q, m, group(m[:1], m))
		}
		first := receive(t, a, q, most(2))
		require.Equal(t, []string{"a1", "a2"}, bodies(first), "several of one group, in order")
		second := receive(t, a, q, most(1))
		require.Equal(t, []string{"b1"}, bodies(second), "another group goes on")
		require.Empty(t, receive(t, a, q), "both groups are blocked")

		require.NoError(t, remove(a, q, first[0]))
		require.Empty(t, receive(t, a, q), "a2 is still in flight")
		require.NoError(t, remove(a, q, second[0]))
		require.Equal(t, []string{"b2"}, bodies(receive(t, a, q)))
		require.NoError(t, remove(a, q, first[1]))
		require.Equal(t, []string{"a3"}, bodies(receive(t, a, q)))
	})
}

// Subject: order after a visibility timeout: the same message first.
func TestAfterAVisibilityTimeoutTheSameMessageComesFirst(t *testing.T) {
	for _, name := range []string{"orders", "orders.fifo"} {
		t.Run(name, func(t *testing.T) {
			bubble(t, func(t *testing.T, a *fakeaws.AWS) {
				var change []func(*sqs.SendMessageInput)
				q := ""
				if strings.HasSuffix(name, ".fifo") {
					q = newQueue(t, a, name, "FifoQueue", "true", "ContentBasedDeduplication", "true", "VisibilityTimeout", "5")
					change = append(change, func(in *sqs.SendMessageInput) { in.MessageGroupId = aws.String("g") })
				} else {
					q = newQueue(t, a, name, "VisibilityTimeout", "5")
				}
				for k := range 4 {
					send(t, a, q, fmt.Sprint("m", k), change...)
				}
				for range 3 {
					require.Equal(t, []string{"m0", "m1", "m2", "m3"}, bodies(receive(t, a, q)))
					time.Sleep(5 * time.Second)
				}
				ms := receive(t, a, q)
				require.NoError(t, sweep(a, q, ms[1], ms[3]))
				time.Sleep(5 * time.Second)
				require.Equal(t, []string{"m0", "m2"}, bodies(receive(t, a, q)))
			})
		})
	}
}

func sweep(a *fakeaws.AWS, queue string, ms ...sqstypes.Message) error {
	for _, m := range ms {
		if err := remove(a, queue, m); err != nil {
			return err
		}
	}
	return nil
}

// What a group may give out when some of it is in flight, as public recordings
// against AWS show it: the visible ones before the first that is not.
func TestOfAGroupTheVisibleOnesBeforeTheFirstInFlightCanBeReceived(t *testing.T) {
	for extended, want := range map[int][]string{0: {}, 1: {"m0"}, 2: {"m0", "m1"}} {
		bubble(t, func(t *testing.T, a *fakeaws.AWS) {
			q := newQueue(t, a, "orders.fifo", "FifoQueue", "true", "VisibilityTimeout", "1")
			for k := range 3 {
				send(t, a, q, fmt.Sprint("m", k), group("g", fmt.Sprint(k)))
			}
			ms := receive(t, a, q)
			require.Len(t, ms, 3)
			require.NoError(t, change(a, q, ms[extended], 4))
			time.Sleep(2 * time.Second)
			require.Equal(t, want, bodies(receive(t, a, q)), "message %d is extended", extended)
		})
	}
}

// The order of groups, as public recordings against AWS show it: a group whose
// messages were taken goes behind those that wait.
func TestGroupsTakeTurns(t *testing.T) {
	bubble(t, func(t *testing.T, a *fakeaws.AWS) {
		q := newQueue(t, a, "orders.fifo", "FifoQueue", "true")
		for _, m := range []string{"a1", "b1", "b2", "c1", "a2"} {
			send(t, a, q, m, group(m[:1], m))
		}
		first := receive(t, a, q, most(3))
		require.Equal(t, []string{"a1", "a2", "b1"}, bodies(first))
		for _, m := range first {
			require.NoError(t, change(a, q, m, 0))
		}
		require.Equal(t, []string{"c1", "a1", "a2", "b1", "b2"}, bodies(receive(t, a, q)))
	})
}

// Subject: long poll: waits, is woken by a message, by a delay that ends, by a
// visibility timeout; and by what else makes a message visible.
func TestWhatWakesALongPoll(t *testing.T) {
	type world struct {
		t *testing.T
		a *fakeaws.AWS
		q string
	}
	at := func(d time.Duration, f func(w world)) func(w world) {
		return func(w world) { time.AfterFunc(d, func() { f(w) }) }
	}
	hold := func(seconds int32) func(w world) sqstypes.Message {
		return func(w world) sqstypes.Message {
			send(w.t, w.a, w.q, "m", group("g", "1"))
			return receive(w.t, w.a, w.q, hide(seconds))[0]
		}
	}
	for name, row := range map[string]struct {
		begin func(w world)
		want  time.Duration
	}{
		"a message":            {at(3*time.Second, func(w world) { send(w.t, w.a, w.q, "m", group("g", "1")) }), 3 * time.Second},
		"a visibility timeout": {func(w world) { hold(7)(w) }, 7 * time.Second},
		"a visibility of zero": {func(w world) { m := hold(40)(w); at(4*time.Second, func(w world) { _ = change(w.a, w.q, m, 0) })(w) }, 4 * time.Second},
		"a shorter visibility": {func(w world) { m := hold(40)(w); at(4*time.Second, func(w world) { _ = change(w.a, w.q, m, 5) })(w) }, 9 * time.Second},
		"a delay":              {func(w world) { _ = set(w.a, w.q, "DelaySeconds", "11"); send(w.t, w.a, w.q, "m", group("g", "1")) }, 11 * time.Second},
		"the first of its group is deleted": {func(w world) {
			m := hold(40)(w)
			send(w.t, w.a, w.q, "second", group("g", "2"))
			at(6*time.Second, func(w world) { _ = remove(w.a, w.q, m) })(w)
		}, 6 * time.Second},
		"the first of its group is too old": {func(w world) {
			_ = set(w.a, w.q, "MessageRetentionPeriod", "60")
			hold(600)(w)
			time.Sleep(50 * time.Second)
			send(w.t, w.a, w.q, "second", group("g", "2"))
		}, 10 * time.Second},
		"a batch": {at(2*time.Second, func(w world) {
			_, _ = w.a.SQS().SendMessageBatch(context.Background(), &sqs.SendMessageBatchInput{QueueUrl: &w.q, Entries: []sqstypes.SendMessageBatchRequestEntry{
				{Id: aws.String("1"), MessageBody: aws.String("m"), MessageGroupId: aws.String("g"), MessageDeduplicationId: aws.String("1")}}})
		}), 2 * time.Second},
		"a batch of visibilities": {func(w world) {
			m := hold(40)(w)
			at(8*time.Second, func(w world) {
				_, _ = w.a.SQS().ChangeMessageVisibilityBatch(context.Background(), &sqs.ChangeMessageVisibilityBatchInput{QueueUrl: &w.q,
					Entries: []sqstypes.ChangeMessageVisibilityBatchRequestEntry{{Id: aws.String("1"), ReceiptHandle: m.ReceiptHandle}}})
			})(w)
		}, 8 * time.Second},
		"nothing":                          {func(world) {}, 20 * time.Second},
		"a message at the end of the wait": {at(20*time.Second, func(w world) { send(w.t, w.a, w.q, "m", group("g", "1")) }), 20 * time.Second},
	} {
		t.Run(name, func(t *testing.T) {
			bubble(t, func(t *testing.T, a *fakeaws.AWS) {
				w := world{t, a, newQueue(t, a, "orders.fifo", "FifoQueue", "true")}
				row.begin(w)
				began := time.Now()
				ms := receive(t, a, w.q, wait(20))
				require.Equal(t, row.want, time.Since(began))
				synctest.Wait()
				if name != "a message at the end of the wait" { // either is right
					require.Equal(t, name != "nothing", len(ms) == 1)
				}
			})
		})
	}
}

// A dead letter wakes those who wait at the dead-letter queue; a message that a
// move task moves, those at its destination.
func TestALongPollAtADeadLetterQueueIsWoken(t *testing.T) {
	bubble(t, func(t *testing.T, a *fakeaws.AWS) {
		dead := newQueue(t, a, "dead")
		q := newQueue(t, a, "orders", "RedrivePolicy", redrive(a.Queue("dead"), 1), "VisibilityTimeout", "3")
		send(t, a, q, "m")
		require.Len(t, receive(t, a, q), 1)
		began := time.Now()
		time.AfterFunc(5*time.Second, func() { receive(t, a, q) })
		ms := receive(t, a, dead, wait(20))
		require.Equal(t, []string{"m"}, bodies(ms))
		require.Equal(t, 5*time.Second, time.Since(began), "it goes at the receive that is one too many")
		require.Equal(t, a.Queue("orders").ARN(), ms[0].Attributes["DeadLetterQueueSourceArn"])

		require.NoError(t, change(a, dead, ms[0], 0))
		_, err := a.SQS().StartMessageMoveTask(t.Context(), &sqs.StartMessageMoveTaskInput{SourceArn: aws.String(a.Queue("dead").ARN()), MaxNumberOfMessagesPerSecond: aws.Int32(1)})
		require.NoError(t, err)
		began = time.Now()
		require.Equal(t, []string{"m"}, bodies(receive(t, a, q, wait(20))))
		require.Equal(t, time.Second, time.Since(began))
	})
}

// Long polls are served in the order of their arrival, each once.
func TestLongPollsAreServedInTheirOrder(t *testing.T) {
	bubble(t, func(t *testing.T, a *fakeaws.AWS) {
		q := newQueue(t, a, "orders")
		got := make(chan string, 3)
		for k := range 3 {
			go func() {
				for _, b := range bodies(receive(t, a, q, wait(20))) {
					got <- fmt.Sprint(k, b)
				}
			}()
			synctest.Wait()
		}
		for _, b := range []string{"a", "b", "c"} {
			send(t, a, q, b)
			synctest.Wait()
		}
		require.Equal(t, "0a", <-got)
		require.Equal(t, "1b", <-got)
		require.Equal(t, "2c", <-got)
	})
}

// Subject: deduplication: 5 minutes, by ID and by SHA-256 of the body
// (attributes not), also after the message was deleted.
func TestDeduplication(t *testing.T) {
	bubble(t, func(t *testing.T, a *fakeaws.AWS) {
		q := newQueue(t, a, "orders.fifo", "FifoQueue", "true", "ContentBasedDeduplication", "true")
		began := time.Now()
		first := send(t, a, q, "m", group("g", "id"))
		ms := receive(t, a, q)
		require.NoError(t, remove(a, q, ms[0]))
		again := send(t, a, q, "other body", group("g", "id"))
		require.Equal(t, *first.MessageId, *again.MessageId, "it succeeds, with the first one's ID")
		require.Equal(t, *first.SequenceNumber, *again.SequenceNumber)
		require.Empty(t, receive(t, a, q), "also after the message was deleted")
		send(t, a, q, "m", group("another", "id"))
		require.Empty(t, receive(t, a, q), "the whole queue counts")
		time.Sleep(5*time.Minute - time.Since(began) - time.Nanosecond)
		send(t, a, q, "m", group("g", "id"))
		require.Empty(t, receive(t, a, q))
		time.Sleep(time.Nanosecond)
		send(t, a, q, "m", group("g", "id"))
		require.Len(t, receive(t, a, q), 1, "five minutes after the first one")

		content := func(attribute string) func(*sqs.SendMessageInput) {
			return func(in *sqs.SendMessageInput) {
				in.MessageGroupId = aws.String("h")
				in.MessageAttributes = map[string]sqstypes.MessageAttributeValue{"x": {DataType: aws.String("String"), StringValue: &attribute}}
			}
		}
		send(t, a, q, "body", content("1"))
		send(t, a, q, "body", content("2"))
		ms = receive(t, a, q)
		require.Equal(t, []string{"body"}, bodies(ms), "attributes do not count")
		require.Equal(t, "230d8358dc8e8890b4c58deeb62912ee2f20357ae92a5cc861b98e68fe31acb5", ms[0].Attributes["MessageDeduplicationId"], "the SHA-256 of the body")
		send(t, a, q, "different", group("h", "230d8358dc8e8890b4c58deeb62912ee2f20357ae92a5cc861b98e68fe31acb5"))
		require.NoError(t, remove(a, q, ms[0]))
		require.Empty(t, receive(t, a, q), "an ID that is equal to a hash is a duplicate")
	})
}

func TestDeduplicationByGroupAndPurge(t *testing.T) {
	bubble(t, func(t *testing.T, a *fakeaws.AWS) {
		q := newQueue(t, a, "orders.fifo", "FifoQueue", "True", "DeduplicationScope", "messageGroup", "FifoThroughputLimit", "perMessageGroupId")
		send(t, a, q, "1", group("g", "id"))
		send(t, a, q, "2", group("h", "id"))
		send(t, a, q, "3", group("g", "id"))
		require.Equal(t, []string{"1", "2"}, bodies(receive(t, a, q)))
		_, err := a.SQS().PurgeQueue(t.Context(), &sqs.PurgeQueueInput{QueueUrl: &q})
		require.NoError(t, err)
		send(t, a, q, "4", group("g", "id"))
		require.Equal(t, []string{"4"}, bodies(receive(t, a, q)), "a purge forgets the IDs, as recorded against AWS")
	})
}

// Subject: receipt handles.
func TestAnOldReceiptHandleDeletesNothing(t *testing.T) {
	bubble(t, func(t *testing.T, a *fakeaws.AWS) {
		q := newQueue(t, a, "orders", "VisibilityTimeout", "5")
		send(t, a, q, "m")
		old := receive(t, a, q)[0]
		time.Sleep(5 * time.Second)
		require.Len(t, receive(t, a, q), 1)
		require.NoError(t, remove(a, q, old), "it succeeds")
		require.Equal(t, 1, a.Queue("orders").Len(), "and the message stays")
		require.Equal(t, "InvalidParameterValue", code(change(a, q, old, 10)))
	})
	synctest.Test(t, func(t *testing.T) {
		a := fakeaws.New(t, fakeaws.WithStaleDeletes())
		q := newQueue(t, a, "orders", "VisibilityTimeout", "5")
		send(t, a, q, "m")
		old := receive(t, a, q)[0]
		time.Sleep(5 * time.Second)
		require.Len(t, receive(t, a, q), 1)
		require.NoError(t, remove(a, q, old))
		require.Zero(t, a.Queue("orders").Len(), "with the option it goes")
	})
}

func TestAReceiptHandleAfterItsVisibilityTimeout(t *testing.T) {
	bubble(t, func(t *testing.T, a *fakeaws.AWS) {
		q := newQueue(t, a, "orders", "VisibilityTimeout", "5")
		send(t, a, q, "m")
		m := receive(t, a, q)[0]
		time.Sleep(5 * time.Second)
		err := change(a, q, m, 10)
		require.Equal(t, "AWS.SimpleQueueService.MessageNotInflight", code(err))
		var typed *sqstypes.MessageNotInflight
		require.ErrorAs(t, err, &typed)
		require.NoError(t, remove(a, q, m), "a standard queue deletes")
		require.Zero(t, a.Queue("orders").Len())
		require.NoError(t, remove(a, q, m), "deleting twice is fine")
		require.ErrorContains(t, change(a, q, m, 10), "Message does not exist or is not available for visibility timeout change.")

		f := newQueue(t, a, "orders.fifo", "FifoQueue", "true", "VisibilityTimeout", "5")
		send(t, a, f, "m", group("g", "1"))
		m = receive(t, a, f)[0]
		time.Sleep(5 * time.Second)
		err = remove(a, f, m)
		require.Equal(t, "InvalidParameterValue", code(err), "a FIFO queue refuses")
		require.ErrorContains(t, err, "Reason: The receipt handle has expired.")
		require.Equal(t, 1, a.Queue("orders.fifo").Len())
		m = receive(t, a, f)[0]
		require.NoError(t, remove(a, f, m))
		require.NoError(t, remove(a, f, m), "deleting twice is fine")

		require.Equal(t, "ReceiptHandleIsInvalid", code(remove(a, q, sqstypes.Message{ReceiptHandle: aws.String("garbage")})))
		require.Equal(t, "ReceiptHandleIsInvalid", code(remove(a, q, m)), "that of another queue")
	})
}

func TestAVisibilityOfZeroMakesAMessageVisibleAtOnce(t *testing.T) {
	bubble(t, func(t *testing.T, a *fakeaws.AWS) {
		q := newQueue(t, a, "orders")
		send(t, a, q, "m")
		began := time.Now()
		for n := 1; n <= 3; n++ {
			ms := receive(t, a, q)
			require.Len(t, ms, 1)
			require.Equal(t, strconv.Itoa(n), ms[0].Attributes["ApproximateReceiveCount"])
			require.NoError(t, change(a, q, ms[0], 0))
		}
		require.Zero(t, time.Since(began))
	})
}

// A visibility counts from the change, and 12 hours from the receive in all.
func TestVisibilityCountsFromTheChangeAndEndsAfterTwelveHours(t *testing.T) {
	bubble(t, func(t *testing.T, a *fakeaws.AWS) {
		q := newQueue(t, a, "orders", "VisibilityTimeout", "60")
		send(t, a, q, "m")
		m := receive(t, a, q)[0]
		time.Sleep(15 * time.Second)
		require.NoError(t, change(a, q, m, 10))
		began := time.Now()
		require.Len(t, receive(t, a, q, wait(20), hide(43200)), 1)
		require.Equal(t, 10*time.Second, time.Since(began))

		send(t, a, q, "n")
		m = receive(t, a, q)[0]
		time.Sleep(time.Second)
		err := change(a, q, m, 43200)
		require.Equal(t, "InvalidParameterValue", code(err))
		require.ErrorContains(t, err, "Total VisibilityTimeout for the message is beyond the limit [43200 seconds]")
		require.NoError(t, change(a, q, m, 43199))
		require.Equal(t, time.Now().Add(43199*time.Second), a.Queue("orders").Messages()[1].Due)
		require.Equal(t, "InvalidParameterValue", code(change(a, q, m, 43201)))
		require.Equal(t, "InvalidParameterValue", code(change(a, q, m, -1)))
	})
}

// Subject: dead letters.
func TestDeadLetters(t *testing.T) {
	bubble(t, func(t *testing.T, a *fakeaws.AWS) {
		newQueue(t, a, "dead", "MessageRetentionPeriod", "120")
		q := newQueue(t, a, "orders", "RedrivePolicy", redrive(a.Queue("dead"), 2), "VisibilityTimeout", "10")
		sent := time.Now()
		out := send(t, a, q, "m")
		for range 2 {
			require.Len(t, receive(t, a, q), 1)
			time.Sleep(10 * time.Second)
		}
		require.Equal(t, 1, a.Queue("orders").Len(), "it goes at the next receive, not before")
		require.Empty(t, receive(t, a, q))
		letters := a.Queue("dead").Messages()
		require.Len(t, letters, 1)
		require.Equal(t, *out.MessageId, letters[0].ID)
		require.Equal(t, sent, letters[0].Sent, "the time of sending stays")
		require.Equal(t, a.Queue("orders").ARN(), letters[0].Source)
		time.Sleep(100*time.Second - time.Nanosecond)
		require.Equal(t, 1, a.Queue("dead").Len())
		time.Sleep(time.Nanosecond)
		require.Zero(t, a.Queue("dead").Len(), "its age counts from the first queue")

		newQueue(t, a, "dead.fifo", "FifoQueue", "true", "MessageRetentionPeriod", "60")
		f := newQueue(t, a, "orders.fifo", "FifoQueue", "true", "RedrivePolicy", redrive(a.Queue("dead.fifo"), 1), "VisibilityTimeout", "10")
		first := send(t, a, f, "m1", group("g", "1"))
		send(t, a, f, "m2", group("g", "2"))
		require.Equal(t, []string{"m1"}, bodies(receive(t, a, f, most(1))))
		time.Sleep(40 * time.Second)
		require.Equal(t, []string{"m2"}, bodies(receive(t, a, f)), "the group goes on with the next one")
		letters = a.Queue("dead.fifo").Messages()
		require.Equal(t, *first.MessageId, letters[0].ID)
		require.Equal(t, *first.MessageId, letters[0].DeduplicationID)
		time.Sleep(60*time.Second - time.Nanosecond)
		require.Equal(t, 1, a.Queue("dead.fifo").Len(), "in FIFO queues it counts anew")
		time.Sleep(time.Nanosecond)
		require.Zero(t, a.Queue("dead.fifo").Len())
	})
}

func TestRedrivePolicies(t *testing.T) {
	a := fakeaws.New(t)
	q, dead := newQueue(t, a, "orders"), newQueue(t, a, "dead")
	newQueue(t, a, "dead.fifo", "FifoQueue", "true")
	newQueue(t, a.In("eu-west-1"), "dead")
	newQueue(t, a.Account("210987654321"), "dead")
	for policy, want := range map[string]string{
		redrive(a.Queue("dead"), 1):    "",
		redrive(a.Queue("dead"), 1000): "",
		`{"deadLetterTargetArn":"` + a.Queue("dead").ARN() + `","maxReceiveCount":"7"}`: "",
		redrive(a.Queue("dead"), 0):                               "InvalidParameterValue",
		redrive(a.Queue("dead"), 1001):                            "InvalidParameterValue",
		redrive(a.Queue("dead.fifo"), 3):                          "InvalidParameterValue",
		redrive(a.In("eu-west-1").Queue("dead"), 3):               "InvalidParameterValue",
		redrive(a.Account("210987654321").Queue("dead"), 3):       "InvalidParameterValue",
		redrive(a.Queue("none"), 3):                               "AWS.SimpleQueueService.NonExistentQueue",
		`{"deadLetterTargetArn":"dummy","maxReceiveCount":3}`:     "InvalidParameterValue",
		`{"maxReceiveCount":3}`:                                   "InvalidParameterValue",
		`{"deadLetterTargetArn":"` + a.Queue("dead").ARN() + `"}`: "InvalidParameterValue",
		`no json`: "InvalidParameterValue",
	} {
		require.Equal(t, want, code(set(a, q, "RedrivePolicy", policy)), policy)
	}
	require.NoError(t, set(a, q, "RedrivePolicy", ""))
	require.NotContains(t, attributesOf(t, a, q), "RedrivePolicy")

	for allow, want := range map[string]string{
		`{"redrivePermission":"denyAll"}`: "InvalidParameterValue",
		`{"redrivePermission":"byQueue","sourceQueueArns":["` + a.Queue("other").ARN() + `"]}`:  "InvalidParameterValue",
		`{"redrivePermission":"byQueue","sourceQueueArns":["` + a.Queue("orders").ARN() + `"]}`: "",
		`{"redrivePermission":"allowAll"}`: "",
	} {
		require.NoError(t, set(a, dead, "RedriveAllowPolicy", allow))
		require.Equal(t, want, code(set(a, q, "RedrivePolicy", redrive(a.Queue("dead"), 3))), allow)
	}
	for _, allow := range []string{`{"redrivePermission":"some"}`, `{"redrivePermission":"byQueue"}`, `x`, `{"redrivePermission":"denyAll","sourceQueueArns":["a"]}`} {
		require.Equal(t, "InvalidAttributeValue", code(set(a, dead, "RedriveAllowPolicy", allow)), allow)
	}
	out, err := a.SQS().ListDeadLetterSourceQueues(t.Context(), &sqs.ListDeadLetterSourceQueuesInput{QueueUrl: &dead})
	require.NoError(t, err)
	require.Equal(t, []string{q}, out.QueueUrls)
}

func TestMoveTasks(t *testing.T) {
	bubble(t, func(t *testing.T, a *fakeaws.AWS) {
		dead := newQueue(t, a, "dead")
		source := aws.String(a.Queue("dead").ARN())
		start := func(in sqs.StartMessageMoveTaskInput) (string, error) {
			out, err := a.SQS().StartMessageMoveTask(t.Context(), &in)
			if err != nil {
				return "", err
			}
			return *out.TaskHandle, nil
		}
		list := func(n int32) []sqstypes.ListMessageMoveTasksResultEntry {
			out, err := a.SQS().ListMessageMoveTasks(t.Context(), &sqs.ListMessageMoveTasksInput{SourceArn: source, MaxResults: &n})
			require.NoError(t, err)
			return out.Results
		}
		_, err := start(sqs.StartMessageMoveTaskInput{SourceArn: source})
		require.ErrorContains(t, err, "Source queue must be configured as a Dead Letter Queue.")
		_, err = start(sqs.StartMessageMoveTaskInput{SourceArn: aws.String(a.Queue("none").ARN())})
		require.Equal(t, "ResourceNotFoundException", code(err))

		queues := []string{}
		var sent []string
		for _, name := range []string{"orders", "bills"} {
			q := newQueue(t, a, name, "RedrivePolicy", redrive(a.Queue("dead"), 1), "VisibilityTimeout", "0")
			queues = append(queues, q)
			for k := range 5 {
				sent = append(sent, *send(t, a, q, fmt.Sprint(name, k)).MessageId)
			}
			require.Len(t, receive(t, a, q), 5)
			require.Empty(t, receive(t, a, q))
		}
		require.Equal(t, 10, a.Queue("dead").Len())
		_, err = start(sqs.StartMessageMoveTaskInput{SourceArn: source, DestinationArn: aws.String(a.Queue("none").ARN())})
		require.Equal(t, "ResourceNotFoundException", code(err))
		_, err = start(sqs.StartMessageMoveTaskInput{SourceArn: source, MaxNumberOfMessagesPerSecond: aws.Int32(501)})
		require.Equal(t, "InvalidParameterValue", code(err))

		began := time.Now()
		handle, err := start(sqs.StartMessageMoveTaskInput{SourceArn: source, MaxNumberOfMessagesPerSecond: aws.Int32(2)})
		require.NoError(t, err)
		_, err = start(sqs.StartMessageMoveTaskInput{SourceArn: source})
		require.ErrorContains(t, err, "There is already a task running.")
		time.Sleep(1500*time.Millisecond + time.Nanosecond)
		require.Equal(t, []sqstypes.ListMessageMoveTasksResultEntry{{ApproximateNumberOfMessagesMoved: 3, ApproximateNumberOfMessagesToMove: aws.Int64(10),
			MaxNumberOfMessagesPerSecond: aws.Int32(2), SourceArn: source, StartedTimestamp: began.UnixMilli(), Status: aws.String("RUNNING"), TaskHandle: &handle}}, list(1))
		cancelled, err := a.SQS().CancelMessageMoveTask(t.Context(), &sqs.CancelMessageMoveTaskInput{TaskHandle: &handle})
		require.NoError(t, err)
		require.EqualValues(t, 3, cancelled.ApproximateNumberOfMessagesMoved)
		_, err = a.SQS().CancelMessageMoveTask(t.Context(), &sqs.CancelMessageMoveTaskInput{TaskHandle: &handle})
		require.Equal(t, "AWS.SimpleQueueService.UnsupportedOperation", code(err))
		_, err = a.SQS().CancelMessageMoveTask(t.Context(), &sqs.CancelMessageMoveTaskInput{TaskHandle: aws.String("x")})
		require.Equal(t, "InvalidParameterValue", code(err))
		time.Sleep(time.Hour)
		require.Equal(t, 7, a.Queue("dead").Len())
		require.Equal(t, 3, a.Queue("orders").Len())

		_, err = start(sqs.StartMessageMoveTaskInput{SourceArn: source})
		require.NoError(t, err)
		time.Sleep(time.Minute)
		require.Equal(t, 5, a.Queue("orders").Len())
		require.Equal(t, 5, a.Queue("bills").Len())
		tasks := list(10)
		require.Len(t, tasks, 2)
		require.Equal(t, "COMPLETED", *tasks[0].Status)
		require.EqualValues(t, 7, tasks[0].ApproximateNumberOfMessagesMoved)
		require.Nil(t, tasks[0].TaskHandle)
		require.Equal(t, "CANCELLED", *tasks[1].Status)
		moved := receive(t, a, queues[0])[0]
		require.Equal(t, "1", moved.Attributes["ApproximateReceiveCount"], "the count begins anew")
		require.NotContains(t, sent, *moved.MessageId, "with a new ID")

		// A task whose destination is deleted fails.
		require.Len(t, receive(t, a, queues[1]), 5)
		require.Empty(t, receive(t, a, queues[1]))
		to := newQueue(t, a, "to")
		_, err = start(sqs.StartMessageMoveTaskInput{SourceArn: source, DestinationArn: aws.String(a.Queue("to").ARN()), MaxNumberOfMessagesPerSecond: aws.Int32(1)})
		require.NoError(t, err)
		time.Sleep(2500 * time.Millisecond)
		_, err = a.SQS().DeleteQueue(t.Context(), &sqs.DeleteQueueInput{QueueUrl: &to})
		require.NoError(t, err)
		time.Sleep(time.Minute)
		tasks = list(1)
		require.Equal(t, "FAILED", *tasks[0].Status)
		require.Equal(t, "AWS.SimpleQueueService.NonExistentQueue", *tasks[0].FailureReason)
		require.EqualValues(t, 2, tasks[0].ApproximateNumberOfMessagesMoved)

		// One whose messages came from nowhere, too.
		_, err = a.SQS().PurgeQueue(t.Context(), &sqs.PurgeQueueInput{QueueUrl: &dead})
		require.NoError(t, err)
		send(t, a, dead, "sent to it")
		_, err = start(sqs.StartMessageMoveTaskInput{SourceArn: source})
		require.NoError(t, err)
		time.Sleep(time.Minute)
		require.Equal(t, "CouldNotDetermineMessageSource", *list(1)[0].FailureReason)
	})
}

// Subject: batch operations answer in part; the order of entries.
func TestBatchesAnswerInPart(t *testing.T) {
	a := fakeaws.New(t)
	q := newQueue(t, a, "orders", "MaximumMessageSize", "1024")
	out, err := a.SQS().SendMessageBatch(t.Context(), &sqs.SendMessageBatchInput{QueueUrl: &q, Entries: []sqstypes.SendMessageBatchRequestEntry{
		{Id: aws.String("c"), MessageBody: aws.String("1")},
		{Id: aws.String("b"), MessageBody: aws.String("\x01")},
		{Id: aws.String("a"), MessageBody: aws.String("2")},
		{Id: aws.String("d"), MessageBody: aws.String(strings.Repeat("x", 1025))},
		{Id: aws.String("e"), MessageBody: aws.String("3"), DelaySeconds: 901},
	}})
	require.NoError(t, err)
	ids := func(n int, id func(int) *string) (s []string) {
		for k := range n {
			s = append(s, *id(k))
		}
		return s
	}
	require.Equal(t, []string{"c", "a"}, ids(len(out.Successful), func(k int) *string { return out.Successful[k].Id }))
	require.Equal(t, []string{"b", "d", "e"}, ids(len(out.Failed), func(k int) *string { return out.Failed[k].Id }))
	require.Equal(t, "InvalidMessageContents", *out.Failed[0].Code)
	require.Equal(t, "InvalidParameterValue", *out.Failed[1].Code)
	require.True(t, out.Failed[0].SenderFault)
	ms := receive(t, a, q)
	require.Equal(t, []string{"1", "2"}, bodies(ms))

	changed, err := a.SQS().ChangeMessageVisibilityBatch(t.Context(), &sqs.ChangeMessageVisibilityBatchInput{QueueUrl: &q, Entries: []sqstypes.ChangeMessageVisibilityBatchRequestEntry{
		{Id: aws.String("2"), ReceiptHandle: ms[1].ReceiptHandle, VisibilityTimeout: 5},
		{Id: aws.String("x"), ReceiptHandle: aws.String("x")},
		{Id: aws.String("1"), ReceiptHandle: ms[0].ReceiptHandle, VisibilityTimeout: 43201},
	}})
	require.NoError(t, err)
	require.Equal(t, "2", *changed.Successful[0].Id)
	require.Equal(t, "ReceiptHandleIsInvalid", *changed.Failed[0].Code)
	require.Equal(t, "InvalidParameterValue", *changed.Failed[1].Code)
	deleted, err := a.SQS().DeleteMessageBatch(t.Context(), &sqs.DeleteMessageBatchInput{QueueUrl: &q, Entries: []sqstypes.DeleteMessageBatchRequestEntry{
		{Id: aws.String("2"), ReceiptHandle: ms[1].ReceiptHandle}, {Id: aws.String("x"), ReceiptHandle: aws.String("x")}, {Id: aws.String("1"), ReceiptHandle: ms[0].ReceiptHandle}}})
	require.NoError(t, err)
	require.Len(t, deleted.Successful, 2)
	require.Len(t, deleted.Failed, 1)
	require.Zero(t, a.Queue("orders").Len())

	// What is wrong with the batch itself is wrong with all of it.
	batch := func(ids ...string) string {
		in := &sqs.DeleteMessageBatchInput{QueueUrl: &q, Entries: []sqstypes.DeleteMessageBatchRequestEntry{}}
		for _, id := range ids {
			in.Entries = append(in.Entries, sqstypes.DeleteMessageBatchRequestEntry{Id: aws.String(id), ReceiptHandle: ms[0].ReceiptHandle})
		}
		_, err := a.SQS().DeleteMessageBatch(t.Context(), in)
		return code(err)
	}
	require.Equal(t, "AWS.SimpleQueueService.EmptyBatchRequest", batch())
	require.Equal(t, "AWS.SimpleQueueService.TooManyEntriesInBatchRequest", batch(strings.Split("0123456789a", "")...))
	require.Equal(t, "AWS.SimpleQueueService.BatchEntryIdsNotDistinct", batch("1", "2", "1"))
	require.Equal(t, "AWS.SimpleQueueService.InvalidBatchEntryId", batch("in valid"))
	require.Equal(t, "AWS.SimpleQueueService.InvalidBatchEntryId", batch(strings.Repeat("x", 81)))
	require.Equal(t, "", batch(strings.Repeat("x", 80)))
	half := strings.Repeat("x", 1<<19)
	require.NoError(t, set(a, q, "MaximumMessageSize", "1048576"))
	for extra, want := range map[string]string{"": "", "x": "AWS.SimpleQueueService.BatchRequestTooLong"} {
		_, err = a.SQS().SendMessageBatch(t.Context(), &sqs.SendMessageBatchInput{QueueUrl: &q, Entries: []sqstypes.SendMessageBatchRequestEntry{
			{Id: aws.String("1"), MessageBody: aws.String(half)}, {Id: aws.String("2"), MessageBody: aws.String(half + extra)}}})
		require.Equal(t, want, code(err))
	}
}
