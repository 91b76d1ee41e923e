package main

import (
	"bufio"
	"context"
	"encoding/json"
	"io"
	"net/http"
	"net/http/httptest"
	"regexp"
	"testing"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/sns"
	"github.com/aws/aws-sdk-go-v2/service/sqs"
	"github.com/stretchr/testify/require"

	"github.com/gofanout/fanout/fanouttest/fakeaws"
)

func TestItServesAndLogs(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	r, w := io.Pipe()
	done := make(chan error, 1)
	go func() {
		done <- run(ctx, []string{"-listen", "127.0.0.1:0", "-region", "eu-west-1", "-account", "210987654321"}, w)
	}()
	lines := bufio.NewScanner(r)
	require.True(t, lines.Scan())
	m := regexp.MustCompile(`^SQS and SNS at (http://127\.0\.0\.1:[0-9]+), region eu-west-1, account 210987654321$`).FindStringSubmatch(lines.Text())
	require.NotNil(t, m, lines.Text())

	a := fakeaws.New(t)
	config := a.In("eu-west-1").Account("210987654321").Config()
	config.BaseEndpoint, config.HTTPClient = &m[1], http.DefaultClient
	client := sqs.NewFromConfig(config)
	got := make(chan string, 2)
	go func() {
		for lines.Scan() {
			got <- lines.Text()
		}
	}()
	out, err := client.CreateQueue(t.Context(), &sqs.CreateQueueInput{QueueName: aws.String("orders")})
	require.NoError(t, err)
	require.Equal(t, m[1]+"/210987654321/orders", *out.QueueUrl)
	require.Regexp(t, `^[0-9:.]{12}  CreateQueue +orders +eu-west-1  [0-9.µmn]*s$`, <-got)
	_, err = client.PurgeQueue(t.Context(), &sqs.PurgeQueueInput{QueueUrl: aws.String("none")})
	require.Error(t, err)
	require.Regexp(t, `PurgeQueue +none +eu-west-1  [0-9.µmn]*s  AWS.SimpleQueueService.NonExistentQueue: The specified queue does not exist.$`, <-got)
	cancel()
	require.NoError(t, <-done)
}

// A web hook in another process is asked to confirm, confirms by the URL that it
// gets, and is notified. Endpoints on other machines are not called.
func TestItDeliversToLoopback(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	r, w := io.Pipe()
	done := make(chan error, 1)
	go func() { done <- run(ctx, []string{"-listen", "127.0.0.1:0"}, w) }()
	lines := bufio.NewScanner(r)
	require.True(t, lines.Scan())
	base := regexp.MustCompile(`http://[0-9.:]+`).FindString(lines.Text())
	log := make(chan string, 100)
	go func() {
		for lines.Scan() {
			log <- lines.Text()
		}
	}()
	got := make(chan map[string]string, 10)
	hook := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		m := map[string]string{}
		if err := json.NewDecoder(r.Body).Decode(&m); err != nil {
			t.Error(err)
		}
		got <- m
	}))
	defer hook.Close()
	config := fakeaws.New(t).Config()
	config.BaseEndpoint, config.HTTPClient = &base, http.DefaultClient
	client := sns.NewFromConfig(config)
	topic, err := client.CreateTopic(ctx, &sns.CreateTopicInput{Name: aws.String("orders")})
	require.NoError(t, err)
	_, err = client.Subscribe(ctx, &sns.SubscribeInput{TopicArn: topic.TopicArn, Protocol: aws.String("http"), Endpoint: aws.String(hook.URL + "/hook")})
	require.NoError(t, err)
	m := <-got
	require.Equal(t, "SubscriptionConfirmation", m["Type"])
	for _, name := range []string{"SubscribeURL", "SigningCertURL"} {
		require.Contains(t, m[name], base+"/")
		answer, err := http.Get(m[name])
		require.NoError(t, err)
		require.Equal(t, http.StatusOK, answer.StatusCode)
		require.NoError(t, answer.Body.Close())
	}
	_, err = client.Publish(ctx, &sns.PublishInput{TopicArn: topic.TopicArn, Message: aws.String("o-17")})
	require.NoError(t, err)
	require.Equal(t, "o-17", (<-got)["Message"])
	_, err = client.Subscribe(ctx, &sns.SubscribeInput{TopicArn: topic.TopicArn, Protocol: aws.String("http"), Endpoint: aws.String("http://192.0.2.1/hook")})
	require.NoError(t, err)
	for line := range log {
		if regexp.MustCompile(`Deliver +http://192.0.2.1/hook.*on loopback only, not to 192.0.2.1:80$`).MatchString(line) {
			break
		}
	}
	cancel()
	require.NoError(t, <-done)
}

func TestItRefusesWhatItCannotDo(t *testing.T) {
	for _, arguments := range [][]string{{"-listen", "0.0.0.0:0"}, {"-listen", "example.com:80"}, {"-listen", ":80"}, {"-listen", "x"}, {"-region", "x"}, {"-account", "x"}, {"more"}} {
		require.Error(t, run(t.Context(), arguments, io.Discard), "%v", arguments)
	}
}
