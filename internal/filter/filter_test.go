package filter

import (
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/gofanout/fanout/internal/message"
	"github.com/gofanout/fanout/internal/policy"
)

func TestAMessageIsAcceptedIfEachFilterAcceptsIt(t *testing.T) {
	colour, err := policy.Parse(`{"colour":["red"]}`)
	require.NoError(t, err)
	even := Filter[int]{Body: func(n int) bool { return n%2 == 0 }}
	red := Filter[int]{Policy: colour}
	keyed := Filter[int]{Message: func(m *message.Published[int]) bool { return m.OrderingKey == "k" && m.ID == "id" && m.Body > 0 }}
	item := func(n int, colour, key string) *message.Item[int] {
		return &message.Item[int]{Body: n, Ext: &message.Extra{ID: "id", Key: key, Attributes: map[string]string{"colour": colour}}}
	}
	for _, row := range []struct {
		name    string
		filters []Filter[int]
		it      *message.Item[int]
		want    bool
	}{
		{"none", nil, item(1, "", ""), true},
		{"a body", []Filter[int]{even}, item(2, "", ""), true},
		{"another body", []Filter[int]{even}, item(1, "", ""), false},
		{"attributes", []Filter[int]{red}, item(1, "red", ""), true},
		{"other attributes", []Filter[int]{red}, item(1, "blue", ""), false},
		{"no attributes", []Filter[int]{red}, &message.Item[int]{Body: 1}, false},
		{"a key", []Filter[int]{keyed}, item(1, "", "k"), true},
		{"no key", []Filter[int]{keyed}, item(1, "", ""), false},
		{"nothing but a body", []Filter[int]{keyed}, &message.Item[int]{Body: 1}, false},
		{"all", []Filter[int]{even, red, keyed}, item(2, "red", "k"), true},
		{"all but the first", []Filter[int]{even, red, keyed}, item(1, "red", "k"), false},
		{"all but the last", []Filter[int]{even, red, keyed}, item(2, "red", "j"), false},
	} {
		require.Equal(t, row.want, New(row.filters).Accepts(row.it), row.name)
		require.Equal(t, row.want, Accept(row.filters, row.it, new(Seen[int])), row.name)
	}
}

// Nothing of a message is copied again for the second filter that looks at it.
func TestAMessageThatWasMadeIsNotMadeAgain(t *testing.T) {
	made := 0
	f := Filter[int]{Message: func(m *message.Published[int]) bool {
		if made++; made == 2 {
			require.Equal(t, 100, m.Body, "it is the same one")
		}
		m.Body = 100
		return true
	}}
	var s Seen[int]
	require.True(t, Accept([]Filter[int]{f, f}, &message.Item[int]{Body: 1, Ext: &message.Extra{ID: "a"}}, &s))
	require.Equal(t, 2, made)
	require.True(t, s.Made)
}

func TestTheOnlyFilterOfBodiesIsFoundAtOnce(t *testing.T) {
	require.Nil(t, New[int](nil))
	even := Filter[int]{Body: func(n int) bool { return n%2 == 0 }}
	require.NotNil(t, New([]Filter[int]{even}).Body)
	require.Nil(t, New([]Filter[int]{even, even}).Body)
}

func TestAMessageIsMadeOnceForAllThatWantToSeeIt(t *testing.T) {
	var met []*message.Published[int]
	see := Filter[int]{Message: func(m *message.Published[int]) bool { met = append(met, m); return true }}
	var s Seen[int]
	it := &message.Item[int]{Body: 7}
	require.True(t, Accept([]Filter[int]{see, see}, it, &s))
	require.True(t, Accept([]Filter[int]{see}, it, &s))
	require.Len(t, met, 3)
	require.Same(t, met[0], met[1])
	require.Same(t, met[0], met[2])
	require.Equal(t, message.Published[int]{Body: 7}, *met[0])
	s = Seen[int]{}
	require.True(t, Accept([]Filter[int]{{Body: func(int) bool { return true }}}, it, &s))
	require.False(t, s.Made, "nobody wanted to see it")
}
