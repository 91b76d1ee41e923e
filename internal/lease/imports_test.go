package lease

import (
	"go/parser"
	"go/token"
	"os"
	"strconv"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

// TestThereIsNoLockClockOrGoroutine: what a lease may import says what it can do.
func TestThereIsNoLockClockOrGoroutine(t *testing.T) {
	may := []string{"cmp", "fmt", "iter", "math/bits", "slices", "unsafe", "github.com/gofanout/fanout/internal/block", "github.com/gofanout/fanout/internal/due", "github.com/gofanout/fanout/internal/instep", "github.com/gofanout/fanout/internal/message", "github.com/gofanout/fanout/internal/slots"}
	files, err := os.ReadDir(".")
	require.NoError(t, err)
	for _, f := range files {
		if !strings.HasSuffix(f.Name(), ".go") || strings.HasSuffix(f.Name(), "_test.go") {
			continue
		}
		text, err := os.ReadFile(f.Name())
		require.NoError(t, err)
		require.Less(t, strings.Count(string(text), "\n"), 400, f.Name())
		require.NotContains(t, string(text), "\tgo ", f.Name())
		parsed, err := parser.ParseFile(token.NewFileSet(), f.Name(), text, parser.ImportsOnly)
		require.NoError(t, err)
		for _, i := range parsed.Imports {
			path, err := strconv.Unquote(i.Path.Value)
			require.NoError(t, err)
			require.Contains(t, may, path, f.Name())
		}
	}
}
