package fanoutaws

import (
	"context"
	"log/slog"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/service/sns"
	"github.com/aws/aws-sdk-go-v2/service/sqs"
	"github.com/stretchr/testify/require"

	"github.com/gofanout/fanout"
	"github.com/gofanout/fanout/engine"
	"github.com/gofanout/fanout/fanouttest/fakeaws"
)

// subscribed returns the endpoints that a topic sends to.
func subscribed(t *testing.T, top *topic) (endpoints []string) {
	t.Helper()
	out, err := top.e.sns.ListSubscriptionsByTopic(t.Context(), &sns.ListSubscriptionsByTopicInput{TopicArn: &top.arn})
	require.NoError(t, err)
	for _, s := range out.Subscriptions {
		endpoints = append(endpoints, *s.Endpoint)
	}
	return endpoints
}

// holdingThree opens a queue that has one message ready, one leased, and one letter.
func holdingThree(t *testing.T, top *topic, name string) *queue {
	t.Helper()
	q := openQueue(t, top, engine.QueueSpec{Name: name, Visibility: time.Hour})
	publish(t, top, message("1", "1"), message("2", "2"), message("3", "3"))
	r := receive(t, q)
	require.NoError(t, q.DeadLetter(t.Context(), r.Receipt, r.Message))
	receive(t, q)
	return q
}

func exist(t *testing.T, names ...string) (there []bool) {
	t.Helper()
	for _, name := range names {
		there = append(there, fakeOf(t).Queue(name).Exists())
	}
	return there
}

func TestDeleteRemovesTheQueueItsLettersAndItsSubscription(t *testing.T) {
	for name, ordering := range map[string]bool{"standard": false, "FIFO": true} {
		t.Run(name, func(t *testing.T) {
			inFake(t, func(t *testing.T) {
				suffix := ""
				if ordering {
					suffix = fifoSuffix
				}
				top := newTopic(t, newEngine(t), engine.TopicSpec{Name: "p", Ordering: ordering})
				other := openQueue(t, top, engine.QueueSpec{Name: "other"})
				q := holdingThree(t, top, "q")
				require.NoError(t, q.Close())
				dropped, letters, err := q.Delete(t.Context())
				require.NoError(t, err)
				require.Equal(t, []int{2, 1}, []int{dropped, letters})
				require.Equal(t, []bool{false, false, true, true}, exist(t, "p-q"+suffix, "p-q-dlq"+suffix, "p-other"+suffix, "p-other-dlq"+suffix))
				require.Equal(t, []string{other.place.arn}, subscribed(t, top))
				dropped, letters, err = q.Delete(t.Context())
				require.NoError(t, err, "again")
				require.Zero(t, dropped+letters)
				publish(t, top, message("4", "4"))
				for range 4 {
					require.NoError(t, other.Ack(t.Context(), receive(t, other).Receipt))
				}
				_, _, err = other.dead.Delete(t.Context())
				require.ErrorContains(t, err, "bug")
			})
		})
	}
}

// TestDeleteGoesOnWhereItFailed: whichever request fails, the next Delete does the rest and
// tells of all that was lost.
func TestDeleteGoesOnWhereItFailed(t *testing.T) {
	for name, fault := range map[string]fakeaws.Fault{
		"looking for the subscription": {Operation: "ListSubscriptionsByTopic"},
		"ending it":                    {Operation: "Unsubscribe"},
		"looking for other sources":    {Operation: "ListDeadLetterSourceQueues"},
		"counting":                     {Operation: "GetQueueAttributes"},
		"counting the letters":         {Operation: "GetQueueAttributes", After: 1},
		"deleting the queue":           {Operation: "DeleteQueue"},
		"deleting the letters":         {Operation: "DeleteQueue", After: 1},
	} {
		t.Run(name, func(t *testing.T) {
			inFake(t, func(t *testing.T) {
				top := newTopic(t, newEngine(t), engine.TopicSpec{Name: "p"})
				q := holdingThree(t, top, "q")
				require.NoError(t, q.Close())
				fault.Error = &fakeaws.AccessDenied
				fakeOf(t).Inject(fault)
				_, _, err := q.Delete(t.Context())
				require.ErrorContains(t, err, "AccessDenied")
				require.ErrorContains(t, err, q.place.arn)
				dropped, letters, err := q.Delete(t.Context())
				require.NoError(t, err)
				require.Equal(t, []int{2, 1}, []int{dropped, letters})
				require.Equal(t, []bool{false, false}, exist(t, "p-q", "p-q-dlq"))
				require.Empty(t, subscribed(t, top))
			})
		})
	}
}

// TestWhatIsGoneAlreadyIsDeleted: by hand, in part or as a whole, the topic too.
func TestWhatIsGoneAlreadyIsDeleted(t *testing.T) {
	inFake(t, func(t *testing.T) {
		for k, names := range [][]string{{"p-q"}, {"p-q-dlq"}, {"p-q", "p-q-dlq"}, {"topic"}} {
			if k > 0 {
				time.Sleep(time.Minute)
			}
			top := newTopic(t, newEngine(t), engine.TopicSpec{Name: "p"})
			q := openQueue(t, top, engine.QueueSpec{Name: "q"})
			for _, name := range names {
				if name == "topic" {
					_, err := top.e.sns.DeleteTopic(t.Context(), &sns.DeleteTopicInput{TopicArn: &top.arn})
					require.NoError(t, err)
					continue
				}
				url := fakeOf(t).Queue(name).URL()
				_, err := top.e.sqs.DeleteQueue(t.Context(), &sqs.DeleteQueueInput{QueueUrl: &url})
				require.NoError(t, err)
			}
			require.NoError(t, q.Close())
			_, _, err := q.Delete(t.Context())
			require.NoError(t, err, "%q", names)
			require.Equal(t, []bool{false, false}, exist(t, "p-q", "p-q-dlq"), "%q", names)
		}
	})
}

// TestADeadLetterQueueOfOthersStays: with their letters.
func TestADeadLetterQueueOfOthersStays(t *testing.T) {
	inFake(t, func(t *testing.T) {
		e := newEngine(t)
		top := newTopic(t, e, engine.TopicSpec{Name: "p"})
		q := holdingThree(t, top, "q")
		createQueue(t, e, "theirs", map[string]string{redriveAttribute: newRedrive(q.dead.place.arn)})
		require.NoError(t, q.Close())
		dropped, letters, err := q.Delete(t.Context())
		require.NoError(t, err)
		require.Equal(t, []int{2, 0}, []int{dropped, letters})
		require.Equal(t, []bool{false, true}, exist(t, "p-q", "p-q-dlq"))
		require.Equal(t, 1, fakeOf(t).Queue("p-q-dlq").Len())
	})
}

// TestAQueueIsOpenedAgainWhenSQSMakesIt: 60 seconds after the deletion, by whomever.
func TestAQueueIsOpenedAgainWhenSQSMakesIt(t *testing.T) {
	for name, elsewhere := range map[string]bool{"deleted here": false, "deleted by another process": true} {
		t.Run(name, func(t *testing.T) {
			inFake(t, func(t *testing.T) {
				var log strings.Builder
				logged := WithLogger(slog.New(slog.NewTextHandler(&log, nil)))
				top := newFanoutTopic(t, newEngine(t, logged))
				q, err := top.OpenQueue(t.Context(), "q")
				require.NoError(t, err)
				opener := top
				if elsewhere {
					opener = newFanoutTopic(t, newEngine(t, logged))
				}
				deleted := time.Now()
				require.NoError(t, q.Delete(t.Context()))
				require.Empty(t, log.String())

				soon, cancel := context.WithTimeout(t.Context(), 10*time.Second)
				defer cancel()
				_, err = opener.OpenQueue(soon, "q")
				require.ErrorIs(t, err, context.DeadlineExceeded)
				require.ErrorContains(t, err, "a queue called p-q")
				require.ErrorContains(t, err, "within 60 seconds")
				require.Equal(t, 10*time.Second, time.Since(deleted))
				require.Equal(t, 1, strings.Count(log.String(), "SQS makes none of a name within 60 seconds"), log.String())

				again, err := opener.OpenQueue(t.Context(), "q")
				require.NoError(t, err)
				require.GreaterOrEqual(t, time.Since(deleted), time.Minute)
				require.Less(t, time.Since(deleted), time.Minute+2*namePause)
				require.NoError(t, opener.Publish(t.Context(), "a"))
				d, err := again.Receive(t.Context())
				require.NoError(t, err)
				require.Equal(t, "a", d.Body)
			})
		})
	}
}

// TestANameThatSQSNeverGivesBackIsAnError: nobody waits for ever.
func TestANameThatSQSNeverGivesBackIsAnError(t *testing.T) {
	inFake(t, func(t *testing.T) {
		recently := fakeaws.Error{Code: "AWS.SimpleQueueService.QueueDeletedRecently", Message: "You must wait 60 seconds"}
		fakeOf(t).Inject(fakeaws.Fault{Operation: "CreateQueue", Times: fakeaws.Always, Error: &recently})
		top := newTopic(t, newEngine(t), engine.TopicSpec{Name: "p"})
		began := time.Now()
		_, err := top.OpenQueue(t.Context(), engine.QueueSpec{Name: "q"})
		require.ErrorContains(t, err, "QueueDeletedRecently")
		require.Equal(t, nameTries, time.Since(began))
	})
}

// TestTheNamesOfADeletedQueueAreAnybodys: and those of one that was closed are not.
func TestTheNamesOfADeletedQueueAreAnybodys(t *testing.T) {
	inFake(t, func(t *testing.T) {
		same := func(topic, _ string) string { return topic + "-x" }
		top := newTopic(t, newEngine(t, WithNames(Names{Queue: same})), engine.TopicSpec{Name: "p"})
		q := openQueue(t, top, engine.QueueSpec{Name: "a"})
		require.NoError(t, q.Close())
		_, err := top.OpenQueue(t.Context(), engine.QueueSpec{Name: "b"})
		require.ErrorContains(t, err, "already")
		_, _, err = q.Delete(t.Context())
		require.NoError(t, err)
		openQueue(t, top, engine.QueueSpec{Name: "b"})
	})
}

// TestWithExistingDeletesNothing: it is refused, and the queue stays open.
func TestWithExistingDeletesNothing(t *testing.T) {
	inFake(t, func(t *testing.T) {
		openQueue(t, newTopic(t, newEngine(t), engine.TopicSpec{Name: "p"}), engine.QueueSpec{Name: "q"})
		top := newFanoutTopic(t, newEngine(t, WithExisting()))
		q, err := top.OpenQueue(t.Context(), "q")
		require.NoError(t, err)
		err = q.Delete(t.Context())
		require.ErrorIs(t, err, fanout.ErrUnsupported)
		require.ErrorContains(t, err, "WithExisting deletes nothing: delete the queue with the tool that made it")
		require.NoError(t, top.Publish(t.Context(), "a"))
		d, err := q.Receive(t.Context())
		require.NoError(t, err)
		require.NoError(t, d.Ack(t.Context()))
	})
}

// TestADeletedQueueIsNotLookedForBeforeItsMinute: SQS may find it still, and what it held is
// lost with it.
func TestADeletedQueueIsNotLookedForBeforeItsMinute(t *testing.T) {
	inFake(t, func(t *testing.T) {
		var mu sync.Mutex
		var looked []time.Time
		a := fakeaws.New(t, fakeaws.WithObserver(func(c fakeaws.Call) {
			mu.Lock()
			defer mu.Unlock()
			if c.Operation == "GetQueueUrl" {
				looked = append(looked, c.Time)
			}
		}))
		fakes.Store(t, a)
		t.Cleanup(func() { fakes.Delete(t) })
		top := newTopic(t, newEngine(t), engine.TopicSpec{Name: "p"})
		q := openQueue(t, top, engine.QueueSpec{Name: "q"})
		require.NoError(t, q.Close())
		deleted := time.Now()
		_, _, err := q.Delete(t.Context())
		require.NoError(t, err)
		mu.Lock()
		looked = nil
		mu.Unlock()
		openQueue(t, top, engine.QueueSpec{Name: "other"})
		require.Zero(t, time.Since(deleted), "another name is nobody's business")
		mu.Lock()
		looked = nil
		mu.Unlock()
		openQueue(t, top, engine.QueueSpec{Name: "q"})
		mu.Lock()
		defer mu.Unlock()
		require.NotEmpty(t, looked)
		for _, at := range looked {
			require.Equal(t, time.Minute, at.Sub(deleted))
		}
	})
}
