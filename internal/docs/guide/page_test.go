// Package guide_test holds the programs of internal/docs/guide.md: each file solves one
// task, and its test runs the solution.
package guide_test

import (
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

// TestThePageShowsThesePrograms: each block of Go on the page stands in the file that
// its section links, and each file is linked.
func TestThePageShowsThesePrograms(t *testing.T) {
	page, err := os.ReadFile("../guide.md")
	require.NoError(t, err)
	linked := map[string]bool{"page_test.go": true}
	sections := strings.Split(string(page), "\n## ")[1:]
	require.Len(t, sections, 10)
	for _, section := range sections {
		title, text, _ := strings.Cut(section, "\n")
		link := regexp.MustCompile(`\(guide/([a-z]+_test\.go)\)`).FindStringSubmatch(text)
		require.NotNil(t, link, "%s links no program", title)
		linked[link[1]] = true
		program, err := os.ReadFile(link[1])
		require.NoError(t, err)
		blocks := regexp.MustCompile("(?s)```go\n(.*?)```").FindAllStringSubmatch(text, -1)
		require.NotEmpty(t, blocks, "%s shows no code", title)
		for _, b := range blocks {
			require.Contains(t, unindented(string(program)), unindented(b[1]), title)
		}
	}
	files, err := filepath.Glob("*.go")
	require.NoError(t, err)
	for _, f := range files {
		require.True(t, linked[f], "%s is not linked", f)
	}
}

// unindented is text without the tabs at the beginnings of its lines.
func unindented(text string) string {
	return regexp.MustCompile(`(?m)^\t+`).ReplaceAllString(text, "")
}
