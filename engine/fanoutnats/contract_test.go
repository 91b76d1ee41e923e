package fanoutnats_test

import (
	"context"
	"errors"
	"math/rand/v2"
	"strings"
	"testing"
	"time"

	"github.com/gofanout/fanout/engine"
	"github.com/stretchr/testify/require"
)

func TestEveryOpenQueueGetsEveryMessageInOrder(t *testing.T) {
	t.Parallel()
	top := openTopic(t, fast(t), engine.TopicSpec{Name: "payments"})
	a, b := openQueue(t, top, engine.QueueSpec{Name: "a"}), openQueue(t, top, engine.QueueSpec{Name: "b"})
	ctx := t.Context()
	require.NoError(t, top.Publish(ctx, messages(3)[:1]))
	require.NoError(t, top.Publish(ctx, messages(3)[1:]))
	for _, q := range []engine.Queue{a, b} {
		rs := receive(t, q, 3, 0)
		require.Equal(t, []string{"body-0", "body-1", "body-2"}, bodies(rs))
		for _, r := range rs {
			require.Equal(t, 1, r.Deliveries)
			require.NoError(t, q.Ack(ctx, r.Receipt))
		}
		require.Zero(t, total(t, q))
	}
}

func TestAMessageIsCarriedAsItIs(t *testing.T) {
	t.Parallel()
	top := openTopic(t, fast(t), engine.TopicSpec{Name: "ünïcode / * > . name", Deduplication: time.Minute})
	q := openQueue(t, top, engine.QueueSpec{Name: strings.Repeat("schlange.", 60)})
	at := time.Date(2026, 1, 2, 3, 4, 5, 678, time.UTC)
	m := engine.Message{
		ID: "line\r\nbreak % ü", Body: []byte{0, 1, 2, 255, '\n'}, ContentType: "application/json; charset=utf-8",
		Attributes: map[string]string{"": "empty", "k=&\n": "v\r\n\x00\xff", " sp ace ": " "}, DeduplicationID: "d\n1",
		PublishedAt: at, TimeToLive: time.Hour, State: []byte("state"),
	}
	require.NoError(t, top.Publish(t.Context(), []engine.Message{m}))
	r := receiveOne(t, q, 0)
	require.True(t, r.PublishedAt.Equal(at))
	r.PublishedAt = at
	require.Equal(t, m, r.Message)
}

func TestAMessageOfAnotherClientIsDelivered(t *testing.T) {
	t.Parallel()
	e := fast(t)
	top := openTopic(t, e, engine.TopicSpec{Name: "payments"})
	q := openQueue(t, top, engine.QueueSpec{Name: "a"})
	require.NoError(t, e.Conn().Publish("fanout.payments.all", []byte("hello")))
	r := receiveOne(t, q, 0)
	require.Equal(t, "hello", string(r.Body))
	require.NotEmpty(t, r.ID)
	require.False(t, r.PublishedAt.IsZero())
}

func TestAQueueGetsWhatIsPublishedAfterItWasOpened(t *testing.T) {
	t.Parallel()
	top := openTopic(t, fast(t), engine.TopicSpec{Name: "payments"})
	a := openQueue(t, top, engine.QueueSpec{Name: "a"})
	require.NoError(t, top.Publish(t.Context(), messages(1)))
	b := openQueue(t, top, engine.QueueSpec{Name: "b"})
	require.NoError(t, top.Publish(t.Context(), messages(2)[1:]))
	require.Equal(t, []string{"body-0", "body-1"}, bodies(receive(t, a, 2, 0)))
	require.Equal(t, []string{"body-1"}, bodies(receive(t, b, 1, 0)))
}

func TestALeaseThatEndsMakesTheMessageReadyAgain(t *testing.T) {
	t.Parallel()
	top := openTopic(t, fast(t), engine.TopicSpec{Name: "payments"})
	q := openQueue(t, top, engine.QueueSpec{Name: "a"})
	require.NoError(t, top.Publish(t.Context(), messages(1)))
	first := receiveOne(t, q, 200*time.Millisecond)
	second := receiveOne(t, q, 30*time.Second) // long before the queue's 30 s
	require.Equal(t, first.ID, second.ID)
	require.Equal(t, 2, second.Deliveries)

	ctx := t.Context()
	require.ErrorIs(t, q.Ack(ctx, first.Receipt), engine.ErrStale)
	require.ErrorIs(t, q.Return(ctx, first.Receipt, 0, nil), engine.ErrStale)
	require.ErrorIs(t, q.Extend(ctx, first.Receipt, time.Hour), engine.ErrStale)
	require.ErrorIs(t, q.DeadLetter(ctx, first.Receipt, first.Message), engine.ErrStale)
	requireEmpty(t, q)
	require.NoError(t, q.Ack(ctx, second.Receipt))
	require.ErrorIs(t, q.Ack(ctx, second.Receipt), engine.ErrStale)
	require.Zero(t, total(t, q))
	require.Zero(t, total(t, q.DeadLetters()))
}

// The server hides a delivery for four seconds here if it is not told otherwise.
func TestALeaseLongerThanTheServersIsKeptUp(t *testing.T) {
	t.Parallel()
	top := openTopic(t, fast(t), engine.TopicSpec{Name: "payments"})
	q := openQueue(t, top, engine.QueueSpec{Name: "a", Visibility: 2 * time.Second})
	ctx := t.Context()
	require.NoError(t, top.Publish(ctx, messages(2)))
	long := receiveOne(t, q, time.Minute)
	extended := receiveOne(t, q, 0)
	require.NoError(t, q.Extend(ctx, extended.Receipt, time.Minute))

	quiet, cancel := context.WithTimeout(ctx, 5500*time.Millisecond)
	defer cancel()
	rs, err := q.Receive(quiet, 10, 0)
	require.ErrorIs(t, err, context.DeadlineExceeded, "%v came before its lease was over", bodies(rs))
	require.NoError(t, q.Ack(ctx, long.Receipt))
	require.NoError(t, q.Ack(ctx, extended.Receipt))
	require.Zero(t, total(t, q))
}

func TestExtendCanShortenALease(t *testing.T) {
	t.Parallel()
	top := openTopic(t, fast(t), engine.TopicSpec{Name: "payments"})
	q := openQueue(t, top, engine.QueueSpec{Name: "a", Visibility: time.Hour})
	require.NoError(t, top.Publish(t.Context(), messages(1)))
	first := receiveOne(t, q, time.Hour)
	require.NoError(t, q.Extend(t.Context(), first.Receipt, time.Millisecond))
	require.Equal(t, 2, receiveOne(t, q, 0).Deliveries)
}

func TestAReturnedMessageComesBackAfterItsWaitWithItsState(t *testing.T) {
	t.Parallel()
	e := fast(t)
	top := openTopic(t, e, engine.TopicSpec{Name: "payments"})
	q := openQueue(t, top, engine.QueueSpec{Name: "a"})
	ctx := t.Context()
	require.NoError(t, top.Publish(ctx, messages(1)))

	r := receiveOne(t, q, 0)
	require.Nil(t, r.State)
	require.NoError(t, q.Return(ctx, r.Receipt, 0, []byte("one")))
	r = receiveOne(t, q, 0)
	require.Equal(t, "one", string(r.State))

	before := time.Now()
	require.NoError(t, q.Return(ctx, r.Receipt, 300*time.Millisecond, []byte("two")))
	r = receiveOne(t, q, 0)
	require.GreaterOrEqual(t, time.Since(before), 300*time.Millisecond)
	require.Equal(t, "two", string(r.State))
	require.Equal(t, 3, r.Deliveries)

	require.NoError(t, q.Ack(ctx, r.Receipt))
	requireRecords(t, e, 0)
}

func TestADelayHoldsAMessageBackAndIsNoDelivery(t *testing.T) {
	t.Parallel()
	e := fast(t)
	top := openTopic(t, e, engine.TopicSpec{Name: "payments"})
	plain := openQueue(t, top, engine.QueueSpec{Name: "plain"})
	slow := openQueue(t, top, engine.QueueSpec{Name: "slow", Delay: 600 * time.Millisecond})
	ctx := t.Context()
	ms := messages(2)
	ms[0].Delay = 300 * time.Millisecond
	before := time.Now()
	require.NoError(t, top.Publish(ctx, ms))

	first := receiveOne(t, plain, 0)
	require.Equal(t, "body-1", string(first.Body), "the one without a delay overtakes")
	second := receiveOne(t, plain, 0)
	require.GreaterOrEqual(t, time.Since(before), 300*time.Millisecond)
	require.Equal(t, 1, second.Deliveries)
	require.NoError(t, plain.Return(ctx, second.Receipt, 0, nil))
	require.Equal(t, 2, receiveOne(t, plain, 0).Deliveries)

	require.Equal(t, "body-0", string(receiveOne(t, slow, 0).Body), "its own delay counts")
	r := receiveOne(t, slow, 0)
	require.Equal(t, "body-1", string(r.Body))
	require.GreaterOrEqual(t, time.Since(before), 600*time.Millisecond)
}

// TestADeliveryOfAMessageThatWasDueCounts: only one that came too early was to look.
func TestADeliveryOfAMessageThatWasDueCounts(t *testing.T) {
	t.Parallel()
	e := fast(t)
	top := openTopic(t, e, engine.TopicSpec{Name: "payments"})
	q := openQueue(t, top, engine.QueueSpec{Name: "a"})
	ctx := t.Context()
	publish := func() {
		ms := messages(1)
		ms[0].Delay = 20 * time.Millisecond
		require.NoError(t, top.Publish(ctx, ms))
		time.Sleep(30 * time.Millisecond) // nobody looks until it is due
	}
	publish()
	require.Equal(t, 1, receiveOne(t, q, 200*time.Millisecond).Deliveries)
	r := receiveOne(t, q, 0) // the lease has ended without a word
	require.Equal(t, 2, r.Deliveries)
	require.NoError(t, q.Return(ctx, r.Receipt, 0, []byte("state")))
	r = receiveOne(t, q, 0)
	require.Equal(t, 3, r.Deliveries)
	require.Equal(t, "state", string(r.State))
	require.NoError(t, q.Ack(ctx, r.Receipt))
	requireRecords(t, e, 0)

	publish()
	r = receiveOne(t, q, 0)
	require.NoError(t, q.Return(ctx, r.Receipt, 0, nil))
	r = receiveOne(t, q, 0)
	require.Equal(t, 2, r.Deliveries)
	require.NoError(t, q.Ack(ctx, r.Receipt))

	publish()
	require.NoError(t, q.Ack(ctx, receiveOne(t, q, 0).Receipt))
	requireRecords(t, e, 0)
}

func TestADeadLetterIsRedrivenToItsQueueOnly(t *testing.T) {
	t.Parallel()
	e := fast(t)
	top := openTopic(t, e, engine.TopicSpec{Name: "payments"})
	a, b := openQueue(t, top, engine.QueueSpec{Name: "a"}), openQueue(t, top, engine.QueueSpec{Name: "b"})
	ctx := t.Context()
	ms := messages(1)
	ms[0].Delay = time.Millisecond
	ms[0].Attributes = map[string]string{"region": "eu"}
	require.NoError(t, top.Publish(ctx, ms))
	require.NoError(t, b.Ack(ctx, receiveOne(t, b, 0).Receipt))

	r := receiveOne(t, a, 0)
	require.NoError(t, a.Return(ctx, r.Receipt, 0, []byte("x")))
	r = receiveOne(t, a, 0)
	letter := r.Message
	letter.State = []byte(strings.Repeat("a long history ", 10_000))
	require.NoError(t, a.DeadLetter(ctx, r.Receipt, letter))
	require.Zero(t, total(t, a))
	requireRecords(t, e, 0)

	dead := a.DeadLetters()
	require.Nil(t, dead.DeadLetters())
	require.Zero(t, total(t, b.DeadLetters()))
	r = receiveOne(t, dead, 0)
	require.Equal(t, letter.State, r.State)
	require.Equal(t, letter.Body, r.Body)
	require.Equal(t, letter.Attributes, r.Attributes)
	require.Error(t, dead.DeadLetter(ctx, r.Receipt, r.Message))
	require.Error(t, a.Redrive(ctx, r.Receipt, r.Message))
	require.Error(t, a.Ack(ctx, r.Receipt), "a receipt of another queue")

	require.NoError(t, dead.Return(ctx, r.Receipt, 0, []byte("y")))
	r = receiveOne(t, dead, 0)
	require.Equal(t, "y", string(r.State))
	back := r.Message
	back.State = []byte("fresh")
	back.Delay = time.Hour
	require.NoError(t, dead.Redrive(ctx, r.Receipt, back))
	require.Zero(t, total(t, dead))
	requireRecords(t, e, 0)

	r = receiveOne(t, a, 0)
	require.Equal(t, "fresh", string(r.State))
	require.Equal(t, 1, r.Deliveries)
	requireEmpty(t, b)
	require.NoError(t, a.DeadLetter(ctx, r.Receipt, r.Message), "a second death is not a duplicate of the first")
	requireTotal(t, 1, dead)
}

func TestABatchIsPublishedAsAWholeOrNotAtAll(t *testing.T) {
	t.Parallel()
	e := fast(t)
	top := openTopic(t, e, engine.TopicSpec{Name: "payments"})
	q := openQueue(t, top, engine.QueueSpec{Name: "a"})
	ctx := t.Context()
	ms := messages(1000)
	require.NoError(t, top.Publish(ctx, ms))
	rs := receive(t, q, 1000, 0)
	for k, r := range rs {
		require.Equal(t, ms[k].ID, r.ID)
	}
	require.ErrorIs(t, top.Publish(ctx, messages(1001)), engine.ErrTooLarge)
	ms = messages(3)
	ms[2].Body = make([]byte, 8<<20)
	require.ErrorIs(t, top.Publish(ctx, ms), engine.ErrTooLarge)
	ms[2].Body, ms[2].Attributes = nil, map[string]string{"k": strings.Repeat("v", 1<<16)}
	require.ErrorIs(t, top.Publish(ctx, ms), engine.ErrTooLarge)
	requireEmpty(t, q)
	require.NoError(t, top.Publish(ctx, nil))
}

func TestADuplicateIsNotPublishedAgain(t *testing.T) {
	t.Parallel()
	requireNoDuplicates(t, fast(t))
}

func requireNoDuplicates(t *testing.T, e engine.Engine) {
	t.Helper()
	top := openTopic(t, e, engine.TopicSpec{Name: "payments", Deduplication: time.Minute})
	q := openQueue(t, top, engine.QueueSpec{Name: "a"})
	ctx := t.Context()
	ms := messages(6)
	for k := range ms {
		ms[k].DeduplicationID = "dedup-" + ms[k].ID
	}
	require.NoError(t, top.Publish(ctx, ms[1:2]))
	require.NoError(t, top.Publish(ctx, ms[1:2]))
	ms[5].DeduplicationID = ms[4].DeduplicationID
	require.NoError(t, top.Publish(ctx, ms), "a batch with a duplicate of an older one, and one in itself")
	require.NoError(t, top.Publish(ctx, ms), "a batch of duplicates")
	require.Equal(t, []string{"body-1", "body-0", "body-2", "body-3", "body-4"}, bodies(receive(t, q, 5, 0)))
	requireEmpty(t, q)
}

func TestPurgeDropsAllThatAQueueHoldsAndNothingOfOthers(t *testing.T) {
	t.Parallel()
	e := fast(t)
	top := openTopic(t, e, engine.TopicSpec{Name: "payments"})
	a, b := openQueue(t, top, engine.QueueSpec{Name: "a"}), openQueue(t, top, engine.QueueSpec{Name: "b"})
	ctx := t.Context()
	require.NoError(t, top.Publish(ctx, messages(5)))
	rs := receive(t, a, 3, 0)
	require.NoError(t, a.DeadLetter(ctx, rs[0].Receipt, rs[0].Message))
	require.NoError(t, a.Return(ctx, rs[1].Receipt, time.Hour, []byte("state")))

	n, err := a.Purge(ctx)
	require.NoError(t, err)
	require.Equal(t, 4, n)
	require.Zero(t, total(t, a))
	require.ErrorIs(t, a.Ack(ctx, rs[2].Receipt), engine.ErrStale)
	requireRecords(t, e, 0)
	requireEmpty(t, a)

	dead := a.DeadLetters()
	receiveOne(t, dead, 0)
	n, err = dead.Purge(ctx)
	require.NoError(t, err)
	require.Equal(t, 1, n)
	require.Zero(t, total(t, dead))

	require.NoError(t, top.Publish(ctx, messages(6)[5:]))
	require.Equal(t, []string{"body-5"}, bodies(receive(t, a, 1, 0)))
	require.Len(t, receive(t, b, 6, 0), 6)
}

func TestReceiveEndsWithItsContextAndLeavesNothingBehind(t *testing.T) {
	t.Parallel()
	top := openTopic(t, fast(t), engine.TopicSpec{Name: "payments"})
	q := openQueue(t, top, engine.QueueSpec{Name: "a", Visibility: time.Hour})
	for k := range 20 {
		ctx, cancel := context.WithCancelCause(t.Context())
		ended := make(chan error, 1)
		go func() { _, err := q.Receive(ctx, 5, 0); ended <- err }()
		if k%2 == 0 {
			time.Sleep(5 * time.Millisecond) // half of them are asleep by now, or not
		}
		cancel(errors.New("enough"))
		require.ErrorIs(t, <-ended, context.Canceled)
		// A message that came to a Receive that has gone would stay away for an hour.
		require.NoError(t, top.Publish(t.Context(), messages(1)))
		r := receiveOne(t, q, 0)
		require.Equal(t, 1, r.Deliveries)
		require.NoError(t, q.Ack(t.Context(), r.Receipt))
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	_, err := q.Receive(ctx, 1, 0)
	require.ErrorIs(t, err, context.Canceled)
}

func TestCloseEndsWhatWaits(t *testing.T) {
	t.Parallel()
	top := openTopic(t, fast(t), engine.TopicSpec{Name: "payments"})
	q := openQueue(t, top, engine.QueueSpec{Name: "a"})
	ended := make(chan error, 4)
	for range cap(ended) / 2 {
		go func() { _, err := q.Receive(context.Background(), 1, 0); ended <- err }()
		go func() { _, err := q.DeadLetters().Receive(context.Background(), 1, 0); ended <- err }()
	}
	time.Sleep(20 * time.Millisecond) // most of them wait by now; those that don't are refused
	require.NoError(t, q.Close())
	for range cap(ended) {
		require.ErrorIs(t, <-ended, engine.ErrClosed)
	}
	require.NoError(t, q.Close())
	_, err := q.Receive(t.Context(), 1, 0)
	require.ErrorIs(t, err, engine.ErrClosed)
	_, err = q.Stats(t.Context())
	require.ErrorIs(t, err, engine.ErrClosed)
	_, err = q.Purge(t.Context())
	require.ErrorIs(t, err, engine.ErrClosed)
	require.NoError(t, top.Close())
	require.ErrorIs(t, top.Publish(t.Context(), messages(1)), engine.ErrClosed)
	_, err = top.OpenQueue(t.Context(), engine.QueueSpec{Name: "b"})
	require.ErrorIs(t, err, engine.ErrClosed)
}

// Each message is published while the Receive that waits for it is cancelled.
func TestNoMessageIsLeasedToAReceiveThatHasGone(t *testing.T) {
	t.Parallel()
	top := openTopic(t, fast(t), engine.TopicSpec{Name: "payments"})
	q := openQueue(t, top, engine.QueueSpec{Name: "a", Visibility: time.Hour})
	late := 0
	for range 300 {
		ctx, cancel := context.WithCancel(t.Context())
		got := make(chan []engine.Received, 1)
		go func() {
			rs, err := q.Receive(ctx, 5, 0)
			if err != nil && !errors.Is(err, context.Canceled) {
				t.Error(err)
			}
			got <- rs
		}()
		published := make(chan error, 1)
		go func() { published <- top.Publish(t.Context(), messages(1)) }()
		time.Sleep(time.Duration(rand.IntN(300)) * time.Microsecond) // any instant will do
		cancel()
		require.NoError(t, <-published)
		rs := <-got
		if len(rs) == 0 {
			late++
			rs = receive(t, q, 1, 0)
		}
		require.NoError(t, q.Ack(t.Context(), rs[0].Receipt))
	}
	t.Logf("%d of 300 were cancelled first", late)
}
