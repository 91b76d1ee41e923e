package fanouttest

import (
	"encoding/json"
	"fmt"
	"slices"
	"strings"
)

// render shows a body in one line.
func render(body any) string {
	b, err := json.Marshal(body)
	if err != nil {
		return fmt.Sprintf("%+v", body)
	}
	return string(b)
}

// renderLines shows bodies in many lines, to be compared.
func renderLines[T any](bodies []T) (text []string) {
	for _, body := range bodies {
		b, err := json.MarshalIndent(body, "", "  ")
		if err != nil {
			b = fmt.Appendf(nil, "%+v", body)
		}
		text = append(text, lines(string(b))...)
	}
	return text
}

func lines(s string) []string { return strings.Split(s, "\n") }

// diffMost bounds what is compared line by line: the work grows with the
// product of the lengths.
const diffMost = 2000

// diffLines shows what has to go from a, and what has to come, to make it b.
func diffLines(a, b []string, nameA, nameB string) string {
	var out strings.Builder
	fmt.Fprintf(&out, "    - %s\n    + %s\n", nameA, nameB)
	if len(a) > diffMost || len(b) > diffMost {
		a, b = a[:min(len(a), diffMost)], b[:min(len(b), diffMost)]
		fmt.Fprintf(&out, "      (the first %d lines)\n", diffMost)
	}
	// common[i][j] is how many lines a[i:] and b[j:] have in common at most.
	common := make([][]int, len(a)+1)
	for i := range common {
		common[i] = make([]int, len(b)+1)
	}
	for i, la := range slices.Backward(a) {
		for j, lb := range slices.Backward(b) {
			if la == lb {
				common[i][j] = common[i+1][j+1] + 1
			} else {
				common[i][j] = max(common[i+1][j], common[i][j+1])
			}
		}
	}
	for i, j := 0, 0; i < len(a) || j < len(b); {
		switch {
		case i < len(a) && j < len(b) && a[i] == b[j]:
			fmt.Fprintf(&out, "      %s\n", a[i])
			i, j = i+1, j+1
		case j == len(b) || i < len(a) && common[i+1][j] >= common[i][j+1]:
			fmt.Fprintf(&out, "    - %s\n", a[i])
			i++
		default:
			fmt.Fprintf(&out, "    + %s\n", b[j])
			j++
		}
	}
	return strings.TrimSuffix(out.String(), "\n")
}
