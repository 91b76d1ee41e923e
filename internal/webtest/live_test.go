package webtest

import (
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"testing"
	"time"

	"github.com/chromedp/chromedp"
	"github.com/stretchr/testify/require"

	"github.com/gofanout/fanout/plugin/fanoutweb"
)

// free reports whether there is room for a live page.
func (s *shop) free() bool {
	r, err := http.NewRequestWithContext(s.Context(), http.MethodGet, s.server.URL+"/events?page=flow", nil)
	require.NoError(s, err)
	answer, err := http.DefaultClient.Do(r)
	require.NoError(s, err)
	require.NoError(s, answer.Body.Close())
	return answer.StatusCode == http.StatusOK
}

func TestAHiddenTabIsNotLive(t *testing.T) {
	o := everything()
	o.MostReaders = 1
	s := newShop(t, o)
	s.open("billing")
	b := newTab(t, s.server.URL)
	b.open("/")
	b.is(`document.querySelector("[data-state=live]")`)
	require.False(t, s.free())
	hide := func(hidden string) {
		b.do(chromedp.Evaluate(`Object.defineProperty(document, "hidden", {configurable: true, value: `+hidden+`}); document.dispatchEvent(new Event("visibilitychange"))`, nil))
	}
	hide("true")
	require.Eventually(t, s.free, 20*time.Second, 50*time.Millisecond, "it lets go")
	s.publish(3)
	hide("false")
	b.is(`document.querySelector("[data-state=live]") && document.querySelector(".row").innerText.includes("3 of 1,024")`)
}

func TestALivePageComesBack(t *testing.T) {
	s := newShop(t, everything())
	q := s.open("billing")
	b := newTab(t, s.server.URL)
	b.open("/")
	b.is(`document.querySelector("[data-state=live]")`)
	b.do(chromedp.Evaluate(`window.same = true`, nil))
	s.server.CloseClientConnections()
	b.is(`document.querySelector("[data-state=lost]")`)
	s.publish(4)
	b.is(`document.querySelector("[data-state=live]") && document.querySelector(".row").innerText.includes("4 of 1,024")`)
	s.kill(q, errors.New("no such order"), 1)
	b.is(`document.querySelector(".row").innerText.includes("1 dead")`)
	require.Equal(t, true, b.value(`window.same`), "it was not loaded again")
}

// A server that can't flush has pages that ask again.
func TestWithoutFlushAPageAsksAgain(t *testing.T) {
	s := newShop(t, everything())
	s.open("billing")
	deaf := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		s.page.ServeHTTP(struct{ http.ResponseWriter }{w}, r)
	}))
	t.Cleanup(deaf.Close)
	b := newTab(t, deaf.URL)
	b.open("/")
	s.publish(2)
	b.is(`document.querySelector("[data-state=poll]") && document.querySelector(".row").innerText.includes("2 of 1,024")`)
}

// A screen reader is told when something is wrong, and not of each number.
func TestTheStatusDoesNotChatter(t *testing.T) {
	s := newShop(t, everything())
	q := s.open("billing")
	b := newTab(t, s.server.URL)
	b.open("/")
	b.is(`document.querySelector("[data-state=live]")`)
	b.do(chromedp.Evaluate(`window.said = []; const heard = new MutationObserver(() => window.said.push(document.querySelector("[role=status]").textContent));
		document.querySelectorAll("[role=status], [aria-live]").forEach(n => heard.observe(n, {childList: true, characterData: true, subtree: true}))`, nil))
	for n := range 3 {
		s.publish(1)
		b.is(fmt.Sprintf(`document.querySelector(".row").innerText.includes("%d of 1,024")`, n+1))
	}
	require.Equal(t, []any{}, b.value(`window.said`))
	require.NoError(t, q.Pause(t.Context()))
	b.is(`document.querySelector(".findings")`)
	require.Equal(t, []any{"1 warning in 1 queue."}, b.value(`window.said`))
	b.clean()
}

// All of the page can be done with the keyboard: from the first link to the last letter.
func TestTheKeyboardIsEnough(t *testing.T) {
	s := newShop(t, fanoutweb.Options{Allow: fanoutweb.AllowAll})
	q := s.open("billing")
	s.publish(3)
	s.kill(q, errors.New("no such order"), 2)
	b := newTab(t, s.server.URL)
	b.open("/")
	on := `document.activeElement`
	tab := func(until string) {
		t.Helper()
		for range 40 {
			b.do(chromedp.KeyEvent("\t"))
			if b.value(until) == true {
				require.Equal(t, true, b.value(`getComputedStyle(`+on+`).outlineStyle !== "none" || `+on+`.matches(".skip")`), "one sees where one is")
				return
			}
		}
		require.Fail(t, "the keyboard doesn't get there: "+until)
	}
	enter := func() {
		t.Helper()
		_, err := chromedp.RunResponse(b.ctx, chromedp.KeyEvent("\r"))
		require.NoError(t, err)
		b.do(chromedp.WaitReady("body"))
	}
	tab(on + `.className === "skip"`)
	tab(on + `.textContent === "Look at them →"`)
	enter()
	tab(on + `.name === "id"`)
	b.do(chromedp.KeyEvent(" "))
	require.Contains(t, b.text(), "1 selected")
	b.do(chromedp.Evaluate(`document.querySelector("h1").setAttribute("tabindex", "-1"); document.querySelector("h1").focus()`, nil))
	tab(on + `.textContent === "Redrive selected"`)
	enter()
	tab(on + `.textContent === "Redrive 1 letter"`)
	enter()
	require.Contains(t, b.text(), "Redrove 1 of 1 letter.")
	require.EqualValues(t, 1, q.Stats().Redriven)
	b.clean()
}
