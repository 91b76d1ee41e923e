package fanoutnats_test

import (
	"bytes"
	"context"
	"errors"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"testing"
	"time"

	"github.com/gofanout/fanout/engine"
	"github.com/gofanout/fanout/engine/fanoutnats/embedded"
	"github.com/stretchr/testify/require"
)

const stored = 300 // messages, of which buried are letters

const buried = 20

// filled makes a directory with messages and letters in it. If it crashed, it is as it
// was while it was open.
func filled(t *testing.T, crashed bool) string {
	t.Helper()
	dir := t.TempDir()
	e, err := embedded.Open(dir)
	require.NoError(t, err)
	top, err := e.OpenTopic(t.Context(), engine.TopicSpec{Name: "payments"})
	require.NoError(t, err)
	q, err := top.OpenQueue(t.Context(), engine.QueueSpec{Name: "q", Visibility: 5 * time.Second})
	require.NoError(t, err)
	for range stored / 100 {
		require.NoError(t, top.Publish(t.Context(), messages(100)))
	}
	for _, r := range receive(t, q, buried, 0) {
		require.NoError(t, q.DeadLetter(t.Context(), r.Receipt, r.Message))
	}
	was := dir
	if crashed {
		dir = t.TempDir()
		// Consumers write what they have delivered a little later.
		require.Eventually(t, func() bool {
			_, err := os.Stat(filepath.Join(was, consumer, "o.dat"))
			return err == nil
		}, patience, 20*time.Millisecond)
		// The server goes on: what is listed under a temporary name can have its own by then.
		err := os.CopyFS(dir, os.DirFS(was))
		for errors.Is(err, fs.ErrNotExist) {
			dir = t.TempDir()
			err = os.CopyFS(dir, os.DirFS(was))
		}
		require.NoError(t, err)
	}
	require.NoError(t, e.Close())
	return dir
}

const (
	stream   = "jetstream/$G/streams/fanout-messages-payments"
	letters  = "jetstream/$G/streams/fanout-dead-payments"
	consumer = stream + "/obs/q"
)

// flip turns 64 bytes round, at the given part of the file.
func flip(part float64) func(b []byte) []byte {
	return func(b []byte) []byte {
		from := min(int(part*float64(len(b))), max(len(b)-64, 0))
		for k := from; k < min(from+64, len(b)); k++ {
			b[k] ^= 0xff
		}
		return b
	}
}

func cut(to int) func(b []byte) []byte { return func(b []byte) []byte { return b[:to] } }

// files returns all files of dir with what is in them, but for the lock.
func files(t *testing.T, dir string) map[string]string {
	t.Helper()
	all := map[string]string{}
	require.NoError(t, filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() || d.Name() == "lock" {
			return err
		}
		data, err := os.ReadFile(path)
		all[path] = string(data)
		return err
	}))
	return all
}

// What is damaged is said by Open, which changes nothing, and what can be read can be
// kept.
func TestADamagedFileIsSaidAndWhatCanBeReadIsKept(t *testing.T) {
	t.Parallel()
	const both, closed = 2, 1
	for name, row := range map[string]struct {
		file    string
		harm    func(b []byte) []byte // nil removes it
		when    int
		want    string // in the error; "" for none
		started bool   // the server has seen it
		lost    int    // messages or letters, at most
		dead    bool   // letters
	}{
		"messages":                         {stream + "/msgs/1.blk", flip(0.5), both, `messages lost: up to [12];`, false, 2, false},
		"the first message":                {stream + "/msgs/1.blk", flip(0), both, `from byte 0 on can't be read, messages lost: how many is not known`, false, 0, false},
		"the end":                          {stream + "/msgs/1.blk", flip(1), both, `messages lost: how many is not known`, false, 1, false},
		"letters":                          {letters + "/msgs/1.blk", flip(0.5), both, `messages lost: up to [12];`, false, 2, true},
		"the last letter":                  {letters + "/msgs/1.blk", flip(1), both, `messages lost: how many is not known`, false, 1, true},
		"messages, emptied":                {stream + "/msgs/1.blk", cut(0), closed, `it has 0 bytes, and had \d+ when the directory was closed`, false, stored, false},
		"messages, gone":                   {stream + "/msgs/1.blk", nil, closed, `it is gone, and had \d+ bytes when the directory was closed`, false, stored, false},
		"a consumer's state":               {consumer + "/o.dat", flip(0), both, `the server can't read the state of consumer q of stream fanout-messages-payments; without it messages may come again`, true, 0, false},
		"a consumer's state, cut":          {consumer + "/o.dat", cut(1), both, `messages may come again`, true, 0, false},
		"a consumer's state, gone":         {consumer + "/o.dat", nil, closed, `it is gone, .* messages may come again`, false, 0, false},
		"a consumer's settings":            {consumer + "/meta.inf", flip(0.5), both, `the server can't read the settings of consumer q of stream fanout-messages-payments`, true, 0, false},
		"a stream's settings":              {stream + "/meta.inf", flip(0.5), both, `the server can't read the settings of stream fanout-messages-payments`, true, 0, false},
		"an index":                         {stream + "/msgs/index.db", flip(0.5), closed, "", false, 0, false},
		"an index, gone":                   {stream + "/msgs/index.db", nil, closed, "", false, 0, false},
		"a consumer that was being made":   {consumer + "/meta.sum", nil, 0, "", false, 0, false},
		"a message that was being written": {stream + "/msgs/1.blk", func(b []byte) []byte { return append(b, b[:100]...) }, 0, "", false, 0, false},
		"room for a message":               {stream + "/msgs/1.blk", func(b []byte) []byte { return append(b, make([]byte, 100)...) }, 0, "", false, 0, false},
	} {
		for _, crashed := range []bool{false, true} {
			if crashed && row.when == closed || !crashed && row.when == 0 {
				continue
			}
			t.Run(name+", crashed "+strconv.FormatBool(crashed), func(t *testing.T) {
				t.Parallel()
				dir := filled(t, crashed)
				file := filepath.Join(dir, row.file)
				whole, err := os.ReadFile(file)
				require.NoError(t, err)
				if row.harm == nil {
					require.NoError(t, os.Remove(file))
				} else {
					require.NoError(t, os.WriteFile(file, row.harm(bytes.Clone(whole)), 0o600))
				}
				var log bytes.Buffer
				with := []embedded.Option{embedded.WithLogger(slog.New(slog.NewTextHandler(&log, &slog.HandlerOptions{Level: slog.LevelWarn})))}
				if row.want != "" {
					before := files(t, dir)
					for range 2 {
						_, err = embedded.Open(dir, with...)
						require.ErrorIs(t, err, embedded.ErrDamaged)
						require.ErrorContains(t, err, row.file)
						require.Regexp(t, row.want, err.Error())
						require.ErrorContains(t, err, "embedded.WithSalvage")
					}
					if !row.started || !crashed && row.harm != nil && len(row.harm(bytes.Clone(whole))) != len(whole) {
						require.Equal(t, before, files(t, dir))
					}
					with = append(with, embedded.WithSalvage())
				}

				e, err := embedded.Open(dir, with...)
				require.NoError(t, err)
				if row.want != "" {
					require.Contains(t, log.String(), "a damaged file: "+row.file)
					if row.harm != nil {
						kept, err := filepath.Glob(filepath.Join(dir, "damaged", "*", row.file))
						require.NoError(t, err)
						require.NotEmpty(t, kept, "a copy is put aside")
					}
				}
				top, err := e.OpenTopic(t.Context(), engine.TopicSpec{Name: "payments"})
				require.NoError(t, err)
				q, err := top.OpenQueue(t.Context(), engine.QueueSpec{Name: "q", Visibility: 5 * time.Second})
				require.NoError(t, err)
				left, dead := received(t, q), received(t, q.DeadLetters())
				if row.dead {
					require.Equal(t, stored-buried, left)
					require.GreaterOrEqual(t, dead, buried-row.lost)
					require.Less(t, dead, buried)
				} else {
					require.Equal(t, buried, dead)
					require.GreaterOrEqual(t, left, stored-buried-row.lost)
					require.LessOrEqual(t, left, stored)
				}
				// It goes on.
				require.NoError(t, top.Publish(t.Context(), messages(3)))
				r := receiveOne(t, q, 0)
				require.NoError(t, q.DeadLetter(t.Context(), r.Receipt, r.Message))
				require.Equal(t, 2, received(t, q))
				require.Equal(t, 1, received(t, q.DeadLetters()))
				require.NoError(t, q.Close())
				require.NoError(t, top.Close())
				require.NoError(t, e.Close())
				e, err = embedded.Open(dir)
				require.NoError(t, err, "it is whole again")
				require.NoError(t, e.Close())
			})
		}
	}
}

// A message that can't be read any more was the last one, and a queue has made a letter of
// it: what comes next must not take its place, or its letter would be a duplicate.
func TestSequencesGoOnWhereTheLastMessageIsLost(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	open := func(options ...embedded.Option) (*embedded.Engine, engine.Topic, []engine.Queue) {
		e, err := embedded.Open(dir, options...)
		require.NoError(t, err)
		top, err := e.OpenTopic(t.Context(), engine.TopicSpec{Name: "payments"})
		require.NoError(t, err)
		var qs []engine.Queue
		for _, name := range []string{"q", "other"} {
			q, err := top.OpenQueue(t.Context(), engine.QueueSpec{Name: name})
			require.NoError(t, err)
			qs = append(qs, q)
		}
		return e, top, qs
	}
	e, top, qs := open()
	require.NoError(t, top.Publish(t.Context(), messages(10)))
	bury := func(n int) {
		for _, r := range receive(t, qs[0], n, 0) {
			require.NoError(t, qs[0].DeadLetter(t.Context(), r.Receipt, r.Message))
		}
	}
	bury(10)
	require.NoError(t, e.Close())
	file := filepath.Join(dir, stream, "msgs/1.blk")
	b, err := os.ReadFile(file)
	require.NoError(t, err)
	require.NoError(t, os.WriteFile(file, flip(1)(b), 0o600))

	e, top, qs = open(embedded.WithSalvage())
	require.NoError(t, top.Publish(t.Context(), messages(2)))
	bury(2)
	require.Equal(t, 10+2, received(t, qs[0].DeadLetters()))
	require.Equal(t, 9+2, received(t, qs[1]))
	require.NoError(t, e.Close())
}

// received receives and acknowledges all that q has, and says how much that was.
func received(t *testing.T, q engine.Queue) (n int) {
	t.Helper()
	for total(t, q) > 0 {
		ctx, cancel := context.WithTimeout(t.Context(), patience)
		rs, err := q.Receive(ctx, 100, 0)
		cancel()
		require.NoError(t, err)
		for _, r := range rs {
			require.Regexp(t, regexp.MustCompile(`^body-\d+$`), string(r.Body))
			require.NoError(t, q.Ack(t.Context(), r.Receipt))
			n++
		}
	}
	return n
}
