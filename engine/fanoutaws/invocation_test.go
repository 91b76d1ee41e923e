package fanoutaws

import (
	"context"
	"encoding/json"
	"fmt"
	"maps"
	"os"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/gofanout/fanout/engine"
)

func event(t testing.TB, file string) (e SQSEvent) {
	t.Helper()
	b, err := os.ReadFile("testdata/" + file)
	require.NoError(t, err)
	require.NoError(t, json.Unmarshal(b, &e))
	return e
}

// numbered makes an event of n messages, id1 to idn, each like the first of e.
func numbered(e SQSEvent, n int) SQSEvent {
	var all SQSEvent
	for k := range n {
		r := e.Records[0]
		r.MessageID, r.ReceiptHandle = fmt.Sprint("id", k+1), fmt.Sprint("handle", k+1)
		r.Attributes = maps.Clone(r.Attributes)
		all.Records = append(all.Records, r)
	}
	return all
}

// sqsFake answers for the queues of events. Entries of batches are counted by
// what is done with which handle.
type sqsFake struct {
	fake
	redrive bool
	fail    string // an operation that is refused
	done    map[string][]string
}

func newSQSFake() *sqsFake {
	f := &sqsFake{redrive: true, done: map[string][]string{}}
	f.answer = func(op string, in map[string]any) (int, string) {
		f.mu.Lock()
		defer f.mu.Unlock()
		if op == f.fail {
			return 403, `{"__type":"AccessDenied","message":"not you"}`
		}
		switch op {
		case "GetQueueUrl":
			return 200, fmt.Sprintf(`{"QueueUrl":"http://aws.invalid/%s"}`, in["QueueName"])
		case "GetQueueAttributes":
			name := strings.TrimPrefix(in["QueueUrl"].(string), "http://aws.invalid/")
			arn := "arn:aws:sqs:us-east-2:123456789012:" + name
			if strings.HasPrefix(name, "dead-") || !f.redrive {
				return 200, fmt.Sprintf(`{"Attributes":{"QueueArn":%q,"DelaySeconds":"0"}}`, arn)
			}
			r, _ := json.Marshal(newRedrive("arn:aws:sqs:us-east-2:123456789012:dead-" + name))
			return 200, fmt.Sprintf(`{"Attributes":{"QueueArn":%q,"DelaySeconds":"0","RedrivePolicy":%s}}`, arn, r)
		}
		var ids []string
		for _, e := range in["Entries"].([]any) {
			e := e.(map[string]any)
			what, settles := e["ReceiptHandle"].(string)
			if !settles { // it is sent
				what = in["QueueUrl"].(string)
			}
			if v, ok := e["VisibilityTimeout"]; ok {
				what += fmt.Sprintf(" %vs", v)
			}
			f.done[op] = append(f.done[op], what)
			ids = append(ids, fmt.Sprintf(`{"Id":%q}`, e["Id"]))
		}
		return 200, `{"Successful":[` + strings.Join(ids, ",") + `],"Failed":[]}`
	}
	return f
}

// work settles an event as fanout would: by what handle returns, with workers
// at once.
func work(ctx context.Context, i *invocation, most int, handle func(engine.Received) string) {
	for {
		rs, err := i.Receive(ctx, most, time.Minute)
		if err != nil {
			return
		}
		for _, r := range rs {
			switch handle(r) {
			case "ack":
				_ = i.Ack(ctx, r.Receipt)
			case "return":
				_ = i.Return(ctx, r.Receipt, 7*time.Second, nil)
			case "dead":
				_ = i.DeadLetter(ctx, r.Receipt, r.Message)
			}
		}
	}
}

func invoke(t *testing.T, f *sqsFake, e SQSEvent, handle func(engine.Received) string) SQSResponse {
	t.Helper()
	s := source{e: fakeEngine(t, &f.fake)}
	q, err := s.of(t.Context(), e.Records[0].EventSourceARN)
	require.NoError(t, err)
	defer q.Close()
	i := newInvocation(q, e.Records)
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan struct{})
	go func() { work(ctx, i, 3, handle); close(ended) }()
	<-i.finished
	cancel()
	<-ended
	return i.end()
}

func failures(r SQSResponse) (ids []string) {
	for _, f := range r.BatchItemFailures {
		ids = append(ids, f.ItemIdentifier)
	}
	return ids
}

func TestTheDocumentedEventIsRead(t *testing.T) {
	f := newSQSFake()
	var got []engine.Received
	r := invoke(t, f, event(t, "standard.json"), func(r engine.Received) string { got = append(got, r); return "ack" })
	require.Len(t, got, 2)
	require.Equal(t, "Test message.", string(got[0].Body))
	require.Equal(t, "059f36b4-87a3-44ab-83d2-661975830a7d", got[0].ID)
	require.Equal(t, map[string]string{"myAttribute": "myValue"}, got[0].Attributes)
	require.Equal(t, time.UnixMilli(1545082649183).UTC(), got[0].PublishedAt)
	require.Equal(t, 1, got[0].Deliveries)
	b, err := json.Marshal(r)
	require.NoError(t, err)
	require.JSONEq(t, `{"batchItemFailures":[]}`, string(b))
	require.Empty(t, f.done, "Lambda deletes")
}

func TestPartOfABatchFails(t *testing.T) {
	f := newSQSFake()
	r := invoke(t, f, numbered(event(t, "standard.json"), 5), func(r engine.Received) string {
		switch r.ID {
		case "id2", "id4":
			return "return"
		case "id5":
			return "dead"
		}
		return "ack"
	})
	b, err := json.Marshal(r)
	require.NoError(t, err)
	require.JSONEq(t, `{"batchItemFailures":[{"itemIdentifier":"id2"},{"itemIdentifier":"id4"}]}`, string(b))
	slices.Sort(f.done["ChangeMessageVisibilityBatch"])
	require.Equal(t, map[string][]string{
		"ChangeMessageVisibilityBatch": {"handle2 7s", "handle4 7s"},
		"SendMessageBatch":             {"http://aws.invalid/dead-my-queue"},
		"DeleteMessageBatch":           {"handle5"},
	}, f.done)
}

func TestAFIFOEventStopsAtItsFirstFailure(t *testing.T) {
	f := newSQSFake()
	var seen []string
	r := invoke(t, f, numbered(event(t, "fifo.json"), 5), func(r engine.Received) string {
		seen = append(seen, r.ID)
		if r.ID == "id3" {
			return "return"
		}
		return "ack"
	})
	require.Equal(t, []string{"id1", "id2", "id3"}, seen, "in order, and no further")
	require.Equal(t, []string{"id3", "id4", "id5"}, failures(r))

	// A dead letter is no failure: its key goes on.
	seen = nil
	r = invoke(t, newSQSFake(), numbered(event(t, "fifo.json"), 3), func(r engine.Received) string {
		if seen = append(seen, r.ID); r.ID == "id2" {
			return "dead"
		}
		return "ack"
	})
	require.Equal(t, []string{"id1", "id2", "id3"}, seen)
	require.Empty(t, failures(r))
}

func TestWhatCannotBeSettledIsAFailure(t *testing.T) {
	for _, f := range []*sqsFake{{fail: "ChangeMessageVisibilityBatch"}, {fail: "SendMessageBatch"}, {fail: ""}} {
		fails := newSQSFake()
		fails.fail = f.fail
		fails.redrive = f.fail != ""
		r := invoke(t, fails, numbered(event(t, "standard.json"), 2), func(r engine.Received) string {
			switch {
			case r.ID == "id1":
				return "ack"
			case f.fail == "ChangeMessageVisibilityBatch":
				return "return"
			}
			return "dead"
		})
		require.Equal(t, []string{"id2"}, failures(r), f.fail)
	}
}

func TestAMessageThatIsNotDueComesLater(t *testing.T) {
	f := newSQSFake()
	e := numbered(event(t, "standard.json"), 2)
	value := `{"id":"mine","at":"2026-01-02T03:04:05Z","delay":60000000000}`
	now := fmt.Sprint(time.Now().Add(-10 * time.Second).UnixMilli())
	e.Records[1].MessageAttributes = map[string]SQSAttribute{packName: {StringValue: &value, DataType: "String"}}
	e.Records[1].Attributes["SentTimestamp"] = now
	r := invoke(t, f, e, func(r engine.Received) string { require.Equal(t, "id1", r.ID); return "ack" })
	require.Equal(t, []string{"id2"}, failures(r))
	require.Len(t, f.done["ChangeMessageVisibilityBatch"], 1)
	require.Contains(t, []string{"handle2 49s", "handle2 50s"}, f.done["ChangeMessageVisibilityBatch"][0])
}

func TestTheEndOfTimeLeavesRoomForTheAnswer(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		for whole, left := range map[time.Duration]time.Duration{time.Minute: 59 * time.Second, 5 * time.Second: 4500 * time.Millisecond} {
			ctx, cancel := context.WithTimeout(t.Context(), whole)
			short, cancelShort := closeToEnd(ctx)
			deadline, ok := short.Deadline()
			require.True(t, ok)
			require.Equal(t, left, time.Until(deadline))
			cancelShort()
			cancel()
		}
	})
}

func TestAFIFOEventGivesOutOneMessageAtATime(t *testing.T) {
	q := fakeQueueOf(t, &newSQSFake().fake)
	q.fifo = true
	i := newInvocation(q, numbered(event(t, "fifo.json"), 3).Records)
	for k := range 3 {
		ks, err := i.take(10)
		require.NoError(t, err)
		require.Equal(t, []int{k}, ks)
		ks, err = i.take(10)
		require.NoError(t, err)
		require.Empty(t, ks, "one is out")
		r, _ := i.read(k)
		require.NoError(t, i.Ack(t.Context(), r.Receipt))
	}
	require.Empty(t, i.end().BatchItemFailures)
}
