package main

import (
	"bytes"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/nats-io/nats-server/v2/server"
	"github.com/stretchr/testify/require"

	"github.com/gofanout/fanout/examples/checkout/program"
)

// run runs the program, whose books have to balance with every order settled.
func run(t *testing.T, args ...string) string {
	t.Helper()
	var out bytes.Buffer
	require.NoError(t, program.Run(t.Context(), new(place).where(), args, &out), &out)
	for _, service := range []string{"inventory", "shipping"} {
		require.Regexp(t, service+` +40 = +40 \+ +0 \+ +0   balanced`, out.String())
	}
	return out.String()
}

func TestTheBooksBalanceInADirectoryThatIsGoneAfterwards(t *testing.T) {
	tmp := t.TempDir()
	t.Setenv("TMPDIR", tmp)
	out := run(t, "-speed", "10", "-failure", "0.3")
	require.Regexp(t, `inventory: redrove [1-9]\d* of`, out)
	left, err := os.ReadDir(tmp)
	require.NoError(t, err)
	require.Empty(t, left)
}

func TestADirectoryStaysIfItIsGiven(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "queues")
	run(t, "-dir", dir, "-sync", "1m", "-speed", "100")
	require.DirExists(t, dir)
	require.NotContains(t, run(t, "-dir", dir, "-sync", "1m", "-speed", "100"), "an earlier run", "nothing was left")
}

func TestTheBooksBalanceOnAServer(t *testing.T) {
	s, err := server.NewServer(&server.Options{
		Host: "127.0.0.1", Port: server.RANDOM_PORT, JetStream: true, StoreDir: t.TempDir(), NoSigs: true, NoLog: true,
	})
	require.NoError(t, err)
	s.Start()
	t.Cleanup(func() { s.Shutdown(); s.WaitForShutdown() })
	require.True(t, s.ReadyForConnections(20*time.Second))
	run(t, "-url", s.ClientURL(), "-speed", "10")
}

func TestPlacesThatExcludeEachOther(t *testing.T) {
	err := program.Run(t.Context(), new(place).where(), []string{"-url", "nats://127.0.0.1:1", "-dir", "x"}, &bytes.Buffer{})
	require.EqualError(t, err, "-url excludes -dir and -sync, which are of the server within")
}
