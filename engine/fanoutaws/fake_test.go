package fanoutaws

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/url"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	sqstypes "github.com/aws/aws-sdk-go-v2/service/sqs/types"
	"github.com/stretchr/testify/require"

	"github.com/gofanout/fanout/engine"
)

// A fake answers requests without a server: of SQS in JSON, of SNS in XML.
type fake struct {
	answer func(op string, in map[string]any) (status int, body string)

	mu    sync.Mutex // guards the fields below
	calls []string
	ins   []map[string]any
}

func (f *fake) Do(r *http.Request) (*http.Response, error) {
	if err := r.Context().Err(); err != nil {
		return nil, err
	}
	body, _ := io.ReadAll(r.Body)
	op := strings.TrimPrefix(r.Header.Get("X-Amz-Target"), "AmazonSQS.")
	in := map[string]any{}
	kind := "application/x-amz-json-1.0"
	if op != "" {
		_ = json.Unmarshal(body, &in)
	} else {
		form, _ := url.ParseQuery(string(body))
		for key := range form {
			in[key] = form.Get(key)
		}
		op, kind = form.Get("Action"), "text/xml"
	}
	f.mu.Lock()
	f.calls, f.ins = append(f.calls, op), append(f.ins, in)
	f.mu.Unlock()
	status, out := f.answer(op, in)
	return &http.Response{StatusCode: status, Header: http.Header{"Content-Type": {kind}},
		Body: io.NopCloser(bytes.NewBufferString(out)), Request: r}, nil
}

func (f *fake) count(op string) (n int) {
	f.mu.Lock()
	defer f.mu.Unlock()
	for _, c := range f.calls {
		if c == op {
			n++
		}
	}
	return n
}

const (
	fakeTopic = "arn:aws:sns:us-east-1:123456789012:payments"
	fakeQueue = "arn:aws:sqs:us-east-1:123456789012:payments-q"
)

func fakeEngine(t testing.TB, f *fake, options ...Option) *Engine {
	t.Helper()
	topics, queues := clientsOf("http://aws.invalid", f)
	e, err := New(topics, queues, options...)
	require.NoError(t, err)
	return e
}

func fakeQueueOf(t testing.TB, f *fake) *queue {
	t.Helper()
	e := fakeEngine(t, f)
	q := e.newQueue(place{"http://aws.invalid/q", fakeQueue, map[string]string{"DelaySeconds": "0"}}, false, time.Minute)
	q.dead = e.newQueue(place{"http://aws.invalid/dlq", fakeQueue + "-dlq", map[string]string{"DelaySeconds": "0"}}, false, time.Minute)
	q.dead.source = q
	t.Cleanup(func() { _ = q.Close() })
	return q
}

func lease(handle string) *receipt {
	r := &receipt{handle: handle, messageID: "id-" + handle, received: time.Now()}
	r.ends.Store(int64(time.Minute))
	return r
}

// publishAnswer makes SNS's answer, with an error for the IDs given.
func publishAnswer(in map[string]any, failed map[string]string) string {
	var good, bad strings.Builder
	for k := 1; ; k++ {
		id, ok := in[fmt.Sprintf("PublishBatchRequestEntries.member.%d.Id", k)].(string)
		switch code := failed[id]; {
		case !ok:
			return `<PublishBatchResponse><PublishBatchResult><Successful>` + good.String() + `</Successful><Failed>` + bad.String() +
				`</Failed></PublishBatchResult></PublishBatchResponse>`
		case code == "silence":
		case code != "":
			fmt.Fprintf(&bad, "<member><Id>%s</Id><Code>%s</Code><Message>so it is</Message><SenderFault>false</SenderFault></member>", id, code)
		default:
			fmt.Fprintf(&good, "<member><Id>%s</Id><MessageId>m</MessageId></member>", id)
		}
	}
}

func many(n int) (ms []engine.Message) {
	for k := range n {
		ms = append(ms, message(fmt.Sprint("m", k), "1"))
	}
	return ms
}

func TestPartialFailuresAreReportedItemByItem(t *testing.T) {
	f := &fake{answer: func(_ string, in map[string]any) (int, string) {
		return 200, publishAnswer(in, map[string]string{"3": "Throttled", "12": "InternalError", "14": "silence"})
	}}
	top := &topic{e: fakeEngine(t, f), name: "payments", arn: fakeTopic, size: snsDefault}
	err := top.Publish(t.Context(), many(25))
	var partial *engine.PartialError
	require.ErrorAs(t, err, &partial)
	require.Len(t, partial.Failed, 3)
	require.ErrorContains(t, partial.Failed[3], "Throttled: so it is")
	require.ErrorContains(t, partial.Failed[12], "InternalError")
	require.ErrorIs(t, partial.Failed[14], errNoAnswer)
	require.Equal(t, 3, f.count("PublishBatch"), "the rest was published")

	// In order nothing may overtake what failed.
	f.calls = nil
	top.fifo = true
	err = top.Publish(t.Context(), many(25))
	require.ErrorAs(t, err, &partial)
	require.Len(t, partial.Failed, 16)
	require.ErrorIs(t, partial.Failed[10], errNotTried)
	require.ErrorIs(t, partial.Failed[24], errNotTried)
	require.Equal(t, 1, f.count("PublishBatch"))
}

func TestARequestThatFailsAsAWhole(t *testing.T) {
	requests := 0
	f := &fake{}
	f.answer = func(_ string, in map[string]any) (int, string) {
		if requests++; requests == 1 {
			return 200, publishAnswer(in, nil)
		}
		return 403, `<ErrorResponse><Error><Type>Sender</Type><Code>AuthorizationError</Code><Message>not you</Message></Error></ErrorResponse>`
	}
	top := &topic{e: fakeEngine(t, f), name: "payments", arn: fakeTopic, size: snsDefault}
	err := top.Publish(t.Context(), many(25))
	var partial *engine.PartialError
	require.ErrorAs(t, err, &partial)
	require.Len(t, partial.Failed, 15)
	require.ErrorContains(t, partial.Failed[10], "not you")
	require.ErrorIs(t, partial.Failed[24], errNotTried)

	err = top.Publish(t.Context(), many(5))
	require.ErrorContains(t, err, "not you")
	require.NotErrorAs(t, err, &partial, "nothing is known to be published")
}

func TestSettlementsWaitForNoneAndShareRequests(t *testing.T) {
	begun, release := make(chan int, 100), make(chan struct{})
	f := &fake{}
	f.answer = func(_ string, in map[string]any) (int, string) {
		entries := in["Entries"].([]any)
		begun <- len(entries)
		<-release
		var done []string
		for _, e := range entries {
			done = append(done, fmt.Sprintf(`{"Id":%q}`, e.(map[string]any)["Id"]))
		}
		return 200, `{"Successful":[` + strings.Join(done, ",") + `],"Failed":[]}`
	}
	q := fakeQueueOf(t, f)
	errs := make(chan error, 100)
	ack := func(k int) { errs <- q.Ack(context.Background(), lease(fmt.Sprint("h", k))) }
	for k := range flushersMost { // each at once, with a request of its own
		go ack(k)
		require.Equal(t, 1, <-begun)
	}
	for k := range 25 {
		go ack(100 + k)
	}
	require.Eventually(t, func() bool { q.deletes.mu.Lock(); defer q.deletes.mu.Unlock(); return len(q.deletes.pending) == 25 }, 10*time.Second, time.Millisecond)
	close(release)
	for range 25 + flushersMost {
		require.NoError(t, <-errs)
	}
	require.Equal(t, flushersMost+3, f.count("DeleteMessageBatch"), "25 in three")
	require.ElementsMatch(t, []int{10, 10, 5}, []int{<-begun, <-begun, <-begun})
}

func TestOneSettlementFailsAndTheOthersDoNot(t *testing.T) {
	for code, stale := range map[string]bool{
		`"Code":"MessageNotInflight"`: true, `"Code":"AWS.SimpleQueueService.MessageNotInflight"`: true,
		`"Code":"InvalidParameterValue","Message":"The receipt handle has expired."`:           true,
		`"Code":"InvalidParameterValue","Message":"Value 43201 for parameter is too much"`:     false,
		`"Code":"InternalError","Message":"The receipt handle has expired."`:                   false,
		`"Code":"ReceiptHandleIsInvalid","Message":"The input receipt handle \"x\" is no one"`: false,
	} {
		f := &fake{answer: func(op string, in map[string]any) (int, string) {
			return 200, `{"Successful":[{"Id":"0"},{"Id":"2"}],"Failed":[{"Id":"1",` + code + `,"SenderFault":true}]}`
		}}
		q := fakeQueueOf(t, f)
		ss := []*settlement{{handle: "a"}, {handle: "b"}, {handle: "c"}, {handle: "d"}}
		for _, send := range []func(context.Context, []*settlement) error{q.deleteBatch, q.changeBatch} {
			err := send(t.Context(), ss)
			errs, ok := err.(entryErrors)
			require.True(t, ok, "%v", err)
			require.Len(t, errs, 2)
			require.ErrorIs(t, errs[ss[3]], errNoAnswer)
			require.Equal(t, stale, isStale(q.wrap("ack", errs[ss[1]])), code)
		}
	}
}

func isStale(err error) bool { return strings.Contains(err.Error(), engine.ErrStale.Error()) }

func TestAZeroIsSentWhereItMustBe(t *testing.T) {
	f := &fake{answer: func(string, map[string]any) (int, string) { return 200, `{"Successful":[{"Id":"0"}]}` }}
	q := fakeQueueOf(t, f)
	require.NoError(t, q.Return(t.Context(), lease("a"), 0, nil))
	entry := f.ins[0]["Entries"].([]any)[0].(map[string]any)
	require.Equal(t, float64(0), entry["VisibilityTimeout"])
	r := lease("b")
	r.received = time.Now().Add(-11 * time.Hour)
	r.ends.Store(int64(12 * time.Hour))
	require.NoError(t, q.Return(t.Context(), r, 3*time.Hour, nil))
	entry = f.ins[1]["Entries"].([]any)[0].(map[string]any)
	require.InDelta(t, 3598, entry["VisibilityTimeout"], 60, "cut to what SQS takes")
	require.ErrorIs(t, q.Ack(t.Context(), r), engine.ErrStale)
}

func TestALetterIsSentBeforeItsMessageIsDeleted(t *testing.T) {
	fail := "SendMessageBatch"
	f := &fake{}
	f.answer = func(op string, _ map[string]any) (int, string) {
		switch {
		case op == fail:
			return 400, `{"__type":"com.amazonaws.sqs#KmsAccessDenied","message":"no key"}`
		}
		return 200, `{"Successful":[{"Id":"0"}]}`
	}
	q := fakeQueueOf(t, f)
	for _, move := range []struct {
		from *queue
		do   func(context.Context, engine.Receipt, engine.Message) error
		to   string
	}{{q, q.DeadLetter, q.dead.place.url}, {q.dead, q.dead.Redrive, q.place.url}} {
		f.calls, f.ins, fail = nil, nil, "SendMessageBatch"
		r := lease("a")
		require.ErrorContains(t, move.do(t.Context(), r, message("a", "1")), "no key")
		require.Equal(t, []string{"SendMessageBatch"}, f.calls, "not deleted")
		fail = "DeleteMessageBatch"
		require.ErrorContains(t, move.do(t.Context(), r, message("a", "1")), "in both")
		fail = ""
		require.NoError(t, move.do(t.Context(), r, message("a", "1")))
		require.Equal(t, []string{"SendMessageBatch", "SendMessageBatch", "DeleteMessageBatch", "SendMessageBatch", "DeleteMessageBatch"}, f.calls)
		require.Equal(t, move.to, f.ins[3]["QueueUrl"])
		require.Equal(t, move.from.place.url, f.ins[4]["QueueUrl"])
	}

	// What is too large is refused before anything is sent: fanout shortens it.
	f.calls, f.ins = nil, nil
	m := message("a", strings.Repeat("x", 200<<10))
	m.State = make([]byte, 900<<10)
	require.ErrorIs(t, q.DeadLetter(t.Context(), lease("b"), m), engine.ErrTooLarge)
	require.Empty(t, f.calls)
	m.State = make([]byte, 100<<10)
	require.NoError(t, q.DeadLetter(t.Context(), lease("c"), m))
	require.Contains(t, fmt.Sprint(f.ins[0]["Entries"]), "state")
}

// TestLettersThatMeetGoInOneRequest: ten at a time, or fewer if they are large.
func TestLettersThatMeetGoInOneRequest(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var requests []int
		var mu sync.Mutex
		f := &fake{answer: func(op string, in map[string]any) (int, string) {
			time.Sleep(100 * time.Millisecond) // virtual: the others meet meanwhile
			var good, bad []string
			entries := in["Entries"].([]any)
			for _, e := range entries {
				id := e.(map[string]any)["Id"].(string)
				if body, _ := e.(map[string]any)["MessageBody"].(string); strings.Contains(body, "refused") {
					bad = append(bad, fmt.Sprintf(`{"Id":%q,"Code":"InternalError","Message":"so it is","SenderFault":false}`, id))
				} else {
					good = append(good, fmt.Sprintf(`{"Id":%q}`, id))
				}
			}
			mu.Lock()
			defer mu.Unlock()
			if op == "SendMessageBatch" {
				requests = append(requests, len(entries))
			}
			return 200, `{"Successful":[` + strings.Join(good, ",") + `],"Failed":[` + strings.Join(bad, ",") + `]}`
		}}
		q := fakeQueueOf(t, f)
		redrive := func(n int, body string) (failed int) {
			requests = nil
			errs := make([]error, n)
			var wg sync.WaitGroup
			for k := range n {
				m := message(fmt.Sprint(k), body)
				if k == 5 {
					m.Body = []byte("refused")
				}
				wg.Go(func() { errs[k] = q.dead.Redrive(t.Context(), lease(fmt.Sprint(k)), m) })
			}
			wg.Wait()
			for k, err := range errs {
				if err != nil {
					require.Equal(t, 5, k)
					require.ErrorContains(t, err, "so it is")
					failed++
				}
			}
			return failed
		}
		require.Equal(t, 1, redrive(64, "1"), "the others of its request are sent")
		require.LessOrEqual(t, len(requests), 9, "%v", requests)
		require.Equal(t, 64, sum(requests))
		require.Equal(t, 1, redrive(24, strings.Repeat("x", 400<<10)), "400 KiB each")
		require.Equal(t, 24, sum(requests))
		for _, n := range requests {
			require.LessOrEqual(t, n, 3, "two of them, and the small one")
		}
	})
}

func sum(ns []int) (all int) {
	for _, n := range ns {
		all += n
	}
	return all
}

func TestARedriveTaskNamesWhereToMoveTo(t *testing.T) {
	f := &fake{answer: func(op string, in map[string]any) (int, string) {
		switch op {
		case "GetQueueUrl":
			return 200, fmt.Sprintf(`{"QueueUrl":"http://aws.invalid/%s"}`, in["QueueName"])
		case "GetQueueAttributes":
			name := strings.TrimPrefix(in["QueueUrl"].(string), "http://aws.invalid/")
			return 200, fmt.Sprintf(`{"Attributes":{"QueueArn":"arn:aws:sqs:us-east-1:123456789012:%s"}}`, name)
		}
		return 200, `{"TaskHandle":"h"}`
	}}
	e := fakeEngine(t, f)
	task, err := e.StartRedrive(t.Context(), "payments", "q", false, 50)
	require.NoError(t, err)
	require.Equal(t, RedriveTask{Handle: "h", From: fakeQueue + "-dlq", To: fakeQueue}, task)
	require.Equal(t, map[string]any{"SourceArn": fakeQueue + "-dlq", "DestinationArn": fakeQueue, "MaxNumberOfMessagesPerSecond": float64(50)}, f.ins[len(f.ins)-1])
	_, err = e.StartRedrive(t.Context(), "payments", "q", false, 501)
	require.ErrorContains(t, err, "501")
}

func TestALargerMessageSizeIsSetOrDemanded(t *testing.T) {
	have := ""
	f := &fake{}
	f.answer = func(op string, in map[string]any) (int, string) {
		switch op {
		case "GetTopicAttributes":
			return 200, `<GetTopicAttributesResponse><GetTopicAttributesResult><Attributes>` + have + `</Attributes></GetTopicAttributesResult></GetTopicAttributesResponse>`
		case "ListTopics":
			return 200, `<ListTopicsResponse><ListTopicsResult><Topics><member><TopicArn>` + fakeTopic + `</TopicArn></member></Topics></ListTopicsResult></ListTopicsResponse>`
		case "CreateTopic":
			return 200, `<CreateTopicResponse><CreateTopicResult><TopicArn>` + fakeTopic + `</TopicArn></CreateTopicResult></CreateTopicResponse>`
		}
		return 200, `<SetTopicAttributesResponse/>`
	}
	e := fakeEngine(t, f, WithMaxMessageSize(1<<20))
	_, err := e.OpenTopic(t.Context(), engine.TopicSpec{Name: "payments"})
	require.NoError(t, err)
	require.Equal(t, 1, f.count("SetTopicAttributes"))
	require.Equal(t, "1048576", f.ins[len(f.ins)-1]["AttributeValue"])
	have = `<entry><key>MaximumMessageSize</key><value>1048576</value></entry>`
	_, err = e.OpenTopic(t.Context(), engine.TopicSpec{Name: "payments"})
	require.NoError(t, err)
	require.Equal(t, 1, f.count("SetTopicAttributes"))
	have = `<entry><key>MaximumMessageSize</key><value>2000</value></entry>`
	_, err = fakeEngine(t, f, WithMaxMessageSize(1<<20), WithExisting()).OpenTopic(t.Context(), engine.TopicSpec{Name: "payments"})
	require.ErrorIs(t, err, engine.ErrMismatch)
	require.ErrorContains(t, err, "2000")
}

func TestARequestEndsAfterTenMessagesOrBeforeItIsTooLarge(t *testing.T) {
	sized := func(sizes ...int) (ws []wire) {
		for _, n := range sizes {
			ws = append(ws, wire{body: strings.Repeat("x", n)})
		}
		return ws
	}
	for _, c := range []struct {
		ws         []wire
		first, end int
	}{
		{sized(1, 1, 1), 0, 3},
		{sized(1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1), 0, 10},
		{sized(1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1), 10, 12},
		{sized(50, 50, 1), 0, 2},
		{sized(50, 51, 1), 0, 1},
		{sized(50, 51, 1), 1, 3},
		{sized(100, 1), 0, 1},
	} {
		require.Equal(t, c.end, chunk(c.ws, c.first, 100), c)
	}
	w := wire{body: "12345", attributes: map[string]attribute{"name": {"String", "value"}}}
	require.Equal(t, 5+4+6+5, w.size())
}

func TestWhatIsRedrivenDoesNotWaitForTheQueuesDelay(t *testing.T) {
	f := newSQSFake()
	e := fakeEngine(t, &f.fake)
	for delay, want := range map[string]any{"0": nil, "600": float64(1)} {
		f.ins = nil
		q := e.newQueue(place{"http://aws.invalid/q", fakeQueue, map[string]string{"DelaySeconds": delay}}, false, time.Minute)
		require.NoError(t, q.put(t.Context(), message("a", "1"), "from"))
		require.Equal(t, want, f.ins[0]["Entries"].([]any)[0].(map[string]any)["DelaySeconds"], "a 0 would not be sent")
		require.NoError(t, q.Close())
	}
}

func TestAMessageThatCannotBeReadIsGivenOutAndLogged(t *testing.T) {
	var log bytes.Buffer
	f := newSQSFake()
	e := fakeEngine(t, &f.fake, WithLogger(slog.New(slog.NewTextHandler(&log, nil))))
	q := e.newQueue(place{"http://aws.invalid/q", fakeQueue, nil}, false, time.Minute)
	defer q.Close()
	for _, packed := range []string{"{", `{"id":"mine","at":"2026-01-02T03:04:05Z","body":"rot13"}`, `{"id":"mine","at":"2026-01-02T03:04:05Z","body":"base64"}`} {
		log.Reset()
		r, wait := q.read(sqstypes.Message{
			MessageId: aws.String("sqs's"), Body: aws.String("no base64!"),
			MessageAttributes: map[string]sqstypes.MessageAttributeValue{packName: {DataType: aws.String("String"), StringValue: &packed}},
		}, time.Now(), 0)
		require.Zero(t, max(0, wait))
		require.NotEmpty(t, r.ID)
		require.Equal(t, "no base64!", string(r.Body))
		require.Equal(t, 1, r.Deliveries)
		require.Contains(t, log.String(), "can't be read")
		require.Contains(t, log.String(), fakeQueue)
	}
}

func TestOnlyWhatWasPublishedWaitsForADelay(t *testing.T) {
	q := fakeQueueOf(t, &newSQSFake().fake)
	now := time.UnixMilli(1545082649183)
	for moved, want := range map[string]time.Duration{"": time.Minute, movedRedriven: 0, movedDead: 0} {
		w, err := encode(engine.Message{ID: "a", Delay: time.Minute}, pack{Moved: moved}, nil, nil)
		require.NoError(t, err)
		m := sqstypes.Message{
			Body: aws.String(w.body), Attributes: map[string]string{"SentTimestamp": "1545082649183"},
			MessageAttributes: map[string]sqstypes.MessageAttributeValue{packName: {StringValue: aws.String(w.attributes[packName].value)}},
		}
		_, wait := q.read(m, now, time.Hour)
		require.Equal(t, want, max(0, wait), moved)
		_, wait = q.dead.read(m, now, 0)
		require.Zero(t, max(0, wait), "a letter")
	}
}
