//go:build !unix

package publishing_test

import "time"

// processorTime is zero where it can't be had.
func processorTime() time.Duration { return 0 }
