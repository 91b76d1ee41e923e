package guide_test

import (
	"context"
	"errors"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/gofanout/fanout"
)

// A QuoteRequest asks what an item costs.
type QuoteRequest struct {
	Item  string
	Reply chan<- Quote    // has room for one
	Gone  <-chan struct{} // closed when nobody waits any more
}

// A Quote answers a request.
type Quote struct {
	Cents int
	Err   error
}

// AskForQuote publishes a request, and waits for its answer until ctx ends.
func AskForQuote(ctx context.Context, requests *fanout.Topic[*QuoteRequest], item string) (Quote, error) {
	reply := make(chan Quote, 1)
	if err := requests.Publish(ctx, &QuoteRequest{Item: item, Reply: reply, Gone: ctx.Done()}); err != nil {
		return Quote{}, err
	}
	select {
	case q := <-reply:
		return q, q.Err
	case <-ctx.Done():
		return Quote{}, context.Cause(ctx)
	}
}

var (
	errNoSuchItem = errors.New("no such item")
	errBusy       = errors.New("the price list is busy")
)

// AnswerQuotes makes a handler of a function that looks prices up. An error that can
// pass is retried, any other is an answer.
func AnswerQuotes(price func(context.Context, string) (int, error)) fanout.Handler[*QuoteRequest] {
	return func(ctx context.Context, d fanout.Delivery[*QuoteRequest]) error {
		select {
		case <-d.Body.Gone:
			return nil
		default:
		}
		cents, err := price(ctx, d.Body.Item)
		if errors.Is(err, errBusy) {
			return err
		}
		select {
		case d.Body.Reply <- Quote{cents, err}:
		default: // answered before: a handler can get the same message twice
		}
		return nil
	}
}

func TestRequestAndReply(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		requests, err := fanout.NewTopic[*QuoteRequest]("quotes")
		require.NoError(t, err)
		calls := 0
		_, err = requests.Subscribe(t.Context(), "prices", AnswerQuotes(func(ctx context.Context, item string) (int, error) {
			calls++
			switch {
			case calls == 1:
				return 0, errBusy
			case item == "piano":
				return 0, errNoSuchItem
			case item == "slow":
				<-ctx.Done()
				return 0, context.Cause(ctx)
			}
			return 499, nil
		}))
		require.NoError(t, err)

		q, err := AskForQuote(t.Context(), requests, "tea")
		require.NoError(t, err)
		require.Equal(t, 499, q.Cents)
		require.Equal(t, 2, calls, "the first look-up is retried")
		_, err = AskForQuote(t.Context(), requests, "piano")
		require.ErrorIs(t, err, errNoSuchItem)

		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		_, err = AskForQuote(ctx, requests, "slow")
		require.ErrorIs(t, err, context.DeadlineExceeded)
		require.NoError(t, requests.Shutdown(t.Context()))
		require.Equal(t, 4, calls, "the slow request times out, and is not tried again: nobody waits for it")
	})
}
