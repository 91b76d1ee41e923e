package policy

import (
	"fmt"
	"strconv"
	"strings"
)

// An Error is what [Parse] returns: what is wrong with a policy, and where.
type Error struct {
	// Key is the key at fault, with the way to it: price, or $or[1].price.
	// It is empty if the fault is with the whole.
	Key string
	// Condition is the place, from 1, of the condition at fault in the list of
	// Key. It is 0 if the fault is not with one condition.
	Condition int
	// Reason is what is wrong, after the words of SNS where those are known.
	Reason string
}

func (e *Error) Error() string {
	var b strings.Builder
	b.WriteString("invalid filter policy: ")
	if e.Key != "" {
		b.WriteString("key " + strconv.Quote(e.Key))
		if e.Condition > 0 {
			b.WriteString(", condition " + strconv.Itoa(e.Condition))
		}
		b.WriteString(": ")
	}
	return b.String() + "Invalid parameter: " + e.Reason
}

// A path is the way from the top of a policy to a key. It is linked from the
// end and only spelled out for an error, as most policies have none.
// The path of the top itself is nil.
type path struct {
	above *path
	name  string
	index int // in the list of name, from 0; -1 is the list itself
}

func (p *path) key(name string) *path { return &path{above: p, name: name, index: -1} }
func (p *path) at(i int) *path        { return &path{above: p.above, name: p.name, index: i} }

func (p *path) String() string {
	var parts []string
	for ; p != nil; p = p.above {
		part := p.name
		if p.index >= 0 {
			part += "[" + strconv.Itoa(p.index) + "]"
		}
		parts = append(parts, part)
	}
	for i, j := 0, len(parts)-1; i < j; i, j = i+1, j-1 {
		parts[i], parts[j] = parts[j], parts[i]
	}
	return strings.Join(parts, ".")
}

// errorf returns an error about p. In SNS all but one of the reasons begin so.
func (p *path) errorf(format string, args ...any) *Error {
	return &Error{Key: p.String(), Reason: "FilterPolicy: " + fmt.Sprintf(format, args...)}
}
