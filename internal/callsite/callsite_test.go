package callsite

import (
	"regexp"
	"testing"

	"github.com/stretchr/testify/require"
)

func made() string { return Of() }

func TestItIsTheCallersFolderFileAndLine(t *testing.T) {
	site := made()
	require.Regexp(t, regexp.MustCompile(`^callsite/callsite_test\.go:[0-9]+$`), site)
	require.NotEqual(t, site, made(), "each line is a place of its own")
}

func TestTheLibrarysOwnFramesArePassedOver(t *testing.T) {
	for function, want := range map[string]bool{
		"github.com/gofanout/fanout.(*Queue[...]).Subscribe":           true,
		"github.com/gofanout/fanout/internal/workers.Start[...]":       true,
		"github.com/gofanout/fanout/internal/topic.(*Topic[...]).Open": true,
		"github.com/gofanout/fanout/plugin/fanoutweb.New":              false,
		"github.com/gofanout/fanoutother.New":                          false,
		"main.main":                                                    false,
	} {
		require.Equal(t, want, ours(function), function)
	}
	require.Equal(t, "b/c.go", lastTwo("/a/b/c.go"))
	require.Equal(t, "c.go", lastTwo("c.go"))
}
