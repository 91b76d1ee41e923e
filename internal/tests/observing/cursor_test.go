package observing_test

import (
	"testing"
	"testing/synctest"

	"github.com/stretchr/testify/require"

	"github.com/gofanout/fanout"
	"github.com/gofanout/fanout/internal/fakeengine"
)

func TestAPageBeginsAtTheCursorOfAMessage(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		top := viewed[string](t)
		q := opened[string](t, top, "billing")
		kill(t, top, q, "a", "b", "c")
		for _, body := range []string{"d", "e", "f"} { // two in the log, one that was received before
			require.NoError(t, top.PublishMessages(t.Context(), fanout.Message[string]{ID: body, Body: body}))
		}
		d, err := q.Receive(t.Context())
		require.NoError(t, err)
		require.NoError(t, d.NackAfter(t.Context(), 1))
		for _, v := range []fanout.QueueView{q.View(), q.View().DeadLetters()} {
			all := allOf(t, v, fanout.PeekOptions{Most: 100})
			require.Len(t, all, 3)
			for k, m := range all {
				page, _, err := v.Peek(t.Context(), fanout.PeekOptions{After: m.Cursor, Most: 100})
				require.NoError(t, err)
				require.Equal(t, idsOf(all[k:]), idsOf(page))
			}
		}

		waits := allOf(t, q.View(), fanout.PeekOptions{Most: 100})
		for range waits { // those of the log move to the window, and keep their places
			d, err := q.Receive(t.Context())
			require.NoError(t, err)
			require.NoError(t, d.NackAfter(t.Context(), 1))
		}
		for k, m := range waits {
			page, _, err := q.View().Peek(t.Context(), fanout.PeekOptions{After: m.Cursor, Most: 1})
			require.NoError(t, err)
			require.Equal(t, idsOf(waits[k:k+1]), idsOf(page))
		}
		require.NoError(t, top.Close())
	})
	synctest.Test(t, func(t *testing.T) {
		e := fakeengine.New(fakeengine.Config{})
		top := viewed[string](t, fanout.WithEngine(e))
		q := opened[string](t, top, "billing")
		kill(t, top, q, "a")
		page, _, err := q.View().DeadLetters().Peek(t.Context(), fanout.PeekOptions{Most: 1})
		require.NoError(t, err)
		require.Empty(t, page[0].Cursor)
		require.NoError(t, top.Close())
		<-top.Done()
	})
}
