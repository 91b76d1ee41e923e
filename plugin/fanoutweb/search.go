package fanoutweb

import (
	"context"
	"errors"
	"net/http"
	"time"

	"github.com/gofanout/fanout"
)

const (
	// tableBody and searchBody are how many bytes of a body a table shows, and a search
	// for a text looks at.
	tableBody  = 160
	searchBody = 4 << 10
	// leastSlice and mostSlice are how many messages are looked at at once: more as long as
	// that takes no longer than sliceFor.
	leastSlice, mostSlice = 64, 4096
	sliceFor              = 20 * time.Millisecond
	// searchFor is how long a search goes on before it shows what it has.
	searchFor = 150 * time.Millisecond
)

// A search looks for messages in a queue, slice by slice. It belongs to one goroutine.
type search struct {
	reader
	of     fanout.QueueView
	filter filter
	own    bool // only letters of reader's queue, of a dead-letter queue that is shared
	next   string
	done   bool // there is no more
	looked int
}

// search returns a search of the dead letters of a queue, or of the queue itself. It is done
// already if there is no dead-letter queue.
func (v *visit) search(p place, queue bool) (*search, error) {
	s := &search{reader: v.reader(p), of: p.view}
	if !queue {
		s.of, s.own = p.view.DeadLetters(), p.view.Settings().DeadLetterQueue != ""
		s.done = s.of == nil
	}
	var err error
	s.filter, err = filterOf(v.r.Form, s.body)
	return s, err
}

// each calls f for each message that matches, until f returns false, ctx ends, or a time has
// passed. Afterwards next is where to go on.
func (s *search) each(ctx context.Context, body int, until time.Time, f func(m *fanout.MessageView, l *letter) bool) error {
	now, size := time.Now(), leastSlice
	text := s.filter.Text != "" || s.filter.Attr != "" || s.filter.Error != ""
	if !s.body {
		body = 0
	} else if s.filter.Text != "" {
		body = max(body, searchBody)
	}
	for !s.done {
		began := time.Now()
		page, next, err := s.of.Peek(ctx, fanout.PeekOptions{After: s.next, Most: size, Body: body})
		if errors.Is(err, fanout.ErrInvalidOption) {
			return refusal{http.StatusBadRequest, "The cursor is none of this page's: " + s.next + "."}
		}
		if err != nil {
			return err
		}
		for k := range page {
			m := &page[k]
			s.looked++
			if s.own && m.Source != s.Queue || !s.filter.quick(m, now) {
				continue
			}
			var l letter
			if text || body > 0 {
				l = s.letter(m, false)
				if !s.filter.matches(&l) {
					continue
				}
			}
			if f(m, &l) {
				continue
			}
			switch {
			case k+1 < len(page):
				s.next = page[k+1].Cursor
			default:
				s.next, s.done = next, next == ""
			}
			return nil
		}
		s.next, s.done = next, next == ""
		if time.Now().After(until) {
			return nil
		}
		if time.Since(began) < sliceFor {
			size = min(size*2, mostSlice)
		}
	}
	return nil
}

// A match is what a confirmation fixes: how many letters match, and when the last of them died.
type match struct {
	Count  int
	Newest time.Time
}

// mostChosen is how many letters one action moves or deletes.
const mostChosen = 1_000_000

// choose looks at all letters, and returns the IDs of those that match and died by then at
// the latest, if then isn't zero.
func (s *search) choose(ctx context.Context, then time.Time, keep bool) (m match, ids []string, err error) {
	err = s.each(ctx, 0, time.Now().Add(time.Hour), func(v *fanout.MessageView, _ *letter) bool {
		if !then.IsZero() && v.DiedAt.After(then) {
			return true
		}
		m.Count++
		if v.DiedAt.After(m.Newest) {
			m.Newest = v.DiedAt
		}
		if keep {
			ids = append(ids, v.ID)
		}
		return m.Count < mostChosen
	})
	return m, ids, err
}
