package admission

import (
	"context"
	"fmt"
	"maps"
	"time"

	"github.com/gofanout/fanout/internal/intercept"
	"github.com/gofanout/fanout/internal/message"
	"github.com/gofanout/fanout/internal/offer"
)

// fixed makes the IDs of o's items that have none, and returns what interceptors are told
// of their publish. o is its own from here on.
func (a *Admission[T]) fixed(o *offer.Offer[T], try bool) *offered[T] {
	for k := range o.Items {
		it := &o.Items[k]
		if it.Ext == nil {
			it.Ext = new(message.Extra)
		}
		if it.Ext.ID == "" {
			it.Ext.ID = a.IDOf(a.ids.Add(1), a.Now(), nil)
		}
	}
	s, ok := a.offereds.Get().(*offered[T])
	if !ok {
		s = &offered[T]{a: a}
		s.chain = intercept.NewChain(a.before, s.publish)
	}
	s.offer, s.items, s.try = o, o.Items, try
	return s
}

// offered are the items of a publish. Their extras are its own until next has been
// called, which publishes them.
//
// Invariant: one that is not in use is nobody's, as what a surrounded handler uses again.
type offered[T any] struct {
	a         *Admission[T]
	offer     *offer.Offer[T] // whose the items are
	items     []message.Item[T]
	try       bool
	published bool
	err       error // of an attribute that can't be
	chain     *intercept.Chain
}

// publish publishes a copy of the items: next may be called again.
func (o *offered[T]) publish(ctx context.Context) error {
	if o.err != nil {
		return o.err
	}
	o.published = true
	c := o.a.offers.New()
	c.Items = append(c.Items, o.items...)
	err := o.a.tryAll(ctx, c, o.try)
	o.a.offers.Done(c)
	return err
}

// release says that the interceptors have returned.
func (o *offered[T]) release() {
	if !o.chain.Over() {
		return
	}
	a := o.a
	a.offers.Done(o.offer)
	o.offer, o.items, o.published, o.err = nil, nil, false, nil
	o.chain.Info = intercept.Info{}
	a.offereds.Put(o)
}

func (o *offered[T]) info(topic string) intercept.Info {
	info := intercept.Info{Operation: intercept.OpPublish, Topic: topic, Messages: len(o.items), About: o}
	if len(o.items) > 0 {
		info.MessageID = o.items[0].Ext.ID
	}
	return info
}

func (o *offered[T]) Count() int { return len(o.items) }

func (o *offered[T]) Body(k int) any { return o.items[k].Body }

func (o *offered[T]) ID(k int) string { return o.items[k].Ext.ID }

func (o *offered[T]) Ext(k int) *message.Extra { return o.items[k].Ext }

func (o *offered[T]) Attempt(int) int { return 0 }

func (o *offered[T]) PublishedAt(int) time.Time { return time.Time{} }

func (o *offered[T]) Set(k int, name, value string) (ok bool) {
	it := &o.items[k]
	if _, has := it.Ext.Attributes[name]; has {
		return false
	}
	if err := offer.CheckAttribute(name, value); err != nil {
		if o.err == nil {
			o.err = fmt.Errorf("%w: message %d: an interceptor: %w", message.ErrInvalidMessage, k, err)
		}
		return false
	}
	if o.published { // it is the queues' too
		it.Ext = it.Ext.With(func(x *message.Extra) { x.Attributes = maps.Clone(x.Attributes) })
	}
	if it.Ext.Attributes == nil {
		it.Ext.Attributes = make(map[string]string)
	}
	it.Ext.Attributes[name] = value
	return true
}
