package main

import (
	"bufio"
	"fmt"
	"os"
	"regexp"
	"slices"
	"strings"
	"time"
)

// Reasons are kept as "- `Func`: `change`: why" under a heading that is the
// file's name.
var (
	heading = regexp.MustCompile("^#+ `?([a-z_/]+\\.go)`?$")
	bullet  = regexp.MustCompile("^- `([^`]+)`: `([^`]+)`: .")
)

func key(file, fn, change string) string { return file + "\x00" + fn + "\x00" + change }

// readReasons reads which survivors are explained.
func readReasons(path string) (map[string]bool, error) {
	reasons := map[string]bool{}
	f, err := os.Open(path)
	if os.IsNotExist(err) {
		return reasons, nil
	}
	if err != nil {
		return nil, err
	}
	defer f.Close()
	file := ""
	lines := bufio.NewScanner(f)
	for lines.Scan() {
		if h := heading.FindStringSubmatch(lines.Text()); h != nil {
			file = h[1]
		} else if b := bullet.FindStringSubmatch(lines.Text()); b != nil && file != "" {
			reasons[key(file, b[1], b[2])] = true
		}
	}
	return reasons, lines.Err()
}

// A score is what became of one file's mutants.
type score struct{ tried, killed, explained, timeouts int }

func (s score) String() string {
	rate := 100.0
	if s.tried > 0 {
		rate = 100 * float64(s.killed) / float64(s.tried)
	}
	return fmt.Sprintf("%d | %d | %.1f%% | %d | %d", s.tried, s.killed, rate, s.explained, s.tried-s.killed-s.explained)
}

// report prints a table for internal/docs/testing.md, and what has no reason there.
func report(results []Result, reasons map[string]bool, took time.Duration) {
	slices.SortFunc(results, func(a, b Result) int { return a.ID - b.ID })
	scores := map[string]score{}
	var files []string
	var unexplained []Result
	var total score
	for _, r := range results {
		s, known := scores[r.File]
		if !known {
			files = append(files, r.File)
		}
		for _, sc := range []*score{&s, &total} {
			sc.tried++
			switch {
			case r.By != "":
				sc.killed++
				if strings.HasPrefix(r.By, timedOut) {
					sc.timeouts++
				}
			case reasons[key(r.File, r.Func, r.Change)]:
				sc.explained++
			}
		}
		scores[r.File] = s
		if r.By == "" && !reasons[key(r.File, r.Func, r.Change)] {
			unexplained = append(unexplained, r)
		}
	}
	slices.Sort(files)
	fmt.Fprintf(os.Stdout, "\n| file | changes | killed | rate | survived, with a reason | survived, without |\n|---|---|---|---|---|---|\n")
	for _, f := range files {
		fmt.Fprintf(os.Stdout, "| %s | %v |\n", f, scores[f])
	}
	fmt.Fprintf(os.Stdout, "| **all** | %v |\n\n%d of the killed hang; %v\n", total, total.timeouts, took.Round(time.Second))
	file := ""
	for _, r := range unexplained {
		if r.File != file {
			file = r.File
			fmt.Fprintf(os.Stdout, "\n#### %s\n\n", file)
		}
		fmt.Fprintf(os.Stdout, "- `%s`: `%s`: (line %d, number %d)\n", r.Func, strings.ReplaceAll(r.Change, "`", "'"), r.Line, r.ID)
	}
}
