package fakeaws

import (
	"encoding/base64"
	"fmt"
	"maps"
	"net/url"
	"reflect"
	"slices"
	"strconv"
	"strings"
)

// A formNode is a parameter of the Query protocol: its value, or what is below
// it. X.member.2.Name=v is v below Name, below 2, below member, below X.
type formNode struct {
	value *string
	below map[string]*formNode
}

// decodeForm reads the parameters of an operation into in, a pointer to a
// struct. Lists are X.member.N, maps X.entry.N.key and X.entry.N.value, or Name
// and Value. It refuses names that it does not know.
func decodeForm(operation string, form url.Values, in any) *apiError {
	root := &formNode{}
	for name, values := range form {
		if name == "Action" || name == "Version" || strings.HasPrefix(name, "X-Amz-") {
			continue
		}
		if len(values) != 1 {
			return errValidation.with("the parameter %s is given %d times", name, len(values))
		}
		n := root
		for _, part := range strings.Split(name, ".") {
			if n.below == nil {
				n.below = map[string]*formNode{}
			}
			if n.below[part] == nil {
				n.below[part] = &formNode{}
			}
			n = n.below[part]
		}
		n.value = &values[0]
	}
	if err := root.decode(operation, "", reflect.ValueOf(in).Elem()); err != nil {
		return errValidation.with("%v", err)
	}
	return nil
}

// decode reads a parameter into v. path is where it is, for errors.
func (n *formNode) decode(operation, path string, v reflect.Value) error {
	switch {
	case v.Kind() == reflect.Struct:
		for _, name := range slices.Sorted(maps.Keys(n.below)) {
			k, ok := memberOf(v.Type(), name)
			if !ok {
				return fmt.Errorf("%s has no parameter %s", operation, join(path, name))
			}
			if err := n.below[name].decode(operation, join(path, name), v.Field(k)); err != nil {
				return err
			}
		}
		return nil
	case v.Kind() == reflect.Slice && v.Type().Elem().Kind() != reflect.Uint8:
		members, err := n.numbered("member", path)
		if err != nil {
			return err
		}
		v.Set(reflect.MakeSlice(v.Type(), len(members), len(members)))
		for k, member := range members {
			if err := member.decode(operation, fmt.Sprintf("%s.member.%d", path, k+1), v.Index(k)); err != nil {
				return err
			}
		}
		return nil
	case v.Kind() == reflect.Map:
		entries, err := n.numbered("entry", path)
		if err != nil {
			return err
		}
		v.Set(reflect.MakeMap(v.Type()))
		for k, entry := range entries {
			at := fmt.Sprintf("%s.entry.%d", path, k+1)
			key, value := entry.below["key"], entry.below["value"]
			if key == nil {
				key, value = entry.below["Name"], entry.below["Value"]
			}
			if key == nil || key.value == nil || value == nil || len(entry.below) != 2 {
				return fmt.Errorf("%s must have a name and a value", at)
			}
			element := reflect.New(v.Type().Elem()).Elem()
			if err := value.decode(operation, at+".Value", element); err != nil {
				return err
			}
			v.SetMapIndex(reflect.ValueOf(*key.value), element)
		}
		return nil
	}
	if n.value == nil || n.below != nil {
		return fmt.Errorf("the parameter %s must have one value", path)
	}
	return decodeText(path, *n.value, v)
}

// numbered returns what is below a list or map, in its order: 1, 2, 3 ..
func (n *formNode) numbered(name, path string) ([]*formNode, error) {
	list := n.below[name]
	if n.value != nil && *n.value == "" && n.below == nil {
		return nil, nil // how SDKs write an empty list
	}
	if n.value != nil || list == nil || len(n.below) != 1 || list.value != nil {
		return nil, fmt.Errorf("the parameter %s must be %s.%s.N", path, path, name)
	}
	members := make([]*formNode, len(list.below))
	for k := range members {
		if members[k] = list.below[strconv.Itoa(k+1)]; members[k] == nil {
			return nil, fmt.Errorf("the parameter %s.%s is not numbered from 1 to %d", path, name, len(members))
		}
	}
	return members, nil
}

func decodeText(path, text string, v reflect.Value) error {
	wrong := fmt.Errorf("the parameter %s has a value of the wrong type: %q", path, text)
	switch v.Kind() {
	case reflect.Pointer:
		v.Set(reflect.New(v.Type().Elem()))
		return decodeText(path, text, v.Elem())
	case reflect.String:
		v.SetString(text)
	case reflect.Bool:
		b, err := strconv.ParseBool(text)
		if err != nil {
			return wrong
		}
		v.SetBool(b)
	case reflect.Slice: // bytes
		b, err := base64.StdEncoding.DecodeString(text)
		if err != nil {
			return wrong
		}
		v.SetBytes(b)
	default:
		return wrong
	}
	return nil
}

// encodeXML writes a value as the Query protocol has it: fields by name, lists
// as <member>, maps as <entry>. What is empty is left out, as SNS does.
func encodeXML(b *strings.Builder, v reflect.Value) {
	switch v.Kind() {
	case reflect.Pointer:
		if !v.IsNil() {
			encodeXML(b, v.Elem())
		}
	case reflect.Struct:
		for k := range v.NumField() {
			f := v.Field(k)
			if f.IsZero() && f.Kind() != reflect.Bool {
				continue
			}
			name := v.Type().Field(k).Name
			b.WriteString("<" + name + ">")
			encodeXML(b, f)
			b.WriteString("</" + name + ">")
		}
	case reflect.Slice:
		for k := range v.Len() {
			b.WriteString("<member>")
			encodeXML(b, v.Index(k))
			b.WriteString("</member>")
		}
	case reflect.Map:
		keys := v.MapKeys()
		slices.SortFunc(keys, func(x, y reflect.Value) int { return strings.Compare(x.String(), y.String()) })
		for _, key := range keys {
			b.WriteString("<entry><key>" + escapeXML(key.String()) + "</key><value>")
			encodeXML(b, v.MapIndex(key))
			b.WriteString("</value></entry>")
		}
	default:
		b.WriteString(escapeXML(fmt.Sprint(v.Interface())))
	}
}
