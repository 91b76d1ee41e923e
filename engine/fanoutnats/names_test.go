package fanoutnats

import (
	"strings"
	"testing"
	"time"

	"github.com/gofanout/fanout/engine"
	"github.com/nats-io/nats.go"
	"github.com/stretchr/testify/require"
)

func TestDifferentNamesHaveDifferentTokens(t *testing.T) {
	long := strings.Repeat("n", 1000)
	names := []string{"a", "A", "a.b", "a_b", "a_2eb", "a b", "a*", "a>", "ü", "", "\x00", "/", `\`, "__", "_", long, long + "n", long[:119], long[:120], long[:121]}
	seen := map[string]string{}
	for _, name := range names {
		tok := token(name)
		other, twice := seen[tok]
		require.False(t, twice, "%q and %q", name, other)
		seen[tok] = name
		require.LessOrEqual(t, len(tok), maxToken)
		require.NotContains(t, tok, ".")
		require.False(t, strings.ContainsAny(tok, " \t*>/\\"), tok)
	}
	require.Equal(t, "payments-2", token("payments-2"), "a plain name stays readable")
}

func TestAMessageThatDoesNotFitIsRefused(t *testing.T) {
	_, err := encode("s", engine.Message{ID: "a", Body: make([]byte, 1000)}, 1000)
	require.ErrorIs(t, err, engine.ErrTooLarge)
	_, err = encode("s", engine.Message{ID: "a", Body: make([]byte, 500), State: make([]byte, 500)}, 1000)
	require.ErrorIs(t, err, engine.ErrTooLarge)
	_, err = encode("s", engine.Message{ID: "a", Body: make([]byte, 500)}, 1000)
	require.NoError(t, err)
	_, err = encode("s", engine.Message{ID: strings.Repeat("ü", 20_000)}, 1<<20)
	require.ErrorIs(t, err, engine.ErrTooLarge, "120,000 bytes of header")
}

func TestHeadersThatMakeNoSenseAreAsIfTheyWereNotThere(t *testing.T) {
	meta := &nats.MsgMetadata{Stream: "s", Timestamp: time.Unix(7, 0)}
	meta.Sequence.Stream = 3
	m := decode(&nats.Msg{Data: []byte("body"), Header: nats.Header{
		headerStateLength: {"5"}, headerDelay: {"soon"}, headerAttributes: {"%zz"}, headerContentType: {"%zz"},
	}}, meta)
	require.Equal(t, engine.Message{ID: "s-3", Body: []byte("body"), ContentType: "%zz", PublishedAt: time.Unix(7, 0)}, m)
}

func TestOptionsThatMakeNoSenseAreRefused(t *testing.T) {
	for name, o := range map[string]Option{
		"WithReplicas(0)": WithReplicas(0), "WithReplicas(6)": WithReplicas(6), `WithPrefix("")`: WithPrefix(""),
		`WithPrefix("a-b")`: WithPrefix("a-b"), `WithPrefix("a.b")`: WithPrefix("a.b"), "WithMaxMessages(0)": WithMaxMessages(0),
		"WithMaxBytes(-1)": WithMaxBytes(-1), "WithTimeout(0s)": WithTimeout(0),
	} {
		require.ErrorContains(t, o(&settings{}), name)
	}
	_, err := New(nil)
	require.Error(t, err)
}
