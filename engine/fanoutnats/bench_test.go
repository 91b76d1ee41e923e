package fanoutnats_test

import (
	"testing"
	"time"

	"github.com/gofanout/fanout/engine"
	"github.com/gofanout/fanout/engine/fanoutnats/embedded"
	"github.com/stretchr/testify/require"
)

// One publish, one delivery, one acknowledgement, of 256 bytes.
func BenchmarkEmbedded(b *testing.B) {
	for name, options := range map[string][]embedded.Option{
		"sync=always": nil, "sync=1m": {embedded.WithSyncInterval(time.Minute)},
	} {
		for _, size := range []int{1, 100} {
			b.Run(name+"/batch="+map[int]string{1: "1", 100: "100"}[size], func(b *testing.B) {
				e, err := embedded.Open(b.TempDir(), options...)
				require.NoError(b, err)
				b.Cleanup(func() { require.NoError(b, e.Close()) })
				top, err := e.OpenTopic(b.Context(), engine.TopicSpec{Name: "bench"})
				require.NoError(b, err)
				q, err := top.OpenQueue(b.Context(), engine.QueueSpec{Name: "q", Visibility: time.Minute})
				require.NoError(b, err)
				b.Cleanup(func() { require.NoError(b, q.Close()) })
				ms := messages(size)
				for k := range ms {
					ms[k].Body = make([]byte, 256)
				}
				for n := 0; b.Loop(); n++ {
					require.NoError(b, top.Publish(b.Context(), ms))
					for left := size; left > 0; {
						rs, err := q.Receive(b.Context(), left, 0)
						require.NoError(b, err)
						for _, r := range rs {
							require.NoError(b, q.Ack(b.Context(), r.Receipt))
						}
						left -= len(rs)
					}
				}
				b.ReportMetric(float64(size)*float64(b.N)/b.Elapsed().Seconds(), "messages/s")
			})
		}
	}
}
