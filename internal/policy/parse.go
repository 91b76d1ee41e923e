package policy

import (
	"bytes"
	"encoding/json"
	"slices"
	"unicode/utf8"
)

// orKey is the key over alternatives.
const orKey = "$or"

// reserved are the names that make an object in the list of $or a condition
// rather than an alternative. The guide of SNS doesn't list them. These are the
// ones of event-ruler, the rule engine that AWS publishes and whose errors SNS
// gives: the operators, those of numeric, and some kept for later.
var reserved = map[string]bool{
	"exactly": true, "equals-ignore-case": true, "prefix": true, "suffix": true,
	"anything-but": true, "exists": true, "wildcard": true, "numeric": true, "cidr": true,
	"=": true, "<": true, "<=": true, ">": true, ">=": true,
	"regex": true, "not-wildcard": true, "not-equals-ignore-case": true,
	"date-after": true, "date-on-or-after": true, "date-before": true, "date-on-or-before": true,
	"in-date-range": true, "ip-address-in-range": true, "ip-address-not-in-range": true,
}

// Parse reads a policy. The error is an [*Error].
func Parse(policy string) (*Policy, error) {
	var top *path
	if len(policy) > maxSize {
		return nil, top.errorf("the policy has %d bytes, the limit is %d", len(policy), maxSize)
	}
	if !utf8.ValidString(policy) {
		return nil, top.errorf("failed to parse JSON: not valid UTF-8")
	}
	tree, err := parseTree([]byte(policy))
	if err != nil {
		return nil, err
	}
	if tree.kind != isObject {
		return nil, top.errorf("Filter is not an object")
	}
	var compact bytes.Buffer
	if err := json.Compact(&compact, []byte(policy)); err != nil {
		return nil, top.errorf("failed to parse JSON: %v", err)
	}
	p := &Policy{text: compact.String()}
	// Only the top may be empty: that is how SNS spells no policy.
	if len(tree.members) == 0 {
		return p, nil
	}
	c := compiler{keys: make(map[string]bool)}
	if p.root, _, err = c.object(tree, top); err != nil {
		return nil, err
	}
	return p, nil
}

// A compiler turns the tree of one policy into what is matched.
type compiler struct {
	keys map[string]bool // attribute names met so far
}

// object compiles an object whose keys are attribute names, and returns how
// many combinations of values it has.
func (c *compiler) object(n node, at *path) (o object, combinations int, err error) {
	if len(n.members) == 0 {
		return o, 0, at.errorf("Empty objects are not allowed")
	}
	combinations = 1
	for _, m := range n.members {
		key, count := at.key(m.name), 0
		if m.name == orKey && isOr(m.value) {
			o.or, count, err = c.or(m.value, key)
		} else {
			var f field
			f, err = c.field(m, key)
			o.fields, count = append(o.fields, f), len(m.value.items)
		}
		if err != nil {
			return object{}, 0, err
		}
		// No factor is below 1, so what is too much here is too much above.
		if combinations *= count; combinations > maxCombinations {
			return object{}, 0, key.errorf("Filter policy is too complex: more than %d combinations of values", maxCombinations)
		}
	}
	return o, combinations, nil
}

// isOr reports if the value of a key $or makes it an operator: a list of two or
// more objects, none of which has an operator for a key. If not, $or is an
// attribute's name like another, and SNS reads on as such.
func isOr(n node) bool {
	if n.kind != isArray || len(n.items) < 2 {
		return false
	}
	for _, item := range n.items {
		if item.kind != isObject || slices.ContainsFunc(item.members, func(m member) bool { return reserved[m.name] }) {
			return false
		}
	}
	return true
}

// or compiles the alternatives of $or. Their combinations add up.
func (c *compiler) or(n node, at *path) (os []object, combinations int, err error) {
	for i, item := range n.items {
		o, count, err := c.object(item, at.at(i))
		if err != nil {
			return nil, 0, err
		}
		os, combinations = append(os, o), combinations+count
	}
	return os, combinations, nil
}

// field compiles a key and its list of conditions. A key counts against the
// limit once, wherever it stands: what is limited is the names.
func (c *compiler) field(m member, at *path) (field, error) {
	if c.keys[m.name] = true; len(c.keys) > maxKeys {
		return field{}, at.errorf("Filter policy can not have more than %d keys", maxKeys)
	}
	switch {
	// Said before what is in the object is looked at, and so not always in the
	// words of SNS, which are about the inner key first.
	case m.value.kind == isObject:
		return field{}, &Error{
			Key:    at.String(),
			Reason: "Filter policy scope MessageAttributes does not support nested filter policy",
		}
	case m.value.kind != isArray:
		return field{}, at.errorf("%q must be an object or an array", m.name)
	case len(m.value.items) == 0:
		return field{}, at.errorf("Empty arrays are not allowed")
	}
	f := field{name: m.name}
	for i, item := range m.value.items {
		if err := f.add(item, at); err != nil {
			err.Condition = i + 1
			if m.name == orKey {
				err.Reason += " ($or is an attribute's name unless over two or more objects with no operator for a key)"
			}
			return field{}, err
		}
	}
	return f, nil
}
