package fanoutaws

import (
	"strings"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/sns"
	"github.com/aws/aws-sdk-go-v2/service/sqs"
	"github.com/stretchr/testify/require"

	"github.com/gofanout/fanout/engine"
)

func setAttribute(t *testing.T, e *Engine, url, name, value string) {
	t.Helper()
	_, err := e.sqs.SetQueueAttributes(t.Context(), &sqs.SetQueueAttributesInput{QueueUrl: &url, Attributes: map[string]string{name: value}})
	require.NoError(t, err)
}

func createQueue(t *testing.T, e *Engine, name string, attributes map[string]string) place {
	t.Helper()
	_, err := e.sqs.CreateQueue(t.Context(), &sqs.CreateQueueInput{QueueName: &name, Attributes: attributes})
	require.NoError(t, err)
	p, err := e.findPlace(t.Context(), name)
	require.NoError(t, err)
	return p
}

func TestWhatAQueueIsMadeWith(t *testing.T) { onServer(t, testWhatAQueueIsMadeWith) }

func testWhatAQueueIsMadeWith(t *testing.T) {
	e := newEngine(t, WithRetention(time.Hour))
	for _, ordering := range []bool{false, true} {
		top := newTopic(t, e, engine.TopicSpec{Ordering: ordering})
		spec := engine.QueueSpec{Name: "q", Visibility: 1500 * time.Millisecond, MaxAttempts: 5, FilterPolicy: `{"region":["eu"]}`}
		q := openQueue(t, top, spec)
		p, err := e.describe(t.Context(), q.place.url)
		require.NoError(t, err)
		suffix := ""
		if ordering {
			suffix = ".fifo"
			require.Equal(t, "true", p.attributes["FifoQueue"])
		}
		require.True(t, strings.HasSuffix(p.arn, ":"+top.name+"-q"+suffix), p.arn)
		require.True(t, strings.HasSuffix(top.arn, ":"+top.name+suffix), top.arn)
		require.Equal(t, "2", p.attributes["VisibilityTimeout"])
		require.Equal(t, "0", p.attributes["DelaySeconds"])
		require.Equal(t, "3600", p.attributes["MessageRetentionPeriod"])
		r, err := parseRedrive(p.attributes["RedrivePolicy"])
		require.NoError(t, err)
		require.Equal(t, redrive{q.dead.place.arn, 1000}, r)
		require.JSONEq(t, `{"Version":"2012-10-17","Statement":[{"Sid":"FanoutTopicSends","Effect":"Allow",
			"Principal":{"Service":"sns.amazonaws.com"},"Action":"sqs:SendMessage","Resource":"`+p.arn+`",
			"Condition":{"ArnEquals":{"aws:SourceArn":"`+top.arn+`"}}}]}`, p.attributes["Policy"])
		d, err := e.describe(t.Context(), q.dead.place.url)
		require.NoError(t, err)
		require.Equal(t, "1209600", d.attributes["MessageRetentionPeriod"])
		require.True(t, strings.HasSuffix(d.arn, ":"+top.name+"-q-dlq"+suffix), d.arn)
		s := aws.String(subscriptionARN(t, e, top.arn, p.arn))
		out, err := e.sns.GetSubscriptionAttributes(t.Context(), &sns.GetSubscriptionAttributesInput{SubscriptionArn: s})
		require.NoError(t, err)
		require.Equal(t, "true", strings.ToLower(out.Attributes["RawMessageDelivery"]))
		require.JSONEq(t, spec.FilterPolicy, out.Attributes["FilterPolicy"])

		// Again, from here and from elsewhere, provisioning or not: nothing changes.
		for _, e := range []*Engine{e, newEngine(t, WithRetention(time.Hour)), newEngine(t, WithExisting())} {
			again := openQueue(t, newTopic(t, e, engine.TopicSpec{Name: top.name, Ordering: ordering}), spec)
			require.Equal(t, q.place.arn, again.place.arn)
			require.Equal(t, q.dead.place.arn, again.dead.place.arn)
			now, err := e.describe(t.Context(), q.place.url)
			require.NoError(t, err)
			require.Equal(t, p.attributes["Policy"], now.attributes["Policy"])
			require.Equal(t, p.attributes["RedrivePolicy"], now.attributes["RedrivePolicy"])
		}
	}
}

func TestWhatDiffersIsAMismatchWithBothValues(t *testing.T) {
	t.Parallel()
	spec := engine.QueueSpec{Name: "q", Visibility: time.Minute, MaxAttempts: 5, FilterPolicy: `{"region":["eu"]}`}
	for name, c := range map[string]struct {
		change func(t *testing.T, e *Engine, q *queue)
		spec   func(*engine.QueueSpec)
		option Option
		want   []string
	}{
		"filter policy":   {spec: func(s *engine.QueueSpec) { s.FilterPolicy = `{"region":["us"]}` }, want: []string{"FilterPolicy", `{"region":["eu"]}`, `{"region":["us"]}`}},
		"no policy":       {spec: func(s *engine.QueueSpec) { s.FilterPolicy = "" }, want: []string{"FilterPolicy", `{"region":["eu"]}`, "none"}},
		"delay":           {change: func(t *testing.T, e *Engine, q *queue) { setAttribute(t, e, q.place.url, "DelaySeconds", "7") }, want: []string{"DelaySeconds", "7", "0s"}},
		"retention":       {option: WithRetention(time.Hour), want: []string{"MessageRetentionPeriod", "345600", "3600"}},
		"too few":         {spec: func(s *engine.QueueSpec) { s.MaxAttempts = 1001 }, want: []string{"maxReceiveCount", "1000", "1001"}},
		"net of no limit": {spec: func(s *engine.QueueSpec) { s.MaxAttempts = 0 }, want: []string{"maxReceiveCount", "1000", "unlimited"}},
		"other dead-letter queue": {change: func(t *testing.T, e *Engine, q *queue) {
			other := createQueue(t, e, unique(t), nil)
			setAttribute(t, e, q.place.url, "RedrivePolicy", newRedrive(other.arn))
		}, want: []string{"dead-letter queue", "-q-dlq"}},
		"another topic's queue": {change: func(t *testing.T, e *Engine, q *queue) {
			setAttribute(t, e, q.place.url, "Policy", newQueuePolicy(q.place.arn, "arn:aws:sns:us-east-1:123456789012:other"))
		}, want: []string{"policy", ":other", "and should be arn:aws:sns:us-east-1:"}},
	} {
		test := func(t *testing.T) {
			e := newEngine(t)
			top := newTopic(t, e, engine.TopicSpec{})
			q, err := top.OpenQueue(t.Context(), spec)
			require.NoError(t, err)
			require.NoError(t, q.Close())
			if c.change != nil {
				c.change(t, e, q.(*queue))
			}
			s := spec
			if c.spec != nil {
				c.spec(&s)
			}
			o := c.option
			if o == nil {
				o = WithPollTime(time.Second)
			}
			_, err = newTopic(t, newEngine(t, o), engine.TopicSpec{Name: top.name}).OpenQueue(t.Context(), s)
			require.ErrorIs(t, err, engine.ErrMismatch)
			for _, w := range append(c.want, `queue "q"`, top.name) {
				require.ErrorContains(t, err, w)
			}
		}
		t.Run(name, func(t *testing.T) { onServer(t, test) })
	}
}

func TestWhatAQueueLacksIsAddedUnlessItMustExist(t *testing.T) {
	onServer(t, testWhatAQueueLacksIsAddedUnlessItMustExist)
}

func testWhatAQueueLacksIsAddedUnlessItMustExist(t *testing.T) {
	e := newEngine(t, WithRetention(5*24*time.Hour))
	top := newTopic(t, e, engine.TopicSpec{})
	bare := createQueue(t, e, top.name+"-q", nil)
	others := `{"Version":"2012-10-17","Statement":{"Sid":"mine","Effect":"Allow","Principal":"*","Action":["sqs:ReceiveMessage"],"Resource":"` + bare.arn + `"}}`
	setAttribute(t, e, bare.url, "Policy", `{"Version":"2012-10-17","Statement":[`+others[len(`{"Version":"2012-10-17","Statement":`):len(others)-1]+`]}`)
	spec := engine.QueueSpec{Name: "q", Visibility: time.Minute, MaxAttempts: 5}

	must := newEngine(t, WithExisting())
	mustTop := newTopic(t, must, engine.TopicSpec{Name: top.name})
	_, err := mustTop.OpenQueue(t.Context(), spec)
	require.ErrorContains(t, err, "SQS has no queue "+top.name+"-q-dlq")
	createQueue(t, e, top.name+"-q-dlq", nil)
	_, err = mustTop.OpenQueue(t.Context(), spec)
	require.ErrorIs(t, err, engine.ErrMismatch)
	require.ErrorContains(t, err, "policy")

	q := openQueue(t, top, spec)
	p, err := e.describe(t.Context(), q.place.url)
	require.NoError(t, err)
	policy, err := parsePolicy(p.attributes["Policy"])
	require.NoError(t, err)
	require.Len(t, policy.Statement, 2)
	require.Equal(t, "mine", policy.Statement[0]["Sid"])
	require.Contains(t, p.attributes["RedrivePolicy"], q.dead.place.arn)
	require.Equal(t, "432000", p.attributes["MessageRetentionPeriod"])
	publish(t, top, message("a", "1"))
	require.Equal(t, "a", receive(t, q).ID)
	openQueue(t, mustTop, spec)

	_, err = must.OpenTopic(t.Context(), engine.TopicSpec{Name: "nowhere"})
	require.ErrorContains(t, err, "SNS has no topic nowhere")
	_, err = mustTop.OpenQueue(t.Context(), engine.QueueSpec{Name: "nowhere"})
	require.ErrorContains(t, err, "SQS has no queue "+top.name+"-nowhere")
	// A queue that nobody subscribed.
	lone := createQueue(t, e, top.name+"-lone", nil)
	setAttribute(t, e, lone.url, "Policy", newQueuePolicy(lone.arn, top.arn))
	createQueue(t, e, top.name+"-lone-dlq", nil)
	_, err = mustTop.OpenQueue(t.Context(), engine.QueueSpec{Name: "lone"})
	require.ErrorIs(t, err, engine.ErrMismatch)
	require.ErrorContains(t, err, "subscription")
}

func TestNamesOfTheUsersOwn(t *testing.T) { onServer(t, testNamesOfTheUsersOwn) }

func testNamesOfTheUsersOwn(t *testing.T) {
	id := unique(t)
	e := newEngine(t)
	dead := createQueue(t, e, id+"-letters", nil)
	q := createQueue(t, e, id+"-inbox", map[string]string{"RedrivePolicy": newRedrive(dead.arn)})
	topic := newTopic(t, e, engine.TopicSpec{Name: id})
	setAttribute(t, e, q.url, "Policy", newQueuePolicy(q.arn, topic.arn[:len(topic.arn)-1]+"*"))
	_, err := e.sns.Subscribe(t.Context(), &sns.SubscribeInput{TopicArn: &topic.arn, Protocol: aws.String("sqs"), Endpoint: &q.arn})
	require.NoError(t, err)

	named := newEngine(t, WithExisting(), WithNames(Names{
		Topic: func(string) string { return topic.arn },
		Queue: func(string, string) string { return q.arn },
	}))
	top := newTopic(t, named, engine.TopicSpec{Name: "Any name at all"})
	opened := openQueue(t, top, engine.QueueSpec{Name: "so is this"})
	require.Equal(t, dead.arn, opened.dead.place.arn, "by the redrive policy")
	publish(t, top, message("a", "1"))
	require.Equal(t, "a", receive(t, opened).ID)
	_, err = named.OpenTopic(t.Context(), engine.TopicSpec{Name: "x", Ordering: true})
	require.ErrorIs(t, err, engine.ErrMismatch)
	require.ErrorContains(t, err, "FIFO")

	for _, name := range []string{"", "a b", "ä", "a.b", "a.fifo", strings.Repeat("a", 257)} {
		_, err := e.OpenTopic(t.Context(), engine.TopicSpec{Name: name})
		require.ErrorContains(t, err, "topic name", name)
	}
	_, err = topic.OpenQueue(t.Context(), engine.QueueSpec{Name: strings.Repeat("a", 80)})
	require.ErrorContains(t, err, "WithNames")
}

func TestQueuesWhoseNamesComeOutAlikeAreRefused(t *testing.T) {
	onServer(t, testQueuesWhoseNamesComeOutAlikeAreRefused)
}

func testQueuesWhoseNamesComeOutAlikeAreRefused(t *testing.T) {
	e := newEngine(t)
	id := unique(t)
	openQueue(t, newTopic(t, e, engine.TopicSpec{Name: id}), engine.QueueSpec{Name: "b-c"})
	_, err := newTopic(t, e, engine.TopicSpec{Name: id + "-b"}).OpenQueue(t.Context(), engine.QueueSpec{Name: "c"})
	require.ErrorContains(t, err, id+`-b-c is queue "b-c" of topic "`+id+`" already`)
	_, err = newTopic(t, e, engine.TopicSpec{Name: id}).OpenQueue(t.Context(), engine.QueueSpec{Name: "b-c-dlq"})
	require.ErrorContains(t, err, "the dead letters of queue")
	// In another process too, by the policy.
	_, err = newTopic(t, newEngine(t), engine.TopicSpec{Name: id + "-b"}).OpenQueue(t.Context(), engine.QueueSpec{Name: "c"})
	require.ErrorIs(t, err, engine.ErrMismatch)
}

func TestOptionsSayWhatTheyDoNotTake(t *testing.T) {
	topics, queues := clientsOf("http://127.0.0.1:1", nil)
	for want, o := range map[string]Option{
		"WithMaxMessageSize(1)": WithMaxMessageSize(1), "WithMaxMessageSize(1048577)": WithMaxMessageSize(sqsMost + 1),
		"WithPollTime(0s)": WithPollTime(0), "WithPollTime(21s)": WithPollTime(21 * time.Second), "WithPollTime(1.5s)": WithPollTime(1500 * time.Millisecond),
		"WithRetention(1s)": WithRetention(time.Second), "WithRetention(337h0m0s)": WithRetention(337 * time.Hour),
	} {
		_, err := New(topics, queues, o)
		require.ErrorContains(t, err, want)
	}
	_, err := New(nil, queues)
	require.Error(t, err)
	_, err = New(topics, nil)
	require.Error(t, err)
}
