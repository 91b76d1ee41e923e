package policy

import (
	"bytes"
	"encoding/json"
	"testing"
	"unicode/utf8"

	"github.com/stretchr/testify/require"
)

// readArrayAs reads text as matchArray should, by way of encoding/json.
func readArrayAs(text string) (elements []value, ok bool) {
	if text == "" || text[0] != '[' || text[len(text)-1] != ']' || !json.Valid([]byte(text)) {
		return nil, false
	}
	dec := json.NewDecoder(bytes.NewReader([]byte(text)))
	dec.UseNumber()
	var items []any
	if dec.Decode(&items) != nil {
		return nil, false
	}
	for _, item := range items {
		var v value
		switch item := item.(type) {
		case nil:
			v.kind = isNull
		case bool:
			if v.kind = isFalse; item {
				v.kind = isTrue
			}
		case string:
			v = value{kind: isString, text: item}
		case json.Number:
			if n, ok := parseFixed(item.String()); ok {
				v = value{kind: isNumber, number: n}
			}
		default:
			return nil, false
		}
		elements = append(elements, v)
	}
	return elements, true
}

// FuzzArray: an attribute is read as the array that encoding/json sees.
func FuzzArray(f *testing.F) {
	for _, c := range matchCases {
		for _, text := range c.attributes {
			f.Add(text)
		}
	}
	f.Fuzz(func(t *testing.T, text string) {
		if !utf8.ValidString(text) || text == "" || text[0] != '[' {
			return
		}
		want, wantOK := readArrayAs(text)
		// Each field matches what is equal to one element and nothing else.
		_, ok := new(field).matchArray(text)
		require.Equal(t, wantOK, ok)
		for i, v := range want {
			f := field{tests: []test{{op: opEqual, text: v.text}}}
			switch {
			case v.kind == isNumber:
				f.tests = []test{{op: opRange, lo: v.number, hi: v.number}}
			case v.kind&isLiteral != 0:
				f.tests = []test{{op: opLiteral, kind: v.kind}}
			case v.kind == 0: // out of range: equal to nothing
				f.tests = []test{{op: opNone}}
			}
			matched, _ := f.matchArray(text)
			require.True(t, matched, "element %d of %s", i, text)
		}
		require.Equal(t, wantOK && len(want) == 0, isEmptyArray(text))
	})
}

// FuzzNumber: a number is what encoding/json takes for one.
func FuzzNumber(f *testing.F) {
	for _, text := range []string{"0", "-0", "1.5", "1e9", "1E+2", "01", "+1", ".5", "5.", "1e", "--1", "1_0", "0x1", "Inf", "NaN", "", "-", "1 "} {
		f.Add(text)
	}
	f.Fuzz(func(t *testing.T, text string) {
		var n json.Number
		want := text != "" && (text[0] == '-' || '0' <= text[0] && text[0] <= '9') &&
			json.Valid([]byte(text)) && json.Unmarshal([]byte(text), &n) == nil && n.String() == text
		require.Equal(t, want, isJSONNumber(text))
	})
}
