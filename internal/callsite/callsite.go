// Package callsite names the place in a user's code that called into the library.
//
// It promises a file with its folder, and a line; the library's own frames are passed over. It
// keeps nothing, and has no lock, clock or goroutine.
package callsite

import (
	"runtime"
	"strconv"
	"strings"
)

// Of is the file and line that called, by way of the library, the function that calls Of.
func Of() string {
	var pcs [8]uintptr
	frames := runtime.CallersFrames(pcs[:runtime.Callers(3, pcs[:])])
	for {
		f, more := frames.Next()
		if !ours(f.Function) || strings.HasSuffix(f.File, "_test.go") {
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

// ours reports whether a function is of package fanout, or of those that its calls go by.
func ours(function string) bool {
	function, found := strings.CutPrefix(function, "github.com/gofanout/fanout")
	return found && (strings.HasPrefix(function, ".") || strings.HasPrefix(function, "/internal/topic.") || strings.HasPrefix(function, "/internal/workers."))
}
