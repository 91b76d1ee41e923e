package main

import (
	"bufio"
	"context"
	"io"
	"net/http"
	"regexp"
	"testing"

	"github.com/aws/aws-sdk-go-v2/aws"
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

func TestItRefusesWhatItCannotDo(t *testing.T) {
	for _, arguments := range [][]string{{"-listen", "0.0.0.0:0"}, {"-listen", "example.com:80"}, {"-listen", ":80"}, {"-listen", "x"}, {"-region", "x"}, {"-account", "x"}, {"more"}} {
		require.Error(t, run(t.Context(), arguments, io.Discard), "%v", arguments)
	}
}
