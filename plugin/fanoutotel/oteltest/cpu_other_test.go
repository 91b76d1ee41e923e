//go:build !unix

package oteltest

import "time"

// cpuTime is not known here.
func cpuTime() time.Duration { return 0 }
