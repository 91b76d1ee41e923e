package fanoutweb

import (
	"encoding/json"
	"net/http/httptest"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"
)

// What the page says of numbers, times and troubles, at exact instants.

// getJSON asks for a page as JSON.
func getJSON(t testing.TB, h *Handler, path string, data any) {
	t.Helper()
	r := httptest.NewRequestWithContext(t.Context(), "GET", path, nil)
	r.Header.Set("Accept", "application/json")
	w := httptest.NewRecorder()
	h.ServeHTTP(w, r)
	require.Equal(t, 200, w.Code, w.Body)
	require.NoError(t, json.Unmarshal(w.Body.Bytes(), data))
}

func TestRatesAreThoseOfTheLooksForEachReader(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		topic, h := tested(t, Options{Allow: AllowAll}, "billing")
		defer topic.Close()
		defer h.Close()
		get(t, h, "/")
		for range 100 { // ten a second, between the looks
			time.Sleep(50 * time.Millisecond)
			require.NoError(t, topic.Publish(t.Context(), "o-17"))
			d, err := topic.Queue("billing").Receive(t.Context())
			require.NoError(t, err)
			require.NoError(t, d.Ack(t.Context()))
			time.Sleep(50 * time.Millisecond)
		}
		for range 9 {
			time.Sleep(50 * time.Millisecond)
			require.NoError(t, topic.Publish(t.Context(), "o-17"))
			time.Sleep(50 * time.Millisecond)
		}
		const path = "/queue?topic=orders&queue=billing"
		for range 2 {
			var q queueInfo
			getJSON(t, h, path, &q)
			require.EqualValues(t, 10, q.Rates.Published)
			require.EqualValues(t, 10, q.Rates.Acked)
			require.Equal(t, 109, q.Counts.Published, "counts are of now")
			require.Equal(t, 9, q.Ready)
			text := get(t, h, path)
			require.Contains(t, text, `<th scope="row">acknowledged</th><td class="of">10/s</td>`)
			get(t, h, "/confirm?topic=orders&queue=billing&do=pause")
			var all overview
			getJSON(t, h, "/", &all)
			require.EqualValues(t, 10, all.Topics[0].Queues[0].Rates.Published, "for other readers too")
			require.Equal(t, 100, all.Topics[0].Queues[0].Counts.Published, "which are those of the look")
		}
	})
}
