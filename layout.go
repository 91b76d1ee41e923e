package fanout

import (
	"slices"
	"unsafe"

	"github.com/gofanout/fanout/internal/delivery"
	"github.com/gofanout/fanout/internal/intercept"
	"github.com/gofanout/fanout/internal/message"
	"github.com/gofanout/fanout/internal/queue"
	"github.com/gofanout/fanout/internal/topic"
	"github.com/gofanout/fanout/internal/workers"
)

// The types of this package that have methods stand before those of packages topic, queue,
// delivery and workers, which do the work: a Topic is a topic.Topic and nothing else, and so
// are Queue and Subscriber. A Delivery and a Message have the fields of those below in the
// same order, and so have Attempt, MessageView, Left, Depth and Info. So a pointer or a slice
// of one is one of the other, a handler of these is one of those, and nothing is copied on the
// way to it.
// The conversions of this package are here, and nowhere else. A test compares the layouts.

func topicOf[T any](t *topic.Topic[T]) *Topic[T] { return (*Topic[T])(unsafe.Pointer(t)) }

func queueOf[T any](q *queue.Queue[T]) *Queue[T] { return (*Queue[T])(unsafe.Pointer(q)) }

func subscriberOf[T any](s *workers.Subscriber[T]) *Subscriber[T] {
	return (*Subscriber[T])(unsafe.Pointer(s))
}

func deliveryOf[T any](d *delivery.Delivery[T]) *Delivery[T] {
	return (*Delivery[T])(unsafe.Pointer(d))
}

// laid is where package delivery lays one: one that is made elsewhere and then copied
// costs a quarter of receiving it.
func (d *Delivery[T]) laid() *delivery.Delivery[T] { return (*delivery.Delivery[T])(unsafe.Pointer(d)) }

// sliceOf is a slice of elements that are laid out as those of s.
func sliceOf[To, From any](s []From) []To {
	if s == nil {
		return nil
	}
	return unsafe.Slice((*To)(unsafe.Pointer(unsafe.SliceData(s))), cap(s))[:len(s)]
}

func deliveries[T any](ds []delivery.Delivery[T]) []Delivery[T] { return sliceOf[Delivery[T]](ds) }

func coreDeliveries[T any](ds []Delivery[T]) []delivery.Delivery[T] {
	return sliceOf[delivery.Delivery[T]](ds)
}

func messages[T any](ms []message.Published[T]) []Message[T] { return sliceOf[Message[T]](ms) }

func coreMessages[T any](ms []Message[T]) []message.Published[T] {
	return sliceOf[message.Published[T]](ms)
}

// core is the handler as package workers calls it; nil of nil.
func (h Handler[T]) core() workers.OneHandler[T] {
	return *(*workers.OneHandler[T])(unsafe.Pointer(&h))
}

// core is the handler as package workers calls it; nil of nil.
func (h BatchHandler[T]) core() workers.BatchHandler[T] {
	return *(*workers.BatchHandler[T])(unsafe.Pointer(&h))
}

// around is interceptors as the packages below call them: an Info is laid out as theirs.
func around(is []Interceptor) []intercept.Interceptor {
	return sliceOf[intercept.Interceptor](slices.Clone(is))
}
