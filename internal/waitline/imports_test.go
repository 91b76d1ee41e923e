package waitline

import (
	"go/parser"
	"go/token"
	"strconv"
	"testing"

	"github.com/stretchr/testify/require"
)

func TestThereIsNoLockClockOrGoroutine(t *testing.T) {
	for _, name := range []string{"waitline.go", "check.go"} {
		file, err := parser.ParseFile(token.NewFileSet(), name, nil, parser.ImportsOnly)
		require.NoError(t, err)
		for _, i := range file.Imports {
			path, _ := strconv.Unquote(i.Path.Value)
			require.Contains(t, []string{"container/heap", "iter", "errors", "fmt"}, path, "%s imports", name)
		}
	}
}
