package orders_test

import (
	"io"
	"net/http"
	"net/http/httptest"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/gofanout/fanout/examples/orders-aws/orders"
)

func TestRemotePartners(t *testing.T) {
	var asked []string
	status := http.StatusNoContent
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, _ := io.ReadAll(r.Body)
		asked = append(asked, r.Method+" "+r.Header.Get("Idempotency-Key")+" "+string(body))
		w.WriteHeader(status)
	}))
	defer server.Close()
	r := &orders.Remote{URL: server.URL, Client: server.Client()}
	require.NoError(t, r.Charge(t.Context(), "o-1", 17))
	require.NoError(t, r.Ship(t.Context(), "o-2", "1 Main St"))
	require.NoError(t, r.Send(t.Context(), "o-3", "a@example.com", "text"))
	require.Equal(t, []string{`POST o-1 {"cents":17}`, `POST o-2 {"address":"1 Main St"}`, `POST o-3 {"text":"text","to":"a@example.com"}`}, asked)
	status = http.StatusBadGateway
	require.EqualError(t, r.Charge(t.Context(), "o-1", 17), server.URL+": 502 Bad Gateway")
	server.Close()
	require.Error(t, r.Charge(t.Context(), "o-1", 17))
}
