package fakeaws

import (
	"encoding/base64"
	"encoding/json"
	"errors"
	"strings"
)

func encodeBase64(b []byte) string { return base64.StdEncoding.EncodeToString(b) }

// wants says whether a subscription's filter policy accepts a message. It is
// matched by the core's filter policies, whose attributes are texts: a value is
// handed over as an array of one element, whose JSON type is that of the
// attribute, since there only elements of arrays have one type.
func (s *subscription) wants(n *notification, now instant) bool {
	f := s.filterAt(now)
	if f.policy == nil {
		return true
	}
	attributes := map[string]string{}
	if f.body {
		var body any
		if err := json.Unmarshal([]byte(n.text(s.protocol)), &body); err != nil {
			return false
		}
		object, ok := body.(map[string]any)
		if !ok {
			return false
		}
		leaves := map[string][]any{}
		flattenBody("", object, leaves)
		for path, values := range leaves {
			attributes[path] = arrayOf(values...)
		}
		if len(attributes) == 0 {
			attributes["\x00"] = "x" // without any the core's policies match nothing
		}
		return f.policy.Match(attributes)
	}
	for name, a := range n.attributes {
		switch kind := deref(a.DataType); {
		case kind == "String.Array":
			attributes[name] = deref(a.StringValue)
		case strings.HasPrefix(kind, "Number"):
			attributes[name] = arrayOf(json.Number(deref(a.StringValue)))
		case strings.HasPrefix(kind, "String"):
			attributes[name] = arrayOf(deref(a.StringValue))
		}
	}
	return f.policy.Match(attributes)
}

func arrayOf(values ...any) string {
	text, err := json.Marshal(values)
	if err != nil {
		return "[]"
	}
	return string(text)
}

// pathSeparator stands between the keys of a path in a flattened policy.
const pathSeparator = "."

// flattenBody collects the leaves of a body by their path. Arrays are
// flattened: any element may match.
func flattenBody(path string, value any, leaves map[string][]any) {
	switch v := value.(type) {
	case map[string]any:
		for key, member := range v {
			at := key
			if path != "" {
				at = path + pathSeparator + key
			}
			flattenBody(at, member, leaves)
		}
	case []any:
		for _, element := range v {
			flattenBody(path, element, leaves)
		}
	default:
		leaves[path] = append(leaves[path], v)
	}
}

// flattenPolicy returns a policy on the body as one whose keys are paths.
func flattenPolicy(text string) (string, error) {
	var nested map[string]any
	d := json.NewDecoder(strings.NewReader(text))
	d.UseNumber()
	if err := d.Decode(&nested); err != nil {
		return "", errors.New("failed to parse JSON")
	}
	flat := map[string]any{}
	flattenKeys("", nested, flat)
	out, err := encodeJSON(flat)
	return string(out), err
}

func flattenKeys(path string, nested, flat map[string]any) {
	for key, value := range nested {
		at := key
		if path != "" {
			at = path + pathSeparator + key
		}
		switch v := value.(type) {
		case map[string]any:
			flattenKeys(at, v, flat)
		case []any:
			if key != "$or" {
				flat[at] = v
				continue
			}
			alternatives := make([]any, len(v))
			for k, alternative := range v {
				object, ok := alternative.(map[string]any)
				if !ok {
					alternatives[k] = alternative
					continue
				}
				inner := map[string]any{}
				flattenKeys(path, object, inner)
				alternatives[k] = inner
			}
			flat["$or"] = alternatives
		default:
			flat[at] = v
		}
	}
}
