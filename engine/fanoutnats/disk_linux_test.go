package fanoutnats_test

import (
	"context"
	"errors"
	"log/slog"
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
	dir, ok := small(t, "16m")
	if !ok {
		return
	}
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
	for k := range 2 {
		require.ErrorIs(t, err, syscall.ENOSPC)
		require.ErrorContains(t, err, "no space left on device")
		require.ErrorContains(t, err, files)
		require.Equal(t, k == 0, errors.Is(err, engine.ErrUnconfirmed), "the next one is not sent")
		err = top.Publish(t.Context(), large())
	}
	require.NoError(t, q.Close())
	require.NoError(t, top.Close())
	require.NoError(t, e.Close())

	require.NoError(t, os.Remove(ballast))
	e, top, q = open()
	requireAtLeast(t, n, q)
	require.NoError(t, top.Publish(t.Context(), large()))
	require.NoError(t, q.Close())
	require.NoError(t, top.Close())
	require.NoError(t, e.Close())
}

// small mounts a file system of the given size, and reports whether that can be done.
func small(t *testing.T, size string) (dir string, ok bool) {
	t.Helper()
	dir = t.TempDir()
	if err := syscall.Mount("tmpfs", dir, "tmpfs", 0, "size="+size); err != nil {
		t.Log("not part of this run: no file system of its own can be mounted: ", err)
		return "", false
	}
	t.Cleanup(func() { require.NoError(t, syscall.Unmount(dir, syscall.MNT_DETACH)) }) // the server does not close all files of a batch that failed
	return dir, true
}

// Whatever is written when the disk is full, it says so as long as that lasts; then it
// goes on by itself, with all that was confirmed, leases and letters included.
func TestTheEngineGoesOnWhenThereIsRoomAgain(t *testing.T) {
	t.Parallel()
	dir, ok := small(t, "16m")
	if !ok {
		return
	}
	ballast := filepath.Join(dir, "ballast")
	e := openEmbedded(t, filepath.Join(dir, "files"), embedded.WithMaxStore(1<<30), embedded.WithEngine(fanoutnats.WithTimeout(time.Minute)),
		embedded.WithLogger(slog.New(slog.DiscardHandler)))
	top := openTopic(t, e, engine.TopicSpec{Name: "payments"})
	q, other := openQueue(t, top, engine.QueueSpec{Name: "q"}), openQueue(t, top, engine.QueueSpec{Name: "other"})
	ctx, cancel := context.WithTimeout(t.Context(), 6*patience)
	defer cancel()
	n := 0
	for _, first := range []func(r engine.Received) error{
		func(engine.Received) error { return top.Publish(ctx, large()) },
		func(engine.Received) error { return top.Publish(ctx, append(large(), large()...)) },
		func(engine.Received) error {
			_, err := top.OpenQueue(ctx, engine.QueueSpec{Name: "new"})
			return err
		},
		func(engine.Received) error {
			_, err := e.OpenTopic(ctx, engine.TopicSpec{Name: "new"})
			return err
		},
		func(r engine.Received) error { return q.DeadLetter(ctx, r.Receipt, r.Message) },
		func(r engine.Received) error { return q.Return(ctx, r.Receipt, 0, make([]byte, 60<<10)) },
	} {
		for range 4 {
			require.NoError(t, top.Publish(ctx, large()))
			n++
		}
		rs := receive(t, q, 4, time.Minute)
		waits := make(chan error, 1)
		once, stop := context.WithCancel(ctx)
		go func() { // for what comes next
			rs, err := q.Receive(once, 1, time.Minute)
			for _, r := range rs {
				err = errors.Join(err, q.Return(ctx, r.Receipt, 0, nil))
			}
			waits <- err
		}()
		fill(t, ballast)
		require.ErrorIs(t, first(rs[0]), syscall.ENOSPC)
		for range 3 {
			for _, ms := range [][]engine.Message{large(), messages(1), messages(3)} {
				err := top.Publish(ctx, ms)
				require.ErrorIs(t, err, syscall.ENOSPC)
				require.NotErrorIs(t, err, engine.ErrUnconfirmed, "it is not sent")
			}
		}

		require.NoError(t, os.Remove(ballast))
		require.Eventually(t, func() bool { return top.Publish(ctx, messages(1)) == nil }, 2*patience, 50*time.Millisecond)
		n++
		for _, r := range rs[:2] {
			require.NoError(t, q.Ack(ctx, r.Receipt), "a lease lives on, that of what failed too")
		}
		stop()
		if err := <-waits; !errors.Is(err, context.Canceled) {
			require.NoError(t, err)
		}
		requireAtLeast(t, n, other) // what was not confirmed may be there, too
	}
	require.NoError(t, ctx.Err())
	got := 0
	for got < n {
		for _, r := range receive(t, other, 1, 0) {
			require.NoError(t, other.Ack(ctx, r.Receipt))
			got++
		}
	}
}

// fill leaves no room on ballast's disk.
func fill(t *testing.T, ballast string) {
	t.Helper()
	f, err := os.OpenFile(ballast, os.O_CREATE|os.O_WRONLY|os.O_APPEND, 0o600)
	require.NoError(t, err)
	for _, size := range []int{1 << 20, 64 << 10, 4096, 1} {
		for err = nil; err == nil; {
			_, err = f.Write(make([]byte, size))
		}
		require.ErrorIs(t, err, syscall.ENOSPC)
	}
	require.NoError(t, f.Close())
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
	requireTotal(t, n, q)
	for _, r := range receive(t, q, n, 0) {
		require.NoError(t, q.Ack(t.Context(), r.Receipt))
	}
	require.NoError(t, top.Publish(t.Context(), large()))
}
