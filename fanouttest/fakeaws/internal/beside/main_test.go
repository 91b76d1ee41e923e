//go:build linux

package main

import (
	"bytes"
	"testing"

	"github.com/stretchr/testify/require"
)

// What needs no other server runs.
func TestBeside(t *testing.T) {
	t.Chdir("../..")
	for _, only := range []string{"fakeaws", "port"} {
		var out bytes.Buffer
		require.NoError(t, run(t.Context(), []string{"-only", only, "-suite", "", "-tests", "4", "-rounds", "1"}, &out))
		require.Regexp(t, `(?m)^fakeaws( on a port)? +[0-9.]+[µm]?s +[0-9.]+[µm]?s +[0-9.]+[µm]?s +(in the test's|[0-9]+ MB) `, out.String())
	}
	require.ErrorContains(t, run(t.Context(), []string{"x"}, nil), "unknown argument")
	require.ErrorContains(t, run(t.Context(), []string{"-only", "moto", "-suite", "", "-python", "/nowhere/python"}, &bytes.Buffer{}), "moto: ")
}
