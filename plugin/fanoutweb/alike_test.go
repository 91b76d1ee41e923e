package fanoutweb

import (
	"math/rand/v2"
	"regexp"
	"testing"

	"github.com/stretchr/testify/require"
)

func TestWhatDiffersBetweenErrorsOfOneKindIsLeftOut(t *testing.T) {
	for text, want := range map[string]string{
		"":                             "",
		"no customer":                  "no customer",
		`order "o-17": 3 of 12 left`:   `order "…": # of # left`,
		"`a` and \"b\\\"c\"":           "`…` and \"…\"",
		`5" of rain`:                   `#" of rain`,
		"a \"quote\nover lines\" is 1": "a \"quote\nover lines\" is #",
		"x9y":                          "x#y",
	} {
		require.Equal(t, want, alike(text))
	}
	// It is what this expression finds.
	differs := regexp.MustCompile(`"(?:[^"\\\n]|\\.)*"|\x60[^\x60\n]*\x60|[0-9]+`)
	const letters = "a9 \"`\\\n€"
	for range 20_000 {
		var text []rune
		for range rand.IntN(12) {
			text = append(text, []rune(letters)[rand.IntN(8)])
		}
		want := differs.ReplaceAllStringFunc(string(text), func(part string) string {
			if part[0] == '"' || part[0] == '`' {
				return part[:1] + "…" + part[:1]
			}
			return "#"
		})
		require.Equal(t, want, alike(string(text)), "%q", string(text))
	}
}
