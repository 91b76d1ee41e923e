package fanoutweb

import (
	"context"
	"errors"
	"go/parser"
	"go/token"
	"io/fs"
	"net/http"
	"net/http/httptest"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/gofanout/fanout"
)

// importsOf calls f with what each Go file below a folder imports.
func importsOf(t *testing.T, root string, f func(path, imported string)) {
	t.Helper()
	require.NoError(t, filepath.WalkDir(root, func(path string, d fs.DirEntry, err error) error {
		if err != nil || !strings.HasSuffix(path, ".go") {
			if d != nil && d.IsDir() && strings.HasPrefix(d.Name(), ".") && len(d.Name()) > 2 {
				return fs.SkipDir
			}
			return err
		}
		file, err := parser.ParseFile(token.NewFileSet(), path, nil, parser.ImportsOnly)
		if err != nil {
			return err
		}
		for _, i := range file.Imports {
			name, err := strconv.Unquote(i.Path.Value)
			if err != nil {
				return err
			}
			f(path, name)
		}
		return nil
	}))
}

// The page needs the standard library and the core, and who doesn't want it doesn't get it.
func TestThePageImportsTheStandardLibraryAndIsImportedByExamplesAlone(t *testing.T) {
	const core = "github.com/gofanout/fanout"
	importsOf(t, ".", func(path, name string) {
		if !strings.HasSuffix(path, "_test.go") && strings.Contains(name, ".") {
			require.Equal(t, core, name, path)
		}
	})
	found := 0
	importsOf(t, "../..", func(path, name string) {
		if name != core+"/plugin/fanoutweb" {
			return
		}
		found++
		path = filepath.ToSlash(path)
		require.True(t, strings.Contains(path, "/examples/") || strings.HasSuffix(path, "_test.go"), path)
	})
	require.Positive(t, found)
}

// A watched is a topic that counts how often messages are looked at.
type watched struct {
	fanout.TopicView
	peeks *int
}

func (w watched) Queue(name string) fanout.QueueView {
	return watchedQueue{w.TopicView.Queue(name), w.peeks}
}

func (w watched) Queues() (qs []fanout.QueueView) {
	for _, q := range w.TopicView.Queues() {
		qs = append(qs, watchedQueue{q, w.peeks})
	}
	return qs
}

type watchedQueue struct {
	fanout.QueueView
	peeks *int
}

func (q watchedQueue) Peek(ctx context.Context, o fanout.PeekOptions) ([]fanout.MessageView, string, error) {
	*q.peeks++
	return q.QueueView.Peek(ctx, o)
}

func (q watchedQueue) DeadLetters() fanout.QueueView {
	if d := q.QueueView.DeadLetters(); d != nil {
		return watchedQueue{d, q.peeks}
	}
	return nil
}

func TestOnlyATableLooksAtMessages(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		topic, h := tested(t, Options{Allow: AllowAll}, "billing")
		defer topic.Close()
		defer h.Close()
		require.NoError(t, topic.Publish(t.Context(), "o-17"))
		dies(t, topic.Queue("billing"), errors.New("no address"), "o-17")
		require.NoError(t, topic.Publish(t.Context(), "o-18"))
		peeks := 0
		h.topics = []fanout.TopicView{watched{topic.View(), &peeks}}
		h.sampler.topics = h.topics
		const at = "?topic=orders&queue=billing"
		for range 3 {
			for _, path := range []string{"/", "/queue" + at, "/confirm" + at + "&do=pause", "/confirm" + at + "&do=purge", "/confirm" + at + "&do=redrive"} {
				get(t, h, path)
			}
			ctx, cancel := context.WithTimeout(t.Context(), 3*time.Second)
			for _, page := range []string{"flow", "queue&topic=orders&queue=billing"} {
				h.ServeHTTP(nowhere{http.Header{}}, httptest.NewRequestWithContext(ctx, "GET", "/events?page="+page, nil))
			}
			cancel()
		}
		require.Zero(t, peeks)
		get(t, h, "/letters"+at)
		require.Positive(t, peeks)
	})
}

// A slow is a connection whose write deadlines are recorded.
type slow struct {
	nowhere
	deadlines []time.Time
}

func (s *slow) SetWriteDeadline(at time.Time) error {
	s.deadlines = append(s.deadlines, at)
	return nil
}

func TestALivePageMovesItsWriteDeadline(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		topic, h := tested(t, Options{}, "billing")
		defer topic.Close()
		defer h.Close()
		begun := time.Now()
		ctx, cancel := context.WithTimeout(t.Context(), 3500*time.Millisecond)
		defer cancel()
		w := &slow{nowhere: nowhere{http.Header{}}}
		h.ServeHTTP(w, httptest.NewRequestWithContext(ctx, "GET", "/events?page=flow", nil))
		want := []time.Time{begun.Add(writeFor)} // before it says that it is a stream
		for k := range 4 {                       // each event
			want = append(want, begun.Add(writeFor+time.Duration(k)*lookEvery))
		}
		want = append(want, time.Time{}) // none for who uses the connection after it
		require.Equal(t, len(want), len(w.deadlines))
		for k := range want {
			require.True(t, want[k].Equal(w.deadlines[k]), "%d: %v instead of %v", k, w.deadlines[k], want[k])
		}
	})
}

func TestALivePageEndsAfterFiveMinutes(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		allowed := 0
		topic, h := tested(t, Options{Allow: func(*http.Request, Access) bool { allowed++; return true }}, "billing")
		defer topic.Close()
		defer h.Close()
		begun := time.Now()
		h.ServeHTTP(nowhere{http.Header{}}, httptest.NewRequestWithContext(t.Context(), "GET", "/events?page=flow", nil))
		require.Equal(t, 5*time.Minute, time.Since(begun), "the browser asks again, and so does the page for what may be seen")
		require.Equal(t, 2, allowed, "once for the topic, once for the queue")
	})
}

func TestNothingIsHeardOnceNobodyReads(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		topic, h := tested(t, Options{}, "billing")
		defer topic.Close()
		defer h.Close()
		heard := func() int {
			require.NoError(t, topic.Publish(t.Context(), "o-17"))
			dies(t, topic.Queue("billing"), errors.New("no address"), "o-17")
			synctest.Wait()
			h.sampler.deaths.mu.Lock()
			defer h.sampler.deaths.mu.Unlock()
			return len(h.sampler.deaths.last)
		}
		require.Zero(t, heard(), "nobody has read it yet")
		get(t, h, "/")
		require.Equal(t, 1, heard())
		time.Sleep(lookOn + 2*time.Second)
		synctest.Wait()
		require.Zero(t, heard(), "a minute after the last reader")
	})
}

func TestAnArrowIsAsWideAsTheRate(t *testing.T) {
	var queues []queueInfo
	for _, r := range []float64{-1, 0, 0.1, 1, 10, 100, 1000} {
		queues = append(queues, queueInfo{Rates: rates{Published: r}})
	}
	l := linksTo(queues)
	require.Len(t, l.Ribbons, len(queues))
	require.Equal(t, l.Ribbons[0].Width, l.Ribbons[1].Width)
	for k := 2; k < len(queues); k++ {
		require.Greater(t, l.Ribbons[k].Width, l.Ribbons[k-1].Width)
	}
	require.LessOrEqual(t, l.Ribbons[len(queues)-1].Width, mostWide)
	queues[3].Blocking, queues[4].Engine = true, "an engine"
	l = linksTo(queues)
	require.Equal(t, []string{"idle", "idle", "slow", "waits", "plain", "fast", "fast"}, []string{
		l.Ribbons[0].Class, l.Ribbons[1].Class, l.Ribbons[2].Class, l.Ribbons[3].Class, l.Ribbons[4].Class, l.Ribbons[5].Class, l.Ribbons[6].Class,
	})
}

func TestABarIsFilledByState(t *testing.T) {
	unlimited := fanout.Unlimited
	i := queueInfo{Capacity: 100, Held: 60, InFlight: 10, Ready: 40, Parked: 10}
	require.Equal(t, []segment{{"in flight", 10, 0, 10}, {"ready", 40, 10, 40}, {"parked", 10, 50, 10}}, i.Bar())
	i = queueInfo{Capacity: 5000, Held: 1, Ready: 1}
	require.Equal(t, []segment{{"ready", 1, 0, leastWide}}, i.Bar(), "one message is seen")
	i = queueInfo{Capacity: bound(unlimited), Held: 1000, Ready: 1000}
	require.Equal(t, []segment{{"ready", 1000, 0, 50}}, i.Bar(), "without a capacity it is not full")
	i = queueInfo{Capacity: 3, Held: 5, Ready: 5}
	require.Equal(t, []segment{{"ready", 5, 0, 100}}, i.Bar())
}

// What a trouble says of this process alone says so on an engine, where there may be others.
func TestTroublesOnAnEngineAreThoseOfThisProcess(t *testing.T) {
	topic, h := tested(t, Options{}, "billing")
	defer topic.Close()
	defer h.Close()
	var q *queueState
	h.sampler.look(func(s *sampler) { q = s.tops[0].queues[0] })
	told := func(i queueInfo) (texts []string) {
		for _, x := range q.troubles(time.Now(), &i) {
			texts = append(texts, x.Text)
		}
		return texts
	}
	const here = " in this process"
	for engine, where := range map[string]string{"": "", "an engine": here} {
		calm := rates{-1, 1, 1, 0, 0, 0}
		require.Equal(t, []string{"1 handler still runs" + where + " past the visibility timeout of 30 s."}, told(queueInfo{Engine: engine, Stuck: 1, Capacity: fanout.Unknown, Rates: calm}))
		require.Equal(t, []string{"It is paused" + where + ": 3 messages wait."}, told(queueInfo{Engine: engine, Paused: true, Ready: 3, Capacity: fanout.Unknown, Rates: calm}))
		require.Equal(t, []string{"It is paused" + where + "."}, told(queueInfo{Engine: engine, Paused: true, Ready: fanout.Unknown, Capacity: fanout.Unknown, Rates: calm}))
		require.Equal(t, []string{"50% of attempts" + where + " fail (1/s)."}, told(queueInfo{Engine: engine, Capacity: fanout.Unknown, Rates: rates{-1, 2, 1, 1, 0, 0}}))
		nobody := "It has no subscriber" + where + "."
		if engine == "" {
			nobody = "It has no subscriber, and nobody receives from it."
		}
		require.Equal(t, []string{"Nothing is delivered" + where + ", and the oldest message is 12 s old. " + nobody}, told(queueInfo{Engine: engine, Oldest: 12, Capacity: fanout.Unknown}))
	}
}
