package fanoutaws

import (
	"context"
	"fmt"
	"net"
	"net/http"
	"os"
	"os/exec"
	"strconv"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/sns"
	"github.com/aws/aws-sdk-go-v2/service/sqs"
	"github.com/stretchr/testify/require"

	"github.com/gofanout/fanout/engine"
)

// moto is the server that the tests run against: its URL, or why there is none.
var moto struct {
	url string
	why string
}

func TestMain(m *testing.M) {
	stop := startMoto()
	code := m.Run()
	stop()
	os.Exit(code)
}

// endpointVariable names another server to run the tests against.
const endpointVariable = "FANOUT_AWS_ENDPOINT"

// startMoto starts a server of its own on a free port.
func startMoto() (stop func()) {
	if moto.url = os.Getenv(endpointVariable); moto.url != "" {
		return func() {}
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		moto.why = err.Error()
		return func() {}
	}
	port := l.Addr().(*net.TCPAddr).Port
	_ = l.Close()
	if out, err := exec.Command("python3", "-c", "import moto.server").CombinedOutput(); err != nil {
		moto.why = fmt.Sprintf("python3 has no moto.server: %v %s", err, out)
		return func() {}
	}
	// The shell ends the server when its input ends: however this process does.
	server := exec.Command("sh", "-c", `python3 -m moto.server -H 127.0.0.1 -p "$0" & read -r _; kill $!; wait`, strconv.Itoa(port))
	alive, err := server.StdinPipe()
	if err == nil {
		err = server.Start()
	}
	if err != nil {
		moto.why = err.Error()
		return func() {}
	}
	stop = func() { _ = alive.Close(); _ = server.Wait() }
	url := fmt.Sprintf("http://127.0.0.1:%d", port)
	deadline := time.After(30 * time.Second)
	for {
		if r, err := http.Get(url + "/moto-api/"); err == nil {
			_ = r.Body.Close()
			moto.url = url
			return stop
		}
		select {
		case <-deadline:
			moto.why = "moto did not answer in 30 seconds"
			return stop
		case <-time.After(20 * time.Millisecond):
		}
	}
}

// clients returns clients of moto. Without one the test is skipped, where that
// is allowed.
func clients(t testing.TB) (*sns.Client, *sqs.Client) {
	t.Helper()
	if moto.url == "" {
		why := "no moto: " + moto.why + "; pip install 'moto[server]==5.2.1', the tests start it themselves"
		if os.Getenv("FANOUT_REQUIRE_SERVERS") == "1" {
			t.Fatal(why)
		}
		t.Skip(why)
	}
	return clientsOf(moto.url, nil)
}

// clientsOf returns clients of the server at url, through h if it isn't nil.
func clientsOf(url string, h aws.HTTPClient) (*sns.Client, *sqs.Client) {
	keys := aws.CredentialsProviderFunc(func(context.Context) (aws.Credentials, error) {
		return aws.Credentials{AccessKeyID: "test", SecretAccessKey: "test"}, nil
	})
	topics := sns.New(sns.Options{Region: "us-east-1", BaseEndpoint: &url, Credentials: keys, HTTPClient: h})
	queues := sqs.New(sqs.Options{Region: "us-east-1", BaseEndpoint: &url, Credentials: keys, HTTPClient: h})
	return topics, queues
}

// newEngine returns an engine on moto whose names no other test has.
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
