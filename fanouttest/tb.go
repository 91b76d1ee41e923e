package fanouttest

// TB is what the kit needs of a test. [testing.T] and [testing.B] have it, and
// so has whatever another framework hands to its tests, or can be given it in a
// few lines. If it also has a method Failed() bool, what a test leaves behind
// after it has failed is only logged.
//
// The kit calls Fatalf in the goroutine that called the kit, never in one of a
// handler's.
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
