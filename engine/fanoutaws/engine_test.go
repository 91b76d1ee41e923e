package fanoutaws

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/sns"
	"github.com/aws/aws-sdk-go-v2/service/sqs"
	"github.com/stretchr/testify/require"

	"github.com/gofanout/fanout/engine"
)

func TestAMessageReachesEachQueueWithAllItCarries(t *testing.T) {
	onServer(t, testAMessageReachesEachQueueWithAllItCarries)
}

func testAMessageReachesEachQueueWithAllItCarries(t *testing.T) {
	top := newTopic(t, newEngine(t), engine.TopicSpec{})
	one, two := openQueue(t, top, engine.QueueSpec{Name: "one"}), openQueue(t, top, engine.QueueSpec{Name: "two"})
	m := message("id-1", `{"order":"o-17"}`)
	m.Attributes = map[string]string{"region": "eu", "note": "a\nb <&> \"ü\" 漢"}
	m.TimeToLive = time.Hour
	binary := message("\xff\x00 id", "")
	binary.Body = []byte{0, 1, 0xff}
	empty := message("id-3", "")
	empty.Body = nil
	publish(t, top, m, binary, empty)
	for _, q := range []*queue{one, two} {
		got := map[string]engine.Received{}
		for range 3 {
			r := receive(t, q)
			got[r.ID] = r
			require.Equal(t, 1, r.Deliveries)
			require.NoError(t, q.Ack(t.Context(), r.Receipt))
			require.ErrorIs(t, q.Ack(t.Context(), r.Receipt), engine.ErrStale, "a second one")
		}
		for _, want := range []engine.Message{m, binary, empty} {
			require.Equal(t, want, got[want.ID].Message)
		}
		none(t, q)
	}
}

func TestAReturnedMessageComesAgainAfterItsWait(t *testing.T) {
	onServer(t, testAReturnedMessageComesAgainAfterItsWait)
}

func testAReturnedMessageComesAgainAfterItsWait(t *testing.T) {
	top := newTopic(t, newEngine(t), engine.TopicSpec{})
	q := openQueue(t, top, engine.QueueSpec{Name: "q"})
	publish(t, top, message("a", "1"))
	r := receive(t, q)
	require.NoError(t, q.Return(t.Context(), r.Receipt, 0, []byte("lost")))
	r = receive(t, q)
	require.Equal(t, 2, r.Deliveries)
	require.Nil(t, r.State)
	before := time.Now()
	require.NoError(t, q.Return(t.Context(), r.Receipt, 1500*time.Millisecond, nil))
	r = receive(t, q)
	require.GreaterOrEqual(t, time.Since(before), 1500*time.Millisecond, "never early")
	require.Equal(t, 3, r.Deliveries)
	stats, err := q.Stats(t.Context())
	require.NoError(t, err)
	require.Equal(t, engine.Stats{InFlight: 1, OldestAge: engine.Unknown}, stats)
}

func TestALeaseEndsAndIsExtended(t *testing.T) { onServer(t, testALeaseEndsAndIsExtended) }

func testALeaseEndsAndIsExtended(t *testing.T) {
	top := newTopic(t, newEngine(t), engine.TopicSpec{})
	q := openQueue(t, top, engine.QueueSpec{Name: "q"})
	publish(t, top, message("a", "1"))
	rs, err := q.Receive(t.Context(), 10, 500*time.Millisecond) // SQS: a second
	require.NoError(t, err)
	require.NoError(t, q.Extend(t.Context(), rs[0].Receipt, 3*time.Second))
	none(t, q)
	again := receive(t, q)
	require.Equal(t, 2, again.Deliveries)
	for name, settle := range map[string]func() error{
		"Ack":    func() error { return q.Ack(t.Context(), rs[0].Receipt) },
		"Return": func() error { return q.Return(t.Context(), rs[0].Receipt, 0, nil) },
		"Extend": func() error { return q.Extend(t.Context(), rs[0].Receipt, time.Second) },
		"Dead":   func() error { return q.DeadLetter(t.Context(), rs[0].Receipt, rs[0].Message) },
	} {
		require.ErrorIs(t, settle(), engine.ErrStale, name)
	}
	require.ErrorContains(t, q.Extend(t.Context(), again.Receipt, 12*time.Hour+time.Second), "12 hours in all")
	require.NoError(t, q.Ack(t.Context(), again.Receipt))
}

func TestADeadLetterHasItsStateAndGoesBackToItsQueueOnly(t *testing.T) {
	t.Parallel()
	for _, ordering := range []bool{false, true} {
		test := func(t *testing.T) {
			top := newTopic(t, newEngine(t), engine.TopicSpec{Ordering: ordering})
			q, other := openQueue(t, top, engine.QueueSpec{Name: "q"}), openQueue(t, top, engine.QueueSpec{Name: "other"})
			require.Nil(t, q.DeadLetters().DeadLetters())
			m := message("a", "1")
			m.Attributes = map[string]string{"region": "eu"}
			if ordering {
				m.OrderingKey = "customer 1"
			}
			publish(t, top, m)
			require.NoError(t, other.Ack(t.Context(), receive(t, other).Receipt))
			r := receive(t, q)
			letter := r.Message
			letter.State = []byte("five attempts\x00\xff")
			require.NoError(t, q.DeadLetter(t.Context(), r.Receipt, letter))
			none(t, q)

			dead := receive(t, q.DeadLetters())
			require.Equal(t, letter, dead.Message)
			require.NoError(t, q.DeadLetters().Return(t.Context(), dead.Receipt, 0, nil))
			dead = receive(t, q.DeadLetters())
			letter.State = []byte("none yet")
			require.NoError(t, q.DeadLetters().Redrive(t.Context(), dead.Receipt, letter))
			none(t, q.DeadLetters())
			r = receive(t, q)
			require.Equal(t, letter, r.Message)
			require.Equal(t, 1, r.Deliveries, "since the redrive")
			none(t, other)
		}
		t.Run(fmt.Sprintf("ordering %v", ordering), func(t *testing.T) { onServer(t, test) })
	}
}

func TestALetterThatSQSMovedBeginsAnew(t *testing.T) { onServer(t, testALetterThatSQSMovedBeginsAnew) }

func testALetterThatSQSMovedBeginsAnew(t *testing.T) {
	e := newEngine(t)
	top := newTopic(t, e, engine.TopicSpec{})
	q := openQueue(t, top, engine.QueueSpec{Name: "q"})
	publish(t, top, message("a", "1"))
	r := receive(t, q)
	r.State = []byte("five attempts")
	require.NoError(t, q.DeadLetter(t.Context(), r.Receipt, r.Message))

	// What a StartMessageMoveTask does.
	in, err := e.sqs.ReceiveMessage(t.Context(), &sqs.ReceiveMessageInput{QueueUrl: &q.dead.place.url, MessageAttributeNames: []string{"All"}})
	require.NoError(t, err)
	require.Len(t, in.Messages, 1)
	_, err = e.sqs.SendMessage(t.Context(), &sqs.SendMessageInput{QueueUrl: &q.place.url,
		MessageBody: in.Messages[0].Body, MessageAttributes: in.Messages[0].MessageAttributes})
	require.NoError(t, err)
	r = receive(t, q)
	require.Equal(t, "a", r.ID)
	require.Nil(t, r.State)
}

func TestDelays(t *testing.T) { onServer(t, testDelays) }

func testDelays(t *testing.T) {
	top := newTopic(t, newEngine(t), engine.TopicSpec{})
	plain := openQueue(t, top, engine.QueueSpec{Name: "plain"})
	later := openQueue(t, top, engine.QueueSpec{Name: "later", Delay: 2 * time.Second})
	before := time.Now()
	m := message("delayed", "1")
	m.Delay = 4 * time.Second
	publish(t, top, message("now", "2"), m)

	require.Equal(t, "now", receive(t, plain).ID)
	require.Less(t, time.Since(before), 2*time.Second, "else the test proves nothing")
	require.Equal(t, "now", receive(t, later).ID)
	require.GreaterOrEqual(t, time.Since(before), 2*time.Second)
	for _, q := range []*queue{plain, later} {
		r := receive(t, q)
		require.Equal(t, m, r.Message)
		require.Equal(t, 1, r.Deliveries, "being hidden is no delivery")
		require.GreaterOrEqual(t, time.Since(before), 4*time.Second)
	}
	m.Delay = 16 * time.Minute
	require.ErrorContains(t, top.Publish(t.Context(), []engine.Message{m}), "16m0s")
	_, err := top.OpenQueue(t.Context(), engine.QueueSpec{Name: "x", Delay: 16 * time.Minute})
	require.ErrorContains(t, err, "16m0s")
}

func TestOneKeyIsDeliveredInOrderOneAtATime(t *testing.T) {
	onServer(t, testOneKeyIsDeliveredInOrderOneAtATime)
}

func testOneKeyIsDeliveredInOrderOneAtATime(t *testing.T) {
	top := newTopic(t, newEngine(t), engine.TopicSpec{Ordering: true})
	q := openQueue(t, top, engine.QueueSpec{Name: "q"})
	require.True(t, strings.HasSuffix(q.place.arn, "-q.fifo"), q.place.arn)
	var ms []engine.Message
	for k := range 25 { // three requests
		m := message(fmt.Sprintf("m%02d", k), fmt.Sprintf(`{"n":%d}`, k))
		m.OrderingKey = []string{"plain", "with a space", strings.Repeat("long", 50)}[k%3]
		if k == 24 {
			m.OrderingKey = ""
		}
		ms = append(ms, m)
	}
	publish(t, top, ms...)
	next := map[string]int{"plain": 0, "with a space": 1, strings.Repeat("long", 50): 2, "": 24}
	held := map[string]engine.Received{}
	for n := 0; n < 25; {
		ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
		rs, err := q.Receive(ctx, 10, 0)
		cancel()
		require.NoError(t, err)
		for _, r := range rs {
			require.Equal(t, fmt.Sprintf("m%02d", next[r.OrderingKey]), r.ID)
			require.NotContains(t, held, r.OrderingKey, "one of a key at a time")
			if r.Deliveries == 1 && n%5 == 0 {
				require.NoError(t, q.Return(t.Context(), r.Receipt, 0, nil)) // stays the first of its key
				continue
			}
			held[r.OrderingKey] = r
			next[r.OrderingKey] += 3
			n++
		}
		if len(held) == 3 || n > 20 {
			for key, r := range held {
				require.NoError(t, q.Ack(t.Context(), r.Receipt))
				delete(held, key)
			}
		}
	}
}

func TestADuplicateCountsOnce(t *testing.T) { onServer(t, testADuplicateCountsOnce) }

func testADuplicateCountsOnce(t *testing.T) {
	e := newEngine(t)
	_, err := e.OpenTopic(t.Context(), engine.TopicSpec{Name: "x", Deduplication: time.Minute})
	require.ErrorContains(t, err, "1m0s")
	require.ErrorContains(t, err, "5 minutes")
	top := newTopic(t, e, engine.TopicSpec{Deduplication: dedupWindow})
	q := openQueue(t, top, engine.QueueSpec{Name: "q"})
	for k, dedup := range []string{"payment 1", "payment 1", "payment-2", "", ""} {
		m := message(fmt.Sprint("m", k), "the same")
		m.DeduplicationID = dedup
		publish(t, top, m)
	}
	var ids []string
	for range 4 {
		ids = append(ids, receive(t, q).ID)
	}
	require.ElementsMatch(t, []string{"m0", "m2", "m3", "m4"}, ids)
	none(t, q)
}

func TestSNSFilters(t *testing.T) { onServer(t, testSNSFilters) }

func testSNSFilters(t *testing.T) {
	top := newTopic(t, newEngine(t, WithNumberAttributes("cents")), engine.TopicSpec{})
	_, err := top.OpenQueue(t.Context(), engine.QueueSpec{Name: "q", FilterPolicy: `{"weight":[{"numeric":[">",1]}]}`})
	require.ErrorContains(t, err, `WithNumberAttributes("weight")`)
	q := openQueue(t, top, engine.QueueSpec{Name: "q", FilterPolicy: `{"region":["eu"],"cents":[{"numeric":[">",100]}],"tags":["gift"]}`})
	for k, attributes := range []map[string]string{
		{"region": "eu", "cents": "200", "tags": `["gift","fast"]`},
		{"region": "us", "cents": "200", "tags": `["gift"]`},
		{"region": "eu", "cents": "20", "tags": `["gift"]`},
		{"region": "eu", "cents": "200", "tags": `["other"]`},
		nil,
	} {
		m := message(fmt.Sprint("m", k), "1")
		m.Attributes = attributes
		publish(t, top, m)
	}
	r := receive(t, q)
	require.Equal(t, "m0", r.ID)
	require.Equal(t, map[string]string{"region": "eu", "cents": "200", "tags": `["gift","fast"]`}, r.Attributes)
	none(t, q)
}

func TestWhatSNSCannotTakeIsRefusedBeforeAnythingIsPublished(t *testing.T) {
	onServer(t, testWhatSNSCannotTakeIsRefusedBeforeAnythingIsPublished)
}

func testWhatSNSCannotTakeIsRefusedBeforeAnythingIsPublished(t *testing.T) {
	top := newTopic(t, newEngine(t), engine.TopicSpec{})
	q := openQueue(t, top, engine.QueueSpec{Name: "q"})
	for name, c := range map[string]struct {
		change func(*engine.Message)
		want   string
	}{
		"an empty one":    {func(m *engine.Message) { m.Attributes = map[string]string{"a": ""} }, `"a" is empty`},
		"a control":       {func(m *engine.Message) { m.Attributes = map[string]string{"a": "\x01"} }, "encode it"},
		"no UTF-8":        {func(m *engine.Message) { m.Attributes = map[string]string{"a": "\xff"} }, "encode it"},
		"a space":         {func(m *engine.Message) { m.Attributes = map[string]string{"a b": "1"} }, `"a b"`},
		"a prefix of AWS": {func(m *engine.Message) { m.Attributes = map[string]string{"AWS.x": "1"} }, `"AWS.x"`},
		"our own":         {func(m *engine.Message) { m.Attributes = map[string]string{"fanout": "1"} }, "own"},
		"size":            {func(m *engine.Message) { m.Body = []byte(strings.Repeat("x", snsDefault)) }, "too large"},
	} {
		bad := message("bad", "1")
		c.change(&bad)
		err := top.Publish(t.Context(), []engine.Message{message("good", "1"), bad})
		require.ErrorContains(t, err, c.want, name)
		require.ErrorContains(t, err, "message 1", name)
		var partial *engine.PartialError
		require.False(t, errors.As(err, &partial), name)
		require.Equal(t, name == "size", errors.Is(err, engine.ErrTooLarge), name)
	}
	none(t, q)
}

func TestBatchesKeepWithinCountAndSize(t *testing.T) { onServer(t, testBatchesKeepWithinCountAndSize) }

func testBatchesKeepWithinCountAndSize(t *testing.T) {
	top := newTopic(t, newEngine(t), engine.TopicSpec{})
	q := openQueue(t, top, engine.QueueSpec{Name: "q"})
	var ms []engine.Message
	for k := range 23 {
		m := message(fmt.Sprint("small", k), "1")
		if k%4 == 0 {
			m.ID, m.Body = fmt.Sprint("large", k), []byte(strings.Repeat("x", 100<<10)) // two a request
		}
		ms = append(ms, m)
	}
	publish(t, top, ms...)
	got := map[string]bool{}
	for len(got) < len(ms) {
		rs, err := q.Receive(t.Context(), 100, 0)
		require.NoError(t, err)
		require.LessOrEqual(t, len(rs), 10)
		for _, r := range rs {
			require.False(t, got[r.ID])
			got[r.ID] = true
		}
	}
}

func TestForeignMessagesAndEnvelopes(t *testing.T) { onServer(t, testForeignMessagesAndEnvelopes) }

func testForeignMessagesAndEnvelopes(t *testing.T) {
	e := newEngine(t)
	top := newTopic(t, e, engine.TopicSpec{})
	raw := openQueue(t, top, engine.QueueSpec{Name: "raw"})

	// A queue that SAM's shortcut subscribed: not raw.
	enveloped := openQueue(t, top, engine.QueueSpec{Name: "enveloped"})
	_, err := e.sns.SetSubscriptionAttributes(t.Context(), &sns.SetSubscriptionAttributesInput{
		SubscriptionArn: aws.String(subscriptionARN(t, e, top.arn, enveloped.place.arn)),
		AttributeName:   aws.String("RawMessageDelivery"), AttributeValue: aws.String("false"),
	})
	require.NoError(t, err)
	m := message("ours", `{"Type":"Notification","TopicArn":"just a body"}`)
	m.Attributes = map[string]string{"region": "eu"}
	publish(t, top, m)
	for _, q := range []*queue{raw, enveloped} {
		r := receive(t, q)
		require.Equal(t, m, r.Message)
		require.NoError(t, q.Ack(t.Context(), r.Receipt))
	}

	out, err := e.sns.Publish(t.Context(), &sns.PublishInput{TopicArn: &top.arn, Message: aws.String("from the console")})
	require.NoError(t, err)
	r := receive(t, enveloped)
	require.Equal(t, "from the console", string(r.Body))
	require.Equal(t, aws.ToString(out.MessageId), r.ID)
	require.WithinDuration(t, time.Now(), r.PublishedAt, time.Minute)
	r = receive(t, raw)
	require.Equal(t, "from the console", string(r.Body))
	require.NotEmpty(t, r.ID)
	require.WithinDuration(t, time.Now(), r.PublishedAt, time.Minute)
}

func TestSettlementsThatMeetShareRequests(t *testing.T) {
	onServer(t, testSettlementsThatMeetShareRequests)
}

func testSettlementsThatMeetShareRequests(t *testing.T) {
	top := newTopic(t, newEngine(t), engine.TopicSpec{})
	q := openQueue(t, top, engine.QueueSpec{Name: "q"})
	var ms []engine.Message
	for k := range 60 {
		ms = append(ms, message(fmt.Sprint(k), "1"))
	}
	publish(t, top, ms...)
	var wg sync.WaitGroup
	for n := 0; n < len(ms); {
		rs, err := q.Receive(t.Context(), 10, 0)
		require.NoError(t, err)
		n += len(rs)
		for _, r := range rs {
			wg.Go(func() { require.NoError(t, q.Ack(t.Context(), r.Receipt)) })
		}
	}
	wg.Wait()
	stats, err := q.Stats(t.Context())
	require.NoError(t, err)
	require.Zero(t, stats.Sum())
}

func TestAReceiveThatGivesUpLosesNothing(t *testing.T) {
	onServer(t, testAReceiveThatGivesUpLosesNothing)
}

func testAReceiveThatGivesUpLosesNothing(t *testing.T) {
	top := newTopic(t, newEngine(t, WithPollTime(20*time.Second)), engine.TopicSpec{})
	q := openQueue(t, top, engine.QueueSpec{Name: "q"})
	for range 20 { // polls at SQS: one, which each next Receive adopts
		ctx, cancel := context.WithTimeout(t.Context(), 20*time.Millisecond)
		_, err := q.Receive(ctx, 1, 0)
		cancel()
		require.ErrorIs(t, err, context.DeadlineExceeded)
	}
	q.mu.Lock()
	require.Len(t, q.orphans, 1)
	q.mu.Unlock()
	publish(t, top, message("a", "1"))
	require.Equal(t, "a", receive(t, q).ID)
}

func TestCloseEndsWhatWaits(t *testing.T) { onServer(t, testCloseEndsWhatWaits) }

func testCloseEndsWhatWaits(t *testing.T) {
	top := newTopic(t, newEngine(t, WithPollTime(20*time.Second)), engine.TopicSpec{})
	q := openQueue(t, top, engine.QueueSpec{Name: "q"})
	publish(t, top, message("a", "1"))
	r := receive(t, q)
	waits := make(chan error)
	go func() { _, err := q.Receive(t.Context(), 1, 0); waits <- err }()
	go func() { _, err := q.DeadLetters().Receive(t.Context(), 1, 0); waits <- err }()
	require.NoError(t, q.Close())
	require.ErrorIs(t, <-waits, engine.ErrClosed)
	require.ErrorIs(t, <-waits, engine.ErrClosed)
	require.NoError(t, q.Close())
	require.ErrorIs(t, q.Ack(t.Context(), r.Receipt), engine.ErrClosed)
	_, err := q.Stats(t.Context())
	require.ErrorIs(t, err, engine.ErrClosed)
	require.NoError(t, top.Close())
	require.ErrorIs(t, top.Publish(t.Context(), []engine.Message{message("b", "1")}), engine.ErrClosed)
	_, err = top.OpenQueue(t.Context(), engine.QueueSpec{Name: "q"})
	require.ErrorIs(t, err, engine.ErrClosed)
}

func TestPurgeSaysHowMany(t *testing.T) { onServer(t, testPurgeSaysHowMany) }

func testPurgeSaysHowMany(t *testing.T) {
	top := newTopic(t, newEngine(t), engine.TopicSpec{})
	q := openQueue(t, top, engine.QueueSpec{Name: "q"})
	publish(t, top, message("a", "1"), message("b", "1"), message("c", "1"))
	receive(t, q)
	n, err := q.Purge(t.Context())
	require.NoError(t, err)
	require.Equal(t, 3, n)
	none(t, q)
}

func subscriptionARN(t *testing.T, e *Engine, topicARN, queueARN string) string {
	t.Helper()
	out, err := e.sns.ListSubscriptionsByTopic(t.Context(), &sns.ListSubscriptionsByTopicInput{TopicArn: &topicARN})
	require.NoError(t, err)
	for _, s := range out.Subscriptions {
		if aws.ToString(s.Endpoint) == queueARN {
			return aws.ToString(s.SubscriptionArn)
		}
	}
	t.Fatal("no subscription of " + queueARN)
	return ""
}

func TestALetterInHandHoldsUpNoOtherOfItsKey(t *testing.T) {
	onServer(t, testALetterInHandHoldsUpNoOtherOfItsKey)
}

func testALetterInHandHoldsUpNoOtherOfItsKey(t *testing.T) {
	top := newTopic(t, newEngine(t), engine.TopicSpec{Ordering: true})
	q := openQueue(t, top, engine.QueueSpec{Name: "q"})
	for k := range 2 {
		m := message(fmt.Sprint("m", k), fmt.Sprint(k))
		m.OrderingKey = "one"
		publish(t, top, m)
		r := receive(t, q)
		require.NoError(t, q.DeadLetter(t.Context(), r.Receipt, r.Message))
	}
	first, second := receive(t, q.DeadLetters()), receive(t, q.DeadLetters())
	require.ElementsMatch(t, []string{"m0", "m1"}, []string{first.ID, second.ID})
	require.Equal(t, "one", first.OrderingKey)
}
