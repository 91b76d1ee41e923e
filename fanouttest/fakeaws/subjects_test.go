package fakeaws_test

import (
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

// The table of subjects in design.md names tests that exist, at least one in
// each row.
func TestEachSubjectHasItsTest(t *testing.T) {
	tests := map[string]bool{}
	files, err := filepath.Glob("*_test.go")
	require.NoError(t, err)
	for _, file := range files {
		source, err := os.ReadFile(file)
		require.NoError(t, err)
		for _, m := range regexp.MustCompile(`(?m)^func (Test\w+)\(t \*testing\.T\)`).FindAllStringSubmatch(string(source), -1) {
			tests[m[1]] = true
		}
	}
	design, err := os.ReadFile("design.md")
	require.NoError(t, err)
	_, table, ok := strings.Cut(string(design), "| subject | tests |\n|---|---|\n")
	require.True(t, ok)
	rows := strings.Split(strings.TrimSpace(table), "\n")
	require.Greater(t, len(rows), 20)
	for _, row := range rows {
		named := regexp.MustCompile("`(Test\\w+)`").FindAllStringSubmatch(row, -1)
		require.NotEmpty(t, named, row)
		for _, m := range named {
			require.True(t, tests[m[1]], "there is no %s, in %s", m[1], row)
		}
	}
}
