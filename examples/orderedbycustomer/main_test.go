package main

import (
	"bytes"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"
)

func TestEachCustomersEventsAreInOrder(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		begin := time.Now()
		var out bytes.Buffer
		require.NoError(t, run(t.Context(), &out))
		require.Equal(t, `ann: failed, failed, placed, paid, shipped
bob: placed, paid, shipped
cid: placed, paid, shipped
done first: bob, cid, ann
customers at the same time: 3
two events of one customer at the same time: false
`, out.String())
		// Three attempts of ann's first event, with 200 ms between them, and two more events.
		require.Equal(t, 500*time.Millisecond, time.Since(begin))
	})
}
