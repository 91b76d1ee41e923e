package webtest

import (
	"errors"
	"testing"

	"github.com/chromedp/chromedp"
	"github.com/stretchr/testify/require"

	"github.com/gofanout/fanout"
)

// books are what an action may change.
type books struct{ ready, dead, redriven, dropped, gone int }

func booksOf(q *fanout.Queue[order]) books {
	st, d := q.Stats(), q.DeadLetters().Stats()
	return books{st.Ready, st.Dead, int(st.Redriven), int(st.Dropped), int(d.Dropped)}
}

func TestEachActionByItsButtons(t *testing.T) {
	s := newShop(t, everything())
	q := s.open("billing")
	s.publish(10)
	s.kill(q, errors.New("no such order"), 6)
	s.kill(q, fanout.Permanent(errors.New("card expired")), 2)
	require.Equal(t, books{2, 8, 0, 0, 0}, booksOf(q))
	b := newTab(t, s.server.URL)

	b.open(queuePath + "billing")
	b.press("Pause")
	require.False(t, q.Stats().Paused, "it asks first")
	b.press("Pause")
	require.True(t, q.Stats().Paused)
	require.Contains(t, b.text(), "Paused. Nothing is delivered")
	b.press("Resume")
	b.press("Resume")
	require.False(t, q.Stats().Paused)

	b.open(lettersPath + "billing")
	require.Equal(t, true, b.value(`document.querySelector("[data-needs]").disabled`))
	b.do(chromedp.Click(`//input[@value="o-1001"]`, chromedp.BySearch), chromedp.Click(`//input[@value="o-1003"]`, chromedp.BySearch))
	require.Contains(t, b.text(), "2 selected")
	b.press("Redrive selected")
	require.Contains(t, b.text(), "Redrive 2 letters to billing?")
	require.Equal(t, books{2, 8, 0, 0, 0}, booksOf(q))
	b.press("Redrive 2 letters")
	require.Equal(t, books{4, 6, 2, 0, 0}, booksOf(q))
	require.Contains(t, b.text(), "Redrove 2 of 2 letters.")

	b.do(chromedp.Click(`//input[@value="o-1002"]`, chromedp.BySearch))
	b.press("Delete selected")
	b.press("Delete 1 letter")
	require.Equal(t, books{4, 5, 2, 0, 1}, booksOf(q))

	b.do(chromedp.SetValue("[name=text]", "expired"))
	b.press("Search")
	require.EqualValues(t, 2, b.value(`document.querySelectorAll("tbody tr").length`))
	b.press("Delete all that match")
	require.Contains(t, b.text(), `text="expired"`)
	b.press("Delete 2 letters")
	require.Equal(t, books{4, 3, 2, 0, 3}, booksOf(q))

	b.open(lettersPath + "billing")
	b.do(chromedp.Click("[data-all]"))
	require.Contains(t, b.text(), "3 selected")
	b.do(chromedp.Click("tbody tr .when a"))
	b.is(`document.querySelector(".timeline")`)
	b.press("Redrive")
	b.press("Redrive 1 letter")
	require.Equal(t, books{5, 2, 3, 0, 3}, booksOf(q))
	b.press("Redrive all")
	b.press("Redrive 2 letters")
	require.Equal(t, books{7, 0, 5, 0, 3}, booksOf(q))

	b.open(queuePath + "billing")
	b.press("Purge")
	require.Contains(t, b.text(), "7 messages")
	b.press("Purge")
	require.Equal(t, books{0, 0, 5, 7, 3}, booksOf(q))
	b.clean()
}

func TestARedriveThatWaitsIsSeenAndCancelled(t *testing.T) {
	s := newShop(t, everything())
	q := s.open("billing", fanout.WithCapacity(3))
	s.publish(3)
	s.kill(q, errors.New("no such order"), 3)
	s.publish(2)
	b := newTab(t, s.server.URL)
	b.open(queuePath + "billing")
	b.press("Redrive dead letters")
	require.Contains(t, b.text(), "It has room for 1; the others wait")
	b.press("Redrive 3 letters")
	b.is(`document.querySelector(".job").innerText.includes("Redriving 1 of 3 letters so far. The queue is full")`)
	b.press("Cancel")
	require.Contains(t, b.text(), "Cancelled. Redrove 1 of 3 letters.")
	require.Equal(t, 2, q.Stats().Dead)
	require.Equal(t, 0, s.topic.Stats().Waiting)
	b.clean()
}

func TestARedriveSaysWhatDiesAgain(t *testing.T) {
	s := newShop(t, everything())
	q := s.open("billing")
	s.publish(2)
	s.kill(q, errors.New("no such order"), 2)
	b := newTab(t, s.server.URL)
	b.size(400, 900)
	b.open(lettersPath + "billing")
	require.Equal(t, true, b.value(`(t => t.scrollWidth <= t.clientWidth)(document.querySelector(".table"))`), "nothing is cut")
	b.press("Redrive all")
	b.press("Redrive 2 letters")
	b.is(`document.querySelector(".job.done").innerText.includes("Redrove 2 of 2 letters.")`)
	s.kill(q, errors.New("order has no address"), 2)
	b.is(`document.querySelector(".job.warned")?.innerText.includes("2 have died again: order has no address.")`)
	require.Equal(t, true, b.value(`document.querySelector("#pulse").hidden`), "the table is not live")
	b.open("/")
	b.is(`document.querySelector(".findings").innerText.includes("The last cause: failed. order has no address")`)
	b.press("Look at them →")
	require.Equal(t, "2 failed order has no address", b.value(`document.querySelector(".groups li").innerText.split(/\s+/).join(" ")`))
	b.clean()
}
