// Package jsontype tells which types of Go JSON can't bring back: what is written of
// their values can't be read again, or comes back empty. It looks at the type alone, and
// has no state.
package jsontype

import (
	"encoding"
	"encoding/json"
	"fmt"
	"reflect"
)

// ownMethods are those by which a type says itself how it is encoded or decoded.
var ownMethods = []reflect.Type{
	reflect.TypeFor[json.Marshaler](), reflect.TypeFor[json.Unmarshaler](),
	reflect.TypeFor[encoding.TextMarshaler](), reflect.TypeFor[encoding.TextUnmarshaler](),
}

func hasOwnMethods(t reflect.Type) bool {
	for _, m := range ownMethods {
		if t.Implements(m) || reflect.PointerTo(t).Implements(m) {
			return true
		}
	}
	return false
}

// Unreadable returns the path to a part of t that JSON can't bring back, and why, or
// nothing if it can. The path begins with t.
func Unreadable(t reflect.Type) (path, why string) {
	return unreadable(t, t.String(), map[reflect.Type]bool{})
}

// unreadable looks at t, which is at path. What is in seen was looked at, or is being
// looked at.
func unreadable(t reflect.Type, path string, seen map[reflect.Type]bool) (where, why string) {
	if seen[t] {
		return "", ""
	}
	seen[t] = true
	switch kind := t.Kind(); {
	case kind == reflect.Interface && t.NumMethod() == 0:
		return "", ""
	case kind == reflect.Interface: // whatever its methods are, there is no value to call them on
		return path, fmt.Sprintf("which is the interface %v: it does not say of which type the value was", t)
	case hasOwnMethods(t):
		return "", ""
	}
	switch t.Kind() {
	case reflect.Func, reflect.Chan, reflect.Complex64, reflect.Complex128, reflect.UnsafePointer:
		return path, fmt.Sprintf("which is a %v", t.Kind())
	case reflect.Pointer:
		return unreadable(t.Elem(), path, seen)
	case reflect.Slice, reflect.Array:
		return unreadable(t.Elem(), path+"[]", seen)
	case reflect.Map:
		if key := t.Key(); !hasOwnMethods(key) && !isKey(key.Kind()) {
			return path, fmt.Sprintf("which is a map with keys of type %v: JSON has strings and numbers", key)
		}
		return unreadable(t.Elem(), path+"[]", seen)
	case reflect.Struct:
		return unreadableStruct(t, path, seen)
	}
	return "", ""
}

func isKey(k reflect.Kind) bool {
	return k == reflect.String || reflect.Int <= k && k <= reflect.Uintptr
}

func unreadableStruct(t reflect.Type, path string, seen map[reflect.Type]bool) (where, why string) {
	exported, size := false, uintptr(0)
	for f := range fields(t) {
		size += f.Type.Size()
		if !f.IsExported() {
			continue
		}
		exported = true
		if f.Tag.Get("json") == "-" {
			continue
		}
		if where, why = unreadable(f.Type, path+"."+f.Name, seen); why != "" {
			return where, why
		}
	}
	if !exported && size > 0 {
		return path, fmt.Sprintf("which is the struct %v without exported fields: it would come back empty", t)
	}
	return "", ""
}

// fields yields the fields of a struct, with those of embedded structs in their place, as
// package json sees them.
func fields(t reflect.Type) func(yield func(reflect.StructField) bool) {
	return func(yield func(reflect.StructField) bool) { yieldFields(t, yield, map[reflect.Type]bool{}) }
}

func yieldFields(t reflect.Type, yield func(reflect.StructField) bool, within map[reflect.Type]bool) bool {
	if within[t] {
		return true
	}
	within[t] = true
	for k := range t.NumField() {
		f := t.Field(k)
		embedded := f.Type
		if embedded.Kind() == reflect.Pointer {
			embedded = embedded.Elem()
		}
		var more bool
		if f.Anonymous && embedded.Kind() == reflect.Struct && f.Tag.Get("json") == "" && !hasOwnMethods(embedded) {
			more = yieldFields(embedded, yield, within)
		} else {
			more = yield(f)
		}
		if !more {
			return false
		}
	}
	return true
}
