package policy

import (
	"bytes"
	"encoding/json"
)

// A node is a JSON value. It keeps what the grammar of policies needs and
// decoding to a map loses: the order of keys, and that a key is there twice.
type node struct {
	kind    kind
	text    string   // of a string, decoded; of a number, as written
	members []member // of an object
	items   []node   // of an array
}

// A member is a key of an object and its value.
type member struct {
	name  string
	value node
}

// A kind is what a JSON value can be. Kinds are bits, as an attribute is
// several at once: see value.
type kind uint8

const (
	isNull kind = 1 << iota
	isFalse
	isTrue
	isNumber
	isString
	isArray
	isObject
)

// isLiteral are the kinds that have but one value.
const isLiteral = isNull | isFalse | isTrue

// parseTree reads one JSON value and nothing after it.
func parseTree(text []byte) (node, error) {
	// Tokens alone would not do: a decoder stops at the end of the value, and
	// doesn't limit how deep values nest. Unmarshal checks both before it does
	// anything, so readNode need not fear for its stack.
	var raw json.RawMessage
	if err := json.Unmarshal(text, &raw); err != nil {
		return node{}, (*path)(nil).errorf("failed to parse JSON: %v", err)
	}
	dec := json.NewDecoder(bytes.NewReader(text))
	dec.UseNumber()
	return readNode(dec, nil)
}

// readNode reads the value that dec is at. The text is known to be valid.
func readNode(dec *json.Decoder, at *path) (node, error) {
	token, err := dec.Token()
	if err != nil {
		return node{}, at.errorf("failed to parse JSON: %v", err)
	}
	switch t := token.(type) {
	case json.Delim:
		if t == '{' {
			return readObject(dec, at)
		}
		return readArray(dec, at)
	case string:
		return node{kind: isString, text: t}, nil
	case json.Number:
		return node{kind: isNumber, text: t.String()}, nil
	case bool:
		if t {
			return node{kind: isTrue}, nil
		}
		return node{kind: isFalse}, nil
	}
	return node{kind: isNull}, nil
}

// readObject reads the rest of an object, up to and with its closing brace.
func readObject(dec *json.Decoder, at *path) (node, error) {
	n := node{kind: isObject}
	seen := make(map[string]bool)
	for dec.More() {
		token, err := dec.Token()
		if err != nil {
			return node{}, at.errorf("failed to parse JSON: %v", err)
		}
		name, _ := token.(string)
		// SNS takes the last of them. Whoever wrote both meant both.
		if seen[name] {
			return node{}, at.key(name).errorf("duplicate key %q", name)
		}
		seen[name] = true
		value, err := readNode(dec, at.key(name))
		if err != nil {
			return node{}, err
		}
		n.members = append(n.members, member{name, value})
	}
	_, err := dec.Token() // the closing brace
	return n, err
}

// readArray reads the rest of an array, up to and with its closing bracket.
func readArray(dec *json.Decoder, at *path) (node, error) {
	n := node{kind: isArray}
	for i := 0; dec.More(); i++ {
		item := at
		if at != nil { // else the top is an array, which is refused soon enough
			item = at.at(i)
		}
		value, err := readNode(dec, item)
		if err != nil {
			return node{}, err
		}
		n.items = append(n.items, value)
	}
	_, err := dec.Token() // the closing bracket
	return n, err
}
