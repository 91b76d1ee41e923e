// Package queue has the queue: one subscription, which many goroutines use.
//
// What a queue holds, and in which state, is a Store of package store. A Queue adds what makes
// it happen. It promises that a consumer is woken if there is something for it; that what
// comes by time comes at its instant; that what is dead goes to the dead letters in one step;
// and that everybody who wants to hears of what has happened.
//
// A Queue owns its store, alarm and receivers. Its Mu guards them. The order of locks is topic,
// queue, its dead-letter queue. The leaves are the lists of idle queues, what counts the
// living, reporters, handlers' contexts, and the topic of package onengine. No user code is
// called, nothing waits and nothing is logged under any of them: that is left pending, and
// Unlock does it, which also lets in those who wait for the room that was made. A method whose name ends in Locked is called with Mu held, and so are those
// of the store, except Room and what is asked about a message alone.
//
// A queue knows its topic as a Home (home.go), a subscriber as a Pool, its workers as Holders of
// messages, and an engine as a keeper (keeper.go): packages topic, workers and enginequeue, which stand above
// it, and use its fields under its lock.
//
// Every goroutine and timer is counted in its topic's Core.Live, so that Done waits for it.
package queue
