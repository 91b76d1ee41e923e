package jsontype

import (
	"encoding/json"
	"math/big"
	"reflect"
	"sync"
	"sync/atomic"
	"testing"
	"time"
	"unsafe"

	"github.com/stretchr/testify/require"
)

//lint:file-ignore U1000,SA5008 these types are only looked at by reflection

type (
	method interface{ Pay() }
	card   struct{ Number string }
	nested struct {
		ID    string
		Lines []struct{ By map[string]*method }
	}
	tree struct {
		Children []*tree
		Leaf     func()
	}
	list struct {
		Next  *list
		Value any
	}
	secret   struct{ number string }
	holder   struct{ Secret secret }
	promoted struct {
		secret
		locked
		ID string
	}
	locked   struct{ sync.Mutex }
	deep     struct{ embedded }
	embedded struct{ Method method }
	left     struct {
		ID   string
		Done chan int `json:"-"`
		hook func()
	}
	dash struct {
		Done chan int `json:"-,"`
	}
	tagged struct{ value complex128 }
	keyed  struct{ By map[[2]int]string }
	// What is behind a field that is left out, and behind embedded structs.
	behind struct {
		Left chan int `json:"-"`
		Leaf func()
	}
	pointed struct{ *embedded }
	inPair  struct {
		plain
		Leaf func()
	}
	first struct {
		embedded
		ID string
	}
	plain struct{ ID string }
	self  struct {
		*self
		ID string
	}
	selfLeaf struct {
		*selfLeaf
		Leaf func()
	}
	empties struct{ a, b struct{} }
	numbers struct {
		A map[int]bool
		B map[uintptr]bool
		C map[int64]bool
		D map[string]bool
	}
	oneByte struct{ secret byte }
	own     struct{ ByTime map[time.Time]big.Int }
)

func (card) Pay()                            {}
func (tagged) MarshalJSON() ([]byte, error)  { return []byte(`"1i"`), nil }
func (*tagged) UnmarshalJSON(b []byte) error { return nil }

func TestWhatJSONCannotBringBackIsNamed(t *testing.T) {
	_ = secret{}.number
	_ = left{}.hook
	for name, row := range map[string]struct {
		of   reflect.Type
		says []string // none: JSON can bring it back
	}{
		"an interface":                     {reflect.TypeFor[method](), []string{"jsontype.method", "interface"}},
		"error":                            {reflect.TypeFor[error](), []string{"interface error"}},
		"an interface with JSON":           {reflect.TypeFor[json.Unmarshaler](), []string{"interface json.Unmarshaler"}},
		"a func":                           {reflect.TypeFor[func()](), []string{"func"}},
		"a chan":                           {reflect.TypeFor[chan int](), []string{"chan"}},
		"a complex":                        {reflect.TypeFor[complex64](), []string{"complex64"}},
		"an unsafe pointer":                {reflect.TypeFor[unsafe.Pointer](), []string{"unsafe.Pointer"}},
		"a pointer to a slice of funcs":    {reflect.TypeFor[*[]func()](), []string{"*[]func()[], "}},
		"nested":                           {reflect.TypeFor[nested](), []string{"jsontype.nested.Lines[].By[]", "interface jsontype.method"}},
		"recursive":                        {reflect.TypeFor[*tree](), []string{"tree.Leaf", "func"}},
		"embedded":                         {reflect.TypeFor[deep](), []string{"deep.Method"}},
		"a name that is a dash":            {reflect.TypeFor[dash](), []string{"dash.Done"}},
		"a struct without exported fields": {reflect.TypeFor[secret](), []string{"jsontype.secret", "without exported fields"}},
		"one in a field":                   {reflect.TypeFor[holder](), []string{"holder.Secret", "without exported fields"}},
		"an atomic":                        {reflect.TypeFor[atomic.Int64](), []string{"without exported fields"}},
		"behind what is left out":          {reflect.TypeFor[behind](), []string{"behind.Leaf, which is a func"}},
		"embedded by a pointer":            {reflect.TypeFor[pointed](), []string{"pointed.Method, "}},
		"beside an embedded struct":        {reflect.TypeFor[inPair](), []string{"inPair.Leaf, "}},
		"the first of two":                 {reflect.TypeFor[first](), []string{"first.Method, "}},
		"embedded in itself":               {reflect.TypeFor[selfLeaf](), []string{"selfLeaf.Leaf, "}},
		"a byte that is not exported":      {reflect.TypeFor[oneByte](), []string{"jsontype.oneByte", "without exported fields"}},
		"keys that are floats":             {reflect.TypeFor[map[float64]int](), []string{"keys of type float64"}},
		"keys that are bools":              {reflect.TypeFor[map[bool]int](), []string{"keys of type bool"}},
		"keys":                             {reflect.TypeFor[keyed](), []string{"keyed.By", "[2]int"}},

		"itself":                           {reflect.TypeFor[self](), nil},
		"nothing in it":                    {reflect.TypeFor[empties](), nil},
		"keys of all kinds":                {reflect.TypeFor[numbers](), nil},
		"any":                              {reflect.TypeFor[any](), nil},
		"struct{}":                         {reflect.TypeFor[struct{}](), nil},
		"a string":                         {reflect.TypeFor[string](), nil},
		"bytes":                            {reflect.TypeFor[[]byte](), nil},
		"recursive, with any":              {reflect.TypeFor[list](), nil},
		"its own methods":                  {reflect.TypeFor[tagged](), nil},
		"methods of what it points to":     {reflect.TypeFor[*tagged](), nil},
		"text methods, in a key and field": {reflect.TypeFor[own](), nil},
		"time":                             {reflect.TypeFor[time.Time](), nil},
		"left out":                         {reflect.TypeFor[left](), nil},
		"embedded without fields":          {reflect.TypeFor[*promoted](), nil},
		"map[string]any":                   {reflect.TypeFor[map[string]any](), nil},
		"numbers as keys":                  {reflect.TypeFor[map[uint8]int](), nil},
	} {
		t.Run(name, func(t *testing.T) {
			path, why := Unreadable(row.of)
			if row.says == nil {
				require.Empty(t, path+why)
				return
			}
			for _, word := range row.says {
				require.Contains(t, path+", "+why, word)
			}
		})
	}
}
