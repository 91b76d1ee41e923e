package program

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"slices"
	"strings"

	"github.com/gofanout/fanout"
	"github.com/gofanout/fanout/examples/checkout/shop"
)

type letter = fanout.Delivery[payment]

const (
	// fewLetters are shown with their histories, manyLetters are named with
	// their reasons, and of more than that the first few are.
	fewLetters  = 12
	manyLetters = 2000
	firstFew    = 5
)

// letters returns the dead letters of a queue, and leaves them where they are.
func letters(ctx context.Context, q *fanout.Queue[payment]) ([]letter, error) {
	d, err := q.Depth(ctx)
	if err != nil || d.Dead == 0 {
		return nil, err
	}
	return q.DeadLetters().Peek(ctx, d.Dead)
}

func bodies(letters []letter) iter.Seq[payment] {
	return func(yield func(payment) bool) {
		for _, l := range letters {
			if !yield(l.Body) {
				return
			}
		}
	}
}

// showDead shows what died, and why.
func (c *checkout) showDead(ctx context.Context) error {
	for _, q := range c.queues {
		dead, err := letters(ctx, q)
		if err != nil {
			return err
		}
		inFull := c.cfg.letters || len(dead) <= fewLetters && c.cfg.flood == 0
		switch {
		case len(dead) == 0:
			c.out.say("%s: no dead letters", q.Name())
		case inFull:
			c.out.say("%s: dead letters of %s\n%s", q.Name(), orders(len(dead)), histories(dead))
		default:
			c.out.say("%s: dead letters of %s, by the reason (-letters shows their histories)\n%s", q.Name(), orders(len(dead)), grouped(dead))
		}
	}
	return nil
}

// histories tells each letter in full.
func histories(dead []letter) string {
	var b strings.Builder
	for _, l := range dead {
		fmt.Fprintf(&b, "  order %d, %s\n", l.Body.OrderID, l.Body.ShipTo)
		for _, a := range l.History() {
			fmt.Fprintf(&b, "    %v\n", a)
		}
	}
	return strings.TrimSuffix(b.String(), "\n")
}

// A reason is what letters have in common, and what each adds to it.
type reason struct {
	text   string
	orders []string
}

// grouped tells the letters by their reasons, most frequent ones first.
func grouped(dead []letter) string {
	var reasons []*reason
	find := map[string]*reason{}
	for _, l := range dead {
		why, order := reasonOf(l)
		r := find[why]
		if r == nil {
			r = &reason{text: why}
			find[why] = r
			reasons = append(reasons, r)
		}
		r.orders = append(r.orders, order)
	}
	slices.SortStableFunc(reasons, func(a, b *reason) int { return len(b.orders) - len(a.orders) })
	var b strings.Builder
	if slices.ContainsFunc(dead, isShort) {
		b.WriteString("  each order with (units wanted of units in stock, + how many other products were short)\n")
	}
	for _, r := range reasons {
		fmt.Fprintf(&b, "  %s: %s\n", r.text, orders(len(r.orders)))
		if len(dead) > manyLetters && len(r.orders) > firstFew {
			r.orders = append(r.orders[:firstFew], fmt.Sprintf("and %s more", number(len(r.orders)-firstFew)))
		}
		b.WriteString(wrap(r.orders))
	}
	return strings.TrimSuffix(b.String(), "\n")
}

// reasonOf says why a letter is dead: a reason that others may share, and the
// order with its own numbers.
func reasonOf(l letter) (reason, order string) {
	history := l.History()
	last := history[len(history)-1]
	if short := shortageOf(l); short != nil {
		first := short.Short[0]
		order = fmt.Sprintf("%d (%d of %d", l.Body.OrderID, first.Wanted, first.InStock)
		if n := len(short.Short) - 1; n > 0 {
			order += fmt.Sprintf(" +%d", n)
		}
		return "too little " + first.Product, order + ")"
	}
	return fmt.Sprintf("%d attempts, the last: %v", len(history), last.Err), fmt.Sprint(l.Body.OrderID)
}

func shortageOf(l letter) *shop.ShortageError {
	history := l.History()
	var short *shop.ShortageError
	errors.As(history[len(history)-1].Err, &short)
	return short
}

func isShort(l letter) bool { return shortageOf(l) != nil }

func orders(n int) string {
	if n == 1 {
		return "1 order"
	}
	return number(n) + " orders"
}

// wrap sets words in lines of some 100 columns.
func wrap(words []string) string {
	var b strings.Builder
	column := 0
	for i, w := range words {
		if i < len(words)-1 {
			w += ","
		}
		switch {
		case column == 0 || column+len(w) > 96:
			if column > 0 {
				b.WriteByte('\n')
			}
			b.WriteString("    ")
			column = 4
		default:
			b.WriteByte(' ')
			column++
		}
		b.WriteString(w)
		column += len(w)
	}
	b.WriteByte('\n')
	return b.String()
}
