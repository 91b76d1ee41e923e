//go:build unix

package delivery_test

import (
	"syscall"
	"time"
)

// processorTime is what the process has used of the processors: on a busy machine it says more
// than the time that passes.
func processorTime() time.Duration {
	var u syscall.Rusage
	if syscall.Getrusage(syscall.RUSAGE_SELF, &u) != nil {
		return 0
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}
