package fanoutweb

import (
	"cmp"
	"context"
	"errors"
	"regexp"
	"slices"
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

// differs is what differs between errors of one kind: quoted parts, and numbers.
var differs = regexp.MustCompile(`"(?:[^"\\\n]|\\.)*"|\x60[^\x60\n]*\x60|[0-9]+`)

// alike is an error without what differs between errors of one kind.
func alike(text string) string {
	return differs.ReplaceAllStringFunc(shorter(text, alikeLen), func(part string) string {
		if part[0] == '"' || part[0] == '`' {
			return part[:1] + "…" + part[:1]
		}
		return "#"
	})
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
