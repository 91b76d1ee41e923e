// Package routing has which of a topic's queues get a message: those without a filter all,
// those with filters what these accept.
//
// It promises that filters are asked without any lock, about each message once, and that the
// queues that accept some of a batch come in the order in which they were opened, however they
// are found; and that adding a queue and removing one cost the same however many there are.
//
// Routes own the index of policies and the list of queues that are asked one by one. The
// topic's lock guards them; publishers see what is shown to them without it. The index has a
// lock of its own, which is a leaf. There is no clock and no goroutine.
package routing
