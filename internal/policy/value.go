package policy

import (
	"encoding/json"
	"strings"
)

// A value is an attribute, or an element of one that is an array, in all its
// readings: kind has a bit for each.
type value struct {
	kind   kind
	text   string // if isString
	number fixed  // if isNumber
}

// scalar reads an attribute that is no array. It is a string in any case.
func scalar(text string) value {
	v := value{kind: isString, text: text}
	if text == "" {
		return v
	}
	switch c := text[0]; {
	case c == '-' || '0' <= c && c <= '9':
		if n, ok := parseFixed(text); ok {
			v.kind, v.number = v.kind|isNumber, n
		}
	default:
		v.kind |= literal(text)
	}
	return v
}

// literal returns the kind of the literal that text is, 0 if it is none.
func literal(text string) kind {
	switch text {
	case "true":
		return isTrue
	case "false":
		return isFalse
	case "null":
		return isNull
	}
	return 0
}

// isEmptyArray reports if text is a JSON array without elements.
func isEmptyArray(text string) bool {
	return text[0] == '[' && skipSpace(text[1:]) == "]"
}

func skipSpace(s string) string { return strings.TrimLeft(s, " \t\r\n") }

// matchArray reports if one element of the array in text passes a test of f.
// It is not ok if text is no array of strings, numbers and literals: then its
// elements were none, whatever they matched.
//
// The array is read by hand and in one go, as encoding/json would allocate a
// string for each element of each message.
func (f *field) matchArray(text string) (matched, ok bool) {
	rest, more := elements(text)
	for more {
		var v value
		if v, rest, more, ok = nextElement(rest); !ok {
			return false, false
		}
		matched = matched || anyMatch(f.tests, v)
	}
	return matched, true
}

// elements returns the elements of the array that text begins as, and whether there are any.
func elements(text string) (rest string, more bool) {
	rest = skipSpace(text[1:])
	return rest, rest != "]"
}

// nextElement reads the element that rest begins with, and returns what follows it, and
// whether that is another. It is not ok if what follows is neither that nor the end.
func nextElement(rest string) (v value, after string, more, ok bool) {
	v, after, ok = element(rest)
	if !ok {
		return v, "", false, false
	}
	after = skipSpace(after)
	switch {
	case after == "]":
		return v, "", false, true
	case after == "" || after[0] != ',':
		return v, "", false, false
	}
	return v, skipSpace(after[1:]), true, true
}

// element reads the element that s begins with, and returns what follows it.
// Unlike an attribute it has a type: it is a string if it has quotes.
func element(s string) (v value, after string, ok bool) {
	if s != "" && s[0] == '"' {
		text, after, ok := quoted(s)
		return value{kind: isString, text: text}, after, ok
	}
	end := strings.IndexAny(s, ",] \t\r\n")
	if end < 0 {
		return v, "", false
	}
	text, after := s[:end], s[end:]
	if v.kind = literal(text); v.kind != 0 {
		return v, after, true
	}
	// A number out of range is an element still, but equal to nothing.
	if n, ok := parseFixed(text); ok {
		v.kind, v.number = isNumber, n
	}
	return v, after, isJSONNumber(text)
}

// quoted reads the JSON string that s begins with.
func quoted(s string) (text, after string, ok bool) {
	escaped := false
	for i := 1; i < len(s); i++ {
		switch c := s[i]; {
		case c == '\\':
			escaped = true
			i++ // what it escapes does not end the string
		case c < ' ':
			return "", "", false
		case c == '"' && !escaped:
			return s[1:i], s[i+1:], true
		case c == '"':
			text, ok := unescape(s[:i+1])
			return text, s[i+1:], ok
		}
	}
	return "", "", false
}

// unescape decodes a JSON string. It stands apart from quoted as its result
// is on the heap, always.
func unescape(s string) (text string, ok bool) {
	err := json.Unmarshal([]byte(s), &text)
	return text, err == nil
}
