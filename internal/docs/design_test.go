// Package docs has the documents. Its test compares what design.md says of the
// packages with the packages.
package docs

import (
	"go/parser"
	"go/token"
	"maps"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

const (
	top    = "../.."
	module = "github.com/gofanout/fanout"
)

// A pkg is one package of the library.
type pkg struct {
	imports map[string]bool // of the library, by their short names
	doc     string
	lines   map[string]int // of each file
}

// library reads the packages that a program links which uses fanout: the root and what it
// imports, by the names that design.md gives them.
func library(t *testing.T) map[string]*pkg {
	all := map[string]*pkg{}
	var read func(path string)
	read = func(path string) {
		name := short(path)
		if all[name] != nil {
			return
		}
		p := &pkg{imports: map[string]bool{}, lines: map[string]int{}}
		all[name] = p
		dir := filepath.Join(top, strings.TrimPrefix(path, module))
		files, err := filepath.Glob(filepath.Join(dir, "*.go"))
		require.NoError(t, err)
		for _, file := range files {
			if strings.HasSuffix(file, "_test.go") {
				continue
			}
			text, err := os.ReadFile(file)
			require.NoError(t, err)
			f, err := parser.ParseFile(token.NewFileSet(), file, text, parser.ImportsOnly|parser.ParseComments)
			require.NoError(t, err)
			p.lines[filepath.Base(file)] = strings.Count(string(text), "\n")
			if f.Doc != nil {
				require.Empty(t, p.doc, "%s has two package comments", path)
				p.doc = f.Doc.Text()
			}
			for _, i := range f.Imports {
				imported, err := strconv.Unquote(i.Path.Value)
				require.NoError(t, err)
				if strings.HasPrefix(imported, module) {
					p.imports[short(imported)] = true
					read(imported)
				}
			}
		}
	}
	read(module)
	return all
}

func short(path string) string {
	path = strings.TrimPrefix(strings.TrimPrefix(path, module), "/")
	if path == "" {
		return "fanout"
	}
	return strings.TrimPrefix(path, "internal/")
}

func design(t *testing.T) string {
	text, err := os.ReadFile("design.md")
	require.NoError(t, err)
	return string(text)
}

func TestImportsAreAsDesignSaysAndGoDown(t *testing.T) {
	_, rows, ok := strings.Cut(design(t), "Each floor imports only floors below it:\n\n")
	require.True(t, ok)
	rows, _, _ = strings.Cut(rows, "\n\n")
	floor, said := map[string]int{}, map[string][]string{}
	at := -1
	for row := range strings.Lines(rows) {
		if number := regexp.MustCompile(`^ +(\d+) `).FindStringSubmatch(row); number != nil {
			n, err := strconv.Atoi(number[1])
			require.NoError(t, err)
			require.True(t, at == -1 || n == at-1, "floor %d stands below floor %d", n, at)
			row, at = strings.Replace(row, number[1], " ", 1), n
		}
		names, imports, _ := strings.Cut(row, "▶")
		for _, name := range strings.FieldsFunc(names, func(r rune) bool { return r == ' ' || r == ',' || r == '─' || r == '\n' }) {
			require.NotContains(t, floor, name)
			floor[name], said[name] = at, strings.Fields(imports)
		}
	}
	all := library(t)
	require.Equal(t, slices.Sorted(maps.Keys(all)), slices.Sorted(maps.Keys(floor)))
	for name, p := range all {
		require.ElementsMatch(t, slices.Collect(maps.Keys(p.imports)), said[name], "what %s imports", name)
		for imported := range p.imports {
			require.Less(t, floor[imported], floor[name], "%s imports %s", name, imported)
		}
	}
}

func TestEveryPackageIsInTheTable(t *testing.T) {
	_, rows, ok := strings.Cut(design(t), "| package | its one idea | lock |\n|---|---|---|\n")
	require.True(t, ok)
	rows, _, _ = strings.Cut(rows, "\n\n")
	var named []string
	for row := range strings.Lines(rows) {
		name := strings.TrimSpace(strings.Split(row, "|")[1])
		named = append(named, strings.TrimPrefix(strings.TrimSuffix(name, " (the root)"), "internal/"))
	}
	require.ElementsMatch(t, slices.Collect(maps.Keys(library(t))), named)
}

func TestAPackageIsReadInOneSitting(t *testing.T) {
	for name, p := range library(t) {
		mostOfFile, sum := 400, 0
		if name == "fanout" {
			mostOfFile = 600
		}
		for file, n := range p.lines {
			require.LessOrEqual(t, n, mostOfFile, "lines of %s of %s", file, name)
			sum += n
		}
		if name != "fanout" {
			require.LessOrEqual(t, sum, 1650, "lines of %s", name) // see Sizes in design.md
			require.NotEmpty(t, p.doc, "%s has no package comment", name)
			require.LessOrEqual(t, strings.Count(p.doc, "\n"), 20, "lines of the package comment of %s", name)
		}
	}
}

// Files that design.md names exist: by folder and name, where a name without a folder is in that
// of the file before it in its row.
func TestFilesThatDesignNamesExist(t *testing.T) {
	have := map[string]bool{}
	for _, pattern := range []string{"*.go", "*/*.go", "*/*/*.go", "*/*/*/*.go"} {
		files, err := filepath.Glob(filepath.Join(top, pattern))
		require.NoError(t, err)
		for _, file := range files {
			have[filepath.Base(file)] = true
			have[filepath.Base(filepath.Dir(file))+"/"+filepath.Base(file)] = true
		}
	}
	named := 0
	for line := range strings.Lines(design(t)) {
		folder := ""
		for _, name := range regexp.MustCompile(`([a-z]+/)?[a-z_]+\.go\b`).FindAllString(line, -1) {
			if dir, _, ok := strings.Cut(name, "/"); ok {
				folder = dir + "/"
			} else if strings.HasPrefix(line, "|") {
				name = folder + name
			}
			require.True(t, have[name], "%s does not exist: %s", name, line)
			named++
		}
	}
	require.Greater(t, named, 50)
}
