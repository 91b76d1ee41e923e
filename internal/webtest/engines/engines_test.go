// Package engines looks at the page of plugin/fanoutweb where messages are in NATS JetStream, or in
// SNS and SQS. It needs no browser.
package engines

import (
	"encoding/json"
	"errors"
	"fmt"
	"html"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"net/url"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/nats-io/nats-server/v2/server"
	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
	"github.com/stretchr/testify/require"

	"github.com/gofanout/fanout"
	"github.com/gofanout/fanout/engine"
	"github.com/gofanout/fanout/engine/fanoutaws"
	"github.com/gofanout/fanout/engine/fanoutnats"
	"github.com/gofanout/fanout/fanouttest/fakeaws"
	"github.com/gofanout/fanout/plugin/fanoutweb"
)

// A desk is a page over a topic on an engine, and who asks it.
type desk struct {
	*testing.T
	engine fanout.TopicOption
	topic  *fanout.Topic[string]
	page   *fanoutweb.Handler
	// wait waits until something is so.
	wait func(is func() bool, what string)
	// later lets time pass, if it doesn't by itself.
	later func()
	// receives says how often each letter of billing was received, if that can be told.
	receives func() []int
}

func (d *desk) newTopic() *fanout.Topic[string] {
	d.Helper()
	topic, err := fanout.NewTopic[string]("orders", d.engine, fanout.WithLogger(slog.New(slog.DiscardHandler)))
	require.NoError(d, err)
	d.Cleanup(func() {
		_ = topic.Close()
		<-topic.Done()
	})
	return topic
}

func newDesk(t *testing.T, e fanout.TopicOption, o fanoutweb.Options) *desk {
	t.Helper()
	d := &desk{T: t, engine: e, later: func() {}, receives: func() []int { return nil }}
	d.topic = d.newTopic()
	var err error
	d.page, err = fanoutweb.New(o, d.topic)
	require.NoError(t, err)
	t.Cleanup(d.page.Close)
	return d
}

func (d *desk) ask(method, path string, header ...string) (status int, text string) {
	d.Helper()
	target, query, _ := strings.Cut(path, "?")
	var body io.Reader
	if method == http.MethodPost {
		body = strings.NewReader(query)
	} else if query != "" {
		target += "?" + query
	}
	r := httptest.NewRequestWithContext(d.Context(), method, target, body)
	if method == http.MethodPost {
		r.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	}
	for k := 0; k < len(header); k += 2 {
		r.Header.Set(header[k], header[k+1])
	}
	w := httptest.NewRecorder()
	d.page.ServeHTTP(w, r)
	return w.Code, w.Body.String()
}

func (d *desk) html(path string) string {
	d.Helper()
	status, text := d.ask(http.MethodGet, path)
	require.Equal(d, http.StatusOK, status, text)
	return html.UnescapeString(text)
}

func (d *desk) json(method, path string) (data map[string]any) {
	d.Helper()
	status, text := d.ask(method, path, "Accept", "application/json")
	require.Equal(d, http.StatusOK, status, text)
	require.NoError(d, json.Unmarshal([]byte(text), &data))
	return data
}

const billing = "topic=orders&queue=billing"

// act does something with what its confirmation says, and returns what the page says of it.
func (d *desk) act(form string) string {
	d.Helper()
	c := d.json(http.MethodGet, "/confirm?"+billing+"&do="+form)
	confirmed := fmt.Sprintf("&count=%.0f&until=%s", c["count"], url.QueryEscape(c["until"].(string)))
	return d.json(http.MethodPost, "/act?"+billing+"&do="+form+confirmed)["text"].(string)
}

func (d *desk) kill(q *fanout.Queue[string], n int) {
	d.Helper()
	for range n {
		l, err := q.Receive(d.Context())
		require.NoError(d, err)
		require.NoError(d, l.Settle(d.Context(), fanout.Permanent(errors.New("no such order"))))
	}
}

func (d *desk) publish(topic *fanout.Topic[string], ids ...string) {
	d.Helper()
	for _, id := range ids {
		require.NoError(d, topic.PublishMessages(d.Context(), fanout.Message[string]{ID: id, Body: "body of " + id, Attributes: map[string]string{"region": "eu"}}))
	}
}

// has waits until the engine was asked, and said that billing has so many messages.
func (d *desk) has(ready, dead float64) {
	d.Helper()
	var q map[string]any
	d.wait(func() bool {
		q = d.json(http.MethodGet, "/queue?"+billing)
		return q["asked"] != nil && q["ready"] == ready && q["dead"] == dead && q["held"] == ready
	}, fmt.Sprintf("%v ready and %v dead", ready, dead))
}

// sample receives letters to look at them, and returns the query with which they are seen, and
// their IDs in order.
func (d *desk) sample() (query string, ids []string) {
	d.Helper()
	job := d.json(http.MethodPost, "/act?"+billing+"&do=sample")
	require.Equal(d, false, job["failed"], job)
	query = "/letters?" + billing + "&did=" + job["id"].(string)
	for _, l := range d.json(http.MethodGet, query)["letters"].([]any) {
		l := l.(map[string]any)
		require.Equal(d, "body of "+l["id"].(string), l["body"])
		require.Equal(d, map[string]any{"region": "eu"}, l["attributes"])
		require.Equal(d, "no such order", l["error"])
		require.Equal(d, "permanent", l["cause"])
		ids = append(ids, l["id"].(string))
	}
	slices.Sort(ids)
	return query, ids
}

// onEach runs a test on each engine. SNS and SQS are in virtual time.
func onEach(t *testing.T, o fanoutweb.Options, test func(d *desk)) {
	t.Run("SNS and SQS", func(t *testing.T) {
		t.Parallel()
		synctest.Test(t, func(t *testing.T) {
			a := fakeaws.New(t)
			e, err := fanoutaws.New(a.SNS(), a.SQS(), fanoutaws.WithPollTime(time.Second))
			require.NoError(t, err)
			d := newDesk(t, fanout.WithEngine(e, fanout.Without(engine.Bounded, engine.AllOrNone)), o)
			d.wait = func(is func() bool, what string) {
				t.Helper()
				for range 60 {
					time.Sleep(time.Second)
					synctest.Wait()
					if is() {
						return
					}
				}
				require.Fail(t, "it never is: "+what)
			}
			d.later = func() { time.Sleep(time.Second) }
			d.receives = func() (ns []int) {
				for _, m := range a.Queue("orders-billing-dead").Messages() {
					ns = append(ns, m.Receives)
				}
				return ns
			}
			test(d)
		})
	})
	t.Run("NATS JetStream", func(t *testing.T) {
		t.Parallel()
		s, err := server.NewServer(&server.Options{DontListen: true, NoSigs: true, NoLog: true, JetStream: true, StoreDir: t.TempDir(), SyncInterval: time.Minute})
		require.NoError(t, err)
		s.Start()
		t.Cleanup(func() {
			s.Shutdown()
			s.WaitForShutdown()
		})
		require.True(t, s.ReadyForConnections(30*time.Second))
		nc, err := nats.Connect("", append(fanoutnats.ConnectOptions(), nats.InProcessServer(s))...)
		require.NoError(t, err)
		t.Cleanup(nc.Close)
		js, err := jetstream.New(nc)
		require.NoError(t, err)
		e, err := fanoutnats.New(js)
		require.NoError(t, err)
		d := newDesk(t, fanout.WithEngine(e, fanout.Without(engine.Bounded)), o)
		d.wait = func(is func() bool, what string) {
			t.Helper()
			require.Eventually(t, is, time.Minute, 100*time.Millisecond, what)
		}
		test(d)
	})
}

func TestThePageOnAnEngine(t *testing.T) {
	onEach(t, fanoutweb.Options{Allow: fanoutweb.AllowAll}, func(d *desk) {
		q, err := d.topic.OpenQueue(d.Context(), "billing", fanout.WithMaxAttempts(1), fanout.WithVisibilityTimeout(10*time.Second))
		require.NoError(d, err)
		engine := d.topic.View().Engine()
		d.publish(d.topic, "o-1", "o-2", "o-3")
		d.kill(q, 3)
		other := d.newTopic() // as another process has
		d.publish(other, "o-4", "o-5")

		// The engine is asked for what it holds. What this process knows is said to be that.
		d.has(2, 3)
		var flow string
		d.wait(func() bool {
			flow = d.html("/")
			return strings.Contains(flow, "/s done here")
		}, "rates are known")
		require.Contains(d, flow, "so far · by this process, on "+engine)
		require.NotContains(d, flow, "/s in<", "nobody tells")
		require.NotContains(d, flow, "is-full")
		require.Contains(d, flow, "3 letters are in its dead-letter queue.")
		page := d.html("/queue?" + billing)
		for _, want := range []string{"in " + engine + ", asked ", "Attempts that ended <span class=\"of\">in this process", "Subscribers <span class=\"of\">in this process", "the engine's"} {
			require.Contains(d, page, want)
		}
		require.NotContains(d, page, "Messages that wait")
		data := d.json(http.MethodGet, "/queue?"+billing)
		require.Equal(d, engine, data["engine"])
		require.EqualValues(d, 3, data["counts"].(map[string]any)["permanent"])
		require.EqualValues(d, -1, data["counts"].(map[string]any)["published"], "only the engine knows")
		require.Negative(d, data["per_second"].(map[string]any)["published"])
		status, text := d.ask(http.MethodGet, "/letters?"+billing+"&of=queue")
		require.Equal(d, http.StatusBadRequest, status)
		require.Contains(d, html.UnescapeString(text), "What waits in a queue of "+engine)

		// Letters are counted, and received only when somebody asks for that.
		letters := d.html("/letters?" + billing)
		require.Contains(d, letters, "by receiving them, and giving them back, which raises their receive counts")
		require.Contains(d, letters, "Take a sample")
		none := d.json(http.MethodGet, "/letters?"+billing)
		require.EqualValues(d, 3, none["total"])
		require.Empty(d, none["letters"])
		before := d.receives()
		query, ids := d.sample()
		require.Equal(d, []string{"o-1", "o-2", "o-3"}, ids)
		for k, n := range d.receives() {
			require.Equal(d, before[k]+1, n)
		}
		d.has(2, 3) // they were given back
		shown := d.html("/letter?" + billing + strings.TrimPrefix(query, "/letters?"+billing) + "&id=o-2")
		for _, want := range []string{"body of o-2", "no such order", "Attempt 1", "region"} {
			require.Contains(d, shown, want)
		}
		status, _ = d.ask(http.MethodGet, "/letters?"+billing+"&cause=failed")
		require.Equal(d, http.StatusOK, status, "which filters nothing")

		// One that was selected, and another.
		require.Equal(d, "Redrove 1 of 1 letter.", d.act("redrive&scope=selected&id=o-1"))
		d.has(3, 2)
		require.Equal(d, "Deleted 1 of 1 letter.", d.act("delete&scope=selected&id=o-2"))
		d.has(3, 1)
		require.Equal(d, "Redrove 0 of 1 letter. 1 was not there any more.", d.act("redrive&scope=selected&id=o-2"))

		// All, as many as there were when it was confirmed.
		confirm := d.json(http.MethodGet, "/confirm?"+billing+"&do=redrive")
		require.EqualValues(d, 1, confirm["count"])
		d.later()
		d.kill(q, 1)
		form := "/act?" + billing + "&do=redrive&count=1&until=" + url.QueryEscape(confirm["until"].(string))
		require.Equal(d, "Redrove 1 of 1 letter.", d.json(http.MethodPost, form)["text"])
		d.has(3, 1)
		status, text = d.ask(http.MethodGet, "/confirm?"+billing+"&do=delete&text=o-4")
		require.Equal(d, http.StatusBadRequest, status)
		require.Contains(d, html.UnescapeString(text), "can't be searched")
		require.Equal(d, "Deleted 1 of 1 letter.", d.act("delete"))
		d.has(3, 0)

		require.Equal(d, "Paused in this process. Nothing is delivered here until it is resumed; other processes go on.", d.act("pause"))
		require.Contains(d, d.html("/confirm?"+billing+"&do=resume"), "in this process")
		d.wait(func() bool {
			return strings.Contains(d.html("/"), "It is paused in this process: 3 messages wait.")
		}, "paused")
		require.Equal(d, "Resumed.", d.act("resume"))
		require.Equal(d, "Purged: 3 messages were dropped.", d.act("purge"))
		d.has(0, 0)
	})
}

// A sample is an action of its own, which not everybody may take who may see bodies.
func TestASampleMustBeAllowed(t *testing.T) {
	allow := func(_ *http.Request, a fanoutweb.Access) bool {
		return a.Action == fanoutweb.View || a.Action == fanoutweb.Body
	}
	onEach(t, fanoutweb.Options{Allow: allow}, func(d *desk) {
		q, err := d.topic.OpenQueue(d.Context(), "billing", fanout.WithMaxAttempts(1))
		require.NoError(d, err)
		d.publish(d.topic, "o-1")
		d.kill(q, 1)
		d.has(0, 1)
		before := d.receives()
		require.NotContains(d, d.html("/letters?"+billing), "Take a sample")
		status, text := d.ask(http.MethodPost, "/act?"+billing+"&do=sample")
		require.Equal(d, http.StatusForbidden, status)
		require.Contains(d, text, "You are not allowed to receive letters here.")
		require.Equal(d, before, d.receives())
	})
}
