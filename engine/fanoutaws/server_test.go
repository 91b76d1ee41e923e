package fanoutaws

import (
	"context"
	"net/http"
	"os"
	"strconv"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/sns"
	"github.com/aws/aws-sdk-go-v2/service/sqs"
	"github.com/stretchr/testify/require"

	"github.com/gofanout/fanout/engine"
	"github.com/gofanout/fanout/fanouttest/fakeaws"
)

// endpointVariable names a server to run the tests against: its URL, or "aws"
// for AWS itself. Without it they run on fakeaws, in virtual time.
const endpointVariable = "FANOUT_AWS_ENDPOINT"

// virtual says that the tests run on fakeaws.
func virtual() bool { return os.Getenv(endpointVariable) == "" }

// isMoto says that the server is moto, whose answer to this no other gives.
func isMoto() bool {
	endpoint := os.Getenv(endpointVariable)
	if virtual() || endpoint == "aws" {
		return false
	}
	r, err := http.Get(endpoint + "/moto-api/data.json")
	if err != nil {
		return false
	}
	_ = r.Body.Close()
	return r.StatusCode == http.StatusOK
}

// onServer runs a test against the server, or in virtual time on a fake.
func onServer(t *testing.T, test func(t *testing.T)) {
	t.Helper()
	t.Parallel()
	if !virtual() {
		test(t)
		return
	}
	synctest.Test(t, test)
}

// fakes has the fake of each test, by its testing.TB.
var fakes sync.Map

// fakeOf returns the fake of a test.
func fakeOf(t testing.TB) *fakeaws.AWS {
	t.Helper()
	if a, ok := fakes.Load(t); ok {
		return a.(*fakeaws.AWS)
	}
	a := fakeaws.New(t)
	fakes.Store(t, a)
	t.Cleanup(func() { fakes.Delete(t) })
	return a
}

// clients returns clients of the server, or of the test's fake.
func clients(t testing.TB) (*sns.Client, *sqs.Client) {
	t.Helper()
	if virtual() {
		a := fakeOf(t)
		return a.SNS(), a.SQS()
	}
	return clientsOf(os.Getenv(endpointVariable), nil)
}

// clientsOf returns clients of the server at url, through h if it isn't nil.
func clientsOf(url string, h aws.HTTPClient) (*sns.Client, *sqs.Client) {
	keys := aws.CredentialsProviderFunc(func(context.Context) (aws.Credentials, error) {
		return aws.Credentials{AccessKeyID: "test", SecretAccessKey: "test"}, nil
	})
	region, endpoint := "us-east-1", &url
	if url == "aws" {
		region, endpoint = os.Getenv("AWS_REGION"), nil
		keys = func(context.Context) (aws.Credentials, error) {
			return aws.Credentials{AccessKeyID: os.Getenv("AWS_ACCESS_KEY_ID"), SecretAccessKey: os.Getenv("AWS_SECRET_ACCESS_KEY"), SessionToken: os.Getenv("AWS_SESSION_TOKEN")}, nil
		}
	}
	topics := sns.New(sns.Options{Region: region, BaseEndpoint: endpoint, Credentials: keys, HTTPClient: h})
	queues := sqs.New(sqs.Options{Region: region, BaseEndpoint: endpoint, Credentials: keys, HTTPClient: h})
	return topics, queues
}

// newEngine returns an engine on the server whose names no other test has.
func newEngine(t testing.TB, options ...Option) *Engine {
	t.Helper()
	topics, queues := clients(t)
	e, err := New(topics, queues, append([]Option{WithPollTime(time.Second)}, options...)...)
	require.NoError(t, err)
	return e
}

func newTopic(t testing.TB, e *Engine, spec engine.TopicSpec) *topic {
	t.Helper()
	if spec.Name == "" {
		spec.Name = unique(t)
	}
	top, err := e.OpenTopic(t.Context(), spec)
	require.NoError(t, err)
	t.Cleanup(func() { _ = top.Close() })
	return top.(*topic)
}

func openQueue(t testing.TB, top *topic, spec engine.QueueSpec) *queue {
	t.Helper()
	if spec.Visibility == 0 {
		spec.Visibility = 30 * time.Second
	}
	if spec.MaxAttempts == 0 {
		spec.MaxAttempts = 5
	}
	q, err := top.OpenQueue(t.Context(), spec)
	require.NoError(t, err)
	t.Cleanup(func() { _ = q.Close() })
	return q.(*queue)
}

var names = make(chan int, 1)

func init() { names <- 0 }

func unique(testing.TB) string {
	n := <-names
	names <- n + 1
	return "t" + strconv.Itoa(n)
}

func message(id, body string) engine.Message {
	return engine.Message{ID: id, Body: []byte(body), ContentType: "application/json", PublishedAt: time.Now().UTC()}
}

func publish(t testing.TB, top engine.Topic, ms ...engine.Message) {
	t.Helper()
	require.NoError(t, top.Publish(t.Context(), ms))
}

// receive takes one message, waiting 20 seconds at most.
func receive(t testing.TB, q engine.Queue) engine.Received {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	rs, err := q.Receive(ctx, 1, 0)
	require.NoError(t, err)
	require.Len(t, rs, 1)
	return rs[0]
}

// none finds nothing within a poll.
func none(t testing.TB, q engine.Queue) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 1500*time.Millisecond)
	defer cancel()
	rs, err := q.Receive(ctx, 10, 0)
	require.ErrorIs(t, err, context.DeadlineExceeded)
	require.Empty(t, rs)
}
