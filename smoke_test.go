package fanout

import (
	"context"
	"errors"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"
)

func TestSmoke(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx := t.Context()
		top, err := NewTopic[int]("payments")
		require.NoError(t, err)
		var sum, fails atomic.Int64
		_, err = top.Subscribe(ctx, "inventory", func(ctx context.Context, d Delivery[int]) error {
			if d.Body%7 == 0 && d.Attempt() == 1 {
				fails.Add(1)
				return errors.New("busy")
			}
			if d.Body == 13 {
				return Permanent(errors.New("unlucky"))
			}
			sum.Add(int64(d.Body))
			return nil
		}, WithConcurrency(4), WithCapacity(10))
		require.NoError(t, err)
		pull, err := top.OpenQueue(ctx, "audit", WithFilter(func(i int) bool { return i > 90 }))
		require.NoError(t, err)
		want := 0
		for i := range 100 {
			require.NoError(t, top.Publish(ctx, i))
			want += i
		}
		go func() {
			n := 0
			for d, err := range pull.Deliveries(ctx) {
				require.NoError(t, err)
				require.NoError(t, d.Ack(ctx))
				n++
			}
			require.Equal(t, 9, n)
		}()
		time.Sleep(time.Second)
		require.Equal(t, int64(want-13), sum.Load())
		dead, err := top.Queue("inventory").DeadLetters().Peek(ctx, 10)
		require.NoError(t, err)
		require.Len(t, dead, 1)
		t.Log(dead[0].ID(), dead[0].History())
		t.Logf("%+v", top.Queue("inventory").Stats())
		require.NoError(t, top.Shutdown(ctx))
		<-top.Done()
	})
}

func BenchmarkPush(b *testing.B) {
	ctx := context.Background()
	for _, s := range []struct {
		name string
		n    int
	}{{"1", 1}, {"4", 4}, {"16", 16}, {"100", 100}} {
		b.Run(s.name, func(b *testing.B) {
			top, _ := NewTopic[*int]("t")
			for i := range s.n {
				top.Subscribe(ctx, string(rune('a'+i)), func(ctx context.Context, d Delivery[*int]) error { return nil })
			}
			x := new(int)
			b.ReportAllocs()
			for b.Loop() {
				top.Publish(ctx, x)
			}
			top.Shutdown(ctx)
			b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N*s.n), "ns/delivery")
		})
	}
}
