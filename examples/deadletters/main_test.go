package main

import (
	"bytes"
	"testing"
	"testing/synctest"

	"github.com/stretchr/testify/require"
)

func TestWhatTheBugKilledIsShippedAfterTheFix(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var out bytes.Buffer
		require.NoError(t, run(t.Context(), &out))
		require.Equal(t, `shipped o-17 to 10115, failed before: 0
3 dead
  o-18
    attempt 1 permanent: postcode not understood: "K1A 0B1"
  o-19
    attempt 1 failed: the carrier doesn't answer
    attempt 2 failed: the carrier doesn't answer
    attempt 3 failed: the carrier doesn't answer
  o-20
    attempt 1 permanent: postcode not understood: "V6B 1A1"
the fixed service takes over
shipped o-18 to K1A 0B1, failed before: 1
shipped o-20 to V6B 1A1, failed before: 1
2 redriven
1 dead
  o-19
    attempt 1 failed: the carrier doesn't answer
    attempt 2 failed: the carrier doesn't answer
    attempt 3 failed: the carrier doesn't answer
`, out.String())
	})
}
