package policy

import "net/netip"

// A test is a condition in the form that is matched. There are fewer kinds of
// it than of conditions: a number and each form of numeric is a range, and all
// forms of anything-but are a list of tests that must fail.
type test struct {
	op     op
	kind   kind         // opLiteral
	text   string       // opEqual, opPrefix, opSuffix, opFold
	lo, hi fixed        // opRange, both included
	block  netip.Prefix // opCIDR
	but    []test       // opNone
}

type op uint8

const (
	opEqual   op = iota // the string
	opLiteral           // true, false or null
	opRange             // a number from lo to hi
	opPrefix
	opSuffix
	opFold // the string, whatever its case
	opCIDR
	opNone // anything-but
)

// add compiles one condition of the list of f. An operator is checked as SNS
// does, from left to right, so that of two faults both name the same one.
func (f *field) add(n node, at *path) *Error {
	if n.kind != isObject {
		t, err := exact(n, at)
		f.tests = append(f.tests, t)
		return err
	}
	if len(n.members) == 0 {
		return at.errorf("Match expression name not found")
	}
	operator, value := n.members[0].name, n.members[0].value
	if operator == "exists" {
		if value.kind&(isTrue|isFalse) == 0 {
			return at.errorf("exists match pattern must be either true or false.")
		}
		f.present = f.present || value.kind == isTrue
		f.absent = f.absent || value.kind == isFalse
	} else {
		t, err := operation(operator, value, at)
		if err != nil {
			return err
		}
		f.tests = append(f.tests, t)
	}
	// Last, so that an operator nobody knows is named before its company.
	if len(n.members) > 1 {
		return at.errorf("Only one key allowed in match expression")
	}
	return nil
}

// exact compiles a value that stands for itself. A list in a list is the usual
// mistake here: SNS has no use for one outside anything-but and numeric.
func exact(n node, at *path) (test, *Error) {
	switch {
	case n.kind == isString:
		return test{op: opEqual, text: n.text}, nil
	case n.kind == isNumber:
		v, err := number(n, at)
		return test{op: opRange, lo: v, hi: v}, err
	case n.kind&isLiteral != 0:
		return test{op: opLiteral, kind: n.kind}, nil
	}
	return test{}, at.errorf("Match value must be String, number, true, false, or null")
}

// number reads a number of a policy.
func number(n node, at *path) (fixed, *Error) {
	v, ok := parseFixed(n.text)
	if !ok {
		return 0, at.errorf("Value must be between -1.0E9 and 1.0E9, inclusive: %s", n.text)
	}
	return v, nil
}

// operation compiles {operator: value} for all operators but exists. What it
// doesn't know includes exactly, wildcard and the rest of the grammar of
// EventBridge, which is a larger one.
func operation(operator string, value node, at *path) (test, *Error) {
	switch operator {
	case "prefix":
		return pattern(opPrefix, operator, value, at)
	case "suffix":
		return pattern(opSuffix, operator, value, at)
	case "equals-ignore-case":
		return pattern(opFold, operator, value, at)
	case "anything-but":
		return anythingBut(value, at)
	case "numeric":
		return numeric(value, at)
	case "cidr":
		return cidr(value, at)
	}
	return test{}, at.errorf("Unrecognized match type %s", operator)
}

// pattern compiles an operator on strings. An empty one is allowed, as it is in
// event-ruler: {"prefix": ""} asks for any string.
func pattern(o op, operator string, value node, at *path) (test, *Error) {
	if value.kind != isString {
		return test{}, at.errorf("%s match pattern must be a string", operator)
	}
	return test{op: o, text: value.text}, nil
}

// anythingBut compiles what must not match: a string or a number, a list of
// only strings or only numbers, {"prefix": s} or {"suffix": s}. SNS refused the
// last in 2024; its guide has it now.
func anythingBut(value node, at *path) (test, *Error) {
	switch value.kind {
	case isObject:
		return anythingButPattern(value, at)
	case isString, isNumber:
		value = node{kind: isArray, items: []node{value}}
	case isArray:
	default:
		return test{}, at.errorf("Value of anything-but must be an array or single string/number value.")
	}
	t := test{op: opNone}
	var met kind
	for _, item := range value.items {
		if item.kind&(isString|isNumber) == 0 {
			return test{}, at.errorf("Inside anything but list, start|null|boolean is not supported.")
		}
		listed, err := exact(item, at)
		if err != nil {
			return test{}, err
		}
		t.but, met = append(t.but, listed), met|item.kind
	}
	// An empty list, too: it would be exists, in a roundabout way.
	if met != isString && met != isNumber {
		return test{}, at.errorf("Inside anything but list, either all values are number or string, mixed type is not supported")
	}
	return t, nil
}

// anythingButPattern compiles the two forms of anything-but with an operator.
func anythingButPattern(value node, at *path) (test, *Error) {
	if len(value.members) == 0 {
		return test{}, at.errorf("Anything-But expression name not found")
	}
	operator, operand := value.members[0].name, value.members[0].value
	if operator != "prefix" && operator != "suffix" {
		return test{}, at.errorf("Unsupported anything-but pattern: %s", operator)
	}
	t, err := operation(operator, operand, at)
	if err != nil {
		return test{}, err
	}
	if t.text == "" { // it is in every string, so that no string would match
		return test{}, at.errorf("Null prefix/suffix not allowed")
	}
	if len(value.members) > 1 {
		return test{}, at.errorf("Only one key allowed in match expression")
	}
	return test{op: opNone, but: []test{t}}, nil
}
