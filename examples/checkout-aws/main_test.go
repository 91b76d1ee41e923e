package main

import (
	"bytes"
	"context"
	"fmt"
	"net"
	"net/http"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/sns"
	"github.com/aws/aws-sdk-go-v2/service/sqs"
	sqstypes "github.com/aws/aws-sdk-go-v2/service/sqs/types"
	"github.com/stretchr/testify/require"

	"github.com/gofanout/fanout/examples/checkout/program"
)

// moto starts a server that stands for AWS, on a free port, and returns its URL.
func moto(t *testing.T) string {
	t.Helper()
	if out, err := exec.Command("python3", "-c", "import moto.server").CombinedOutput(); err != nil {
		why := fmt.Sprintf("no moto: %v %s; pip install 'moto[server]==5.2.1'", err, out)
		if os.Getenv("FANOUT_REQUIRE_SERVERS") == "1" {
			t.Fatal(why)
		}
		t.Skip(why)
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	port := l.Addr().(*net.TCPAddr).Port
	require.NoError(t, l.Close())
	// The shell ends the server when its input ends: however this process does.
	server := exec.Command("sh", "-c", `python3 -m moto.server -H 127.0.0.1 -p "$0" & read -r _; kill $!; wait`, strconv.Itoa(port))
	alive, err := server.StdinPipe()
	require.NoError(t, err)
	require.NoError(t, server.Start())
	t.Cleanup(func() { _ = alive.Close(); _ = server.Wait() })
	url := fmt.Sprintf("http://127.0.0.1:%d", port)
	require.Eventually(t, func() bool {
		r, err := http.Get(url + "/moto-api/")
		if err == nil {
			_ = r.Body.Close()
		}
		return err == nil
	}, time.Minute, 20*time.Millisecond, "moto does not answer")
	return url
}

// TestTheSampleBalancesItsBooks runs the whole checkout: publish, retry, dead
// letters, restock, redrive. Run fails if the books don't balance.
func TestTheSampleBalancesItsBooks(t *testing.T) {
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
	defer cancel()
	var out bytes.Buffer
	require.NoError(t, program.Run(ctx, where(), []string{"-endpoint", moto(t), "-speed", "20"}, &out), &out)
	for _, line := range []string{
		`(?m)^inventory +40 = +40 \+ +0 \+ +0   balanced$`,
		`(?m)^shipping +40 = +40 \+ +0 \+ +0   balanced$`,
		`(?m)^stock .* balanced$`,
		`attempt \d: permanent after .* wanted, \d+ in stock`, // a history that went through SQS
		`inventory: redrove [1-9]\d* of [1-9]`,
	} {
		require.Regexp(t, line, out.String())
	}
}

// TestTheTerraformModulesQueuesAreTaken makes what deploy/terraform/main.tf makes,
// by hand, and runs the checkout on it. It makes nothing itself then.
func TestTheTerraformModulesQueuesAreTaken(t *testing.T) {
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
	defer cancel()
	url := moto(t)
	var out bytes.Buffer
	args := []string{"-endpoint", url, "-existing", "-speed", "20"}
	require.Error(t, program.Run(ctx, where(), args, &out), "there is nothing yet")

	cfg, err := configure(ctx, url)
	require.NoError(t, err)
	topics, queues := sns.NewFromConfig(cfg), sqs.NewFromConfig(cfg)
	topic, err := topics.CreateTopic(ctx, &sns.CreateTopicInput{Name: aws.String("payments")})
	require.NoError(t, err)
	makeQueue := func(name string, attributes map[string]string) (arn string) {
		q, err := queues.CreateQueue(ctx, &sqs.CreateQueueInput{QueueName: &name, Attributes: attributes})
		require.NoError(t, err)
		a, err := queues.GetQueueAttributes(ctx, &sqs.GetQueueAttributesInput{QueueUrl: q.QueueUrl, AttributeNames: []sqstypes.QueueAttributeName{"QueueArn"}})
		require.NoError(t, err)
		return a.Attributes["QueueArn"]
	}
	for _, service := range []string{"inventory", "shipping"} {
		dead := makeQueue("payments-"+service+"-dlq", map[string]string{"MessageRetentionPeriod": "1209600"})
		arn := "arn:aws:sqs:us-east-1:123456789012:payments-" + service
		queue := makeQueue("payments-"+service, map[string]string{
			"VisibilityTimeout": "180", "MessageRetentionPeriod": "345600", "ReceiveMessageWaitTimeSeconds": "20",
			"RedrivePolicy": fmt.Sprintf(`{"deadLetterTargetArn":%q,"maxReceiveCount":1000}`, dead),
			"Policy": fmt.Sprintf(`{"Version":"2012-10-17","Statement":[{"Sid":"FanoutTopicSends","Effect":"Allow","Action":"sqs:SendMessage",`+
				`"Resource":%q,"Principal":{"Service":"sns.amazonaws.com"},"Condition":{"ArnEquals":{"aws:SourceArn":%q}}}]}`, arn, *topic.TopicArn),
		})
		require.Equal(t, arn, queue)
		_, err := topics.Subscribe(ctx, &sns.SubscribeInput{TopicArn: topic.TopicArn, Protocol: aws.String("sqs"), Endpoint: &queue,
			Attributes: map[string]string{"RawMessageDelivery": "true"}})
		require.NoError(t, err)
	}
	require.NoError(t, program.Run(ctx, where(), args, &out), &out)
	require.Regexp(t, `(?m)^inventory +40 = +40 \+ +0 \+ +0   balanced$`, out.String())
	require.Regexp(t, `(?m)^shipping +40 = +40 \+ +0 \+ +0   balanced$`, out.String())
}

func TestAnEndpointThatDoesNotAnswerIsAnError(t *testing.T) {
	t.Setenv("AWS_MAX_ATTEMPTS", "1")
	l, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	url := "http://" + l.Addr().String()
	require.NoError(t, l.Close())
	var out bytes.Buffer
	err = program.Run(t.Context(), where(), []string{"-endpoint", url}, &out)
	require.ErrorContains(t, err, strings.TrimPrefix(url, "http://"))
}
