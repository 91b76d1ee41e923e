//go:build !unix

package fanoutweb

import "time"

func cpuTime() time.Duration { return 0 }
