package main

import (
	"os"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

// The README shows this program, and nobody should have to find out that it shows another.
func TestREADMEShowsThisProgram(t *testing.T) {
	program, err := os.ReadFile("main.go")
	require.NoError(t, err)
	readme, err := os.ReadFile("../../README.md")
	require.NoError(t, err)
	_, code, found := strings.Cut(string(program), "\n") // without the comment on the package
	require.True(t, found)
	require.Contains(t, string(readme), "```go\n"+code+"```\n")
}
