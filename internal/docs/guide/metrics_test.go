package guide_test

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/gofanout/fanout"
)

// queueMetrics are what an alarm needs, and what a dashboard shows first.
var queueMetrics = []struct {
	name, kind string
	value      func(fanout.Stats) float64
}{
	{"fanout_queue_messages", "gauge", func(s fanout.Stats) float64 { return float64(s.Unsettled()) }},
	{"fanout_queue_oldest_seconds", "gauge", func(s fanout.Stats) float64 { return s.OldestAge.Seconds() }},
	{"fanout_queue_dead_letters", "gauge", func(s fanout.Stats) float64 { return float64(s.Dead) }},
	{"fanout_queue_stuck_handlers", "gauge", func(s fanout.Stats) float64 { return float64(s.Stuck) }},
	{"fanout_queue_delivered_total", "counter", func(s fanout.Stats) float64 { return float64(s.Delivered) }},
	{"fanout_queue_acked_total", "counter", func(s fanout.Stats) float64 { return float64(s.Acked) }},
	{"fanout_queue_failed_total", "counter", func(s fanout.Stats) float64 {
		return float64(s.Failed + s.Panicked + s.Exited + s.TimedOut + s.Nacked + s.PermanentlyFailed + s.Expired)
	}},
}

// Metrics writes what the queues of topics hold and have done, in the text format of
// Prometheus.
func Metrics(handlers *HandlerTimes, topics ...fanout.AnyTopic) http.HandlerFunc {
	return func(w http.ResponseWriter, _ *http.Request) {
		var all []fanout.Stats
		for _, t := range topics {
			for _, q := range t.View().Queues() {
				all = append(all, q.Stats())
			}
		}
		for _, m := range queueMetrics {
			fmt.Fprintf(w, "# TYPE %s %s\n", m.name, m.kind)
			for _, s := range all {
				if v := m.value(s); v >= 0 { // fanout.Unknown is -1
					fmt.Fprintf(w, "%s{topic=%q,queue=%q} %v\n", m.name, s.Topic, s.Queue, v)
				}
			}
		}
		fmt.Fprintf(w, "# TYPE fanout_handler_seconds summary\n")
		for _, s := range all {
			count, sum := handlers.of(s.Topic, s.Queue)
			fmt.Fprintf(w, "fanout_handler_seconds_count{topic=%q,queue=%q} %d\n", s.Topic, s.Queue, count)
			fmt.Fprintf(w, "fanout_handler_seconds_sum{topic=%q,queue=%q} %v\n", s.Topic, s.Queue, sum.Seconds())
		}
	}
}

// HandlerTimes measures how long handlers take. Give Intercept to NewTopic by
// fanout.WithHandlerInterceptor.
type HandlerTimes struct {
	mu    sync.Mutex // guards the fields below
	count map[[2]string]int
	sum   map[[2]string]time.Duration
}

// Intercept is the interceptor.
func (h *HandlerTimes) Intercept(ctx context.Context, info fanout.Info, next func(context.Context) error) error {
	defer h.add(info.Topic, info.Queue, time.Now())
	return next(ctx)
}

func (h *HandlerTimes) add(topic, queue string, begin time.Time) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.count == nil {
		h.count, h.sum = map[[2]string]int{}, map[[2]string]time.Duration{}
	}
	h.count[[2]string{topic, queue}]++
	h.sum[[2]string{topic, queue}] += time.Since(begin)
}

func (h *HandlerTimes) of(topic, queue string) (int, time.Duration) {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.count[[2]string{topic, queue}], h.sum[[2]string{topic, queue}]
}

func TestMetricsWithoutALibrary(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx := t.Context()
		times := &HandlerTimes{}
		payments, err := fanout.NewTopic[string]("payments", fanout.WithHandlerInterceptor(times.Intercept))
		require.NoError(t, err)
		_, err = payments.Subscribe(ctx, "billing", func(_ context.Context, d fanout.Delivery[string]) error {
			time.Sleep(250 * time.Millisecond)
			if d.Body == "bad" {
				return fanout.Permanent(errors.New("no such order"))
			}
			return nil
		})
		require.NoError(t, err)
		_, err = payments.OpenQueue(ctx, "audit")
		require.NoError(t, err)
		for _, order := range []string{"o-17", "bad"} {
			require.NoError(t, payments.Publish(ctx, order))
		}
		time.Sleep(time.Minute)

		page := httptest.NewRecorder()
		Metrics(times, payments)(page, httptest.NewRequest(http.MethodGet, "/metrics", nil))
		require.NoError(t, payments.Close())
		require.Equal(t, `# TYPE fanout_queue_messages gauge
fanout_queue_messages{topic="payments",queue="audit"} 2
fanout_queue_messages{topic="payments",queue="billing"} 0
# TYPE fanout_queue_oldest_seconds gauge
fanout_queue_oldest_seconds{topic="payments",queue="audit"} 60
fanout_queue_oldest_seconds{topic="payments",queue="billing"} 0
# TYPE fanout_queue_dead_letters gauge
fanout_queue_dead_letters{topic="payments",queue="audit"} 0
fanout_queue_dead_letters{topic="payments",queue="billing"} 1
# TYPE fanout_queue_stuck_handlers gauge
fanout_queue_stuck_handlers{topic="payments",queue="audit"} 0
fanout_queue_stuck_handlers{topic="payments",queue="billing"} 0
# TYPE fanout_queue_delivered_total counter
fanout_queue_delivered_total{topic="payments",queue="audit"} 0
fanout_queue_delivered_total{topic="payments",queue="billing"} 2
# TYPE fanout_queue_acked_total counter
fanout_queue_acked_total{topic="payments",queue="audit"} 0
fanout_queue_acked_total{topic="payments",queue="billing"} 1
# TYPE fanout_queue_failed_total counter
fanout_queue_failed_total{topic="payments",queue="audit"} 0
fanout_queue_failed_total{topic="payments",queue="billing"} 1
# TYPE fanout_handler_seconds summary
fanout_handler_seconds_count{topic="payments",queue="audit"} 0
fanout_handler_seconds_sum{topic="payments",queue="audit"} 0
fanout_handler_seconds_count{topic="payments",queue="billing"} 2
fanout_handler_seconds_sum{topic="payments",queue="billing"} 0.5
`, page.Body.String())
	})
}
