// Package embedded runs a NATS JetStream server inside the process, with its files
// in a directory, as an engine for topics that outlive the process.
//
//	e, err := embedded.Open("/var/lib/shop/queues")
//	defer e.Close()
//	payments, err := fanout.NewTopic[Payment]("payments", fanout.WithEngine(e, fanout.Without(engine.Bounded)))
//
// There is no listener and no port: the client talks to the server through memory. Only one
// process at a time can open a directory; its lock ends with the process, however that ends.
// A confirmed message is in the files. By default it is flushed to the disk before Publish
// returns.
//
// While the disk is full, each call that would write fails with an error that says so. Once
// there is room again, the engine goes on by itself.
//
// A program that imports this package links the whole server, about 16 MB. A program that
// uses servers elsewhere imports package fanoutnats only.
package embedded

import (
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"slices"
	"sync"
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

	dir  string
	set  settings
	log  *logger
	conn *nats.Conn
	lock *flock.Flock

	quit chan struct{} // closed by Close: recovery has to end
	done chan struct{} // closed when it has; nil if it was not started

	mu     sync.Mutex // guards the fields below; held for a load or a store only
	server *server.Server
	open   bool // the server may be connected to: it has read what it has
}

var _ engine.Engine = (*Engine)(nil)

// Open starts a server on dir, which it makes if it isn't there, and connects to it. It
// blocks while it reads all files of messages and compares their checksums, and while the
// server reads what it needs. A directory that another process has open is an error. If
// files are damaged, Open changes nothing and returns [ErrDamaged], which says which files,
// what is lost, and what you can do; see [WithSalvage].
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
	e := &Engine{dir: dir, set: s, log: newLogger(s.logger), lock: flock.New(filepath.Join(dir, "lock")), quit: make(chan struct{})}
	e.log.failures.Look = e.look
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
	e.conn, err = nats.Connect("", nats.InProcessServer(e), nats.Name("fanout"),
		nats.MaxReconnects(-1), nats.ReconnectWait(reconnectWait), nats.ReconnectJitter(0, 0))
	if err != nil {
		return nil, err
	}
	js, err := jetstream.New(e.conn)
	if err != nil {
		return nil, err
	}
	if e.Engine, err = fanoutnats.New(&client{js, e.log}, s.engine...); err != nil {
		return nil, err
	}
	e.done = make(chan struct{})
	go e.recovery()
	return e, nil
}

// check starts the server, if the files are whole or are to be salvaged.
func (e *Engine) check() (err error) {
	defer func() {
		e.mu.Lock()
		defer e.mu.Unlock()
		e.open = err == nil
	}()
	// What a process that was killed has left of a try to write.
	for _, pattern := range []string{"writable-*", "room-*"} {
		left, err := filepath.Glob(filepath.Join(globbed(e.dir), pattern))
		if err != nil {
			return err
		}
		for _, f := range left {
			if err := forget(f); err != nil {
				return err
			}
		}
	}
	found, err := inspect(e.dir)
	if err == nil && len(found) > 0 {
		if !e.set.salvage && slices.ContainsFunc(found, func(d damage) bool { return !d.harmless }) {
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

// start starts the server. If that fails, there is none.
func (e *Engine) start() (err error) {
	defer func() {
		if err != nil {
			e.stop()
		}
	}()
	s, err := server.NewServer(&server.Options{
		ServerName: "fanout", DontListen: true, NoSigs: true,
		JetStream: true, StoreDir: e.dir, JetStreamMaxStore: e.set.maxStore,
		SyncAlways: e.set.syncAlways, SyncInterval: e.set.syncInterval, MaxPayload: e.set.maxPayload,
	})
	if err != nil {
		return err
	}
	e.mu.Lock()
	e.server = s
	e.mu.Unlock()
	e.log.begin()
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
	e.mu.Lock()
	s := e.server
	e.server, e.open = nil, false
	e.mu.Unlock()
	if s != nil {
		s.Shutdown()
		s.WaitForShutdown()
	}
}

// InProcessConn connects the engine's connection to the server that runs, see
// nats.InProcessServer. It is not for users, who have [Engine.Conn].
func (e *Engine) InProcessConn() (net.Conn, error) {
	e.mu.Lock()
	s, open := e.server, e.open
	e.mu.Unlock()
	// A server that is still reading its files would say that nothing is there.
	if s == nil || !open {
		return nil, errors.New("embedded: the server does not run")
	}
	return s.InProcessConn()
}

// A client is the server's, which says by it what it fails at.
type client struct {
	jetstream.JetStream
	log *logger
}

var _ failure.Source = (*client)(nil)

// Failures returns what the server failed at last.
func (c *client) Failures() *failure.Last { return &c.log.failures }

// reconnectWait is how long the connection waits before it tries again to reach a server
// that is being started again.
const reconnectWait = 20 * time.Millisecond

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
	c[engine.Fencing] = engine.Support{Kept: true, Note: "only one process has the directory, and it refuses by its own clock"}
	c[engine.Distributed] = engine.Support{Note: "one process at a time has the directory: to share queues, use fanoutnats with servers"}
	return c
}

// Dir returns the directory that the engine was opened on.
func (e *Engine) Dir() string { return e.dir }

// Conn returns the connection to the server, for whoever wants more of NATS from
// it. It is the engine's to close. It reconnects when the server is started again after its
// disk was full.
func (e *Engine) Conn() *nats.Conn { return e.conn }

// Close ends the connection and the server, and waits until the server's goroutines
// have ended and its files are closed. Close the topics before: what they wait for
// ends with an error. Calling it again does nothing.
func (e *Engine) Close() error {
	open := e.conn != nil && !e.conn.IsClosed()
	if open {
		close(e.quit)
	}
	if e.done != nil {
		<-e.done
	}
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
