package fanoutweb_test

import (
	"context"
	"encoding/json"
	"errors"
	"html"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strconv"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/gofanout/fanout"
	"github.com/gofanout/fanout/plugin/fanoutweb"
)

// What the page answers, without a browser. internal/webtest looks at it in one.

var quiet = fanout.WithLogger(slog.New(slog.DiscardHandler))

// A desk is a page over a topic of texts, and who asks it.
type desk struct {
	t     *testing.T
	topic *fanout.Topic[string]
	page  *fanoutweb.Handler
}

func newDesk(t *testing.T, o fanoutweb.Options, options ...fanout.TopicOption) *desk {
	t.Helper()
	topic, err := fanout.NewTopic[string]("orders", append(options, quiet)...)
	require.NoError(t, err)
	page, err := fanoutweb.New(o, topic)
	require.NoError(t, err)
	t.Cleanup(func() {
		page.Close()
		_ = topic.Close()
		<-topic.Done()
	})
	return &desk{t, topic, page}
}

func (d *desk) open(name string, options ...fanout.QueueOption) *fanout.Queue[string] {
	d.t.Helper()
	q, err := d.topic.OpenQueue(d.t.Context(), name, options...)
	require.NoError(d.t, err)
	return q
}

// kill makes a dead letter of each body.
func (d *desk) kill(q *fanout.Queue[string], err error, bodies ...string) {
	d.t.Helper()
	for _, body := range bodies {
		m := fanout.Message[string]{Body: body, ID: "id-" + body[:min(len(body), 20)], Attributes: map[string]string{"email": body + "@example.com"}}
		require.NoError(d.t, d.topic.PublishMessages(d.t.Context(), m))
		l, e := q.Receive(d.t.Context())
		require.NoError(d.t, e)
		require.NoError(d.t, l.Settle(d.t.Context(), err))
	}
}

func (d *desk) ask(method, path string, change ...func(*http.Request)) *http.Response {
	d.t.Helper()
	return ask(d.t.Context(), d.page, method, path, change...)
}

func ask(ctx context.Context, h http.Handler, method, path string, change ...func(*http.Request)) *http.Response {
	target, query, _ := strings.Cut(path, "?")
	var body io.Reader
	if method == http.MethodPost {
		body = strings.NewReader(query)
	} else if query != "" {
		target += "?" + query
	}
	r := httptest.NewRequestWithContext(ctx, method, target, body)
	if method == http.MethodPost {
		r.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	}
	for _, c := range change {
		c(r)
	}
	w := httptest.NewRecorder()
	h.ServeHTTP(w, r)
	return w.Result()
}

func asJSON(r *http.Request) { r.Header.Set("Accept", "application/json") }

// json asks for JSON, and returns it, given that the status is as it should be.
func (d *desk) json(status int, method, path string) (data map[string]any) {
	d.t.Helper()
	r := d.ask(method, path, asJSON)
	text := textOf(d.t, r)
	require.Equal(d.t, status, r.StatusCode, text)
	require.Equal(d.t, "application/json", r.Header.Get("Content-Type"))
	require.NoError(d.t, json.Unmarshal([]byte(text), &data), text)
	return data
}

// html asks for a page.
func (d *desk) html(status int, path string) string {
	d.t.Helper()
	r := d.ask("GET", path)
	text := textOf(d.t, r)
	require.Equal(d.t, status, r.StatusCode, text)
	require.Equal(d.t, "text/html; charset=utf-8", r.Header.Get("Content-Type"))
	return text
}

func textOf(t *testing.T, r *http.Response) string {
	t.Helper()
	text, err := io.ReadAll(r.Body)
	require.NoError(t, err)
	return string(text)
}

var errPoison = errors.New("no such order")

func TestNewRefusesWhatCanNotBe(t *testing.T) {
	topic, err := fanout.NewTopic[string]("orders")
	require.NoError(t, err)
	for what, f := range map[string]func() (*fanoutweb.Handler, error){
		"topic 2 of 2 nil":          func() (*fanoutweb.Handler, error) { return fanoutweb.New(fanoutweb.Options{}, topic, nil) },
		`two topics named "orders"`: func() (*fanoutweb.Handler, error) { return fanoutweb.New(fanoutweb.Options{}, topic, topic) },
		"MostReaders -1":            func() (*fanoutweb.Handler, error) { return fanoutweb.New(fanoutweb.Options{MostReaders: -1}) },
	} {
		_, err := f()
		require.ErrorIs(t, err, fanout.ErrInvalidOption)
		require.ErrorContains(t, err, what)
	}
}

func TestEveryAnswerForbidsStoringFramingAndLoading(t *testing.T) {
	d := newDesk(t, all())
	d.open("billing")
	ctx, cancel := context.WithCancel(t.Context())
	cancel() // a stream ends
	answers := map[string]*http.Response{
		"303": d.ask("POST", "/act?topic=orders&queue=billing&do=pause"), "as JSON": d.ask("GET", "/", asJSON),
		"403": d.ask("POST", "/act?topic=orders&queue=billing&do=pause", func(r *http.Request) { r.Header.Set("Sec-Fetch-Site", "cross-site") }),
		"400": d.ask("GET", "/letters?topic=orders&queue=billing&age=x"), "405": d.ask("PUT", "/"), "200 events": ask(ctx, d.page, "GET", "/events?page=flow"),
	}
	for name, r := range answers {
		if status, _, _ := strings.Cut(name, " "); status != "as" {
			require.Equal(t, status, strconv.Itoa(r.StatusCode))
		}
	}
	for _, path := range []string{"/", "/queue?topic=orders&queue=billing", "/queue?topic=none&queue=none", "/nothing", "/style.css", "/script.js", "/icon.svg"} {
		answers[path] = d.ask("GET", path)
		require.Equal(t, strings.Contains(path, "no"), answers[path].StatusCode == 404, path)
	}
	for path, r := range answers {
		h := r.Header
		require.Equal(t, "no-store", h.Get("Cache-Control"), path)
		require.Equal(t, "nosniff", h.Get("X-Content-Type-Options"), path)
		require.Equal(t, "no-referrer", h.Get("Referrer-Policy"), path)
		policy := h.Get("Content-Security-Policy")
		for _, part := range []string{"default-src 'none'", "frame-ancestors 'none'", "form-action 'self'", "base-uri 'none'"} {
			require.Contains(t, policy, part, path)
		}
		require.NotContains(t, policy, "unsafe", path)
	}
}

func TestThePageWorksBelowAnyPath(t *testing.T) {
	d := newDesk(t, fanoutweb.Options{})
	d.open("billing")
	for _, path := range []string{"/", "", "/queues/", "/a/b/"} {
		r := d.ask("GET", "/", func(r *http.Request) { r.URL.Path = path })
		require.Equal(t, 200, r.StatusCode, path)
		text := textOf(t, r)
		for _, absolute := range []string{`href="/`, `src="/`, `action="/`, "http://"} {
			require.NotContains(t, text, absolute)
		}
	}
	require.Equal(t, 200, d.ask("GET", "/a/b/queue?topic=orders&queue=billing").StatusCode)
	require.Equal(t, 404, d.ask("GET", "/a/b/c").StatusCode)
	require.Equal(t, 405, d.ask("POST", "/").StatusCode)
	require.Equal(t, 200, d.ask("HEAD", "/").StatusCode)
}

func TestNamesMayBeAnything(t *testing.T) {
	d := newDesk(t, fanoutweb.Options{})
	name := `a/b?c=d&"<script>alert(1)</script> ü%`
	d.open(name)
	text := d.html(200, "/")
	require.NotContains(t, text, "<script>alert")
	query := url.Values{"topic": {"orders"}, "queue": {name}}.Encode()
	require.Contains(t, html.UnescapeString(text), "queue?queue="+url.QueryEscape(name)+"&topic=orders")
	data := d.json(200, "GET", "/queue?"+query)
	require.Equal(t, name, data["queue"])
}

func TestWhatMayNotBeSeenIsNotThere(t *testing.T) {
	d := newDesk(t, fanoutweb.Options{Allow: func(_ *http.Request, a fanoutweb.Access) bool {
		return a.Action == fanoutweb.View && a.Queue != "secret"
	}})
	d.open("billing")
	d.open("secret")
	text := d.html(200, "/")
	require.Contains(t, text, "billing")
	require.NotContains(t, text, "secret")
	require.Equal(t, 403, d.ask("GET", "/queue?topic=orders&queue=secret").StatusCode)
	require.Equal(t, 403, d.ask("GET", "/events?page=queue&topic=orders&queue=secret").StatusCode)
	one := d.json(200, "GET", "/")["topics"].([]any)[0].(map[string]any)
	require.Len(t, one["queues"], 1)
	require.EqualValues(t, 1, one["queues_open"])
}

func TestAQueueIsToldInJSON(t *testing.T) {
	d := newDesk(t, fanoutweb.Options{})
	q := d.open("billing", fanout.WithMaxAttempts(1), fanout.WithCapacity(10))
	d.kill(q, errPoison, "o-1")
	require.NoError(t, d.topic.Publish(t.Context(), "o-2"))
	data := d.json(200, "GET", "/queue?topic=orders&queue=billing")
	require.EqualValues(t, 1, data["ready"])
	require.EqualValues(t, 10, data["capacity"])
	require.EqualValues(t, 1, data["dead"])
	require.EqualValues(t, 1024, data["dead_letter_capacity"])
	require.EqualValues(t, 1, data["counts"].(map[string]any)["failed"])
	require.EqualValues(t, 30, data["options"].(map[string]any)["visibility_timeout_seconds"])
	require.Empty(t, data["subscribers"])
	require.Equal(t, map[string]any{"error": "There is no queue of this name in the topic. It may have been closed."}, d.json(404, "GET", "/queue?topic=orders&queue=none"))
}

func TestAClosedPageRefuses(t *testing.T) {
	d := newDesk(t, fanoutweb.Options{})
	d.page.Close()
	d.page.Close()
	require.Equal(t, 503, d.ask("GET", "/").StatusCode)
}
