package admission

import (
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/gofanout/fanout/internal/message"
)

func TestSettingAnAttributeAllocatesAtMostTheMap(t *testing.T) {
	one := func(x *message.Extra) *offered[int] { return &offered[int]{items: []message.Item[int]{{Ext: x}}} }
	const runs = 100
	var empty, full [runs + 1]*offered[int]
	for k := range empty {
		empty[k] = one(&message.Extra{ID: "a"})
		full[k] = one(&message.Extra{ID: "a", Attributes: map[string]string{"a": "1"}})
	}
	set := func(os []*offered[int]) float64 {
		n := 0
		return testing.AllocsPerRun(runs, func() {
			i := os[n].info("t").About
			if !i.Set(0, "traceparent", "x") || i.Set(0, "traceparent", "y") {
				panic("set wrongly")
			}
			n++
		})
	}
	var m map[string]string
	aMap := testing.AllocsPerRun(runs, func() { m = make(map[string]string); m["a"] = "1" })
	require.NotNil(t, m)
	require.Equal(t, aMap, set(empty[:]))
	require.Zero(t, set(full[:]))
}
