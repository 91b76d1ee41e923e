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

// firstFew is how many letters are shown with their histories, and how many orders
// are named for each reason, unless all are asked for.
const firstFew = 5

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
		switch {
		case len(dead) == 0:
			c.out.say("%s: no dead letters", q.Name())
		case c.cfg.letters || len(dead) <= firstFew:
			c.out.say("%s: %s\n%s", q.Name(), c.out.red(count(len(dead), "dead letter")), histories(dead))
		default:
			c.out.say("%s: %s, by reason\n%s\nthe first %d of them (-letters shows all)\n%s", q.Name(), c.out.red(count(len(dead), "dead letter")),
				grouped(dead), firstFew, histories(dead[:firstFew]))
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
	for _, r := range reasons {
		names := r.orders
		if more := len(names) - firstFew; more > 0 {
			names = append(names[:firstFew:firstFew], fmt.Sprintf("and %s more", number(more)))
		}
		fmt.Fprintf(&b, "  %s: %s: %s\n", r.text, count(len(r.orders), "order"), strings.Join(names, ", "))
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
		return "too little " + first.Product, fmt.Sprintf("%d (%d wanted, %d in stock)", l.Body.OrderID, first.Wanted, first.InStock)
	}
	return fmt.Sprintf("%s, the last: %v", count(len(history), "attempt"), last.Err), fmt.Sprint(l.Body.OrderID)
}

func shortageOf(l letter) *shop.ShortageError {
	history := l.History()
	var short *shop.ShortageError
	errors.As(history[len(history)-1].Err, &short)
	return short
}

// count writes n of a thing, with the word in the singular or the plural.
func count[N int | uint64](n N, thing string) string {
	if n == 1 {
		return "1 " + thing
	}
	if ending, ok := strings.CutSuffix(thing, "y"); ok {
		thing = ending + "ie"
	}
	return number(n) + " " + thing + "s"
}
