package main

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"
)

// sample has one of everything that is mutated; its test kills all mutants but one.
const (
	sample = `package fanout

import "errors"

type counter struct{ n, least int }

// clamp keeps n between the least and 10.
func (c *counter) clamp(add int) (int, error) {
	if add < 0 || c.n+add > 10 &&
		c.n != 0 {
		return 0, errors.New("out of range")
	}
	c.n += add
	defer c.done()
	for i := 0; i < add; i++ {
		if i == 1 {
			continue
		}
		c.least = min(c.least, -i)
	}
	return max(c.n, c.least), nil
}

func (c *counter) done() { c.least++ }

func (c *counter) empty() bool { return c.n == 0 }

func unused(a, b int) bool { return a < b }
`
	sampleTest = `package fanout

import "testing"

func TestClamp(t *testing.T) {
	for _, row := range []struct{ n, add, want, least int; fails bool }{
		{0, -1, 0, 0, true}, {0, 11, 11, -9, false}, {1, 10, 0, 0, true}, {1, 9, 10, -7, false},
		{0, 0, 1, 2, false}, {0, 3, 3, -1, false}, {1, 1, 2, 1, false},
	} {
		c := &counter{n: row.n}
		if row.want == 1 {
			c.least = 1
		}
		got, err := c.clamp(row.add)
		if (err != nil) != row.fails || got != row.want || err == nil && c.least != row.least {
			t.Errorf("%+v: got %d, %v; %+v", row, got, err, *c)
		}
	}
	if !(&counter{}).empty() || (&counter{n: 1}).empty() {
		t.Error("empty")
	}
}
`
)

func TestEveryMutantIsOneChangeThatATestSees(t *testing.T) {
	from, dir := t.TempDir(), t.TempDir()
	for name, text := range map[string]string{
		"go.mod": "module " + modulePath + "\n\ngo 1.25.0\n", "sample.go": sample, "sample_test.go": sampleTest,
	} {
		if err := os.WriteFile(filepath.Join(from, name), []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	mutants, _, err := prepare(from, dir, ".")
	if err != nil {
		t.Fatal(err)
	}
	seen := map[string]bool{}
	for _, m := range mutants {
		if k := key(m.File, m.Func, m.Change); seen[k] {
			t.Errorf("two mutants are named %q in %s", m.Change, m.Func)
		} else {
			seen[k] = true
		}
	}
	r := newRunner(dir, nil)
	if err := r.build(mutants); err != nil {
		t.Fatal(err)
	}
	var survived []string
	for _, m := range mutants {
		if res := r.try(m); res.By == "" {
			survived = append(survived, fmt.Sprintf("%s: %s", m.Func, m.Change))
		}
	}
	if want := []string{"unused: a < b → a <= b", "unused: a < b → a >= b"}; !slices.Equal(survived, want) {
		t.Errorf("survived: %q, want those of the function that is not tested: %q", survived, want)
	}

	// Lines keep their numbers: failures and stacks name the right ones.
	text, err := os.ReadFile(filepath.Join(dir, "sample.go"))
	if err != nil {
		t.Fatal(err)
	}
	if a, b := strings.Count(sample, "\n"), strings.Count(string(text), "\n"); a != b {
		t.Errorf("the sample has %d lines, with its mutants %d", a, b)
	}
	if out, err := exec.Command("gofmt", "-l", dir).CombinedOutput(); err != nil {
		t.Errorf("%v: %s", err, out)
	}
	for _, op := range []string{"remove ", " → another number", " → nil", " && ", " >= ", "break", " → max", "-="} {
		if !strings.Contains(fmt.Sprint(mutants), op) {
			t.Errorf("no mutant has %q", op)
		}
	}
}

func TestReasonsAreReadFromHeadingsAndBullets(t *testing.T) {
	file := filepath.Join(t.TempDir(), "testing.md")
	text := "# Tests\n\n#### queue.go\n\n- `Queue.room`: `a < b → a <= b`: both are the same then\n- `Queue.room`: no change named\n\n## internal/log/log.go\n\n- `Log.Append`: `remove l.head++ (2)`: why\n"
	if err := os.WriteFile(file, []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
	got, err := readReasons(file)
	if err != nil {
		t.Fatal(err)
	}
	if len(got) != 2 || !got[key("queue.go", "Queue.room", "a < b → a <= b")] || !got[key("internal/log/log.go", "Log.Append", "remove l.head++ (2)")] {
		t.Errorf("got %v", got)
	}
}

// A change is tried with the tests of the packages above too: here there are no others, and
// package low has no test file at all.
func TestWhatOthersTestIsKilled(t *testing.T) {
	from, dir := t.TempDir(), t.TempDir()
	for name, text := range map[string]string{
		"go.mod":                  "module " + modulePath + "\n\ngo 1.25.0\n",
		"root.go":                 "package fanout\n\nimport _ \"" + modulePath + "/internal/high\"\n",
		"internal/low/low.go":     "package low\n\nfunc Sum(a, b int) int { return a + b }\n",
		"internal/mid/mid.go":     "package mid\n\nimport \"" + modulePath + "/internal/low\"\n\nfunc Four() int { return low.Sum(1, 1) + low.Sum(1, 1) }\n",
		"internal/high/high.go":   "package high\n\nimport \"" + modulePath + "/internal/mid\"\n\nvar _ = mid.Four\n",
		"a_test.go":               "package fanout\n",
		"internal/mid/a_test.go":  "package mid\n",
		"internal/high/a_test.go": "package high\n\nimport (\n\t\"testing\"\n\n\t\"" + modulePath + "/internal/mid\"\n)\n\nfunc Test(t *testing.T) {\n\tif mid.Four() != 4 {\n\t\tt.Fatal()\n\t}\n}\n",
	} {
		if err := os.MkdirAll(filepath.Dir(filepath.Join(from, name)), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(from, name), []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	mutants, above, err := prepare(from, dir, "./...")
	if err != nil {
		t.Fatal(err)
	}
	r := newRunner(dir, above)
	if err := r.build(mutants); err != nil {
		t.Fatal(err)
	}
	for _, m := range mutants {
		if res := r.try(m); res.By != "Test" {
			t.Errorf("%s: %s is killed by %q", m.Func, m.Change, res.By)
		}
	}
	if len(mutants) < 4 {
		t.Errorf("only %d changes", len(mutants))
	}
}

func newRunner(dir string, above map[string][]string) *runner {
	return &runner{dir: dir, above: above, took: map[string]time.Duration{}, skip: "^$", silence: 1e10}
}
