package main

import (
	"bytes"
	"context"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/gofanout/fanout"
)

func TestEveryInvoiceIsPrintedOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		begin := time.Now()
		var out bytes.Buffer
		require.NoError(t, run(t.Context(), &out))
		require.Equal(t, `test print: o-17
o-18: attempt 1, pages: 5
o-19: attempt 1, pages: 2
o-19: out of paper, given back
o-20: attempt 1, pages: 1
o-19: attempt 2, pages: 2
4 printed in 5 deliveries: 1 given back, 0 timed out
`, out.String())
		// Six pages take 360 ms. Then o-19 is given back for 100 ms, o-20 is
		// printed meanwhile, and the two pages of o-19 take 120 ms.
		require.Equal(t, 580*time.Millisecond, time.Since(begin))
	})
}

// TestAnInvoiceThatTakesTooLongIsSomebodyElses has the printer come to a stop
// between two pages.
func TestAnInvoiceThatTakesTooLongIsSomebodyElses(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx := t.Context()
		invoices, err := fanout.NewTopic[invoice]("invoices")
		require.NoError(t, err)
		defer invoices.Close()
		q, err := invoices.OpenQueue(ctx, "printing", fanout.WithVisibilityTimeout(pageTime/2))
		require.NoError(t, err)
		require.NoError(t, invoices.Publish(ctx, invoice{"o-17", 1}))
		d, err := q.Receive(ctx)
		require.NoError(t, err)

		p := &printer{paper: 1}
		require.ErrorIs(t, p.print(ctx, d), fanout.ErrStale)
		d, err = q.Receive(ctx)
		require.NoError(t, err)
		require.Equal(t, 2, d.Attempt())
		require.NoError(t, d.Ack(ctx))
	})
}

func TestTheWorkerEndsWithItsContext(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithTimeout(t.Context(), 90*time.Millisecond)
		defer cancel()
		var out bytes.Buffer
		require.ErrorIs(t, run(ctx, &out), context.DeadlineExceeded)
	})
}
