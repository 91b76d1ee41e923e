package fanoutaws

import (
	"context"
	"log/slog"
	"testing"

	"github.com/aws/aws-sdk-go-v2/service/sqs"
	"github.com/stretchr/testify/require"

	"github.com/gofanout/fanout"
)

// TestALetterThatCannotBeDecodedHasItsBytes: as SQS had them, before it was moved to the
// dead letters and there, also if it is redriven.
func TestALetterThatCannotBeDecodedHasItsBytes(t *testing.T) {
	inFake(t, func(t *testing.T) {
		e := newEngine(t, WithLogger(slog.New(slog.DiscardHandler)))
		top := newFanoutTopic(t, e)
		q, err := top.OpenQueue(t.Context(), "q")
		require.NoError(t, err)
		_, err = q.Subscribe(t.Context(), func(context.Context, fanout.Delivery[string]) error { return nil })
		require.NoError(t, err)
		p, err := e.findPlace(t.Context(), "p-q")
		require.NoError(t, err)
		for _, body := range []string{"{no JSON", " 漢\r\n\t<&>\"", `{"a": [1,  2]}`, "AAEC/w=="} {
			_, err := e.sqs.SendMessage(t.Context(), &sqs.SendMessageInput{QueueUrl: &p.url, MessageBody: &body})
			require.NoError(t, err)
			for range 2 {
				d, err := q.DeadLetters().Receive(t.Context())
				require.NoError(t, err)
				require.Empty(t, d.Body)
				require.Equal(t, body, string(d.Encoded()))
				require.NoError(t, d.Release(t.Context()))
				n, err := q.Redrive(t.Context())
				require.NoError(t, err)
				require.Equal(t, 1, n)
			}
			d, err := q.DeadLetters().Receive(t.Context())
			require.NoError(t, err)
			require.NoError(t, d.Ack(t.Context()))
		}
	})
}
