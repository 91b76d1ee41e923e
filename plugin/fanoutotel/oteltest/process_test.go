package oteltest

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http/httptest"
	"os"
	"os/exec"
	"slices"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/sns"
	"github.com/aws/aws-sdk-go-v2/service/sqs"
	"github.com/nats-io/nats-server/v2/server"
	"github.com/stretchr/testify/require"
	"go.opentelemetry.io/otel/trace"

	"github.com/gofanout/fanout"
	"github.com/gofanout/fanout/fanouttest/fakeaws"
)

// childVariable makes the test a consumer in a process of its own: the place and the URL.
const childVariable = "FANOUT_OTEL_CHILD"

// A told is a span as the child tells it.
type told struct {
	Name, Queue, Trace, Span, Parent string
	Links                            []string
}

// TestOneTraceAcrossTwoProcesses: this one publishes, over a socket of loopback, and a
// child handles in three queues. One of its handlers publishes to another topic, which it
// handles too.
func TestOneTraceAcrossTwoProcesses(t *testing.T) {
	if of := os.Getenv(childVariable); of != "" {
		consume(t, of)
		return
	}
	for name, start := range map[string]func(t *testing.T) (url string){
		"nats": func(t *testing.T) string {
			return startNATS(t, server.Options{Host: "127.0.0.1", Port: server.RANDOM_PORT}).ClientURL()
		},
		"aws": func(t *testing.T) string {
			a, err := fakeaws.Start()
			require.NoError(t, err)
			s := httptest.NewServer(a.Handler())
			t.Cleanup(s.Close)
			t.Cleanup(a.Close) // first: it ends long polls
			return s.URL
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			of := name + " " + start(t)
			b := newBenchAt(t, remotePlace(t, of))
			orders := b.topic("orders")
			defer b.end(orders)

			ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
			defer cancel()
			child := exec.CommandContext(ctx, os.Args[0], "-test.run=^TestOneTraceAcrossTwoProcesses$", "-test.count=1")
			child.Env = append(os.Environ(), childVariable+"="+of)
			child.Stderr = os.Stderr
			in, err := child.StdinPipe()
			require.NoError(t, err)
			out, err := child.StdoutPipe()
			require.NoError(t, err)
			require.NoError(t, child.Start())
			said := bufio.NewReader(out)
			line, err := said.ReadString('\n')
			require.NoError(t, err)
			require.Equal(t, "ready\n", line)

			request, root := b.tracers.Tracer("test").Start(ctx, "request")
			require.NoError(t, orders.Publish(request, 1))
			root.End()
			var got []told
			line, err = said.ReadString('\n')
			require.NoError(t, err)
			require.NoError(t, json.Unmarshal([]byte(line), &got), line)
			require.NoError(t, in.Close()) // it may end
			_, err = io.Copy(io.Discard, said)
			require.NoError(t, err)
			require.NoError(t, child.Wait())

			own := b.recorder.Ended()
			require.Len(t, own, 2)
			sent := own[0]
			require.Equal(t, "publish orders", sent.Name())
			require.Equal(t, root.SpanContext().SpanID(), sent.Parent().SpanID())
			require.Len(t, got, 5)
			from := sent.SpanContext()
			byName := map[string]told{}
			var queues []string
			for _, s := range got {
				require.Equal(t, from.TraceID().String(), s.Trace, s.Name)
				byName[s.Name] = s
				if s.Name == "process orders" {
					require.Equal(t, from.SpanID().String(), s.Parent)
					require.Equal(t, []string{from.SpanID().String()}, s.Links)
					queues = append(queues, s.Queue)
					if s.Queue == "ship" {
						byName["ship"] = s
					}
				}
			}
			slices.Sort(queues)
			require.Equal(t, []string{"bill", "mail", "ship"}, queues)
			require.Equal(t, byName["ship"].Span, byName["publish parcels"].Parent)
			require.Equal(t, byName["publish parcels"].Span, byName["process parcels"].Parent)
		})
	}
}

// remotePlace is a place behind a URL.
func remotePlace(t *testing.T, of string) *place {
	var name, url string
	_, err := fmt.Sscan(of, &name, &url)
	require.NoError(t, err)
	p := &place{name: name, systems: [2]string{"nats", "nats"}, open: func(t *testing.T) fanout.TopicOption { return onNATS(t, url) }}
	if name == "aws" {
		p.systems = [2]string{"aws.sns", "aws_sqs"}
		p.open = func(t *testing.T) fanout.TopicOption {
			keys := aws.CredentialsProviderFunc(func(context.Context) (aws.Credentials, error) {
				return aws.Credentials{AccessKeyID: "test", SecretAccessKey: "test"}, nil
			})
			return onAWS(t, sns.New(sns.Options{Region: fakeaws.DefaultRegion, BaseEndpoint: &url, Credentials: keys}),
				sqs.New(sqs.Options{Region: fakeaws.DefaultRegion, BaseEndpoint: &url, Credentials: keys}))
		}
	}
	return p
}

// consume is the child: it says "ready", then the five spans of one message, and ends with
// its standard input.
func consume(t *testing.T, of string) {
	b := newBenchAt(t, remotePlace(t, of))
	orders, parcels := b.topic("orders"), b.topic("parcels")
	for _, name := range []string{"bill", "mail", "ship"} {
		_, err := orders.Subscribe(t.Context(), name, func(ctx context.Context, d fanout.Delivery[int]) error {
			if name != "ship" {
				return nil
			}
			return parcels.Publish(ctx, d.Body)
		})
		require.NoError(t, err)
	}
	_, err := parcels.Subscribe(t.Context(), "carry", func(context.Context, fanout.Delivery[int]) error { return nil })
	require.NoError(t, err)
	fmt.Println("ready")
	b.place.wait(t, func() bool { return len(b.recorder.Ended()) >= 5 })
	var all []told
	for _, s := range b.spans() {
		one := told{Name: s.Name(), Queue: attributesOf(s)["messaging.destination.subscription.name"], Trace: s.SpanContext().TraceID().String(), Span: s.SpanContext().SpanID().String()}
		if s.Parent().IsValid() {
			one.Parent = s.Parent().SpanID().String()
			require.Equal(t, s.Parent().IsRemote(), s.SpanKind() == trace.SpanKindConsumer)
		}
		for _, l := range s.Links() {
			one.Links = append(one.Links, l.SpanContext.SpanID().String())
		}
		all = append(all, one)
	}
	require.NoError(t, json.NewEncoder(os.Stdout).Encode(all))
	_, err = io.Copy(io.Discard, os.Stdin)
	require.NoError(t, err)
	b.end(orders)
	b.end(parcels)
}
