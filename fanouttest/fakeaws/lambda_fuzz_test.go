package fakeaws

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"math/rand/v2"
	"runtime"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/aws/aws-lambda-go/events"
	"github.com/stretchr/testify/require"
)

// FuzzFunctions has functions get any messages and give any answer. None may
// panic or hang, what a function gets is what was sent, and in the end each
// message was handled or is a dead letter.
func FuzzFunctions(f *testing.F) {
	for _, answer := range []string{"", "null", `{"batchItemFailures":[{"itemIdentifier":"$1"}]}`, `{"batchItemFailures":[{"itemIdentifier":17}]}`, "[", `"x"`, "\xff", "error", "panic", "exit", "late"} {
		f.Add("body", "subject", "name", "value", answer, true)
		f.Add(`{"a":"<\u00e9>"}`, "", "a.b", "\x00\x01", answer, false)
	}
	f.Add("\xfc", "", "a", "b", "null", true)
	f.Fuzz(func(t *testing.T, body, subject, name, value, answer string, fifo bool) {
		synctest.Test(t, func(t *testing.T) {
			a := New(t)
			ctx, cancel := context.WithTimeout(t.Context(), time.Hour)
			defer cancel()
			c := &call{cloud: a.cloud, place: place{DefaultAccount, DefaultRegion}, ctx: ctx}
			queue, dead, attributes := "q", "dead", map[string]string{}
			if fifo {
				queue, dead, attributes = "q.fifo", "dead.fifo", map[string]string{"FifoQueue": "true"}
			}
			_, err := c.createQueue(&createQueueInput{QueueName: &dead, Attributes: attributes})
			require.NoError(t, err)
			attributes["RedrivePolicy"] = fmt.Sprintf(`{"deadLetterTargetArn":%q,"maxReceiveCount":2}`, a.Queue(dead).ARN())
			_, err = c.createQueue(&createQueueInput{QueueName: &queue, Attributes: attributes})
			require.NoError(t, err)
			_, err = c.createTopic(&createTopicInput{Name: ptr("t")})
			require.NoError(t, err)
			bodies := map[string]bool{}
			fn := a.Lambda("f", rawFunction(func(payload []byte) ([]byte, error) {
				var e struct{ Records []json.RawMessage }
				require.NoError(t, json.Unmarshal(payload, &e))
				out := answer
				for k, text := range e.Records {
					var r events.SQSMessage
					var n events.SNSEventRecord
					require.NoError(t, errors.Join(json.Unmarshal(text, &r), json.Unmarshal(text, &n)))
					require.True(t, bodies[r.Body+n.SNS.Message])
					out = strings.ReplaceAll(out, fmt.Sprintf("$%d", k+1), r.MessageId)
				}
				switch answer {
				case "error":
					return nil, errors.New(value)
				case "panic":
					panic(value)
				case "exit":
					runtime.Goexit()
				case "late":
					time.Sleep(time.Minute)
				}
				return []byte(out), nil
			}))
			_, err = a.Queue(queue).Map(fn, WithReportBatchItemFailures())
			require.NoError(t, err)
			subscription := map[string]string{}
			if value != "" {
				subscription["FilterPolicy"] = value
			}
			subscribed := &subscribeInput{TopicArn: ptr(a.Topic("t").ARN()), Protocol: ptr("lambda"), Endpoint: ptr(fn.ARN()), Attributes: subscription}
			if _, err := c.subscribe(subscribed); err != nil {
				subscribed.Attributes = nil
				_, err = c.subscribe(subscribed)
				require.NoError(t, err)
			}
			bodies[body] = true
			published := &publishInput{TopicArn: ptr(a.Topic("t").ARN()), Message: &body, MessageAttributes: map[string]snsAttributeValue{name: {DataType: ptr("String"), StringValue: &value}}}
			if subject != "" {
				published.Subject = &subject
			}
			_, _ = c.publish(published)
			for _, id := range []string{"1", "2"} {
				in := &sendMessageInput{QueueUrl: &queue, MessageBody: &body, MessageAttributes: map[string]attributeValue{name: {DataType: ptr("Binary." + name), BinaryValue: []byte(value)}}}
				if fifo {
					in.MessageGroupId, in.MessageDeduplicationId = ptr("g"), &id
				}
				_, _ = c.sendMessage(in)
			}
			require.NoError(t, a.WaitQuiet(ctx))
			for _, q := range a.cloud.regions[c.place].queues {
				require.NoError(t, checkQueue(q))
			}
		})
	})
}

// rawFunction is a lambda.Handler.
type rawFunction func(payload []byte) ([]byte, error)

func (f rawFunction) Invoke(_ context.Context, payload []byte) ([]byte, error) { return f(payload) }

// TestRandomFunctions has functions with random settings handle random messages,
// and fail at random: each message is handled, and none after it was; in a FIFO
// queue those of a group in their order, by one run at a time.
func TestRandomFunctions(t *testing.T) {
	programs := 300
	if testing.Short() {
		programs = 60
	}
	for seed := range programs {
		synctest.Test(t, func(t *testing.T) { randomFunction(t, rand.New(rand.NewPCG(uint64(seed), 1)), seed) })
	}
}

func randomFunction(t *testing.T, r *rand.Rand, seed int) {
	a := New(quiet{t})
	c := &call{cloud: a.cloud, place: place{DefaultAccount, DefaultRegion}, ctx: t.Context()}
	queue, attributes := "q", map[string]string{"VisibilityTimeout": "20"}
	fifo := r.IntN(2) == 0
	if fifo {
		queue, attributes["FifoQueue"] = "q.fifo", "true"
	}
	_, err := c.createQueue(&createQueueInput{QueueName: &queue, Attributes: attributes})
	require.NoError(t, err)

	var mu sync.Mutex // guards r and the maps below
	handled := map[string]int{}
	order := map[string][]string{} // by group
	running := map[string]int{}    // by group
	do := func(f func()) {
		mu.Lock()
		defer mu.Unlock()
		f()
	}
	random := func(n int) (k int) { do(func() { k = r.IntN(n) }); return k }
	handler := func(e sqsEvent) (map[string]any, error) {
		var takes time.Duration
		var fails bool
		groups := map[string]bool{}
		do(func() {
			takes, fails = time.Duration(r.IntN(4))*time.Second, r.IntN(4) == 0
			for _, m := range e.Records {
				groups[m.Attributes["MessageGroupId"]] = true
			}
			for g := range groups {
				running[g]++
				if fifo && running[g] > 1 {
					t.Errorf("seed %d: two runs of group %s at once", seed, g)
				}
			}
		})
		time.Sleep(takes)
		var items []map[string]string
		do(func() {
			for g := range groups {
				running[g]--
			}
			if fails {
				return
			}
			stopped := map[string]bool{}
			for _, m := range e.Records {
				g := m.Attributes["MessageGroupId"]
				if r.IntN(5) == 0 || fifo && stopped[g] {
					stopped[g] = true
					items = append(items, map[string]string{"itemIdentifier": m.MessageID})
					continue
				}
				handled[m.Body]++
				order[g] = append(order[g], m.Body)
			}
		})
		if fails {
			return nil, errors.New("at random")
		}
		return map[string]any{"batchItemFailures": items}, nil
	}
	functions := []FunctionOption{WithTimeout(4 * time.Second)}
	if r.IntN(3) == 0 {
		functions = append(functions, WithReservedConcurrency(1+r.IntN(3)))
	}
	mappings := []MappingOption{WithReportBatchItemFailures(), WithBatchSize(1 + r.IntN(10)), WithMaximumConcurrency(2 + r.IntN(6))}
	if !fifo && r.IntN(2) == 0 {
		mappings = append(mappings, WithBatchingWindow(time.Duration(r.IntN(10))*time.Second))
	}
	f := a.Lambda("f", handler, functions...)
	_, err = a.Queue(queue).Map(f, mappings...)
	require.NoError(t, err)
	sent := map[string][]string{}
	total := 0
	for range 1 + random(40) {
		for range random(4) {
			g := fmt.Sprint("g", random(3))
			body := fmt.Sprint(g, "-", total)
			total++
			in := &sendMessageInput{QueueUrl: &queue, MessageBody: &body, MessageGroupId: &g}
			if fifo {
				in.MessageDeduplicationId = &body
			} else if random(4) == 0 {
				in.DelaySeconds = ptr(int32(random(30)))
			}
			sent[g] = append(sent[g], body)
			_, err := c.sendMessage(in)
			require.NoError(t, err)
		}
		time.Sleep(time.Duration(random(3000)) * time.Millisecond)
	}
	require.NoError(t, a.WaitQuiet(t.Context()), "seed %d", seed)
	for g, bodies := range sent {
		if fifo {
			require.Equal(t, bodies, order[g], "seed %d, group %s", seed, g)
		}
		require.ElementsMatch(t, bodies, slices.Compact(slices.Sorted(slices.Values(order[g]))), "seed %d, group %s", seed, g)
	}
	if fifo {
		require.Len(t, handled, total)
	}
	require.Zero(t, f.running)
	require.Empty(t, f.waiting)
	for _, m := range a.cloud.regions[c.place].queues[queue].mappings {
		require.Zero(t, m.running)
		require.Nil(t, m.timer)
	}
}

// A mapping with an open batch stops, and so does its timer, with its queue and
// with the fake.
func TestWhatStopsAMapping(t *testing.T) {
	for name, stop := range map[string]func(c *call) error{
		"queue": func(c *call) error { _, err := c.deleteQueue(&queueInput{QueueUrl: ptr("q")}); return err },
		"fake":  func(c *call) error { c.close(); return nil },
	} {
		synctest.Test(t, func(t *testing.T) {
			a := New(t)
			c := &call{cloud: a.cloud, place: place{DefaultAccount, DefaultRegion}, ctx: t.Context()}
			_, err := c.createQueue(&createQueueInput{QueueName: ptr("q")})
			require.NoError(t, err)
			m, err := a.Queue("q").Map(a.Lambda("f", func() {}), WithBatchingWindow(time.Minute))
			require.NoError(t, err)
			_, err = c.sendMessage(&sendMessageInput{QueueUrl: ptr("q"), MessageBody: ptr("m")})
			require.NoError(t, err)
			require.NotNil(t, m.timer)
			require.NoError(t, stop(c))
			require.True(t, m.stopped, name)
			require.Nil(t, m.timer, name)
			require.Nil(t, m.queue.timer, name)
		})
	}
}

// quiet is a test whose log is left out.
type quiet struct{ *testing.T }

func (quiet) Logf(string, ...any) {}
