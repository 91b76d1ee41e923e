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
	text, balanced := c.out.books(accounts, stock)
	c.out.say("%s", text)
	c.out.say("took %v; %v", time.Since(c.out.begin).Round(10*time.Millisecond), &c.heap)
	if !balanced {
		return errUnbalanced
	}
	return nil
}

// books is the final table, with everything that is wrong below it.
func (o *console) books(accounts []*shop.Account, stock *shop.StockAccount) (text string, balanced bool) {
	var b strings.Builder
	var wrong []string
	if o.width() < tableWide {
		for _, a := range accounts {
			fmt.Fprintf(&b, "\n%s: %s published = %s settled + %s dead + %s left: %s", a.Service,
				number(a.Published), number(a.Settled), number(a.Dead), number(a.Left), o.verdict(a.Balanced()))
			notes(&b, a)
		}
		fmt.Fprintf(&b, "\nstock: %s + %s restocked = %s reserved + %s on shelf: %s",
			number(stock.Opening), number(stock.Restocked), number(stock.Reserved), number(stock.OnShelf), o.verdict(stock.Balanced()))
	} else {
		const row = "\n%-10s %14s %s %14s %s %11s %s %14s"
		fmt.Fprintf(&b, row, "orders", "published", " ", "settled", " ", "dead", " ", "left")
		for _, a := range accounts {
			fmt.Fprintf(&b, row+"   %s", a.Service,
				number(a.Published), "=", number(a.Settled), "+", number(a.Dead), "+", number(a.Left), o.verdict(a.Balanced()))
			notes(&b, a)
		}
		fmt.Fprintf(&b, row, "units", "opening", " ", "restocked", " ", "reserved", " ", "on shelf")
		fmt.Fprintf(&b, row+"   %s", "stock",
			number(stock.Opening), "+", number(stock.Restocked), "=", number(stock.Reserved), "+", number(stock.OnShelf), o.verdict(stock.Balanced()))
	}
	for _, a := range accounts {
		for _, w := range a.Wrong {
			wrong = append(wrong, a.Service+": "+w.String())
		}
	}
	for _, w := range stock.Wrong {
		wrong = append(wrong, "stock: "+w)
	}
	for _, w := range wrong {
		b.WriteString("\n" + w)
	}
	return b.String(), len(wrong) == 0
}

// tableWide is how wide the table of the books is.
const tableWide = 10 + 3*15 + 12 + 3*2 + 3 + len("NOT BALANCED") + 1

// notes says what was unusual, and does not unbalance the books.
func notes(b *strings.Builder, a *shop.Account) {
	if a.Early > 0 {
		fmt.Fprintf(b, "\n%-10s %s of the dead and left had their work done, and were not acknowledged in time", "", count(a.Early, "order"))
	}
	if a.Again > 0 {
		fmt.Fprintf(b, "\n%-10s %s came again after the work was done, and changed nothing", "", count(a.Again, "delivery"))
	}
}

func (o *console) verdict(balanced bool) string {
	if balanced {
		return o.green("balanced")
	}
	return o.red("NOT BALANCED")
}
