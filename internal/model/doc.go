// Package model holds a reference model of a topic with its queues, and a
// driver that runs programs on a real topic and on the model side by side.
//
// The model is plain slices and scans over all of them. It knows nothing of
// logs, windows, timers or locks, and it runs in one goroutine. After every
// step of a program all that can be observed of the topic through its exported
// methods must be something that the model allows: what was delivered to whom,
// attempt numbers, histories, deadlines, stats, errors, contexts, leftovers.
//
// Where the documentation allows several things (which of two messages that
// became due at the same instant is delivered first, whether a worker is
// quicker than a publisher that drops), the model asks choose, and the driver
// looks for choices that explain what was seen. What was seen of the deliveries
// guides it (witness), so that it seldom has to look for long.
//
// A [Program] is bytes, a few for each step, so that any source of choices can
// make one: a seeded generator, a fuzzer, a property-testing library that
// shrinks. [Run] must be called inside a bubble of testing/synctest.
//
// Not modelled: publishes inside handlers (they can be refused for a deadlock),
// rate limits, extension by itself, interceptors.
package model
