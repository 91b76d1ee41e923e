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
	// that takes no longer than sliceFor, and their texts are no longer than sliceBytes. Peek
	// goes over the whole queue each time, so few large slices are cheaper than many small ones.
	leastSlice, mostSlice = 64, 4096
	sliceFor              = 20 * time.Millisecond
	sliceBytes            = 1 << 20
	// searchFor is how long a search goes on before it shows what it has, and searchCost how
	// many bytes it allocates by then at most, about. All of that may be garbage that was not
	// collected yet.
	searchFor  = 150 * time.Millisecond
	searchCost = 20 << 20
	// lookCost is how many bytes it takes to look at a message, without its texts.
	lookCost = 700
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
	cost   int // about how many bytes that took
}

// bounds say how far a search goes in one request. A zero bound is none.
type bounds struct {
	until time.Time
	cost  int
}

func (b bounds) reached(s *search) bool {
	return !b.until.IsZero() && time.Now().After(b.until) || b.cost > 0 && s.cost >= b.cost
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

// each calls f for each message that matches, until f returns false, ctx ends, or a bound is
// reached. Afterwards next is where to go on. f must not keep l: it is used again.
func (s *search) each(ctx context.Context, body int, within bounds, f func(m *fanout.MessageView, l *letter) bool) error {
	now, size := time.Now(), leastSlice
	text := s.filter.Text != "" || s.filter.Attr != "" || s.filter.Error != ""
	if !s.body {
		body = 0
	} else if s.filter.Text != "" {
		body = max(body, searchBody)
	}
	var l letter
	for !s.done {
		began := time.Now()
		page, next, err := s.of.Peek(ctx, fanout.PeekOptions{After: s.next, Most: size, Body: body})
		if errors.Is(err, fanout.ErrInvalidOption) {
			return refusal{http.StatusBadRequest, "The cursor is none of this page's: " + s.next + "."}
		}
		if err != nil {
			return err
		}
		texts := 0
		for k := range page {
			m := &page[k]
			s.looked++
			texts += len(m.Body)
			if s.own && m.Source != s.Queue || !s.filter.quick(m, now) {
				continue
			}
			l = letter{}
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
		if s.cost += lookCost*len(page) + texts; within.reached(s) {
			return nil
		}
		if time.Since(began) < sliceFor {
			size = min(size*4, mostSlice)
		}
		if texts > 0 {
			size = max(min(size, sliceBytes/(texts/len(page)+1)), leastSlice)
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
	err = s.each(ctx, 0, bounds{}, func(v *fanout.MessageView, _ *letter) bool {
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
