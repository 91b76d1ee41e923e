// Package webtest looks at the page of plugin/fanoutweb in a real browser: Debian's
// chromium, driven by chromedp, and axe-core for what makes a page accessible.
// .ci/run installs both.
package webtest

import (
	"bytes"
	"context"
	"flag"
	"fmt"
	"image"
	"image/color"
	"image/png"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/chromedp/cdproto/emulation"
	"github.com/chromedp/cdproto/log"
	"github.com/chromedp/cdproto/page"
	"github.com/chromedp/cdproto/runtime"
	"github.com/chromedp/chromedp"
	"github.com/stretchr/testify/require"
)

var screenshots = flag.String("screenshots", "", "write a picture of each page to this `folder`")

var browser context.Context

func TestMain(m *testing.M) {
	flag.Parse()
	os.Exit(run(m))
}

func run(m *testing.M) int {
	program := ""
	for _, name := range []string{"chromium", "chromium-browser", "google-chrome"} {
		if path, err := exec.LookPath(name); err == nil {
			program = path
			break
		}
	}
	if program == "" {
		missing = "there is no chromium: apt-get install chromium"
	} else if _, err := os.Stat(axeFile); err != nil {
		missing = "there is no axe-core: npm install --prefix internal/webtest --no-package-lock"
	}
	if missing != "" {
		if err := flag.Set("test.run", "^TestThereIsABrowser$"); err != nil {
			panic(err)
		}
		return m.Run()
	}
	options := append(chromedp.DefaultExecAllocatorOptions[:], chromedp.ExecPath(program), chromedp.NoSandbox, chromedp.DisableGPU,
		chromedp.Flag("disable-background-networking", true), chromedp.Flag("disable-component-update", true), chromedp.Flag("disable-sync", true),
		chromedp.Flag("hide-scrollbars", true))
	allocator, end := chromedp.NewExecAllocator(context.Background(), options...)
	defer end()
	var stop context.CancelFunc
	browser, stop = chromedp.NewContext(allocator, chromedp.WithErrorf(func(string, ...any) {}))
	defer stop()
	if err := chromedp.Run(browser); err != nil {
		fmt.Fprintln(os.Stderr, "webtest: chromium doesn't start:", err)
		return 1
	}
	return m.Run()
}

// missing is what keeps all tests but one from running.
var missing string

// TestThereIsABrowser says why nothing else was run. FANOUT_EVERYTHING=1 makes that a failure.
func TestThereIsABrowser(t *testing.T) {
	if missing == "" {
		return
	}
	if os.Getenv("FANOUT_EVERYTHING") != "" {
		t.Fatal(missing)
	}
	t.Log("not part of this run: the page in a real browser:", missing)
}

const axeFile = "node_modules/axe-core/axe.min.js"

// A tab is a tab of the browser that has a window of its own. What its console says, and
// what its scripts do wrong, fails the test at its end.
type tab struct {
	*testing.T
	ctx  context.Context
	base string

	mu     sync.Mutex
	faults []string
	frames map[string]string // what frames were shown instead of what they asked for
}

func newTab(t *testing.T, base string) *tab {
	t.Helper()
	ctx, stop := chromedp.NewContext(browser)
	t.Cleanup(stop)
	ctx, cancel := context.WithTimeout(ctx, 3*time.Minute)
	t.Cleanup(cancel)
	b := &tab{T: t, ctx: ctx, base: base, frames: map[string]string{}}
	chromedp.ListenTarget(ctx, func(event any) {
		b.mu.Lock()
		defer b.mu.Unlock()
		switch e := event.(type) {
		case *runtime.EventExceptionThrown:
			b.faults = append(b.faults, "exception: "+e.ExceptionDetails.Error())
		case *runtime.EventConsoleAPICalled:
			b.faults = append(b.faults, fmt.Sprintf("console.%s", e.Type))
		case *log.EventEntryAdded:
			b.faults = append(b.faults, "log: "+e.Entry.Text)
		case *page.EventJavascriptDialogOpening:
			b.faults = append(b.faults, "dialog: "+e.Message)
		case *page.EventFrameNavigated:
			if e.Frame.UnreachableURL != "" {
				b.frames[e.Frame.UnreachableURL] = e.Frame.URL
			}
		}
	})
	b.do(log.Enable())
	b.size(1280, 900)
	return b
}

func (b *tab) do(actions ...chromedp.Action) {
	b.Helper()
	require.NoError(b, chromedp.Run(b.ctx, actions...))
}

func (b *tab) open(path string) {
	b.Helper()
	b.do(chromedp.Navigate(b.base+path), chromedp.WaitReady("body"))
}

func (b *tab) size(width, height int64) {
	b.Helper()
	b.do(chromedp.EmulateViewport(width, height))
}

func (b *tab) scheme(name string) {
	b.Helper()
	b.do(emulation.SetEmulatedMedia().WithFeatures([]*emulation.MediaFeature{{Name: "prefers-color-scheme", Value: name}, {Name: "prefers-reduced-motion", Value: "reduce"}}))
}

// is evaluates an expression until it is true. While a page is loaded there may be nothing
// to evaluate it in.
func (b *tab) is(expression string) {
	b.Helper()
	require.Eventually(b, func() bool {
		var yes bool
		err := chromedp.Run(b.ctx, chromedp.Evaluate("!!("+expression+")", &yes))
		return err == nil && yes
	}, 20*time.Second, 30*time.Millisecond, "it never is: %s", expression)
}

func (b *tab) text() (text string) {
	b.Helper()
	b.do(chromedp.Evaluate("document.body.innerText", &text))
	return text
}

func (b *tab) value(expression string) (v any) {
	b.Helper()
	b.do(chromedp.Evaluate(expression, &v))
	return v
}

// press clicks on the button or link with a text, and waits for the page behind it.
func (b *tab) press(text string) {
	b.Helper()
	path := fmt.Sprintf(`//main//*[self::a or self::button][normalize-space(.)=%q]`, text)
	_, err := chromedp.RunResponse(b.ctx, chromedp.Click(path, chromedp.BySearch, chromedp.NodeVisible))
	require.NoError(b, err, text)
	b.do(chromedp.WaitReady("body"))
}

// clean fails the test for what went wrong in the tab since it was last clean.
func (b *tab) clean() {
	b.Helper()
	b.mu.Lock()
	defer b.mu.Unlock()
	require.Empty(b, b.faults)
}

// fits fails the test if the page is wider than the window.
func (b *tab) fits() {
	b.Helper()
	require.LessOrEqual(b, b.value("document.documentElement.scrollWidth"), b.value("innerWidth"), "the page is wider than the window")
}

// accessible fails the test for each violation that axe finds.
func (b *tab) accessible() {
	b.Helper()
	axe, err := os.ReadFile(axeFile)
	require.NoError(b, err)
	var found []string
	b.do(chromedp.Evaluate(string(axe)+";0", nil), chromedp.Evaluate(`axe.run(document, {resultTypes: ["violations"]}).then(r => r.violations.flatMap(v => v.nodes.map(n => v.id + ": " + n.html.slice(0, 200) + " " + n.failureSummary)))`,
		&found, func(p *runtime.EvaluateParams) *runtime.EvaluateParams { return p.WithAwaitPromise(true) }))
	require.Empty(b, found, strings.Join(found, "\n"))
}

// picture keeps a picture of the page if it is asked for.
func (b *tab) picture(name string) {
	b.Helper()
	if *screenshots == "" {
		return
	}
	var shot []byte
	end := b.value(`Math.ceil(document.querySelector("main").getBoundingClientRect().bottom)`).(float64)
	b.do(chromedp.CaptureScreenshot(&shot))
	require.NoError(b, os.WriteFile(filepath.Join(*screenshots, name+".png"), smaller(b, shot, int(end)), 0o644))
}

// smaller is a picture as far as the page goes, with the 256 colours that it has most of. Of those
// that are nearly the same it has one.
func smaller(t require.TestingT, shot []byte, end int) []byte {
	full, err := png.Decode(bytes.NewReader(shot))
	require.NoError(t, err)
	count := map[color.Color]int{}
	size := full.Bounds()
	size.Max.Y = min(size.Max.Y, max(end, 300))
	for y := range size.Dy() {
		for x := range size.Dx() {
			count[full.At(x, y)]++
		}
	}
	most := slices.SortedFunc(maps.Keys(count), func(a, b color.Color) int { return count[b] - count[a] })
	var palette color.Palette
	for _, c := range most {
		if len(palette) < 256 && (len(palette) == 0 || distance(c, palette[palette.Index(c)]) > 10) {
			palette = append(palette, c)
		}
	}
	index := map[color.Color]uint8{}
	for _, c := range most {
		index[c] = uint8(palette.Index(c))
	}
	out := image.NewPaletted(size, palette)
	for y := range size.Dy() {
		for x := range size.Dx() {
			out.SetColorIndex(x, y, index[full.At(x, y)])
		}
	}
	var b bytes.Buffer
	require.NoError(t, (&png.Encoder{CompressionLevel: png.BestCompression}).Encode(&b, out))
	return b.Bytes()
}

// distance is how much two colours differ, as far as one sees it.
func distance(a, b color.Color) (d int) {
	ar, ag, ab, _ := a.RGBA()
	br, bg, bb, _ := b.RGBA()
	for _, p := range [][2]uint32{{ar, br}, {ag, bg}, {ab, bb}} {
		d += max(int(p[0]>>8), int(p[1]>>8)) - min(int(p[0]>>8), int(p[1]>>8))
	}
	return d
}
