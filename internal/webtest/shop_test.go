package webtest

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/gofanout/fanout"
	"github.com/gofanout/fanout/plugin/fanoutweb"
)

// An order is what the shop's topic carries.
type order struct {
	Order    string `json:"order"`
	Customer string `json:"customer"`
	Cents    int    `json:"cents"`
	Note     string `json:"note,omitempty"`
}

// A shop is a topic with queues in which something is wrong, and its page.
type shop struct {
	*testing.T
	topic  *fanout.Topic[order]
	page   *fanoutweb.Handler
	server *httptest.Server
	queues map[string]*fanout.Queue[order]
	n      int
}

func newShop(t *testing.T, o fanoutweb.Options) *shop {
	t.Helper()
	topic, err := fanout.NewTopic[order]("orders", fanout.WithLogger(slog.New(slog.DiscardHandler)))
	require.NoError(t, err)
	if o.Title == "" {
		o.Title = "Shop"
	}
	page, err := fanoutweb.New(o, topic)
	require.NoError(t, err)
	s := &shop{T: t, topic: topic, page: page, server: httptest.NewServer(page), queues: map[string]*fanout.Queue[order]{}}
	t.Cleanup(func() {
		page.Close()
		_ = topic.Close()
		s.server.CloseClientConnections()
		s.server.Close()
	})
	return s
}

func (s *shop) open(name string, options ...fanout.QueueOption) *fanout.Queue[order] {
	s.Helper()
	q, err := s.topic.OpenQueue(s.Context(), name, append([]fanout.QueueOption{fanout.WithMaxAttempts(1)}, options...)...)
	require.NoError(s, err)
	s.queues[name] = q
	return q
}

func (s *shop) publish(n int) {
	s.Helper()
	for range n {
		s.n++
		id := fmt.Sprintf("o-%d", 1000+s.n)
		require.NoError(s, s.topic.PublishMessages(s.Context(), fanout.Message[order]{
			ID: id, Body: order{Order: id, Customer: []string{"Ada", "Grace", "Edsger"}[s.n%3], Cents: 1999 + s.n}, Attributes: map[string]string{"region": []string{"eu", "us"}[s.n%2]},
		}))
	}
}

// kill makes dead letters of the next messages of a queue.
func (s *shop) kill(q *fanout.Queue[order], err error, n int) {
	s.Helper()
	for range n {
		d, e := q.Receive(s.Context())
		require.NoError(s, e)
		require.NoError(s, d.Settle(s.Context(), err))
	}
}

// trouble has a queue for each kind of trouble: billing is full, and a publisher waits for it; mail
// has dead letters, one of them of a panic; search is paused; stock has a handler that is stuck.
func (s *shop) trouble() {
	s.Helper()
	mail, search, stock := s.open("mail", fanout.WithMaxAttempts(2), fanout.WithBackoff(fanout.Constant(time.Millisecond))), s.open("search"), s.open("stock", fanout.WithVisibilityTimeout(200*time.Millisecond))
	s.open("audit")
	entered, leave := make(chan struct{}, 1), make(chan struct{})
	s.Cleanup(func() { close(leave) })
	_, err := stock.Subscribe(s.Context(), func(ctx context.Context, d fanout.Delivery[order]) error {
		select {
		case entered <- struct{}{}:
			askTheBank(leave)
		default:
		}
		return nil
	}, fanout.WithConcurrency(2))
	require.NoError(s, err)
	_, err = mail.Subscribe(s.Context(), func(ctx context.Context, d fanout.Delivery[order]) error {
		if strings.HasSuffix(d.Body.Order, "1003") && d.Attempt() == 2 {
			var none *order
			return errors.New(none.Note) // a bug
		}
		return errors.New("550 mailbox unavailable")
	})
	require.NoError(s, err)
	s.publish(7)
	s.open("billing", fanout.WithCapacity(5))
	require.NoError(s, search.Pause(s.Context()))
	s.publish(5)
	ctx, cancel := context.WithCancel(s.Context())
	waits := make(chan struct{})
	go func() {
		defer close(waits)
		_ = s.topic.Publish(ctx, order{Order: "o-waits"})
	}()
	s.Cleanup(func() { cancel(); <-waits })
	require.Eventually(s, func() bool {
		return s.topic.Stats().Waiting == 1 && stock.Stats().Stuck == 1 && mail.Stats().Dead == 12
	}, 20*time.Second, 5*time.Millisecond)
}

//go:noinline
func askTheBank(leave chan struct{}) { <-leave }

func everything() fanoutweb.Options { return fanoutweb.Options{Allow: fanoutweb.AllowAll} }

const queuePath = "/queue?topic=orders&queue="
const lettersPath = "/letters?topic=orders&queue="
