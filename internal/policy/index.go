package policy

import (
	"cmp"
	"slices"
)

// An Index finds the policies that accept a message without asking each of them. A policy
// that wants an attribute to be one of some exact values is found by that value. One that
// has no such key, but only prefix, numeric, anything-but and the like, is asked.
//
// The zero Index is empty. It has no lock: nothing else may be called while Add or Remove
// runs, but calls of Match may run at the same time.
type Index[K any] struct {
	byName map[string]*attribute[K]
	all    []*attribute[K] // of byName
	others bucket[K]       // policies that are asked
	added  uint64
	n      int
}

// An Entry is a policy in an [Index].
type Entry[K any] struct {
	Key    K
	policy *Policy
	number uint64 // of its addition
	field  *field // what it is found by; nil: it is asked
	alone  bool   // the policy has no other field
	places []int  // in the list of each of field's tests, or in others
}

// An attribute has the policies that are found by its value.
type attribute[K any] struct {
	name     string
	at       int // in all
	n        int // places in the lists below
	strings  map[string]*bucket[K]
	numbers  map[fixed]*bucket[K]
	literals [3]bucket[K]
}

// A bucket has the policies that want one value, in no order.
type bucket[K any] []listed[K]

// listed is an entry's place in a list: e.places[n].
type listed[K any] struct {
	e *Entry[K]
	n int
}

// add puts an entry at the end.
func (l *bucket[K]) add(e *Entry[K], n int) {
	e.places[n] = len(*l)
	*l = append(*l, listed[K]{e, n})
}

// remove takes out what is at a place. The last takes the place.
func (l *bucket[K]) remove(at int) {
	last := len(*l) - 1
	moved := (*l)[last]
	(*l)[at] = moved
	moved.e.places[moved.n] = at
	(*l)[last] = listed[K]{}
	if *l = (*l)[:last]; last == 0 {
		*l = nil
	}
}

// Len is the number of policies.
func (x *Index[K]) Len() int { return x.n }

// Add adds a policy, which is found with key.
func (x *Index[K]) Add(p *Policy, key K) *Entry[K] {
	x.n++
	x.added++
	e := &Entry[K]{Key: key, policy: p, number: x.added, field: x.choose(p)}
	if e.field == nil {
		e.places = make([]int, 1)
		x.others.add(e, 0)
		return e
	}
	e.alone = len(p.root.fields) == 1 && len(p.root.or) == 0
	e.places = make([]int, len(e.field.tests))
	a := x.attribute(e.field.name)
	for n := range e.field.tests {
		a.listOf(&e.field.tests[n]).add(e, n)
		a.n++
	}
	return e
}

// Remove removes what Add has returned.
func (x *Index[K]) Remove(e *Entry[K]) {
	x.n--
	if e.field == nil {
		x.others.remove(e.places[0])
		return
	}
	a := x.byName[e.field.name]
	for n := range e.field.tests {
		t := &e.field.tests[n]
		l := a.listOf(t)
		l.remove(e.places[n])
		a.n--
		if len(*l) == 0 {
			a.forget(t)
		}
	}
	if a.n > 0 {
		return
	}
	last := len(x.all) - 1
	x.all[a.at] = x.all[last]
	x.all[a.at].at = a.at
	x.all[last] = nil
	x.all = x.all[:last]
	delete(x.byName, a.name)
	if last == 0 {
		x.all, x.byName = nil, nil // a map does not shrink
	}
}

// choose returns the field that a policy is best found by: of those that want exact values
// the one whose values the fewest others want. It is nil if there is none.
func (x *Index[K]) choose(p *Policy) (best *field) {
	fewest := 0
	for i := range p.root.fields {
		f := &p.root.fields[i]
		if !f.exact() {
			continue
		}
		n := x.count(f)
		if best == nil || n < fewest {
			best, fewest = f, n
		}
	}
	return best
}

// exact reports whether f wants one of some values, and nothing else will do.
func (f *field) exact() bool {
	return !f.present && !f.absent && !slices.ContainsFunc(f.tests, func(t test) bool {
		return t.op != opEqual && t.op != opLiteral && (t.op != opRange || t.lo != t.hi)
	})
}

// count counts the policies that want what f does.
func (x *Index[K]) count(f *field) (n int) {
	a := x.byName[f.name]
	if a == nil {
		return 0
	}
	for i := range f.tests {
		switch t := &f.tests[i]; t.op {
		case opEqual:
			if l := a.strings[t.text]; l != nil {
				n += len(*l)
			}
		case opRange:
			if l := a.numbers[t.lo]; l != nil {
				n += len(*l)
			}
		default:
			n += len(a.literals[literalAt(t.kind)])
		}
	}
	return n
}

func (x *Index[K]) attribute(name string) *attribute[K] {
	a := x.byName[name]
	if a == nil {
		if x.byName == nil {
			x.byName = make(map[string]*attribute[K])
		}
		a = &attribute[K]{name: name, at: len(x.all)}
		x.byName[name] = a
		x.all = append(x.all, a)
	}
	return a
}

// listOf returns the list of what an exact test wants, and makes it if there is none.
func (a *attribute[K]) listOf(t *test) *bucket[K] {
	switch t.op {
	case opEqual:
		return inMap(&a.strings, t.text)
	case opRange:
		return inMap(&a.numbers, t.lo)
	}
	return &a.literals[literalAt(t.kind)]
}

func inMap[V comparable, K any](m *map[V]*bucket[K], v V) *bucket[K] {
	l := (*m)[v]
	if l == nil {
		if *m == nil {
			*m = make(map[V]*bucket[K])
		}
		l = new(bucket[K])
		(*m)[v] = l
	}
	return l
}

// forget removes the list of what an exact test wants, which is empty.
func (a *attribute[K]) forget(t *test) {
	switch t.op {
	case opEqual:
		delete(a.strings, t.text)
	case opRange:
		delete(a.numbers, t.lo)
	}
}

// literalAt is the place of a literal of one kind.
func literalAt(k kind) int {
	switch k {
	case isTrue:
		return 0
	case isFalse:
		return 1
	}
	return 2
}

// Match adds to found the policies that accept a message with these attributes, each once,
// in the order in which they were added.
func (x *Index[K]) Match(attributes map[string]string, found []*Entry[K]) []*Entry[K] {
	from := len(found)
	for _, l := range x.others {
		if l.e.policy.Match(attributes) {
			found = append(found, l.e)
		}
	}
	if len(x.all) <= len(attributes) {
		for _, a := range x.all {
			if text, ok := attributes[a.name]; ok {
				found = a.match(text, attributes, found)
			}
		}
	} else {
		for name, text := range attributes {
			if a := x.byName[name]; a != nil {
				found = a.match(text, attributes, found)
			}
		}
	}
	if len(found) > from+1 {
		all := found[from:]
		slices.SortFunc(all, func(e, f *Entry[K]) int { return cmp.Compare(e.number, f.number) })
		found = found[:from+len(slices.Compact(all))] // one may be found by several readings of a value
	}
	return found
}

// match adds the policies that are found by the attribute's value, as field.match reads it.
func (a *attribute[K]) match(text string, attributes map[string]string, found []*Entry[K]) []*Entry[K] {
	if text != "" && text[0] == '[' {
		if found, ok := a.matchArray(text, attributes, found); ok {
			return found
		}
	}
	return a.matchValue(scalar(text), attributes, found)
}

// matchArray is match for an array, element by element. It is not ok if text is no array.
func (a *attribute[K]) matchArray(text string, attributes map[string]string, found []*Entry[K]) (_ []*Entry[K], ok bool) {
	rest, more := elements(text)
	for more {
		var v value
		if v, rest, more, ok = nextElement(rest); !ok {
			return nil, false
		}
		found = a.matchValue(v, attributes, found)
	}
	return found, true
}

// matchValue adds the policies that want v in one of its readings.
func (a *attribute[K]) matchValue(v value, attributes map[string]string, found []*Entry[K]) []*Entry[K] {
	if v.kind&isString != 0 {
		if l := a.strings[v.text]; l != nil {
			found = l.match(attributes, found)
		}
	}
	if v.kind&isNumber != 0 {
		if l := a.numbers[v.number]; l != nil {
			found = l.match(attributes, found)
		}
	}
	for _, k := range [...]kind{isTrue, isFalse, isNull} {
		if v.kind&k != 0 {
			found = a.literals[literalAt(k)].match(attributes, found)
		}
	}
	return found
}

// match adds those of the list that accept the message, of which each wants one value.
func (l bucket[K]) match(attributes map[string]string, found []*Entry[K]) []*Entry[K] {
	for _, at := range l {
		if at.e.alone || at.e.policy.Match(attributes) {
			found = append(found, at.e)
		}
	}
	return found
}
