package fanout

import (
	"bytes"
	"runtime"
	"strconv"
	"strings"
)

// callSite is the file and line that called into this package, to name a
// subscriber by the place where it was made.
func callSite() string {
	var pcs [8]uintptr
	frames := runtime.CallersFrames(pcs[:runtime.Callers(3, pcs[:])])
	for {
		f, more := frames.Next()
		if !strings.HasPrefix(f.Function, packagePrefix) || strings.HasSuffix(f.File, "_test.go") {
			return lastTwo(f.File) + ":" + strconv.Itoa(f.Line)
		}
		if !more {
			return "unknown"
		}
	}
}

// lastTwo is a file with its folder.
func lastTwo(path string) string {
	if k := strings.LastIndexByte(path, '/'); k > 0 {
		return path[strings.LastIndexByte(path[:k], '/')+1:]
	}
	return path
}

const packagePrefix = "github.com/gofanout/fanout."

// goroutine returns the caller's header in a dump of all goroutines,
// "goroutine 17 ", if a hook wants stacks, else nil: it costs a microsecond.
func (c *core) goroutine() *string {
	if c.funcs[stuckStackEvent] == nil {
		return nil
	}
	var buf [64]byte
	header := string(buf[:runtime.Stack(buf[:], false)])
	if k := strings.IndexByte(header, '['); k > 0 {
		header = header[:k]
	}
	return &header
}

// stacksEvery is the least time between two collections of stacks: they stop
// the world.
const stacksEvery = int64(60e9)

// maxDump bounds a dump of all goroutines.
const maxDump = 16 << 20

// stackOf returns the stack of the goroutine with the given header, or "" if
// stacks were collected less than a minute ago or it is not found.
func (c *core) stackOf(header *string) string {
	now := c.now()
	last := c.stacksAt.Load()
	if header == nil || last != 0 && now-last < stacksEvery || !c.stacksAt.CompareAndSwap(last, max(now, 1)) {
		return ""
	}
	dump := make([]byte, 64<<10)
	for {
		n := runtime.Stack(dump, true)
		if n < len(dump) || len(dump) >= maxDump {
			dump = dump[:n]
			break
		}
		dump = make([]byte, 2*len(dump))
	}
	for _, stack := range bytes.Split(dump, []byte("\n\n")) {
		if bytes.HasPrefix(stack, []byte(*header)) {
			return string(stack)
		}
	}
	return ""
}
