package main

import (
	"bytes"
	"testing"

	"github.com/stretchr/testify/require"
)

func TestEachQueueGetsTheOrdersItWants(t *testing.T) {
	var out bytes.Buffer
	require.NoError(t, run(t.Context(), &out))
	require.Equal(t, `a mistake: fanout: invalid option: WithFilterPolicy: invalid filter policy: key "region", condition 1: Invalid parameter: FilterPolicy: Unrecognized match type prefx
europe: o-17 o-20
america: o-18 o-19
customs: o-20
express: o-19 o-20
audit: o-18 o-20
nobody's: o-21 to jp
`, out.String())
}
