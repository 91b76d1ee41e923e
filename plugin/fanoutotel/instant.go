package fanoutotel

import "time"

// An instant is how long after an Instrumentation's epoch something was, by the monotonic
// clock: reading that alone takes half as long as time.Now.
type instant time.Duration

func (i *Instrumentation) now() instant { return instant(time.Since(i.epoch)) }

// instantOf is the instant of a time that was read from the clock.
func (i *Instrumentation) instantOf(t time.Time) instant { return instant(t.Sub(i.epoch)) }

func (i *Instrumentation) secondsSince(began instant) float64 {
	return time.Duration(i.now() - began).Seconds()
}

// age is how long before now at was.
func (i *Instrumentation) age(at time.Time, now instant) time.Duration {
	if at == at.Round(0) { // an engine's, without a reading of the monotonic clock
		return time.Since(at)
	}
	return time.Duration(now) - at.Sub(i.epoch)
}
