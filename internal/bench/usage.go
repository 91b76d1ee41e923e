package main

import (
	"runtime"
	"syscall"
	"time"
)

// A usage is what the process has used so far.
type usage struct {
	at      time.Time
	cpu     time.Duration
	mallocs uint64
}

// used reads the clocks last, as it stops the world for the rest.
func used() usage {
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return usage{mallocs: m.Mallocs, cpu: cpuTime(), at: time.Now()}
}

// since is what was used between u and now. It reads the clocks first.
func (u usage) since() (wall, cpu time.Duration, mallocs uint64) {
	wall, cpu = time.Since(u.at), cpuTime()-u.cpu
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return wall, cpu, m.Mallocs - u.mallocs
}

// cpuTime is the processor time of all threads.
func cpuTime() time.Duration {
	var r syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &r); err != nil {
		return 0
	}
	return time.Duration(r.Utime.Nano() + r.Stime.Nano())
}
