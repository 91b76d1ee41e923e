// Package embedded runs a NATS JetStream server inside the process, with its files
// in a directory, as an engine for topics that outlive the process.
//
//	e, err := embedded.Open("/var/lib/shop/queues")
//	defer e.Close()
//	payments, err := fanout.NewTopic[Payment]("payments", fanout.WithEngine(e, fanout.Without(engine.Bounded)))
//
// There is no listener and no port: the client talks to the server through memory.
// One process at a time may open a directory; the lock that sees to it ends with the
// process, however it ends. What was confirmed is in the files: by default
// it is flushed to the disk before Publish returns.
//
// A program that imports this package links the whole server, about 16 MB. One that
// talks to servers elsewhere imports package fanoutnats only.
package embedded

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"time"

	"github.com/gofanout/fanout/engine"
	"github.com/gofanout/fanout/engine/fanoutnats"
	"github.com/gofanout/fanout/engine/fanoutnats/internal/failure"
	"github.com/gofrs/flock"
	"github.com/nats-io/nats-server/v2/server"
	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
)

// startTimeout is how long Open waits for the server to accept connections, after it
// has read its files.
const startTimeout = 30 * time.Second

// An Engine is an engine.Engine with the server that it runs on.
type Engine struct {
	*fanoutnats.Engine

	dir    string
	set    settings
	log    *logger
	server *server.Server
	conn   *nats.Conn
	lock   *flock.Flock
}

var _ engine.Engine = (*Engine)(nil)

// Open starts a server on dir, which is made if it isn't there, and connects to it.
// It blocks while all files of messages are read, and the checksums in them compared, and
// then while the server reads what it needs. A directory that another process has open is
// an error. One whose files are damaged is [ErrDamaged], which says which ones, what is lost,
// and what can be done; nothing is changed then. See [WithSalvage].
func Open(dir string, options ...Option) (*Engine, error) {
	s := settings{syncAlways: true, maxPayload: 8 << 20, logger: warnings()}
	for _, o := range options {
		if err := o(&s); err != nil {
			return nil, fmt.Errorf("embedded: %w", err)
		}
	}
	e, err := open(dir, s)
	if err != nil {
		return nil, fmt.Errorf("embedded: open %s: %w", dir, err)
	}
	return e, nil
}

func open(dir string, s settings) (_ *Engine, err error) {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, err
	}
	if err := writable(dir); err != nil {
		return nil, err
	}
	e := &Engine{dir: dir, set: s, log: &logger{Logger: s.logger}, lock: flock.New(filepath.Join(dir, "lock"))}
	locked, err := e.lock.TryLock()
	if err != nil {
		return nil, err
	}
	if !locked {
		return nil, errors.New("it is open already, here or in another process")
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, e.Close())
		}
	}()
	if err := e.check(); err != nil {
		return nil, err
	}
	e.conn, err = nats.Connect("", nats.InProcessServer(e.server), nats.Name("fanout"), nats.MaxReconnects(-1))
	if err != nil {
		return nil, err
	}
	js, err := jetstream.New(e.conn)
	if err != nil {
		return nil, err
	}
	e.Engine, err = fanoutnats.New(&client{js, e.log}, s.engine...)
	return e, err
}

// check starts the server, if the files are whole or are to be salvaged.
func (e *Engine) check() error {
	found, err := inspect(e.dir)
	if err == nil && len(found) > 0 {
		if !e.set.salvage {
			return damaged(e.dir, found)
		}
		err = e.salvage(found)
	}
	if err != nil {
		return err
	}
	was, err := stored(e.dir)
	if err != nil {
		return err
	}
	if err := forget(filepath.Join(e.dir, closedFile)); err != nil { // until it is closed again
		return err
	}
	if err := e.start(); err != nil {
		return err
	}
	if found, err = e.missing(was); err != nil || len(found) == 0 {
		return err
	}
	e.stop()
	if !e.set.salvage {
		return damaged(e.dir, found)
	}
	if err := e.salvage(found); err != nil {
		return err
	}
	return e.start()
}

// start starts the server.
func (e *Engine) start() error {
	s, err := server.NewServer(&server.Options{
		ServerName: "fanout", DontListen: true, NoSigs: true,
		JetStream: true, StoreDir: e.dir, JetStreamMaxStore: e.set.maxStore,
		SyncAlways: e.set.syncAlways, SyncInterval: e.set.syncInterval, MaxPayload: e.set.maxPayload,
	})
	if err != nil {
		return err
	}
	e.server = s
	s.SetLoggerV2(e.log, false, false, false)
	s.Start()
	if err := e.log.fatal(); err != nil { // it has given up
		return err
	}
	if !s.ReadyForConnections(startTimeout) {
		return fmt.Errorf("the server is not ready after %v", startTimeout)
	}
	if !s.JetStreamEnabled() {
		return errors.New("the server could not open its store; what it logs tells why")
	}
	return nil
}

// stop ends the server, and waits until its goroutines have ended and its files are
// closed.
func (e *Engine) stop() {
	if e.server != nil {
		e.server.Shutdown()
		e.server.WaitForShutdown()
	}
	e.server = nil
}

// A client is the server's, which says by it what it fails at.
type client struct {
	jetstream.JetStream
	log *logger
}

var _ failure.Source = (*client)(nil)

// Failures returns what the server failed at last.
func (c *client) Failures() *failure.Last { return &c.log.failures }

// writable returns an error if no file can be made in dir, or in what the server has
// made there.
func writable(dir string) error {
	for _, d := range []string{dir, filepath.Join(dir, server.JetStreamStoreDir)} {
		f, err := os.CreateTemp(d, "writable-")
		switch {
		case d != dir && errors.Is(err, fs.ErrNotExist):
			continue // it is new
		case err != nil:
			return fmt.Errorf("the directory can't be written: %w", err)
		}
		if err := errors.Join(f.Close(), os.Remove(f.Name())); err != nil {
			return fmt.Errorf("the directory can't be written: %w", err)
		}
	}
	return nil
}

// Name returns "embedded NATS JetStream".
func (e *Engine) Name() string { return "embedded NATS JetStream" }

// Capabilities says what is kept: what JetStream keeps, for this process.
func (e *Engine) Capabilities() engine.Capabilities {
	c := e.Engine.Capabilities()
	c[engine.Fencing] = engine.Support{Kept: true, Note: "one process has the directory, and refuses by its own clock"}
	c[engine.Distributed] = engine.Support{Note: "one process has the directory; use fanoutnats with servers"}
	return c
}

// Dir returns the directory that the engine was opened on.
func (e *Engine) Dir() string { return e.dir }

// Conn returns the connection to the server, for whoever wants more of NATS from
// it. It is the engine's to close.
func (e *Engine) Conn() *nats.Conn { return e.conn }

// Close ends the connection and the server, and waits until the server's goroutines
// have ended and its files are closed. Close the topics before: what they wait for
// ends with an error. Calling it again does nothing.
func (e *Engine) Close() error {
	open := e.conn != nil && !e.conn.IsClosed()
	if e.conn != nil {
		e.conn.Close()
	}
	e.stop()
	if open {
		// Without it the next Open knows less of what may be missing.
		_ = noteClosed(e.dir)
	}
	return e.lock.Unlock()
}
