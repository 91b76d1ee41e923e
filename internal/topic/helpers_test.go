// What the tests of this package share. Black-box tests have internal/tests/kit.

package topic

import (
	"context"
	"fmt"
	"runtime"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/gofanout/fanout/internal/delivery"
	"github.com/gofanout/fanout/internal/message"
	"github.com/gofanout/fanout/internal/queue"
)

// elapse lets d pass, and all that it brings about.
func elapse(d time.Duration) {
	time.Sleep(d)
	synctest.Wait()
}

func publishAll[T any](t *testing.T, top *Topic[T], ms ...message.Published[T]) {
	t.Helper()
	require.NoError(t, top.PublishMessages(context.Background(), ms...))
}

// A diary says what happened when, since it was begun.
type diary struct {
	began time.Time

	mu    sync.Mutex
	lines []string
}

func (y *diary) note(format string, args ...any) {
	y.mu.Lock()
	defer y.mu.Unlock()
	y.lines = append(y.lines, fmt.Sprintf("%v: ", time.Since(y.began))+fmt.Sprintf(format, args...))
}

// read returns the lines since the last time.
func (y *diary) read() []string {
	y.mu.Lock()
	defer y.mu.Unlock()
	lines := y.lines
	y.lines = nil
	return lines
}

func newDiary() *diary { return &diary{began: time.Now()} }

func heap() int64 {
	runtime.GC()
	runtime.GC()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return int64(m.HeapAlloc + m.StackInuse)
}

func handleNothing(context.Context, delivery.Delivery[int]) error { return nil }

// topicOf is a queue's topic.
func topicOf[T any](q *queue.Queue[T]) *Topic[T] { return q.T.Owner.(*Topic[T]) }
