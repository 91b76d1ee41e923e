package webtest

import (
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/chromedp/chromedp"
	"github.com/stretchr/testify/require"

	"github.com/gofanout/fanout"
	"github.com/gofanout/fanout/plugin/fanoutweb"
)

func TestHostileTextsAreShownAsTexts(t *testing.T) {
	s := newShop(t, everything())
	q := s.open("billing")
	script := `"><script>window.hacked=1;alert(1)</script><img src=x onerror="window.hacked=2"><a href="javascript:window.hacked=3">x</a>{{.}}` + "`${1}`"
	for name, text := range map[string]string{
		"script": script, "huge": strings.Repeat("W", 300_000), "binary": "\x00\x01\xff\xfe\x7f\u0085", "right-to-left": "abc\u202egnp.exe\u2066 שלום \u2069 مرحبا",
	} {
		valid := strings.ToValidUTF8(text, "") // of the rest the library sees to it
		m := fanout.Message[order]{ID: name + valid[:min(len(valid), 200)], Body: order{Order: text, Note: text}, Attributes: map[string]string{name: valid}}
		require.NoError(t, s.topic.PublishMessages(t.Context(), m))
		s.kill(q, errors.New(text), 1)
	}
	b := newTab(t, s.server.URL)
	for _, width := range []int64{1280, 390} {
		b.size(width, 800)
		b.open(lettersPath + "billing")
		b.fits()
		links := b.value(`Array.from(document.querySelectorAll(".when a"), a => a.getAttribute("href"))`).([]any)
		require.Len(t, links, 4)
		for _, l := range links {
			b.open("/" + l.(string))
			b.is(`document.querySelector(".timeline")`)
			b.fits()
			require.Nil(t, b.value(`window.hacked ?? null`))
			require.EqualValues(t, 0, b.value(`document.querySelectorAll("main script, main img").length`))
			require.Equal(t, false, b.value(`/[\u202a-\u202e\u2066-\u2069\u0000]/.test(document.querySelector("main").textContent)`), "nothing turns what is beside it round")
		}
	}
	b.open(lettersPath + "billing&text=%3Cscript%3E")
	require.Contains(t, b.text(), "<script>window.hacked=1")
	require.EqualValues(t, 1, b.value(`document.querySelectorAll("tbody tr").length`))
	b.clean()
}

// evil is another site, which has a page.
func evil(t *testing.T, html string) string {
	t.Helper()
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "text/html")
		fmt.Fprint(w, html)
	}))
	t.Cleanup(s.Close)
	return s.URL
}

func TestAnotherSiteCanNeitherPostNorFrame(t *testing.T) {
	s := newShop(t, everything())
	q := s.open("billing")
	for _, host := range []string{"127.0.0.1", "localhost"} { // the same site, and another
		base := strings.Replace(evil(t, fmt.Sprintf(`<form method="post" action="%s/act"><input name="topic" value="orders"><input name="queue" value="billing"><input name="do" value="pause"></form><button onclick="document.forms[0].submit()">win</button>`, s.server.URL)), "127.0.0.1", host, 1)
		b := newTab(t, base)
		b.open("/")
		b.do(chromedp.Click("button"))
		b.is(`document.body.innerText.includes("This request comes from another site")`)
		require.False(t, q.Stats().Paused)
	}
	b := newTab(t, evil(t, fmt.Sprintf(`<iframe src="%s/"></iframe>`, s.server.URL)))
	b.open("/")
	require.Eventually(t, func() bool {
		b.mu.Lock()
		defer b.mu.Unlock()
		return b.frames[s.server.URL+"/"] != ""
	}, 10*time.Second, 20*time.Millisecond, "the frame shows an error instead of the page")
}

func TestWhatIsNotAllowedIsNeitherShownNorDone(t *testing.T) {
	s := newShop(t, fanoutweb.Options{})
	q := s.open("billing")
	s.publish(1)
	s.kill(q, errors.New("no such order"), 1)
	b := newTab(t, s.server.URL)
	for _, path := range []string{"/", queuePath + "billing", lettersPath + "billing"} {
		b.open(path)
		for _, secret := range []string{"no such order", "o-1001", "Ada", "Grace"} {
			require.NotContains(t, b.value("document.documentElement.outerHTML"), secret)
		}
		require.EqualValues(t, 0, b.value(`document.querySelectorAll("main form[method=post], main a[href^=confirm], main input[name=id]").length`), path)
		b.accessible()
	}
	b.clean()
	b.do(chromedp.Evaluate(`fetch("act", {method: "POST", headers: {"Content-Type": "application/x-www-form-urlencoded"}, body: "topic=orders&queue=billing&do=redrive"}).then(r => window.status = String(r.status))`, nil))
	b.is(`window.status === "403"`)
	require.Equal(t, 1, q.Stats().Dead)
}
