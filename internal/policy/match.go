package policy

import "strings"

// Match reports if a message with these attributes is wanted. It keeps nothing
// of attributes. It allocates nothing either, unless an array in them has a
// string with an escape, a number is beyond float64, or cidr meets what is not
// an address.
func (p *Policy) Match(attributes map[string]string) bool {
	if len(attributes) == 0 {
		return len(p.root.fields) == 0 && len(p.root.or) == 0
	}
	return p.root.match(attributes)
}

// match reports if attributes have what o wants. A message is asked for each
// key of the policy, never the policy for each attribute of a message: what a
// policy doesn't name is ignored.
func (o *object) match(attributes map[string]string) bool {
	for i := range o.fields {
		f := &o.fields[i]
		text, ok := attributes[f.name]
		if !f.match(text, ok) {
			return false
		}
	}
	for i := range o.or {
		if o.or[i].match(attributes) {
			return true
		}
	}
	return len(o.or) == 0
}

// match reports if one condition of f accepts an attribute, or its absence.
func (f *field) match(text string, ok bool) bool {
	if !ok {
		return f.absent // no other condition matches nothing, nor does null
	}
	if f.present || f.absent {
		exists := text != "" && !isEmptyArray(text)
		if exists && f.present || !exists && f.absent {
			return true
		}
	}
	if text != "" && text[0] == '[' {
		if matched, ok := f.matchArray(text); ok {
			return matched
		}
	}
	return anyMatch(f.tests, scalar(text))
}

// anyMatch reports if v passes one of tests.
func anyMatch(tests []test, v value) bool {
	for i := range tests {
		if tests[i].match(v) {
			return true
		}
	}
	return false
}

// match reports if v, in one of its readings, passes t. To anything-but that is
// a list of readings to refuse.
func (t *test) match(v value) bool {
	switch t.op {
	case opEqual:
		return v.kind&isString != 0 && v.text == t.text
	case opLiteral:
		return v.kind&t.kind != 0
	case opRange:
		return v.kind&isNumber != 0 && t.lo <= v.number && v.number <= t.hi
	case opPrefix:
		return v.kind&isString != 0 && strings.HasPrefix(v.text, t.text)
	case opSuffix:
		return v.kind&isString != 0 && strings.HasSuffix(v.text, t.text)
	case opFold:
		return v.kind&isString != 0 && strings.EqualFold(v.text, t.text)
	case opCIDR:
		return v.kind&isString != 0 && inBlock(t.block, v.text)
	case opNone:
		return !anyMatch(t.but, v)
	}
	return false
}
