package main

import (
	"bytes"
	"context"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"regexp"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/gofanout/fanout"
)

var port = regexp.MustCompile(`127\.0\.0\.1:\d+`)

func TestWhatWasAcceptedIsShippedBeforeTheEnd(t *testing.T) {
	var out bytes.Buffer
	require.NoError(t, run(t.Context(), &out))
	require.Equal(t, `listening on http://127.0.0.1:PORT
POST /orders {"id": "o-17"}: 202 Accepted
POST /orders {"id": "o-18"}: 202 Accepted
POST /orders not an order: 400 Bad Request
POST /orders {"id": "o-19"}: 202 Accepted
POST /orders {"id": "o-20"}: 202 Accepted
stopped: 4 accepted, 4 shipped, 0 left
`, port.ReplaceAllString(out.String(), "127.0.0.1:PORT"))
}

// interrupting is a writer that interrupts the program once it has written so much.
type interrupting struct {
	bytes.Buffer
	after  string
	cancel context.CancelFunc
}

func (w *interrupting) Write(p []byte) (int, error) {
	if strings.Contains(string(p), w.after) {
		w.cancel()
	}
	return w.Buffer.Write(p)
}

func TestAnInterruptedServiceShipsWhatItAccepted(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	out := &interrupting{after: "o-18", cancel: cancel}
	require.NoError(t, run(ctx, out))
	require.Equal(t, `listening on http://127.0.0.1:PORT
POST /orders {"id": "o-17"}: 202 Accepted
POST /orders {"id": "o-18"}: 202 Accepted
stopped: 2 accepted, 2 shipped, 0 left
`, port.ReplaceAllString(out.String(), "127.0.0.1:PORT"))
}

// post sends an order to the handler, without a network.
func post(h http.Handler, body string) *httptest.ResponseRecorder {
	w := httptest.NewRecorder()
	h.ServeHTTP(w, httptest.NewRequest(http.MethodPost, "/orders", strings.NewReader(body)))
	return w
}

func TestAFullQueueSendsClientsAway(t *testing.T) {
	quiet := fanout.WithLogger(slog.New(slog.DiscardHandler)) // the last order is left
	orders, err := fanout.NewTopic[order]("orders", quiet)
	require.NoError(t, err)
	defer orders.Close()
	q, err := orders.OpenQueue(t.Context(), "shipping", fanout.WithCapacity(1))
	require.NoError(t, err)
	h := routes(orders)

	require.Equal(t, http.StatusAccepted, post(h, `{"id": "o-17"}`).Code)
	w := post(h, `{"id": "o-18"}`)
	require.Equal(t, http.StatusServiceUnavailable, w.Code)
	require.Equal(t, "1", w.Header().Get("Retry-After"))

	d, err := q.Receive(t.Context())
	require.NoError(t, err)
	require.Equal(t, order{"o-17"}, d.Body)
	require.NoError(t, d.Ack(t.Context()))
	require.Equal(t, http.StatusAccepted, post(h, `{"id": "o-18"}`).Code)
}

func TestAServiceThatStopsTakesNoOrders(t *testing.T) {
	orders, err := fanout.NewTopic[order]("orders")
	require.NoError(t, err)
	require.NoError(t, orders.Shutdown(t.Context()))
	require.Equal(t, http.StatusServiceUnavailable, post(routes(orders), `{"id": "o-17"}`).Code)
	require.Equal(t, http.StatusBadRequest, post(routes(orders), `{}`).Code)
}
