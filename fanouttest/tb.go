package fanouttest

// TB is what the kit needs of a test. testing.T and testing.B implement it. For other
// frameworks it takes a few lines. If it also has a method Failed() bool, what a failed test
// leaves behind is only logged.
//
// The kit calls Fatalf in the goroutine that called the kit, never in a handler's.
type TB interface {
	Helper()
	Name() string
	Logf(format string, args ...any)
	Errorf(format string, args ...any)
	Fatalf(format string, args ...any)
	Cleanup(func())
}

func hasFailed(tb TB) bool {
	f, ok := tb.(interface{ Failed() bool })
	return ok && f.Failed()
}
