package webtest

import (
	"errors"
	"fmt"
	"net/http"
	"testing"

	"github.com/chromedp/cdproto/emulation"
	"github.com/chromedp/chromedp"
	"github.com/stretchr/testify/require"
)

// Every page is accessible, fits the window, and says nothing on the console: wide and
// narrow, light and dark.
func TestEveryPage(t *testing.T) {
	s := newShop(t, everything())
	s.trouble()
	b := newTab(t, s.server.URL)
	b.open("/")
	b.is(`document.querySelector("[data-state=live]") && document.querySelectorAll(".chart, .row").length > 0`)
	b.open(lettersPath + "mail&cause=panicked")
	letter := b.value(`document.querySelector(".when a").getAttribute("href")`).(string)
	pages := map[string]string{
		"flow": "/", "queue": queuePath + "billing", "letters": lettersPath + "mail", "letter": "/" + letter,
		"confirm": "/confirm?topic=orders&queue=mail&do=redrive", "failed": queuePath + "none",
	}
	for name, path := range pages {
		for _, look := range []struct {
			scheme, width string
			w, h          int64
		}{{"light", "wide", 1280, 1000}, {"dark", "narrow", 390, 1000}, {"dark", "wide", 1280, 1000}, {"light", "narrow", 390, 1000}, {"light", "middle", 820, 800}} {
			if *screenshots == "" && look.scheme == "dark" && look.width == "wide" {
				continue // seen in the narrow one
			}
			b.size(look.w, look.h)
			b.scheme(look.scheme)
			b.open(path)
			if name == "queue" {
				b.is(`document.querySelectorAll(".chart path").length > 3`)
			}
			if name == "letter" {
				b.is(`document.querySelector(".timeline pre.yours").innerText.startsWith("github.com/gofanout/fanout/internal/webtest.(*shop).trouble")`)
			}
			b.fits()
			if look.scheme+look.width != "lightnarrow" {
				b.accessible()
			}
			b.picture(fmt.Sprintf("%s-%s-%s", name, look.width, look.scheme))
		}
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	for _, fault := range b.faults {
		require.Contains(t, fault, "404", "only the page that isn't there")
	}
}

// Someone on call finds from the first page what is wrong, and where.
func TestTheFirstPageSaysWhatIsWrong(t *testing.T) {
	s := newShop(t, everything())
	s.trouble()
	b := newTab(t, s.server.URL)
	b.open("/")
	text := b.text()
	for _, want := range []string{
		"billing Publishers wait for room: it holds 5 of 5.", "stock 1 handler still runs past the visibility timeout of 200 ms, subscribed at webtest/shop_test.go:", "search It is paused: ", "mail 12 letters are in its dead-letter queue",
	} {
		require.Contains(t, text, want)
	}
	b.press("stock")
	b.press("Stacks of its handlers")
	require.Contains(t, b.text(), "askTheBank")
	b.clean()
}

func TestThePageIsLive(t *testing.T) {
	s := newShop(t, everything())
	q := s.open("billing")
	b := newTab(t, s.server.URL)
	b.open("/")
	b.is(`document.querySelector("[data-state=live]")`)
	b.do(chromedp.Evaluate(`window.same = true; document.querySelector(".row .name").focus()`, nil))
	s.publish(3)
	b.is(`document.querySelector(".row").innerText.includes("3 of 1,024")`)
	s.kill(q, errors.New("no such order"), 2)
	b.is(`document.querySelector(".row").innerText.includes("2 dead")`)
	b.is(`document.querySelector(".findings").innerText.includes("billing 2 letters are in its dead-letter queue")`)
	require.Equal(t, true, b.value(`window.same`), "it was not loaded again")
	require.Equal(t, "billing", b.value(`document.activeElement.textContent`), "who reads it keeps the focus")

	b.open(queuePath + "billing")
	b.is(`document.querySelectorAll(".chart").length === 4`)
	b.do(chromedp.Evaluate(`window.held = document.querySelector(".links-line a:last-child"); window.held.focus()`, nil))
	require.NoError(t, q.Pause(t.Context())) // something appears above what one is about to press
	b.is(`document.querySelector(".findings").innerText.includes("It is paused")`)
	require.Equal(t, true, b.value(`window.held.isConnected && document.activeElement === window.held`))
	require.NoError(t, q.Resume(t.Context()))
	b.is(`!document.querySelector("main").innerText.includes("It is paused")`)
	require.Equal(t, true, b.value(`window.held.isConnected && document.activeElement === window.held`))

	b.do(chromedp.Click("#pulse"))
	b.is(`document.querySelector("[data-state=paused]")`)
	b.do(chromedp.Click("#pulse"))
	b.is(`document.querySelector("[data-state=live]")`)
	require.NoError(t, s.topic.Close())
	b.is(`document.querySelector("[data-state=over]") && document.body.innerText.includes("ended")`)
	b.clean()
}

func TestAPageWithoutEventsAsksAgain(t *testing.T) {
	o := everything()
	o.MostReaders = 1
	s := newShop(t, o)
	s.open("billing")
	r, err := http.NewRequestWithContext(t.Context(), http.MethodGet, s.server.URL+"/events?page=flow", nil)
	require.NoError(t, err)
	live, err := http.DefaultClient.Do(r)
	require.NoError(t, err)
	defer live.Body.Close()
	require.Equal(t, "text/event-stream", live.Header.Get("Content-Type"))
	b := newTab(t, s.server.URL)
	b.open("/")
	s.publish(2)
	b.is(`document.querySelector("[data-state=poll]") && document.querySelector(".row").innerText.includes("2 of 1,024")`)
}

// Without JavaScript a page refreshes itself, and each action works by its form.
func TestWithoutJavaScript(t *testing.T) {
	s := newShop(t, everything())
	q := s.open("billing")
	s.publish(2)
	s.kill(q, errors.New("no such order"), 2)
	b := newTab(t, s.server.URL)
	b.do(emulation.SetScriptExecutionDisabled(true))
	b.open(queuePath + "billing")
	var html string
	b.do(chromedp.OuterHTML("html", &html))
	require.Contains(t, html, `http-equiv="refresh" content="5"`)
	b.press("Pause")
	b.press("Pause")
	require.True(t, q.Stats().Paused)
	b.open(lettersPath + "billing")
	b.do(chromedp.Click(`//input[@value="o-1001"]`, chromedp.BySearch))
	b.press("Redrive selected")
	b.press("Redrive 1 letter")
	require.EqualValues(t, 1, q.Stats().Redriven)
	require.Equal(t, 1, q.Stats().Dead)
	b.do(chromedp.OuterHTML("main", &html))
	require.Contains(t, html, "Redrove 1 of 1 letter.")
}

func TestTimesAreOfTheReadersZone(t *testing.T) {
	s := newShop(t, everything())
	s.open("billing")
	b := newTab(t, s.server.URL)
	b.do(emulation.SetTimezoneOverride("Asia/Tokyo"))
	b.open("/")
	b.is(`(t => t.textContent === new Date(t.getAttribute("datetime")).toLocaleTimeString())(document.querySelector(".foot time"))`)
	require.NotContains(t, b.value(`document.querySelector(".foot time").textContent`), "UTC")
	b.clean()
}

// Of many queues the worst come first, and the others are found by their names.
func TestManyQueuesAreFolded(t *testing.T) {
	s := newShop(t, everything())
	for k := range 2000 {
		s.open(fmt.Sprintf("customer-%04d", k))
	}
	s.publish(3)
	s.kill(s.queues["customer-1234"], errors.New("no such order"), 1)
	require.NoError(t, s.queues["customer-0777"].Pause(t.Context()))
	b := newTab(t, s.server.URL)
	b.open("/")
	names := `Array.from(document.querySelectorAll(".row .name"), n => n.textContent)`
	require.EqualValues(t, 50, b.value(names+".length"))
	require.Equal(t, []any{"customer-0777", "customer-1234"}, b.value(names+".slice(0, 2)"))
	b.is(`document.querySelector(".row").innerText.includes("/s in")`)
	b.fits()
	b.accessible()
	b.picture("many-wide-light")
	b.press("More →")
	require.EqualValues(t, 50, b.value(names+".length"))
	require.Contains(t, b.text(), "51–100 of 2,000 queues")
	b.do(chromedp.KeyEvent("/"))
	require.Equal(t, "q", b.value(`document.activeElement.id`))
	b.value(`document.querySelector("#q").value = ""`)
	b.do(chromedp.KeyEvent("R-19"), chromedp.KeyEvent("\r")) // chromedp types the slash all the same
	b.is(`document.body.innerText.includes("1–50 of 100 queues")`)
	require.Equal(t, "customer-1900", b.value(names+"[0]"))
	b.clean()
}
