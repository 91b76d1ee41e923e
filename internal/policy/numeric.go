package policy

// numeric compiles [operator, number], or a lower bound and then an upper one:
// [">=", 0, "<", 10]. The order is fixed, and so is what may open a range: after
// "=", "<" or "<=" nothing can follow.
//
// The checks come in the order in which SNS reads, one term after the other, as
// each has its own words for what it met instead.
func numeric(value node, at *path) (test, *Error) {
	if value.kind != isArray {
		return test{}, at.errorf("Value of numeric must be an array.")
	}
	// A side without a bound ends where the numbers of SNS end.
	t := test{op: opRange, lo: minFixed, hi: maxFixed}
	rest := value.items
	if len(rest) == 0 {
		return t, at.errorf("Invalid member in numeric match: ]")
	}
	if rest[0].kind != isString {
		return t, at.errorf("Invalid member in numeric match: %s", rest[0].describe())
	}
	first := rest[0].text
	bottom, err := t.bound(rest, at)
	if rest = rest[min(2, len(rest)):]; err != nil || len(rest) == 0 {
		return t, err
	}
	if first != ">" && first != ">=" {
		return t, at.errorf("Too many elements in numeric expression")
	}
	if rest[0].kind != isString {
		return t, at.errorf("Bad value in numeric range: %s", rest[0].describe())
	}
	if rest[0].text != "<" && rest[0].text != "<=" {
		return t, at.errorf("Bad numeric range operator: %s", rest[0].text)
	}
	top, err := t.bound(rest, at)
	switch {
	case err != nil:
		return t, err
	case len(rest) > 2:
		return t, at.errorf("Too many terms in numeric range expression")
	case top <= bottom:
		return t, at.errorf("Bottom must be less than top")
	}
	return t, nil
}

// bound narrows t by the operator and the number that terms begin with, and
// returns the number. Numbers are counted in steps of five decimals, so that
// less than a number is up to the step before it.
func (t *test) bound(terms []node, at *path) (fixed, *Error) {
	operator := terms[0].text
	switch operator {
	case "=", "<", "<=", ">", ">=":
	default:
		return 0, at.errorf("Unrecognized numeric range operator: %s", operator)
	}
	if len(terms) < 2 || terms[1].kind != isNumber {
		if operator == "=" {
			operator = "equals" // SNS has a word for this one only
		}
		return 0, at.errorf("Value of %s must be numeric", operator)
	}
	v, err := number(terms[1], at)
	switch operator {
	case "=":
		t.lo, t.hi = v, v
	case "<":
		t.hi = v - 1
	case "<=":
		t.hi = v
	case ">":
		t.lo = v + 1
	case ">=":
		t.lo = v
	}
	return v, err
}

// describe returns n as an error about numeric shows it: by its first token,
// which is where SNS stops reading.
func (n node) describe() string {
	switch n.kind {
	case isNull:
		return "null"
	case isTrue:
		return "true"
	case isFalse:
		return "false"
	case isArray:
		return "["
	case isObject:
		return "{"
	}
	return n.text
}
