// Bench measures fanout beside bare channels, beside what is written by hand, and
// beside its peers: in one process, in rounds, every message accounted for.
//
//	go run -C internal/bench . -quick
//
// It ends with tables, one line a figure for programs, and the goals.
package main

import (
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/exec"
	"regexp"
	"runtime"
	"slices"
	"strings"
	"time"
)

// everySystem is what is compared, in the order of the tables.
var everySystem = slices.Concat(
	[]system{channels, channelsBatched, channelsContext, handWritten},
	ours,
	[]system{
		cskr, geth, asaskevichSync, asaskevichAsync, tailscale, natsCore,
		watermillFree, watermillBlock, jetStream, jetStreamBatched, nsqSystem, gocloud, goqiteSystem,
		channelsAgain,
	})

var workloads = []workload{throughput, contended, latency, many, inFlight, life, flood, features, filters, realWork, failures, resident}

// What -docs writes, from this module's directory; see also filled.
const (
	measuredFile = "../docs/measured.md"
	chartsDir    = "../docs/charts"
)

func main() {
	if err := command(os.Args[1:], os.Stdout, os.Stderr); err != nil {
		if !errors.Is(err, flag.ErrHelp) {
			fmt.Fprintln(os.Stderr, "bench:", err)
		}
		os.Exit(2)
	}
}

// command runs the program.
func command(args []string, out, progress io.Writer) error {
	set := flag.NewFlagSet("bench", flag.ContinueOnError)
	set.SetOutput(progress)
	quick := set.Bool("quick", false, "two short rounds of less: a few minutes, and less exact")
	rounds := set.Int("rounds", 0, "`number` of rounds (default 5, or 2 with -quick)")
	only := set.String("only", "", "only workloads and settings that match the `regexp`, as in 'W1 s16|W3'")
	systems := set.String("peers", "", "only systems that match the `regexp`; those that ratios are to always run")
	svg := set.String("svg", "", "`directory` for the charts (none by default)")
	markdown := set.String("md", "", "`file` for the tables, as Markdown")
	onlyGoals := set.Bool("goals", false, "print no tables but the goals', with those of which nothing was measured")
	procs := set.Int("procs", 0, "GOMAXPROCS, if not 0")
	older := set.String("old", "", "this `program` built with an older library, which goals that are ratios to before need")
	save := set.String("save", "", "`file` for what was measured")
	from := set.String("from", "", "measure nothing: take what -save wrote to these `files`, with commas between them")
	docs := set.Bool("docs", false, "write measured.md, the charts, and the figures in performance.md and the README")
	if err := set.Parse(args); err != nil {
		return err
	}
	o := options{quick: *quick, rounds: *rounds, span: 150 * time.Millisecond, old: *older}
	if o.quick {
		o.span = 30 * time.Millisecond
	}
	if o.rounds == 0 {
		o.rounds = 5
		if o.quick {
			o.rounds = 2
		}
	}
	var err error
	if o.only, err = regexp.Compile("(?i)" + *only); err != nil {
		return err
	}
	if o.peers, err = regexp.Compile(*systems); err != nil {
		return err
	}
	if *procs > 0 {
		defer runtime.GOMAXPROCS(runtime.GOMAXPROCS(*procs))
	}
	if *docs {
		*svg, *markdown = chartsDir, measuredFile
	}

	b, on := (*book)(nil), machine(o)
	if *from != "" {
		if b, on, err = load(strings.Split(*from, ","), workloads); err != nil {
			return err
		}
	} else {
		b = run(workloads, o, progress)
	}
	if *save != "" {
		if err := b.save(*save, on); err != nil {
			return err
		}
	}
	f := format{w: out}
	f.text(on)
	if *onlyGoals {
		b.writeTables(f, nil, goals(), true)
	} else {
		writeSystems(f, everySystem)
		b.writeTables(f, workloads, goals(), false)
	}
	for _, fig := range slices.Concat(b.figures(), goalFigures(b, goals())) {
		fmt.Fprintln(out, fig)
	}
	if *markdown != "" {
		if err := writeMarkdown(b, on, *markdown); err != nil {
			return err
		}
	}
	if *svg != "" {
		files, err := writeCharts(b, *svg)
		if err != nil {
			return err
		}
		fmt.Fprintln(progress, "charts:", strings.Join(files, " "))
	}
	if *docs {
		return fillFiles(filled, b.blocks(on))
	}
	return nil
}

// machine says what it ran on.
func machine(o options) string {
	kind := "full"
	if o.quick {
		kind = "quick"
	}
	return fmt.Sprintf("%s, %s/%s, GOMAXPROCS %d, %s run, %d rounds, code %s.",
		runtime.Version(), runtime.GOOS, runtime.GOARCH, runtime.GOMAXPROCS(0), kind, o.rounds, revision())
}

// revision names the commit that is checked out, and says if files differ from it.
func revision() string {
	out, err := exec.Command("git", "describe", "--always", "--dirty=, changed", "--exclude=*").Output()
	if err != nil {
		return "unknown"
	}
	return strings.TrimSpace(string(out))
}

func writeMarkdown(b *book, on, file string) (err error) {
	w, err := os.Create(file)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, w.Close()) }()
	f := format{w: w, markdown: true}
	f.heading(1, "Measurements")
	f.text(on)
	writeSystems(f, everySystem)
	b.writeTables(f, workloads, goals(), true)
	return nil
}
