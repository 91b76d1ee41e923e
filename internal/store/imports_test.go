package store

import (
	"go/parser"
	"go/token"
	"os"
	"strconv"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

// TestThereIsNoLockClockOrGoroutine: what a store may import says what it can do.
func TestThereIsNoLockClockOrGoroutine(t *testing.T) {
	const own = "github.com/gofanout/fanout/internal/"
	may := []string{
		"cmp", "errors", "fmt", "math", "slices", "sort", "sync/atomic", "time",
		own + "block", own + "due", own + "keyline", own + "lease", own + "log", own + "message", own + "settings", own + "window",
	}
	files, err := os.ReadDir(".")
	require.NoError(t, err)
	lines := 0
	for _, f := range files {
		if !strings.HasSuffix(f.Name(), ".go") || strings.HasSuffix(f.Name(), "_test.go") {
			continue
		}
		text, err := os.ReadFile(f.Name())
		require.NoError(t, err)
		lines += strings.Count(string(text), "\n")
		for _, not := range []string{"\tgo ", "chan ", ".Now(", ".Since(", "time.After", "time.NewT", ".Backoff"} {
			require.NotContains(t, string(text), not, f.Name())
		}
		parsed, err := parser.ParseFile(token.NewFileSet(), f.Name(), text, parser.ImportsOnly)
		require.NoError(t, err)
		for _, i := range parsed.Imports {
			path, err := strconv.Unquote(i.Path.Value)
			require.NoError(t, err)
			require.Contains(t, may, path, f.Name())
		}
	}
	require.LessOrEqual(t, lines, 1480)
}
