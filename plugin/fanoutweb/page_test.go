package fanoutweb

import (
	"encoding/json"
	"errors"
	"net/http"
	"net/http/httptest"
	"net/url"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/gofanout/fanout"
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

// dies fails all that the queue has.
func dies(t *testing.T, q *fanout.Queue[string], err error, bodies ...string) {
	t.Helper()
	for range bodies {
		d, e := q.Receive(t.Context())
		require.NoError(t, e)
		require.NoError(t, d.Settle(t.Context(), fanout.Permanent(err)))
	}
}

func TestLettersThatGrowAreAWarning(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		view := func(_ *http.Request, a Access) bool { return a.Action == View }
		for _, body := range []bool{true, false} {
			o := Options{Allow: view}
			if body {
				o.Allow = AllowAll
			}
			topic, h := tested(t, o, "billing")
			q := topic.Queue("billing")
			get(t, h, "/")
			time.Sleep(90 * time.Second) // nobody looks any more
			require.NoError(t, topic.Publish(t.Context(), "gift"))
			dies(t, q, errors.New("order has no address"), "gift")
			troubles := func() (ts []trouble) {
				var i queueInfo
				getJSON(t, h, "/queue?topic=orders&queue=billing", &i)
				return slices.DeleteFunc(i.Troubles, func(x trouble) bool { return x.Kind != "dead" })
			}
			require.Equal(t, []trouble{{Level: note, Kind: "dead", Text: "1 letter is in its dead-letter queue."}}, troubles(), "it is not known since when")
			time.Sleep(10 * time.Second)
			require.NoError(t, topic.Publish(t.Context(), "gift"))
			dies(t, q, errors.New("order has no address"), "gift")
			time.Sleep(time.Second + time.Millisecond)
			synctest.Wait()
			why := ""
			if body {
				why = "order has no address"
			}
			got := troubles()
			require.Len(t, got, 1)
			require.Equal(t, warning, got[0].Level)
			require.Equal(t, why, got[0].Error)
			require.Regexp(t, `^2 letters are in its dead-letter queue. 0.[35] a second die. The last cause: permanent.$`, got[0].Text)
			require.Contains(t, get(t, h, "/"), "messages die</span>")
			require.Contains(t, get(t, h, "/"), `href="letters?queue=billing&amp;topic=orders">Look at them →</a>`)
			time.Sleep(30 * time.Second)
			synctest.Wait()
			require.Regexp(t, `^2 letters are in its dead-letter queue. The last died 31 s ago. The last cause: permanent.$`, troubles()[0].Text)
			time.Sleep(29 * time.Second)
			synctest.Wait()
			require.Equal(t, note, troubles()[0].Level)
			h.Close()
			require.NoError(t, topic.Close())
		}
	})
}

func TestARedriveTellsWhatDiedAgain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		topic, h := tested(t, Options{Allow: AllowAll}, "billing")
		defer topic.Close()
		defer h.Close()
		q := topic.Queue("billing")
		for _, body := range []string{"one", "two", "three"} {
			require.NoError(t, topic.Publish(t.Context(), body))
		}
		dies(t, q, errors.New("no address"), "one", "two", "three")
		var c struct {
			Count int
			Until string
		}
		getJSON(t, h, "/confirm?topic=orders&queue=billing&do=redrive", &c)
		form := url.Values{"topic": {"orders"}, "queue": {"billing"}, "do": {"redrive"}, "count": {"3"}, "until": {c.Until}}
		r := httptest.NewRequestWithContext(t.Context(), "POST", "/act", strings.NewReader(form.Encode()))
		r.Header.Set("Content-Type", "application/x-www-form-urlencoded")
		w := httptest.NewRecorder()
		h.ServeHTTP(w, r)
		require.Equal(t, 303, w.Code, w.Body)
		page := "/" + w.Header().Get("Location")
		require.Contains(t, get(t, h, page), "<p>Redrove 3 of 3 letters.</p>")
		require.Contains(t, get(t, h, page), `class="card job done"`)
		dies(t, q, errors.New("no address"), "one", "two")
		synctest.Wait()
		require.Contains(t, get(t, h, page), "<p>Redrove 3 of 3 letters. 2 have died again: no address.</p>")
		require.Contains(t, get(t, h, page), `class="card job warned"`)
		time.Sleep(againFor + time.Second)
		synctest.Wait()
		dies(t, q, errors.New("no address"), "three")
		require.Contains(t, get(t, h, page), "2 have died again", "that was later")
	})
}

func TestALetterTellsWhenItWasRedriven(t *testing.T) {
	h := []attempt{
		{Queue: "q", Cause: "failed"}, {Queue: "q", Cause: "released"}, {Queue: "q", Cause: "failed"}, {Queue: "q/dead", Cause: "failed"},
		{Queue: "q", Cause: "permanent"}, {Queue: "q", Cause: "failed"},
	}
	require.Equal(t, 1, redrives(h, "q", 2))
	var at []int
	for k := range h {
		if h[k].Redriven {
			at = append(at, k)
		}
	}
	require.Equal(t, []int{4, 5}, at)
	require.Equal(t, -1, redrives(h[:3], "q", 2))
}

func TestChartsHaveRoundTops(t *testing.T) {
	for v, want := range map[float64]float64{0: 10, 3: 10, 11: 20, 21: 50, 1000: 1000} {
		require.Equal(t, want, nice(v))
	}
	for v, want := range map[float64]float64{0: 10, 31: 60, 61: 120, 3000: 3600, 25 * 3600: 48 * 3600} {
		require.Equal(t, want, niceAge(v))
	}
}

func TestAPausedQueueSaysSinceWhenAndWhenItIsFull(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		topic, h := tested(t, Options{}, "billing")
		defer topic.Close()
		defer h.Close()
		require.NoError(t, topic.Queue("billing").Pause(t.Context()))
		get(t, h, "/")
		time.Sleep(500 * time.Millisecond)
		for range 20 {
			require.NoError(t, topic.Publish(t.Context(), "o-17"))
			time.Sleep(time.Second)
		}
		synctest.Wait()
		var q queueInfo
		getJSON(t, h, "/queue?topic=orders&queue=billing", &q)
		require.Equal(t, "It is paused: 20 messages wait. It has been for at least 20 s. 1 a second come in: it is full in about 16 min 44 s.", q.Troubles[0].Text)
	})
}

func TestAStackOfAPanicIsTakenApart(t *testing.T) {
	const text = "goroutine 7 [running]:\nruntime/debug.Stack()\n\t/go/debug/stack.go:26 +0x5e\ngithub.com/gofanout/fanout.(*worker[...]).handle.func2()\n\t/fanout/worker.go:270 +0x5a\npanic({0xe47720?, 0x17ac760?})\n\t/go/panic.go:860 +0x13a\n" +
		"main.(*shop).send({0x29?, 0x2?}, {{0x1, 0x2}, ...})\n\t/shop/mail.go:40 +0xad\ncreated by github.com/gofanout/fanout.(*Subscriber[...]).startLocked in goroutine 1\n\t/fanout/subscriber.go:9 +0x1\n"
	require.Equal(t, []stackPart{
		{true, 3, "runtime/debug.Stack\n    /go/debug/stack.go:26\ngithub.com/gofanout/fanout.(*worker[...]).handle.func2\n    /fanout/worker.go:270\npanic\n    /go/panic.go:860\n"},
		{false, 1, "main.(*shop).send\n    /shop/mail.go:40\n"},
		{true, 1, "github.com/gofanout/fanout.(*Subscriber[...]).startLocked in goroutine 1\n    /fanout/subscriber.go:9\n"},
	}, stackOf(text))
	for _, other := range []string{"", "redacted", "a\n\nb", "\t/shop/mail.go:40"} {
		require.Empty(t, stackOf(other))
	}
}

func TestAStackIsTakenApart(t *testing.T) {
	gs := goroutinesOf("2 goroutines:\n    main.ask+0x1\n        /shop/main.go:40\n    github.com/gofanout/fanout.(*worker[...]).handle+0x1\n        /fanout/hand.go:1\n    github.com/gofanout/fanout.(*worker[...]).work+0x1\n        /fanout/worker.go:2\n\n1 goroutine:\n    shop/bank.call\n        /shop/bank.go:7\n\n")
	require.Equal(t, []goroutines{
		{"2 goroutines", []stackPart{
			{false, 1, "main.ask+0x1\n    /shop/main.go:40\n"},
			{true, 2, "github.com/gofanout/fanout.(*worker[...]).handle+0x1\n    /fanout/hand.go:1\ngithub.com/gofanout/fanout.(*worker[...]).work+0x1\n    /fanout/worker.go:2"},
		}},
		{"1 goroutine", []stackPart{{false, 1, "shop/bank.call\n    /shop/bank.go:7"}}},
	}, gs)
	require.Empty(t, goroutinesOf(""))
	require.Equal(t, []goroutines{{Head: "redacted"}}, goroutinesOf("redacted"))
}
