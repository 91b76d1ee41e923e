package fanoutnats_test

import (
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"

	"github.com/gofanout/fanout/engine"
	"github.com/gofanout/fanout/engine/fanoutnats"
	"github.com/gofanout/fanout/engine/fanoutnats/embedded"
	"github.com/nats-io/nats.go/jetstream"
	"github.com/stretchr/testify/require"
)

// Limits of a topic that exists are raised, and neither lowered nor imposed.
func TestTheLimitsOfATopicThatExistsAreCompared(t *testing.T) {
	t.Parallel()
	e := fast(t)
	spec := engine.TopicSpec{Name: "payments"}
	open := func(o ...fanoutnats.Option) error {
		_, err := on(t, e, o...).OpenTopic(t.Context(), spec)
		return err
	}
	limits := func() []int64 {
		js, err := jetstream.New(e.Conn())
		require.NoError(t, err)
		s, err := js.Stream(t.Context(), "fanout-messages-"+spec.Name)
		require.NoError(t, err)
		return []int64{s.CachedInfo().Config.MaxMsgs, s.CachedInfo().Config.MaxBytes}
	}
	require.NoError(t, open(fanoutnats.WithMaxMessages(10), fanoutnats.WithMaxBytes(10_000)))
	for _, row := range []struct {
		option fanoutnats.Option
		want   string
	}{
		{fanoutnats.WithMaxMessages(3), "maximum of messages 10, want 3"}, {fanoutnats.WithMaxBytes(3000), "maximum of bytes 10000, want 3000"},
	} {
		err := open(row.option)
		require.ErrorIs(t, err, engine.ErrMismatch)
		require.ErrorContains(t, err, row.want)
	}
	require.NoError(t, open())
	require.NoError(t, open(fanoutnats.WithMaxMessages(10), fanoutnats.WithMaxBytes(10_000)))
	require.Equal(t, []int64{10, 10_000}, limits())
	require.NoError(t, open(fanoutnats.WithMaxMessages(20)))
	require.Equal(t, []int64{20, 10_000}, limits())
	require.NoError(t, open(fanoutnats.WithMaxBytes(20_000)))
	require.Equal(t, []int64{20, 20_000}, limits())

	spec.Name = "unlimited"
	require.NoError(t, open())
	for _, o := range []fanoutnats.Option{fanoutnats.WithMaxMessages(3), fanoutnats.WithMaxBytes(3000)} {
		err := open(o)
		require.ErrorIs(t, err, engine.ErrMismatch)
		require.ErrorContains(t, err, "unlimited, want 3")
	}
	require.Equal(t, []int64{-1, -1}, limits())

	// Somebody has let the stream drop what is old instead.
	js, err := jetstream.New(e.Conn())
	require.NoError(t, err)
	s, err := js.Stream(t.Context(), "fanout-messages-unlimited")
	require.NoError(t, err)
	c := s.CachedInfo().Config
	c.Discard, c.AllowMsgSchedules = jetstream.DiscardOld, false
	_, err = js.UpdateStream(t.Context(), c)
	require.NoError(t, err)
	err = open()
	require.ErrorIs(t, err, engine.ErrMismatch)
	require.ErrorContains(t, err, "discard policy")
}

// childOpener opens the directory that it is given, as somebody who is not root, and
// says how that ended.
func childOpener() {
	if os.Geteuid() == 0 {
		check(syscall.Setuid(nobody))
	}
	dir, err := strconv.Unquote(os.Getenv(childConfig))
	check(err)
	e, err := embedded.Open(dir)
	fmt.Println(err)
	if err == nil {
		check(e.Close())
	}
}

// nobody is a user who may do nothing.
const nobody = 65534

// A directory that can't be written is an error in words, whatever in it can't.
func TestADirectoryThatCannotBeWrittenIsSaid(t *testing.T) {
	t.Parallel()
	for _, closed := range []string{".", "jetstream", "jetstream/$G/streams"} {
		t.Run(filepath.Base(closed), func(t *testing.T) {
			t.Parallel()
			dir := t.TempDir()
			e, err := embedded.Open(dir)
			require.NoError(t, err)
			openTopic(t, e, engine.TopicSpec{Name: "payments"})
			require.NoError(t, e.Close())
			if os.Geteuid() == 0 {
				require.NoError(t, filepath.WalkDir(dir, func(path string, _ os.DirEntry, err error) error {
					if err != nil {
						return err
					}
					return os.Chown(path, nobody, nobody)
				}))
				for up := dir; up != filepath.Dir(up) && up != os.TempDir(); up = filepath.Dir(up) {
					require.NoError(t, os.Chmod(up, 0o755))
				}
			}
			require.NoError(t, os.Chmod(filepath.Join(dir, closed), 0o500))
			t.Cleanup(func() { require.NoError(t, os.Chmod(filepath.Join(dir, closed), 0o700)) })
			c := startChild(t, "opener", dir)
			line, err := c.out.ReadString('\n')
			require.NoError(t, err)
			require.NoError(t, c.cmd.Wait())
			if closed == "jetstream/$G/streams" {
				// There is room for topics that exist; a new one says so.
				require.Equal(t, "<nil>\n", line)
				return
			}
			require.True(t, strings.HasPrefix(line, "embedded: open "+dir+": the directory can't be written: "), line)
			require.Contains(t, line, "permission denied")
		})
	}

	// What the server itself finds it says at once, too.
	dir := t.TempDir()
	require.NoError(t, os.WriteFile(filepath.Join(dir, "jetstream"), nil, 0o600))
	_, err := embedded.Open(dir)
	require.ErrorContains(t, err, "not a directory")
}
