package program

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/gofanout/fanout"
	"github.com/gofanout/fanout/engine"
	"github.com/gofanout/fanout/examples/checkout/shop"
	"github.com/gofanout/fanout/internal/fakeengine"
)

// page is a service's row of the final table.
type page struct{ published, settled, dead, left int }

var row = regexp.MustCompile(`(?m)^(inventory|shipping) +([\d,]+) = +([\d,]+) \+ +([\d,]+) \+ +([\d,]+)   balanced$`)

// pages returns the two services' rows, which have to be there and balanced.
func pages(t *testing.T, out string) (inventory, shipping page) {
	t.Helper()
	rows := row.FindAllStringSubmatch(out, -1)
	require.Len(t, rows, 2, out)
	require.Regexp(t, `(?m)^stock .* balanced$`, out)
	require.NotContains(t, out, "NOT BALANCED")
	read := func(r []string) page {
		var n [4]int
		for i := range n {
			var err error
			n[i], err = strconv.Atoi(strings.ReplaceAll(r[i+2], ",", ""))
			require.NoError(t, err)
		}
		p := page{n[0], n[1], n[2], n[3]}
		require.Equal(t, p.published, p.settled+p.dead+p.left)
		return p
	}
	return read(rows[0]), read(rows[1])
}

func TestTheSampleEndsWithEveryOrderSettled(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		begin := time.Now()
		var out bytes.Buffer
		require.NoError(t, Run(t.Context(), Where{}, nil, &out))
		require.Less(t, time.Since(begin), 10*time.Second)

		inventory, shipping := pages(t, out.String())
		require.Equal(t, page{published: 40, settled: 40}, inventory)
		require.Equal(t, page{published: 40, settled: 40}, shipping)
		// What was too much for the stock died at once, was shown, and was redriven.
		require.Regexp(t, `inventory: \d+ dead letters, by reason\n`, out.String())
		require.Regexp(t, `  order \d+, .*\n(    attempt .*\n)*    attempt \d: permanent after .* wanted, \d+ in stock`, out.String())
		moved := regexp.MustCompile(`inventory: redrove (\d+) of (\d+) dead letters`).FindStringSubmatch(out.String())
		require.NotNil(t, moved)
		require.NotEqual(t, "0", moved[1])
		require.Equal(t, moved[2], moved[1])
		require.Contains(t, out.String(), "   1.0s  published ")
	})
}

func TestAFloodThroughSmallQueuesLosesNothing(t *testing.T) {
	var out bytes.Buffer
	require.NoError(t, Run(t.Context(), Where{}, []string{"-flood", "20000", "-capacity", "64"}, &out))
	inventory, shipping := pages(t, out.String())
	require.Equal(t, page{published: 20000, settled: 20000}, inventory)
	require.Equal(t, page{published: 20000, settled: 20000}, shipping)
	require.Contains(t, out.String(), "heap ")
}

func TestAFloodInAnOutageIsLookedAfter(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var out bytes.Buffer
		require.NoError(t, Run(t.Context(), Where{}, []string{"-flood", "5000", "-failure", "1"}, &out))
		inventory, shipping := pages(t, out.String())
		require.Equal(t, page{published: 5000, settled: 5000}, inventory)
		require.Equal(t, page{published: 5000, settled: 5000}, shipping)
		// The dead letters were redriven once they were many, not at the end.
		text := out.String()
		require.Less(t, strings.Index(text, "redrove"), strings.Index(text, "every queue is drained"))
	})
}

func TestAnInterruptLeavesBooksThatBalance(t *testing.T) {
	for _, tt := range []struct {
		name  string
		grace string
		left  bool
	}{
		{"time enough", "1h", false},
		{"too little time", "100ms", true},
		{"no time", "0s", true},
	} {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				ctx, cancel := context.WithTimeout(t.Context(), 905*time.Millisecond)
				defer cancel()
				var out bytes.Buffer
				require.NoError(t, Run(ctx, Where{}, []string{"-grace", tt.grace}, &out))
				inventory, shipping := pages(t, out.String())
				require.Equal(t, 22, inventory.published, "one every 40 ms")
				require.Equal(t, 22, shipping.published)
				require.Contains(t, out.String(), "interrupted: 22 of 40 payments are published")
				require.Equal(t, tt.left, shipping.left > 0, "%+v", shipping)
				require.Equal(t, tt.left, strings.Contains(out.String(), `left in queue "shipping"`))
				require.NotContains(t, out.String(), "redrove")
			})
		})
	}
}

func TestAnInterruptThatComesWhilePublishersWait(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithTimeout(t.Context(), 2*time.Second)
		defer cancel()
		var out bytes.Buffer
		require.NoError(t, Run(ctx, Where{}, []string{"-capacity", "1", "-workers", "1", "-grace", "1ms", "-failure", "0.5"}, &out))
		inventory, shipping := pages(t, out.String())
		require.Less(t, inventory.published, 40)
		require.Equal(t, inventory.published, shipping.published, "a payment is in both queues or in neither")
	})
}

// writeOrders makes a directory of n orders for a product that is out of stock.
func writeOrders(t *testing.T, n int) string {
	t.Helper()
	dir := t.TempDir()
	orders := "orderID,customerID,shipVia,freight,shipName,shipCity,shipCountry\n"
	details := "orderID,productID,unitPrice,quantity,discount\n"
	for i := range n {
		orders += fmt.Sprintf("%d,A,1,0,a,b,c\n", 100+i)
		details += fmt.Sprintf("%d,1,1,%d,0\n", 100+i, i+1)
	}
	for name, text := range map[string]string{
		"orders.csv": orders, "order_details.csv": details,
		"products.csv": "productID,productName,unitsInStock\n1,Smörgås Knife,0\n",
	} {
		require.NoError(t, os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600))
	}
	return dir
}

func TestManyDeadLettersAreNamedWithTheirReasons(t *testing.T) {
	dir := writeOrders(t, 30)
	synctest.Test(t, func(t *testing.T) {
		var out bytes.Buffer
		require.NoError(t, Run(t.Context(), Where{}, []string{"-orders", dir, "-failure", "0"}, &out))
		require.Contains(t, out.String(), "inventory: 30 dead letters, by reason\n  too little Smörgås Knife: 30 orders: ")
		require.Contains(t, out.String(), "104 (5 wanted, 0 in stock), and 25 more\n", "the first five are named")
		require.Equal(t, 5, strings.Count(out.String(), "    attempt 1: permanent after "), "and shown")
		inventory, _ := pages(t, out.String())
		require.Equal(t, page{published: 30, settled: 30}, inventory)
	})
}

func TestAllLettersAreShownInFullIfAsked(t *testing.T) {
	dir := writeOrders(t, 30)
	synctest.Test(t, func(t *testing.T) {
		var out bytes.Buffer
		require.NoError(t, Run(t.Context(), Where{}, []string{"-orders", dir, "-failure", "0", "-letters"}, &out))
		require.Equal(t, 30, strings.Count(out.String(), "    attempt 1: permanent after "))
	})
}

func TestBadOrdersAreNamed(t *testing.T) {
	dir := writeOrders(t, 1)
	require.NoError(t, os.WriteFile(filepath.Join(dir, "products.csv"), []byte("productID,productName,unitsInStock\n1,Chai,lots\n"), 0o600))
	var out bytes.Buffer
	err := Run(t.Context(), Where{}, []string{"-orders", dir}, &out)
	require.EqualError(t, err, "-orders "+dir+`: products.csv: line 2: column unitsInStock: "lots": want a whole number from 0 to 1000000`)
	require.Empty(t, out.String())
}

func TestBooksThatDoNotBalanceSaySo(t *testing.T) {
	text, balanced := newConsole(io.Discard, false).books([]*shop.Account{
		{Service: "inventory", Published: 2, Settled: 1, Wrong: []shop.Discrepancy{{OrderID: 17, What: "is lost"}}},
		{Service: "shipping", Published: 2, Settled: 2},
	}, &shop.StockAccount{})
	require.False(t, balanced)
	require.Contains(t, text, "NOT BALANCED\nshipping ")
	for _, width := range []int{40, tableWide} {
		o := newConsole(io.Discard, false)
		o.width = func() int { return width }
		text, balanced := o.books([]*shop.Account{{Service: "inventory", Published: 100_000_000, Settled: 99_999_999, Dead: 1}}, &shop.StockAccount{Opening: 48_000_000_000, OnShelf: 48_000_000_000})
		require.True(t, balanced)
		require.Contains(t, text, "99,999,999")
		for line := range strings.SplitSeq(text, "\n") {
			require.True(t, width == 40 || wide(line) < width, line) // what is too long at 40 is folded
		}
	}
	require.True(t, strings.HasSuffix(text, "\ninventory: order 17 is lost"), text)
}

// TestAnOrderThatIsLostFailsTheRun has the inventory forget an order it was paid for.
func TestAnOrderThatIsLostFailsTheRun(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var out bytes.Buffer
		cfg, err := parseFlags(Where{}, nil, &out)
		require.NoError(t, err)
		c := &checkout{cfg: cfg, out: newConsole(&out, false)}
		require.NoError(t, c.stockShop())
		require.NoError(t, c.wire(t.Context()))
		require.NoError(t, c.work(t.Context()))
		require.NoError(t, c.shutdown(t.Context()))
		c.inventory = shop.NewInventory(c.load, c.world)
		for p := range c.load.All() {
			if p.OrderID != 510 {
				c.inventory.Restock(bodiesOf(p))
				require.NoError(t, c.inventory.Reserve(p))
			}
		}
		require.ErrorIs(t, c.balance(), errUnbalanced)
		require.Contains(t, out.String(), "inventory: order 510 is lost: not settled, not dead, not left")
	})
}

func bodiesOf(p payment) func(yield func(payment) bool) {
	return func(yield func(payment) bool) { yield(p) }
}

// TestTheSameOnAnEngine runs the shop on an engine, in which the topic outlives the
// program's: so what is left is found there.
func TestTheSameOnAnEngine(t *testing.T) {
	place := func() Where {
		e := fakeengine.New(fakeengine.Config{Without: []engine.Feature{engine.Bounded, engine.ExactStats}})
		return Where{Open: func(context.Context) (fanout.TopicOption, func() error, error) {
			return fanout.WithEngine(e, fanout.Without(engine.Bounded)), func() error { return nil }, nil
		}}
	}
	t.Run("to the end", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			var out bytes.Buffer
			require.NoError(t, Run(t.Context(), place(), nil, &out))
			inventory, shipping := pages(t, out.String())
			require.Equal(t, page{published: 40, settled: 40}, inventory)
			require.Equal(t, page{published: 40, settled: 40}, shipping)
			require.Regexp(t, `inventory: redrove [1-9]\d* of`, out.String())
		})
	})
	t.Run("interrupted, and once more", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			w := place()
			ctx, cancel := context.WithTimeout(t.Context(), 905*time.Millisecond)
			defer cancel()
			var out bytes.Buffer
			require.NoError(t, Run(ctx, w, []string{"-grace", "100ms"}, &out))
			inventory, shipping := pages(t, out.String())
			require.Equal(t, inventory.published, shipping.published)
			require.Positive(t, shipping.left)
			out.Reset()
			require.NoError(t, Run(t.Context(), w, nil, &out))
			require.Contains(t, out.String(), fmt.Sprintf("shipping: dropped %s that an earlier run left", count(shipping.left, "order")))
			_, shipping = pages(t, out.String())
			require.Equal(t, page{published: 40, settled: 40}, shipping)
		})
	})
	t.Run("without bounds", func(t *testing.T) {
		err := Run(t.Context(), place(), []string{"-capacity", "5"}, io.Discard)
		require.EqualError(t, err, "-capacity is for queues in memory")
	})
}
