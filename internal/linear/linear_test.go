// Package linear checks that what a topic does grows with what it holds, and no
// faster: for each collection of a topic or a queue a row fills it and empties it
// again, with n things and with twice as many. What is counted is work, not time: how
// often each block of statements of the library runs, and the bytes that it allocates.
//
// The counts are those of a coverage profile. So every loop is counted, without a line
// in the library for it; TestLinear builds this package's test once more with coverage
// of the library, and runs it for each row and size. It does not see what no statement
// does: moving the rest of a slice over what was deleted.
package linear

import (
	"bufio"
	"cmp"
	"context"
	"fmt"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"testing"
	"testing/synctest"
)

// size is how many things a row has, and then twice as many.
const size = 512

// A quadratic count of half a step for each pair is a hundred times the limit. A sort
// is within it, and so is what depends on which goroutine comes first.
func limitOf(count, each int) int { return count*11/5 + each*size }

const (
	stepsEach = 32   // times a block may run more than twice as often, for each thing
	bytesEach = 1024 // and bytes
)

const rowVariable = "FANOUT_LINEAR_ROW" // name of a row and a size, for a run that is counted

func TestLinear(t *testing.T) {
	if what, counted := os.LookupEnv(rowVariable); counted {
		runRow(t, what)
		return
	}
	binary := filepath.Join(t.TempDir(), "linear.test")
	run(t, exec.Command("go", "test", "-c", "-vet=off", "-covermode=atomic", "-coverpkg="+strings.Join(counted, ","), "-o", binary, "."))
	for _, r := range rows {
		t.Run(r.name, func(t *testing.T) {
			t.Parallel()
			once, twice := count(t, binary, r, size), count(t, binary, r, 2*size)
			type excess struct {
				block       string
				once, twice int
			}
			var over []excess
			for block, n := range twice {
				each := stepsEach
				if block == allocated {
					each = bytesEach
				}
				if n > limitOf(once[block], each) {
					over = append(over, excess{block, once[block], n})
				}
			}
			slices.SortFunc(over, func(a, b excess) int { return cmp.Compare(b.twice, a.twice) })
			tell := t.Errorf
			if known[r.name] {
				tell = t.Logf
			}
			for _, e := range over[:min(len(over), 10)] {
				tell("%s: %d with %d, %d with %d", e.block, e.once, size, e.twice, 2*size)
			}
			if known[r.name] {
				if len(over) == 0 {
					t.Error("it is linear now: take it off the list of those that are known not to be")
				}
			}
		})
	}
}

var nolog = slog.New(slog.DiscardHandler)

// known are the rows that are known not to be linear, and fail if they are.
var known = map[string]bool{}

// counted is the packages whose blocks are counted.
var counted = []string{
	"github.com/gofanout/fanout", "github.com/gofanout/fanout/internal/topic", "github.com/gofanout/fanout/internal/admission", "github.com/gofanout/fanout/internal/offer", "github.com/gofanout/fanout/internal/routing", "github.com/gofanout/fanout/internal/queue", "github.com/gofanout/fanout/internal/overflow", "github.com/gofanout/fanout/internal/delivery", "github.com/gofanout/fanout/internal/lifecycle", "github.com/gofanout/fanout/internal/store", "github.com/gofanout/fanout/internal/workers", "github.com/gofanout/fanout/internal/ranges", "github.com/gofanout/fanout/internal/lease", "github.com/gofanout/fanout/internal/due", "github.com/gofanout/fanout/internal/instep", "github.com/gofanout/fanout/internal/keyline", "github.com/gofanout/fanout/internal/slots", "github.com/gofanout/fanout/internal/handling",
	"github.com/gofanout/fanout/internal/log", "github.com/gofanout/fanout/internal/window",
	"github.com/gofanout/fanout/internal/notice", "github.com/gofanout/fanout/internal/dedup", "github.com/gofanout/fanout/internal/callback", "github.com/gofanout/fanout/internal/message",
	"github.com/gofanout/fanout/internal/policy",
	"slices", "maps", "container/heap",
}

const allocated = "bytes allocated"

// count runs a row and returns how often each block ran.
func count(t *testing.T, binary string, r row, n int) map[string]int {
	profile := filepath.Join(t.TempDir(), strconv.Itoa(n))
	c := exec.Command(binary, "-test.run=^TestLinear$", "-test.coverprofile="+profile, "-test.timeout=60s", "-test.v")
	c.Env = append(os.Environ(), fmt.Sprintf("%s=%s/%d", rowVariable, r.name, n))
	out := run(t, c)
	counts := map[string]int{}
	_, bytes, found := strings.Cut(out, allocated+": ")
	if !found {
		t.Fatalf("a run says nothing of what it allocated: %s", out)
	}
	var n64 int
	if _, err := fmt.Sscan(bytes, &n64); err != nil {
		t.Fatal(err)
	}
	counts[allocated] = n64
	f, err := os.Open(profile)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	lines := bufio.NewScanner(f)
	lines.Scan() // mode: atomic
	for lines.Scan() {
		at := strings.LastIndexByte(lines.Text(), ' ')
		times, err := strconv.Atoi(lines.Text()[at+1:])
		if err != nil {
			t.Fatal(lines.Text())
		}
		counts[lines.Text()[:at]] = times
	}
	return counts
}

func run(t *testing.T, c *exec.Cmd) string {
	t.Helper()
	out, err := c.CombinedOutput()
	if err != nil {
		t.Fatalf("%v: %v\n%s", c, err, out)
	}
	return string(out)
}

// runRow runs what is counted.
func runRow(t *testing.T, what string) {
	slash := strings.LastIndexByte(what, '/')
	n, err := strconv.Atoi(what[slash+1:])
	if err != nil {
		t.Fatal(err)
	}
	for _, r := range rows {
		if r.name == what[:slash] {
			var before, after runtime.MemStats
			runtime.ReadMemStats(&before)
			synctest.Test(t, func(t *testing.T) { r.run(&bench{T: t, ctx: context.Background(), n: n}) })
			runtime.ReadMemStats(&after)
			fmt.Printf("%s: %d\n", allocated, after.TotalAlloc-before.TotalAlloc)
			return
		}
	}
	t.Fatalf("no row %q", what)
}
