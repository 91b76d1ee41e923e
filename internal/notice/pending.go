package notice

// A Pending is what has to be done once locks are released: events to be told, contexts to
// be cancelled, and calls of engines. The zero value is nothing, and costs nothing.
//
// It is performed last: a hook may block, publish, or end its goroutine, and nobody else
// may wait meanwhile for what there is room for.
type Pending struct{ list *notices }

type notices struct {
	events  []held
	cancels []cancel
	calls   []func()
}

type held struct {
	to   *Reporter
	kind Kind
	Event
}

type cancel struct {
	cancel func(cause error)
	cause  error
}

// Any reports whether there is anything.
func (p *Pending) Any() bool { return p.list != nil }

func (p *Pending) get() *notices {
	if p.list == nil {
		p.list = new(notices)
	}
	return p.list
}

// Take empties p and returns what it was.
func (p *Pending) Take() (all Pending) {
	if p.list != nil {
		all, p.list = *p, nil
	}
	return all
}

// Join adds what more holds, behind what p does. more must not be used after that.
func (p *Pending) Join(more Pending) {
	if p.list == nil {
		*p = more
		return
	}
	if more.list != nil {
		n := p.list
		n.events = append(n.events, more.list.events...)
		n.cancels = append(n.cancels, more.list.cancels...)
		n.calls = append(n.calls, more.list.calls...)
	}
}

// Add has e told by a reporter.
func (p *Pending) Add(to *Reporter, k Kind, e Event) {
	n := p.get()
	n.events = append(n.events, held{to, k, e})
}

// Cancel has a context cancelled: f called with its cause. That must neither block nor
// call the user's code.
func (p *Pending) Cancel(f func(cause error), cause error) {
	n := p.get()
	n.cancels = append(n.cancels, cancel{f, cause})
}

// Call has f called, before any event is told.
func (p *Pending) Call(f func()) {
	n := p.get()
	n.calls = append(n.calls, f)
}

// Perform does all of it, once. No lock is held.
func (p *Pending) Perform() {
	if p.list == nil {
		return
	}
	all := p.Take()
	all.CancelAll()
	for _, call := range all.list.calls {
		call()
	}
	tellAll(all.list.events)
}

// CancelAll cancels the contexts now, which keeps nobody waiting, and leaves the rest.
func (p *Pending) CancelAll() {
	if p.list == nil {
		return
	}
	for _, c := range p.list.cancels {
		c.cancel(c.cause)
	}
	p.list.cancels = nil
}

// tellAll tells events, all of them even if a hook ends the goroutine.
func tellAll(events []held) {
	defer func() {
		if len(events) > 0 {
			tellAll(events)
		}
	}()
	for len(events) > 0 {
		e := &events[0]
		events = events[1:]
		e.to.Tell(e.kind, e.Event)
	}
}
