// Attributes have the same rules in memory and on engines.

package engines_test

import (
	"strconv"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/gofanout/fanout"
	"github.com/gofanout/fanout/internal/fakeengine"
)

// TestAttributesHaveNamesAndAreUTF8: in memory as on engines. Values may be empty.
func TestAttributesHaveNamesAndAreUTF8(t *testing.T) {
	memory, err := fanout.NewTopic[string]("payments", quiet)
	require.NoError(t, err)
	for _, top := range []*fanout.Topic[string]{memory, onEngine(t, fakeengine.New(fakeengine.Config{}))} {
		q := engineQueue(t, top)
		for _, c := range []struct{ name, value, says string }{
			{"", "eu", `"eu"`}, {"a\xff", "1", strconv.Quote("a\xff")}, {"region", "e\xffu", `"region"`},
		} {
			err := top.PublishMessages(t.Context(), fanout.Message[string]{Body: "good"},
				fanout.Message[string]{Body: "bad", Attributes: map[string]string{c.name: c.value}})
			require.ErrorIs(t, err, fanout.ErrInvalidMessage)
			require.ErrorContains(t, err, "message 1")
			require.ErrorContains(t, err, c.says)
		}
		require.NoError(t, top.PublishMessages(t.Context(), fanout.Message[string]{Body: "a", Attributes: map[string]string{"größe": ""}}))
		d := next(t, q)
		require.Equal(t, "a", d.Body)
		value, ok := d.Attribute("größe")
		require.True(t, ok)
		require.Empty(t, value)
		require.NoError(t, d.Ack(t.Context()))
		endTopic(t, top)
	}
}
