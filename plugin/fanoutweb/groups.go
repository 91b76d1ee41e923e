package fanoutweb

import (
	"cmp"
	"context"
	"errors"
	"slices"
	"strings"
	"time"

	"github.com/gofanout/fanout"
)

const (
	// mostGroups is how many groups of letters are shown, and mostAlike how many are counted.
	mostGroups, mostAlike = 6, 200
	// groupFor is how long letters are looked at to sum them up, and mostSummed how many.
	groupFor   = 30 * time.Millisecond
	mostSummed = 10_000
	// alikeLen is how many bytes of an error are compared.
	alikeLen = 200
)

// A group is letters that died of the same cause, of errors that differ by numbers and names.
type group struct {
	Cause string `json:"cause"`
	Error string `json:"error,omitempty"`
	N     int    `json:"count"`
	Link  string `json:"-"`
}

// alike is an error without what differs between errors of one kind: quoted parts, and numbers.
func alike(text string) string {
	text = shorter(text, alikeLen)
	var b strings.Builder
	for i := 0; i < len(text); {
		c := text[i]
		if n := quoted(text[i:]); n > 0 {
			b.WriteString(text[i:i+1] + "…" + text[i:i+1])
			i += n
		} else if isDigit(c) {
			b.WriteByte('#')
			for i < len(text) && isDigit(text[i]) {
				i++
			}
		} else {
			b.WriteByte(c)
			i++
		}
	}
	return b.String()
}

func isDigit(c byte) bool { return c >= '0' && c <= '9' }

// quoted is how long the quoted part is that text begins with, on one line; 0 if it begins
// with none. A backslash escapes what follows, but not between backquotes.
func quoted(text string) int {
	quote := text[0]
	if quote != '"' && quote != '`' {
		return 0
	}
	for i := 1; i < len(text); i++ {
		if quote == '"' && text[i] == '\\' && i+1 < len(text) {
			i++
		} else if text[i] == quote {
			return i + 1
		}
		if text[i] == '\n' {
			return 0
		}
	}
	return 0
}

// groups sums up the letters of a queue, the most first, and says of how many.
func (v *visit) groups(at place) (gs []group, of int, err error) {
	s := &search{reader: v.reader(at), of: at.view.DeadLetters(), own: at.view.Settings().DeadLetterQueue != ""}
	if s.of == nil {
		return nil, 0, nil
	}
	index := map[group]int{}
	err = s.each(v.r.Context(), 0, bounds{until: time.Now().Add(groupFor)}, func(m *fanout.MessageView, _ *letter) bool {
		of++
		var g group
		if n := len(m.History); n > 0 {
			last := &m.History[n-1]
			if g.Cause = last.Cause.String(); s.body {
				g.Error = alike(s.error(last.Err))
			}
		}
		k, known := index[g]
		if !known {
			if len(gs) == mostAlike {
				return of < mostSummed
			}
			k = len(gs)
			index[g] = k
			gs = append(gs, g)
		}
		gs[k].N++
		return of < mostSummed
	})
	if errors.Is(err, context.Canceled) {
		return nil, 0, err
	}
	slices.SortStableFunc(gs, func(a, b group) int { return cmp.Compare(b.N, a.N) })
	for k := range gs {
		gs[k].Link = at.Link("letters", "cause", gs[k].Cause, "error", gs[k].Error)
	}
	return gs[:min(len(gs), mostGroups)], of, err
}

// newestFor is how long the newest letters are looked for.
const newestFor = time.Second

// newest fills a table with the newest letters that match. They are kept in the order of
// publication, so it looks at all.
func (s *search) newest(ctx context.Context, body int) (ls []letter, matched int, err error) {
	type one struct {
		at time.Time
		l  letter
	}
	var kept []one
	newer := func(a, b one) int { return b.at.Compare(a.at) }
	cut := func() {
		slices.SortStableFunc(kept, newer)
		kept = kept[:min(len(kept), mostLetters)]
	}
	err = s.each(ctx, body, bounds{until: time.Now().Add(newestFor)}, func(m *fanout.MessageView, l *letter) bool {
		matched++
		at := m.DiedAt
		if at.IsZero() {
			at = m.PublishedAt
		}
		if len(kept) >= mostLetters && at.Before(kept[mostLetters-1].at) {
			return true
		}
		if l.State == "" {
			*l = s.letter(m, false)
		}
		if kept = append(kept, one{at, *l}); len(kept) == 2*mostLetters || len(kept) == mostLetters {
			cut()
		}
		return true
	})
	cut()
	for _, o := range kept {
		ls = append(ls, o.l)
	}
	return ls, matched, err
}
