package fanoutweb

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"runtime"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/gofanout/fanout"
	"github.com/gofanout/fanout/internal/fakeengine"
)

// When counters are read, and what is kept of them; and the streams that it is read for.

func tested(t testing.TB, o Options, queues ...string) (*fanout.Topic[string], *Handler) {
	t.Helper()
	topic, err := fanout.NewTopic[string]("orders", fanout.WithLogger(slog.New(slog.DiscardHandler)))
	require.NoError(t, err)
	for _, name := range queues {
		_, err := topic.OpenQueue(t.Context(), name)
		require.NoError(t, err)
	}
	h, err := New(o, topic)
	require.NoError(t, err)
	return topic, h
}

func get(t testing.TB, h http.Handler, path string) string {
	t.Helper()
	w := httptest.NewRecorder()
	h.ServeHTTP(w, httptest.NewRequestWithContext(t.Context(), "GET", path, nil))
	require.Equal(t, 200, w.Code, w.Body)
	return w.Body.String()
}

// running counts the goroutines that read counters or ask engines, in a bubble. To count all of
// the process is to count those of other tests that are about to end, and the runtime's.
func running() (n int) {
	synctest.Wait()
	all := make([]byte, 1<<20)
	for _, stack := range strings.Split(string(all[:runtime.Stack(all, true)]), "\n\n") {
		if strings.Contains(stack, "fanoutweb.(*sampler).run(") || strings.Contains(stack, "fanoutweb.asker.run(") {
			n++
		}
	}
	return n
}

func TestCountersAreReadWhileSomebodyReadsAndAMinuteMore(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		topic, h := tested(t, Options{}, "billing")
		defer topic.Close()
		defer h.Close()
		time.Sleep(time.Hour)
		require.True(t, h.sampler.at.IsZero(), "nobody looks, so nothing is read")
		require.Zero(t, running())

		at := func() (at time.Time) { // of the last look
			h.sampler.mu.Lock()
			defer h.sampler.mu.Unlock()
			return h.sampler.at
		}
		begun := time.Now()
		get(t, h, "/")
		for range 3 { // readers share the looks
			get(t, h, "/queue?topic=orders&queue=billing")
		}
		require.Equal(t, begun, at())
		require.Equal(t, 1, running())
		time.Sleep(10*time.Second + time.Millisecond)
		synctest.Wait()
		require.Equal(t, begun.Add(10*time.Second), at(), "once a second")
		h.sampler.look(func(s *sampler) { require.Len(t, s.tops[0].queues[0].series.points, 11) })
		get(t, h, "/") // the last reader
		last := time.Now()
		time.Sleep(begun.Add(70 * time.Second).Sub(last))
		synctest.Wait()
		require.Equal(t, 1, running())
		time.Sleep(time.Second)
		synctest.Wait()
		require.Zero(t, running(), "a minute after the last reader")
		require.True(t, at().IsZero(), "and nothing is kept")

		get(t, h, "/")
		require.Equal(t, 1, running(), "it begins anew")
		h.Close()
		require.Zero(t, running(), "Close joins it")
	})
}

func TestAnEngineIsAskedByOneForEachTopic(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		topic, err := fanout.NewTopic[string]("orders", fanout.WithEngine(fakeengine.New(fakeengine.Config{})))
		require.NoError(t, err)
		_, err = topic.OpenQueue(t.Context(), "billing")
		require.NoError(t, err)
		h, err := New(Options{}, topic)
		require.NoError(t, err)
		synctest.Wait()
		for range 3 { // readers who come as soon as it has ended
			get(t, h, "/")
			for range 61 {
				time.Sleep(time.Second)
				synctest.Wait()
			}
		}
		get(t, h, "/")
		time.Sleep(askEvery + time.Second) // what asked for earlier readers is gone
		synctest.Wait()
		require.Equal(t, 2, running())
		require.Contains(t, get(t, h, "/queue?topic=orders&queue=billing"), "asked 1 s ago")
		h.Close()
		require.NoError(t, topic.Close())
		<-topic.Done()
	})
}

func TestRatesAreDifferencesOfTheLastSeconds(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		topic, h := tested(t, Options{}, "billing")
		defer topic.Close()
		defer h.Close()
		rateNow := func() (r float64) {
			h.sampler.look(func(s *sampler) { r = s.tops[0].queues[0].info(s.at).Rates.Published })
			return r
		}
		require.EqualValues(t, -1, rateNow(), "one look is no rate")
		time.Sleep(500 * time.Millisecond)
		for range 20 {
			time.Sleep(time.Second)
			for range 5 {
				require.NoError(t, topic.Publish(t.Context(), "o-17"))
			}
		}
		time.Sleep(501 * time.Millisecond) // the last look was just now
		require.EqualValues(t, 5, rateNow())
		time.Sleep(10 * time.Second)
		require.Zero(t, rateNow())
		var published line
		h.sampler.look(func(s *sampler) { published = s.tops[0].queues[0].charts()[0].Lines[0] })
		require.Equal(t, "published", published.Name)
		require.Equal(t, "0/s", published.Now)
	})
}

func TestChartsGoBackTenMinutesAtMost(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		topic, h := tested(t, Options{}, "billing")
		defer topic.Close()
		defer h.Close()
		for range 30 * 60 {
			get(t, h, "/style.css")
			h.sampler.look(func(*sampler) {})
			time.Sleep(time.Second)
		}
		var ps []point
		h.sampler.look(func(s *sampler) { ps = slices.Clone(s.tops[0].queues[0].series.points) })
		require.LessOrEqual(t, len(ps), mostPoints)
		require.InDelta(t, 600, (ps[len(ps)-1].time() - ps[0].time()).Seconds(), 10)
		for k := 1; k < len(ps); k++ {
			require.Equal(t, longestStep, (ps[k].time() - ps[k-1].time()).Round(time.Second))
		}
	})
}

func TestAPeakIsKeptWhenAChartIsThinned(t *testing.T) {
	var s series
	since := time.Now()
	for k := range mostPoints + 1 {
		st := fanout.Stats{Ready: 1}
		if k == 20 {
			st.Ready = 999
		}
		s.add(since, since.Add(time.Duration(k)*time.Second), &st)
	}
	require.Equal(t, 2*time.Second, s.step)
	highest := int32(0)
	for _, p := range s.points {
		highest = max(highest, p.held)
	}
	require.EqualValues(t, 999, highest)
}

func TestTwoThousandQueuesTakeLittleMemory(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var names []string
		for k := range 2000 {
			names = append(names, fmt.Sprintf("queue-%04d", k))
		}
		topic, h := tested(t, Options{}, names...)
		defer topic.Close()
		heap := func() int64 {
			runtime.GC()
			runtime.GC() // what pools held
			var m runtime.MemStats
			runtime.ReadMemStats(&m)
			return int64(m.HeapAlloc)
		}
		without := heap()
		for range mostPoints + 10 { // no series is longer
			h.sampler.look(func(*sampler) {})
			time.Sleep(time.Second)
		}
		with := heap()
		t.Logf("ten minutes of 2,000 queues: %.1f MB", float64(with-without)/1e6)
		require.Less(t, with-without, int64(32<<20))
		h.Close()
	})
}

// Streams need a connection.

func served(t *testing.T, h *Handler) *httptest.Server {
	t.Helper()
	s := httptest.NewUnstartedServer(h)
	s.Config.RegisterOnShutdown(h.Close)
	s.Start()
	t.Cleanup(s.Close)
	return s
}

func listen(t *testing.T, s *httptest.Server, path string) (*http.Response, *bufio.Reader) {
	t.Helper()
	r, err := http.NewRequestWithContext(t.Context(), "GET", s.URL+path, nil)
	require.NoError(t, err)
	answer, err := http.DefaultClient.Do(r)
	require.NoError(t, err)
	t.Cleanup(func() { _ = answer.Body.Close() })
	return answer, bufio.NewReader(answer.Body)
}

// next returns the lines of the next event, comments left out.
func next(t *testing.T, r *bufio.Reader) (name, data string) {
	t.Helper()
	for {
		line, err := r.ReadString('\n')
		require.NoError(t, err)
		switch {
		case strings.HasPrefix(line, "event: "):
			name = strings.TrimSpace(line[len("event: "):])
		case strings.HasPrefix(line, "data: "):
			data += line[len("data: "):]
		case line == "\n" && name != "":
			return name, data
		}
	}
}

func TestALivePageEndsWithItsTopic(t *testing.T) {
	topic, h := tested(t, Options{}, "billing")
	defer h.Close()
	s := served(t, h)
	for _, path := range []string{"/events?page=flow", "/events?page=queue&topic=orders&queue=billing"} {
		answer, r := listen(t, s, path)
		require.Equal(t, "text/event-stream", answer.Header.Get("Content-Type"))
		require.Equal(t, "no", answer.Header.Get("X-Accel-Buffering"))
		name, data := next(t, r)
		require.Equal(t, "part", name)
		require.Contains(t, data, "billing")
		if strings.Contains(path, "page=queue") {
			require.NoError(t, topic.Close())
			for name != "end" {
				name, _ = next(t, r)
			}
			_, err := io.ReadAll(r)
			require.NoError(t, err)
		}
	}
}

func TestShutdownEndsTenReaders(t *testing.T) {
	topic, h := tested(t, Options{}, "billing")
	defer topic.Close()
	s := served(t, h)
	var readers []*bufio.Reader
	for range 10 {
		_, r := listen(t, s, "/events?page=flow")
		_, _ = next(t, r)
		readers = append(readers, r)
	}
	require.NoError(t, s.Config.Shutdown(t.Context())) // hangs if one goes on
	for _, r := range readers {
		_, err := io.ReadAll(r)
		require.NoError(t, err)
	}
}

func TestThereAreOnlySoManyLivePages(t *testing.T) {
	topic, h := tested(t, Options{MostReaders: 2}, "billing")
	defer topic.Close()
	defer h.Close()
	s := served(t, h)
	first, _ := listen(t, s, "/events?page=flow")
	_, _ = listen(t, s, "/events?page=flow")
	answer, _ := listen(t, s, "/events?page=flow")
	require.Equal(t, 503, answer.StatusCode)
	require.Equal(t, "5", answer.Header.Get("Retry-After"))
	require.NoError(t, first.Body.Close())
	require.Eventually(t, func() bool {
		answer, _ := listen(t, s, "/events?page=flow")
		return answer.StatusCode == 200
	}, 10*time.Second, 10*time.Millisecond, "who goes makes room")
}

// deaf is a ResponseWriter that can't flush.
type deaf struct{ http.ResponseWriter }

func TestWhereNothingCanBeFlushedItIsSaid(t *testing.T) {
	topic, h := tested(t, Options{}, "billing")
	defer topic.Close()
	defer h.Close()
	w := httptest.NewRecorder()
	h.ServeHTTP(deaf{w}, httptest.NewRequest("GET", "/events?page=flow", nil))
	require.Equal(t, 501, w.Code)
}

func TestAPanicOfAuditKeepsWhatCanNotBeToldFromBeingDone(t *testing.T) {
	topic, h := tested(t, Options{Allow: AllowAll, Audit: func(Entry) { panic("no disk") }, Logger: slog.New(slog.DiscardHandler)}, "billing")
	defer topic.Close()
	defer h.Close()
	j := &job{Action: Pause}
	err := audited{h, nil, deed{Action: Pause, place: place{view: topic.Queue("billing").View()}}}.run(context.Background(), j)
	require.ErrorContains(t, err, "Options.Audit panicked: no disk")
	require.False(t, topic.Queue("billing").Stats().Paused)
}

func TestTroublesAreToldWithTheirReasons(t *testing.T) {
	topic, h := tested(t, Options{})
	defer topic.Close()
	defer h.Close()
	ctx := t.Context()
	full, err := topic.OpenQueue(ctx, "full", fanout.WithCapacity(2), fanout.WithOverflow(fanout.Reject))
	require.NoError(t, err)
	parked, err := topic.OpenQueue(ctx, "parked", fanout.WithDeadLetterCapacity(1))
	require.NoError(t, err)
	for range 2 {
		require.NoError(t, topic.Publish(ctx, "o-17"))
	}
	for range 2 {
		d, err := parked.Receive(ctx)
		require.NoError(t, err)
		require.NoError(t, d.Settle(ctx, fanout.Permanent(errors.New("poison"))))
	}
	require.NoError(t, full.Pause(ctx))
	texts := map[string][]string{}
	h.sampler.look(func(s *sampler) {
		for _, q := range s.tops[0].queues {
			i := q.info(s.at)
			for _, x := range i.Troubles {
				texts[i.Queue] = append(texts[i.Queue], x.Level+": "+x.Text)
			}
		}
	})
	require.Equal(t, map[string][]string{
		"full":   {"warning: It is full: publishes are refused.", "warning: It is paused: 2 messages wait."},
		"parked": {"critical: The dead-letter queue is full: 1 dead message waits here and takes up some of its room.", "note: 1 letter is in its dead-letter queue, and there is no room for more."},
	}, texts)
}
