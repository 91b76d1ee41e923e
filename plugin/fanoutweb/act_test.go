package fanoutweb_test

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"os"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/gofanout/fanout"
	"github.com/gofanout/fanout/internal/fakeengine"
	"github.com/gofanout/fanout/plugin/fanoutweb"
)

const billing = "topic=orders&queue=billing"

func all() fanoutweb.Options { return fanoutweb.Options{Allow: fanoutweb.AllowAll} }

func (d *desk) letters(query string) (bodies []string) {
	d.t.Helper()
	for _, l := range d.json(200, "GET", "/letters?"+billing+query)["letters"].([]any) {
		body, _ := l.(map[string]any)["body"].(string)
		bodies = append(bodies, body)
	}
	return bodies
}

// confirmed is a form with what its confirmation says.
func (d *desk) confirmed(form string) string {
	d.t.Helper()
	c := d.json(200, "GET", "/confirm?"+form)
	return form + fmt.Sprintf("&count=%.0f&until=%s", c["count"], url.QueryEscape(c["until"].(string)))
}

func TestWhatTouchesManyNeedsAConfirmation(t *testing.T) {
	d := newDesk(t, all())
	q := d.open("billing", fanout.WithMaxAttempts(1))
	d.kill(q, errPoison, "one", "two", "three")
	require.NoError(t, d.topic.Publish(t.Context(), "waits"))
	for _, form := range []string{"redrive", "redrive&text=one", "redrive&scope=selected&id=id-one&id=id-two", "delete", "delete&scope=selected&id=id-one", "purge", "purge&count=1", "delete&until=2026-11-27T10:00:00Z"} {
		data := d.json(400, "POST", "/act?"+billing+"&do="+form)
		require.Contains(t, data["error"], "needs count and until: ask GET confirm", form)
	}
	require.Equal(t, 3, q.Stats().Dead)
	require.Equal(t, 1, q.Stats().Ready)
	require.Equal(t, "Redrove 1 of 1 letter.", d.json(200, "POST", "/act?"+billing+"&do=redrive&scope=selected&id=id-one")["text"], "one can be looked at")
	late := d.confirmed(billing + "&do=delete&text=later")
	d.kill(q, errPoison, "later", "and more")
	require.Equal(t, "Deleted 0 letters.", d.json(200, "POST", "/act?"+late)["text"], "there was none")
	require.Contains(t, d.html(200, "/letters?"+billing+"&did="+d.json(200, "POST", "/act?"+late)["id"].(string)), `class="card job warned"`)
}

func TestARefusalLeadsBackToTheQueue(t *testing.T) {
	d := newDesk(t, all())
	d.open("billing")
	require.Equal(t, 303, d.ask("POST", "/act?"+billing+"&do=stack").StatusCode)
	r := d.ask("POST", "/act?"+billing+"&do=stack")
	require.Equal(t, 429, r.StatusCode)
	require.Contains(t, textOf(t, r), `href="queue?queue=billing&amp;topic=orders">Back to billing</a>`)
	require.Contains(t, d.html(404, "/nothing"), "Back to the flow")
	require.Equal(t, "It was not paused.", d.json(200, "POST", "/act?"+billing+"&do=resume")["text"])
}

func TestLettersAreFoundByWhatTheyHave(t *testing.T) {
	d := newDesk(t, all())
	q := d.open("billing", fanout.WithMaxAttempts(1))
	d.kill(q, errPoison, "one", "two")
	d.kill(q, fanout.Permanent(errors.New("card EXPIRED")), "three")
	for query, want := range map[string][]string{
		"":                                {"one", "two", "three"},
		"&cause=failed":                   {"one", "two"},
		"&cause=permanent":                {"three"},
		"&text=no+such":                   {"one", "two"},
		"&text=expired":                   {"three"},
		"&text=TWO":                       {"two"},
		"&text=id-one":                    {"one"},
		"&text=two%40example":             {"two"},
		"&attr=email":                     {"one", "two", "three"},
		"&attr=email%3Dtwo%40example.com": {"two"},
		"&attr=email%3Dtwo":               nil,
		"&age=%3C1h":                      {"one", "two", "three"},
		"&age=%3E1h":                      nil,
		"&cause=failed&text=one":          {"one"},
	} {
		require.Equal(t, want, d.letters(query), query)
	}
	require.Equal(t, []string{"three", "two", "one"}, d.letters("&order=newest"))
	require.Equal(t, []string{"two", "one"}, d.letters("&order=newest&cause=failed"))
	for _, bad := range []string{"&order=oldest", "&cause=nothing", "&age=1h", "&age=%3C", "&age=%3C-1h", "&after=garbage"} {
		require.Equal(t, 400, d.ask("GET", "/letters?"+billing+bad).StatusCode, bad)
	}
}

func TestLettersAreSummedUpByWhatTheyDiedOf(t *testing.T) {
	d := newDesk(t, all())
	q := d.open("billing", fanout.WithMaxAttempts(1))
	for k, body := range []string{"one", "two", "three"} {
		d.kill(q, fmt.Errorf(`order "o-%d" of %q: no address (code %d)`, k, body, k*100), body)
	}
	d.kill(q, fanout.Permanent(errors.New("card expired")), "four")
	data := d.json(200, "GET", "/letters?"+billing)
	require.Equal(t, []any{
		map[string]any{"cause": "failed", "error": `order "…" of "…": no address (code #)`, "count": 3.0},
		map[string]any{"cause": "permanent", "error": "card expired", "count": 1.0},
	}, data["groups"])
	query := "&cause=failed&error=" + url.QueryEscape(`order "…" of "…": no address (code #)`)
	require.Equal(t, []string{"one", "two", "three"}, d.letters(query))
	require.Contains(t, d.html(200, "/letters?"+billing), "queue=billing")
	text := d.html(200, "/confirm?"+billing+"&do=delete"+query)
	require.Contains(t, text, "Delete 3 letters")
	require.Contains(t, text, `name="error"`)
	require.Equal(t, "Deleted 3 of 3 letters.", d.json(200, "POST", "/act?"+d.confirmed(billing+"&do=delete"+query))["text"])
	require.Equal(t, []string{"four"}, d.letters(""))

	closed := newDesk(t, fanoutweb.Options{})
	closed.kill(closed.open("billing", fanout.WithMaxAttempts(1)), errPoison, "one")
	require.Equal(t, []any{map[string]any{"cause": "failed", "count": 1.0}}, closed.json(200, "GET", "/letters?"+billing)["groups"])
	require.Equal(t, 403, closed.ask("GET", "/letters?"+billing+"&error=x").StatusCode)
}

func TestATableGoesOnByCursor(t *testing.T) {
	d := newDesk(t, all())
	q := d.open("billing", fanout.WithMaxAttempts(1))
	var want []string
	for k := range 120 {
		want = append(want, fmt.Sprint("o-", k))
	}
	d.kill(q, errPoison, want...)
	for _, query := range []string{"", "&text=o-"} {
		var got []string
		for next := ""; ; {
			data := d.json(200, "GET", "/letters?"+billing+query+"&after="+url.QueryEscape(next))
			require.LessOrEqual(t, len(data["letters"].([]any)), 50)
			for _, l := range data["letters"].([]any) {
				got = append(got, l.(map[string]any)["body"].(string))
			}
			if next, _ = data["next"].(string); next == "" {
				break
			}
		}
		require.Equal(t, want, got, query)
	}
}

func TestALetterTellsItsHistory(t *testing.T) {
	d := newDesk(t, all())
	q := d.open("billing", fanout.WithMaxAttempts(2), fanout.WithBackoff(fanout.Constant(time.Millisecond)))
	w, err := q.Subscribe(t.Context(), func(_ context.Context, l fanout.Delivery[string]) error {
		if l.Attempt() == 1 {
			return errPoison
		}
		panic("a bug in the handler")
	})
	require.NoError(t, err)
	require.NoError(t, d.topic.Publish(t.Context(), "o-1"))
	require.Eventually(t, func() bool { return q.Stats().Dead == 1 }, 10*time.Second, time.Millisecond)
	require.NoError(t, w.Shutdown(t.Context()))
	l := d.json(200, "GET", "/letters?"+billing)["letters"].([]any)[0].(map[string]any)
	path := "/letter?" + billing + "&at=" + url.QueryEscape(l["cursor"].(string)) + "&id=" + url.QueryEscape(l["id"].(string))
	data := d.json(200, "GET", path)
	history := data["history"].([]any)
	require.Len(t, history, 2)
	require.Equal(t, "no such order", history[0].(map[string]any)["error"])
	require.Equal(t, "panicked", history[1].(map[string]any)["cause"])
	require.Contains(t, history[1].(map[string]any)["stack"], "act_test.go")
	require.Contains(t, d.html(200, path), "a bug in the handler")
	require.Equal(t, 404, d.ask("GET", path+"x").StatusCode, "another ID")
	require.NotContains(t, d.html(200, path), "redriven")
	_, err = q.Redrive(t.Context())
	require.NoError(t, err)
	require.Equal(t, 404, d.ask("GET", path).StatusCode, "it is gone")
}

func TestWhoMayOnlyLookSeesNoTextsOfMessages(t *testing.T) {
	d := newDesk(t, fanoutweb.Options{})
	q := d.open("billing", fanout.WithMaxAttempts(1))
	d.kill(q, errors.New("errsecret"), "bodysecret")
	require.NoError(t, d.topic.PublishMessages(t.Context(), fanout.Message[string]{ID: "idsecret", Body: "bodysecret", Attributes: map[string]string{"k": "attrsecret"}}))
	cursor := d.json(200, "GET", "/letters?"+billing)["letters"].([]any)[0].(map[string]any)["cursor"].(string)
	for _, path := range []string{
		"/", "/queue?" + billing, "/letters?" + billing, "/letters?" + billing + "&of=queue", "/letter?" + billing + "&at=" + url.QueryEscape(cursor),
	} {
		require.NotContains(t, d.html(200, path), "secret", path)
		r := d.ask("GET", path, asJSON)
		require.NotContains(t, textOf(t, r), "secret", path)
	}
	require.Contains(t, d.html(200, "/letters?"+billing), "failed", "the cause is no secret")
	for _, query := range []string{"&text=secret", "&attr=k"} {
		require.Equal(t, 403, d.ask("GET", "/letters?"+billing+query).StatusCode, "a search would tell")
	}
	for _, do := range []string{"pause", "resume", "redrive", "delete", "purge", "stack", "sample"} {
		require.Equal(t, 403, d.ask("POST", "/act?"+billing+"&do="+do).StatusCode, do)
		require.Equal(t, 403, d.ask("GET", "/confirm?"+billing+"&do="+do).StatusCode, do)
		require.NotContains(t, d.html(200, "/queue?"+billing), "do="+do)
	}
	require.Equal(t, 1, q.Stats().Dead)
}

func TestTextsAreRedactedBeforeTheyAreShownSearchedOrTold(t *testing.T) {
	var told []string
	o := all()
	o.Redact = func(x fanoutweb.Text) string {
		if x.Kind == "ordering key" {
			panic("a bug in Redact")
		}
		return strings.ReplaceAll(x.Text, "secret", "****")
	}
	o.Audit = func(e fanoutweb.Entry) { told = append(told, e.Letters) }
	d := newDesk(t, o, fanout.WithOrdering())
	q := d.open("billing", fanout.WithMaxAttempts(1))
	m := fanout.Message[string]{Body: "the secret body", OrderingKey: "keysecret", Attributes: map[string]string{"email": "secret@example.com"}}
	require.NoError(t, d.topic.PublishMessages(t.Context(), m))
	l, err := q.Receive(t.Context())
	require.NoError(t, err)
	require.NoError(t, l.Settle(t.Context(), errors.New("secret error")))
	text := d.html(200, "/letters?"+billing)
	require.Contains(t, text, "the **** body")
	require.NotContains(t, text, "secret")
	require.Contains(t, textOf(t, d.ask("GET", "/letters?"+billing, asJSON)), `"ordering_key": "redacted"`)
	require.Empty(t, d.letters("&text=secret"))
	require.Len(t, d.letters("&text=****"), 1)
	d.json(200, "POST", "/act?"+d.confirmed(billing+"&do=redrive&text=secret"))
	require.Equal(t, []string{`text="****"`, `text="****"`}, told)
}

func TestAnotherSitesRequestChangesNothing(t *testing.T) {
	d := newDesk(t, all())
	q := d.open("billing")
	for name, headers := range map[string][2]string{
		"fetch metadata": {"Sec-Fetch-Site", "cross-site"}, "same site": {"Sec-Fetch-Site", "same-site"}, "origin": {"Origin", "https://evil.example"},
	} {
		r := d.ask("POST", "/act?"+billing+"&do=pause", func(r *http.Request) { r.Header.Set(headers[0], headers[1]) })
		require.Equal(t, 403, r.StatusCode, name)
		require.Contains(t, textOf(t, r), "another site")
	}
	require.False(t, q.Stats().Paused)
	require.Equal(t, 405, d.ask("GET", "/act?"+billing+"&do=pause").StatusCode)
	require.Equal(t, 303, d.ask("POST", "/act?"+billing+"&do=pause", func(r *http.Request) { r.Header.Set("Sec-Fetch-Site", "same-origin") }).StatusCode)
	require.True(t, q.Stats().Paused)
}

func TestEachActionDoesWhatItSays(t *testing.T) {
	var mu sync.Mutex
	var heard []string
	o := all()
	o.Audit = func(e fanoutweb.Entry) {
		mu.Lock()
		defer mu.Unlock()
		heard = append(heard, fmt.Sprintf("%s %s %v %d %v", e.Action, e.Letters, e.Done, e.Count, e.Err))
	}
	d := newDesk(t, o)
	q := d.open("billing", fanout.WithMaxAttempts(1))
	act := func(form string) string {
		t.Helper()
		heard = nil
		data := d.json(200, "POST", "/act?"+d.confirmed(billing+"&do="+form))
		require.Equal(t, false, data["running"])
		return data["text"].(string)
	}
	require.Contains(t, act("pause"), "Paused.")
	require.True(t, q.Stats().Paused)
	require.Equal(t, []string{"pause  false 0 <nil>", "pause  true 0 <nil>"}, heard)
	require.Equal(t, "Resumed.", act("resume"))
	require.False(t, q.Stats().Paused)

	d.kill(q, errPoison, "one", "two", "three", "four")
	require.Equal(t, "Redrove 1 of 1 letter.", act("redrive&scope=selected&id=id-one"))
	require.Equal(t, []string{"redrive selected false 1 <nil>", "redrive selected true 1 <nil>"}, heard)
	require.Equal(t, 1, q.Stats().Ready)
	require.Equal(t, "Deleted 1 of 1 letter.", act("delete&text=two"))
	require.Equal(t, 2, q.Stats().Dead)
	require.Equal(t, "Redrove 2 of 2 letters.", act("redrive"))
	require.Equal(t, 0, q.Stats().Dead)
	require.Equal(t, "Purged: 3 messages were dropped.", act("purge"))
	require.Equal(t, 0, q.Stats().Unsettled())
	require.Equal(t, 400, d.ask("POST", "/act?"+billing+"&do=everything").StatusCode)
	require.Equal(t, 400, d.ask("POST", "/act?"+billing+"&do=delete&scope=selected").StatusCode, "none is selected, which is not all")
	require.Equal(t, 404, d.ask("POST", "/act?topic=orders&queue=none&do=purge").StatusCode)
}

// hidden returns the fields of the form that a page has.
func hidden(text string) url.Values {
	form := url.Values{}
	for _, field := range strings.Split(text, `<input type="hidden" name="`)[1:] {
		name, rest, _ := strings.Cut(field, `" value="`)
		value, _, _ := strings.Cut(rest, `"`)
		form.Add(name, value)
	}
	return form
}

func TestWhatDiedAfterTheConfirmationIsLeftAlone(t *testing.T) {
	d := newDesk(t, all())
	q := d.open("billing", fanout.WithMaxAttempts(1))
	d.kill(q, errPoison, "one", "two", "three")
	text := d.html(200, "/confirm?"+billing+"&do=delete")
	require.Contains(t, text, "Delete 3 letters of billing?")
	_, err := q.Redrive(t.Context(), fanout.RedriveIDs("id-one"))
	require.NoError(t, err)
	l, err := q.Receive(t.Context())
	require.NoError(t, err)
	require.NoError(t, l.Ack(t.Context()))
	d.kill(q, errPoison, "later")

	data := d.json(200, "POST", "/act?"+hidden(text).Encode())
	require.Equal(t, "Deleted 2 of 3 letters. 1 was not there any more.", data["text"])
	require.EqualValues(t, 1, data["gone"])
	require.Equal(t, []string{"later"}, d.letters(""))
}

func TestARedriveThatWaitsForRoomCanBeCancelled(t *testing.T) {
	d := newDesk(t, all())
	q := d.open("billing", fanout.WithMaxAttempts(1), fanout.WithCapacity(2))
	d.kill(q, errPoison, "one", "two", "three")
	require.NoError(t, d.topic.Publish(t.Context(), "holds a place"))
	r := d.ask("POST", "/act?"+d.confirmed(billing+"&do=redrive"))
	require.Equal(t, 303, r.StatusCode)
	where, err := url.Parse(r.Header.Get("Location"))
	require.NoError(t, err)
	require.Equal(t, "queue", where.Path)
	require.Eventually(t, func() bool { return q.Stats().Redriven == 1 }, 10*time.Second, time.Millisecond)
	text := d.html(200, "/"+where.String())
	require.Contains(t, text, "Redriving")
	require.Contains(t, text, "waits for room")
	require.Equal(t, 303, d.ask("POST", "/cancel?"+where.RawQuery).StatusCode)
	require.Contains(t, d.html(200, "/"+where.String()), "Cancelled. Redrove 1 of 3 letters.")
	require.Equal(t, 2, q.Stats().Dead)
}

func TestCloseCancelsWhatIsUnderWay(t *testing.T) {
	d := newDesk(t, all())
	q := d.open("billing", fanout.WithMaxAttempts(1), fanout.WithCapacity(1))
	d.kill(q, errPoison, "one", "two")
	require.NoError(t, d.topic.Publish(t.Context(), "holds the place"))
	require.Equal(t, 303, d.ask("POST", "/act?"+d.confirmed(billing+"&do=redrive")).StatusCode)
	d.page.Close() // hangs if it isn't cancelled
	require.Equal(t, 0, d.topic.Stats().Waiting)
	require.Equal(t, 2, q.Stats().Dead)
}

func TestTheStackOfAStuckHandlerIsShownOnceInFiveSeconds(t *testing.T) {
	d := newDesk(t, all())
	q := d.open("billing")
	entered, leave := make(chan struct{}), make(chan struct{})
	w, err := q.Subscribe(t.Context(), func(context.Context, fanout.Delivery[string]) error {
		close(entered)
		waitForTheBank(leave)
		return nil
	})
	require.NoError(t, err)
	require.NoError(t, d.topic.Publish(t.Context(), "o-1"))
	<-entered
	data := d.json(200, "POST", "/act?"+billing+"&do=stack")
	require.Contains(t, data["stacks"], "waitForTheBank")
	require.Contains(t, data["stacks"], "act_test.go:")
	require.Equal(t, 429, d.ask("POST", "/act?"+billing+"&do=stack").StatusCode)
	close(leave)
	require.NoError(t, w.Shutdown(t.Context()))
}

//go:noinline
func waitForTheBank(leave chan struct{}) { <-leave }

func TestOnAnEngineLettersAreReceivedOnlyOnRequest(t *testing.T) {
	e := fakeengine.New(fakeengine.Config{})
	d := newDesk(t, all(), fanout.WithEngine(e))
	q := d.open("billing", fanout.WithMaxAttempts(1))
	d.kill(q, fanout.Permanent(errPoison), "one", "two")
	data := d.json(200, "GET", "/letters?"+billing)
	require.Empty(t, data["letters"])
	require.Equal(t, "fake", data["engine"])
	require.Contains(t, d.html(200, "/letters?"+billing), "raises their receive counts")
	require.Eventually(t, func() bool {
		i := d.json(200, "GET", "/queue?"+billing)
		return i["dead"] == 2.0 && i["asked"] != nil && i["ready"] == 0.0
	}, 10*time.Second, 10*time.Millisecond, "the engine is asked")

	job := d.json(200, "POST", "/act?"+billing+"&do=sample")
	require.EqualValues(t, 2, job["count"])
	id := "&did=" + job["id"].(string)
	require.ElementsMatch(t, []string{"one", "two"}, d.letters(id))
	require.Contains(t, d.html(200, "/letter?"+billing+id+"&id=id-one"), "no such order")
	require.Equal(t, "Redrove 1 of 1 letter.", d.json(200, "POST", "/act?"+billing+"&do=redrive&scope=selected&id=id-one")["text"])
	for _, path := range []string{"/act?" + billing + "&do=delete&cause=failed", "/act?" + billing + "&do=redrive&text=two"} {
		require.Equal(t, 400, d.ask("POST", path).StatusCode, "a filter is not all")
	}
	require.Contains(t, d.html(200, "/confirm?"+billing+"&do=delete"), "Delete 1 letter of billing?", "the engine is asked")
	require.Equal(t, "Deleted 1 of 1 letter.", d.json(200, "POST", "/act?"+d.confirmed(billing+"&do=delete"))["text"])
}

// Each name that JSON has is in its documentation.
func TestTheNamesOfJSONAreDocumented(t *testing.T) {
	text, err := os.ReadFile("../../internal/docs/page.md")
	require.NoError(t, err)
	d := newDesk(t, all())
	q := d.open("billing", fanout.WithMaxAttempts(1), fanout.WithCapacity(4))
	d.kill(q, errPoison, "one", "two", "three")
	require.NoError(t, d.topic.Publish(t.Context(), "four"))
	require.NoError(t, q.Pause(t.Context()))
	_, err = q.Subscribe(t.Context(), func(context.Context, fanout.Delivery[string]) error { return nil })
	require.NoError(t, err)
	l := d.json(200, "GET", "/letters?"+billing)["letters"].([]any)[0].(map[string]any)
	var walk func(data any)
	walk = func(data any) {
		switch data := data.(type) {
		case []any:
			for _, one := range data {
				walk(one)
			}
		case map[string]any:
			for name, value := range data {
				switch name {
				case "attributes":
				case "counts", "per_second", "options", "subscribers": // by what is counted
					require.Contains(t, string(text), "`"+name+"`")
				default:
					require.Contains(t, string(text), "`"+name+"`")
					walk(value)
				}
			}
		}
	}
	for _, path := range []string{
		"/", "/queue?" + billing, "/letters?" + billing, "/letter?" + billing + "&at=" + url.QueryEscape(l["cursor"].(string)), "/confirm?" + billing + "&do=redrive",
	} {
		walk(d.json(200, "GET", path))
	}
	walk(d.json(200, "POST", "/act?"+d.confirmed(billing+"&do=redrive")))
}
