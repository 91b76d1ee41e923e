package program

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/gofanout/fanout/examples/checkout/shop"
)

var errUnbalanced = errors.New("the books do not balance")

// balance audits each service once the topic is closed, and shows the books.
func (c *checkout) balance() error {
	c.heap.sample()
	sides, err := c.sides(context.Background())
	if err != nil {
		return err
	}
	var accounts []*shop.Account
	for i, side := range sides {
		accounts = append(accounts, shop.Audit(c.published, c.ledgers()[i], side))
	}
	stock := c.inventory.AuditStock(c.load.All())
	c.out.end()
	text, balanced := books(accounts, stock)
	c.out.say("%s", text)
	c.out.say("took %v; %v", time.Since(c.out.begin).Round(10*time.Millisecond), &c.heap)
	if !balanced {
		return errUnbalanced
	}
	return nil
}

// books is the final table, with everything that is wrong below it.
func books(accounts []*shop.Account, stock *shop.StockAccount) (text string, balanced bool) {
	var b strings.Builder
	var wrong []string
	fmt.Fprintf(&b, "\n%-10s %11s   %11s   %11s   %11s\n", "orders", "published", "settled", "dead", "left")
	for _, a := range accounts {
		fmt.Fprintf(&b, "%-10s %11s = %11s + %11s + %11s   %s\n", a.Service,
			number(a.Published), number(a.Settled), number(a.Dead), number(a.Left), verdict(a.Balanced()))
		if a.Early > 0 {
			fmt.Fprintf(&b, "%-10s %s of the dead and left had their work done, and were not acknowledged in time\n", "", orders(a.Early))
		}
		if a.Again > 0 {
			fmt.Fprintf(&b, "%-10s %s deliveries came again after their work was done, and changed nothing\n", "", number(a.Again))
		}
		for _, w := range a.Wrong {
			wrong = append(wrong, a.Service+": "+w.String())
		}
	}
	fmt.Fprintf(&b, "%-10s %11s   %11s   %11s   %11s\n", "units", "opening", "restocked", "reserved", "on shelf")
	fmt.Fprintf(&b, "%-10s %11s + %11s = %11s + %11s   %s", "stock",
		number(stock.Opening), number(stock.Restocked), number(stock.Reserved), number(stock.OnShelf), verdict(stock.Balanced()))
	for _, w := range stock.Wrong {
		wrong = append(wrong, "stock: "+w)
	}
	for _, w := range wrong {
		b.WriteString("\n" + w)
	}
	return b.String(), len(wrong) == 0
}

func verdict(balanced bool) string {
	if balanced {
		return "balanced"
	}
	return "NOT BALANCED"
}
