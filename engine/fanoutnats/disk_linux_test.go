package fanoutnats_test

import (
	"os"
	"path/filepath"
	"syscall"
	"testing"
	"time"

	"github.com/gofanout/fanout/engine"
	"github.com/gofanout/fanout/engine/fanoutnats"
	"github.com/gofanout/fanout/engine/fanoutnats/embedded"
	"github.com/stretchr/testify/require"
)

// large is a message of 64 KiB.
func large() []engine.Message {
	m := message(0)
	m.Body = make([]byte, 64<<10)
	return []engine.Message{m}
}

// A full disk is named by the publish that it fails, and nothing confirmed is lost.
func TestAFullDiskIsSaid(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	if err := syscall.Mount("tmpfs", dir, "tmpfs", 0, "size=16m"); err != nil {
		t.Log("not part of this run: no file system of its own can be mounted: ", err)
		return
	}
	t.Cleanup(func() { require.NoError(t, syscall.Unmount(dir, 0)) })
	files, ballast := filepath.Join(dir, "files"), filepath.Join(dir, "ballast")
	// Without a limit of its own, and a timeout that is longer than the test may take.
	open := func() (*embedded.Engine, engine.Topic, engine.Queue) {
		e, err := embedded.Open(files, embedded.WithMaxStore(1<<30), embedded.WithEngine(fanoutnats.WithTimeout(time.Minute)))
		require.NoError(t, err)
		top, err := e.OpenTopic(t.Context(), engine.TopicSpec{Name: "payments"})
		require.NoError(t, err)
		q, err := top.OpenQueue(t.Context(), engine.QueueSpec{Name: "q"})
		require.NoError(t, err)
		return e, top, q
	}
	e, top, q := open()
	require.NoError(t, os.WriteFile(ballast, make([]byte, 10<<20), 0o600))
	n := 0
	var err error
	for err == nil {
		if err = top.Publish(t.Context(), large()); err == nil {
			n++
		}
	}
	for range 2 {
		require.ErrorIs(t, err, syscall.ENOSPC)
		require.ErrorContains(t, err, "no space left on device")
		require.ErrorContains(t, err, files)
		require.ErrorIs(t, err, engine.ErrUnconfirmed)
		err = top.Publish(t.Context(), large())
	}
	require.NoError(t, q.Close())
	require.NoError(t, top.Close())
	require.NoError(t, e.Close())

	require.NoError(t, os.Remove(ballast))
	e, top, q = open()
	require.GreaterOrEqual(t, total(t, q), n)
	require.NoError(t, top.Publish(t.Context(), large()))
	require.NoError(t, q.Close())
	require.NoError(t, top.Close())
	require.NoError(t, e.Close())
}

// The limit of a store is a full queue, as others are.
func TestAFullStoreRefusesAPublishWithErrFull(t *testing.T) {
	t.Parallel()
	top := openTopic(t, openEmbedded(t, t.TempDir(), embedded.WithMaxStore(1<<20)), engine.TopicSpec{Name: "payments"})
	q := openQueue(t, top, engine.QueueSpec{Name: "q"})
	n := 0
	var err error
	for err == nil && n < 100 {
		if err = top.Publish(t.Context(), large()); err == nil {
			n++
		}
	}
	require.ErrorIs(t, err, engine.ErrFull)
	require.NotErrorIs(t, err, engine.ErrUnconfirmed)
	require.Equal(t, n, total(t, q))
	for _, r := range receive(t, q, n, 0) {
		require.NoError(t, q.Ack(t.Context(), r.Receipt))
	}
	require.NoError(t, top.Publish(t.Context(), large()))
}
