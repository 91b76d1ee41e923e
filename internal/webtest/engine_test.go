package webtest

import (
	"context"
	"errors"
	"log/slog"
	"net/http/httptest"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/gofanout/fanout"
	"github.com/gofanout/fanout/engine"
	"github.com/gofanout/fanout/engine/fanoutaws"
	"github.com/gofanout/fanout/fanouttest/fakeaws"
	"github.com/gofanout/fanout/plugin/fanoutweb"
)

// On an engine the page says what is of this process, and shows letters only on request.
func TestAQueueOnAnEngine(t *testing.T) {
	a := fakeaws.New(t)
	e, err := fanoutaws.New(a.SNS(), a.SQS(), fanoutaws.WithPollTime(time.Second))
	require.NoError(t, err)
	topic, err := fanout.NewTopic[order]("orders", fanout.WithEngine(e, fanout.Without(engine.Bounded, engine.AllOrNone)), fanout.WithLogger(slog.New(slog.DiscardHandler)))
	require.NoError(t, err)
	o := everything()
	o.Title = "Shop"
	page, err := fanoutweb.New(o, topic)
	require.NoError(t, err)
	s := &shop{T: t, topic: topic, page: page, server: httptest.NewServer(page), queues: map[string]*fanout.Queue[order]{}}
	t.Cleanup(func() {
		page.Close()
		_ = topic.Close()
		s.server.CloseClientConnections()
		s.server.Close()
		<-topic.Done()
	})
	billing, mail := s.open("billing"), s.open("mail")
	s.publish(5)
	s.kill(billing, errors.New("no such order"), 3)
	w, err := mail.Subscribe(t.Context(), func(context.Context, fanout.Delivery[order]) error { return nil })
	require.NoError(t, err)
	require.Eventually(t, func() bool { return mail.Stats().Acked == 5 }, 20*time.Second, 5*time.Millisecond)
	require.NoError(t, w.Shutdown(t.Context()))

	b := newTab(t, s.server.URL)
	b.open("/")
	b.is(`document.querySelector(".row").innerText.includes("2 held") && document.querySelector(".row").innerText.includes("3 dead")`)
	b.is(`document.querySelector(".row").innerText.includes("/s done here")`)
	b.fits()
	b.accessible()
	b.picture("engine-flow-wide-light")
	b.press("billing")
	b.is(`document.querySelectorAll(".chart path").length > 1`)
	require.Contains(t, b.text(), "in Amazon SNS + SQS, asked ")
	b.fits()
	b.accessible()
	b.picture("engine-queue-wide-light")
	b.press("Dead letters →")
	require.Contains(t, b.text(), "raises their receive counts")
	b.press("Take a sample")
	require.Contains(t, b.text(), "Received 3 letters to look at, and gave them back.")
	require.EqualValues(t, 3, b.value(`document.querySelectorAll("tbody tr").length`))
	b.fits()
	b.accessible()
	b.picture("engine-letters-wide-light")
	b.size(390, 1000)
	b.scheme("dark")
	b.fits()
	b.accessible()
	b.picture("engine-letters-narrow-dark")
	b.clean()
}
