package fanoutnats_test

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/gofanout/fanout"
	"github.com/gofanout/fanout/engine"
	"github.com/gofanout/fanout/engine/fanoutnats"
	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
	"github.com/stretchr/testify/require"
)

// childRole says, in a child process, what it is to be. The children are this very
// test binary, so that they can be killed as processes are. The servers of a cluster
// are testdata/server.
const (
	childRole   = "FANOUTNATS_CHILD"
	childConfig = "FANOUTNATS_CHILD_CONFIG"
)

func TestMain(m *testing.M) {
	switch os.Getenv(childRole) {
	case "":
		code := m.Run()
		if serverDir != "" {
			_ = os.RemoveAll(serverDir)
		}
		os.Exit(code)
	case "worker":
		childWorker()
	case "victim":
		childVictim()
	case "opener":
		childOpener()
	}
}

// A child is a child process. It says "ready" on its standard output, and ends when
// its standard input does, so that none is left behind.
type child struct {
	cmd *exec.Cmd
	in  io.WriteCloser
	out *bufio.Reader
	err bytes.Buffer // its standard error; to be read when it has ended
}

// why is what it said of why it ended by itself.
func (c *child) why() string {
	_, why, _ := strings.Cut(c.err.String(), "panic: ")
	return why[:min(len(why), 2000)]
}

func startChild(t *testing.T, role string, config any) *child {
	t.Helper()
	b, err := json.Marshal(config)
	require.NoError(t, err)
	exe, err := os.Executable()
	if role == "server" {
		exe, err = serverCommand()
	}
	require.NoError(t, err)
	c := &child{cmd: exec.Command(exe)}
	c.cmd.Env = append(os.Environ(), childRole+"="+role, childConfig+"="+string(b))
	c.cmd.Stderr = io.MultiWriter(os.Stderr, &c.err)
	c.in, err = c.cmd.StdinPipe()
	require.NoError(t, err)
	out, err := c.cmd.StdoutPipe()
	require.NoError(t, err)
	c.out = bufio.NewReader(out)
	require.NoError(t, c.cmd.Start())
	return c
}

var serverDir string // where serverCommand has built it; TestMain removes it

// serverCommand builds testdata/server. It has none of our code, so it is built without
// the race detector: the tests spend most of their time in it.
var serverCommand = sync.OnceValues(func() (string, error) {
	dir, err := os.MkdirTemp("", "server")
	if err != nil {
		return "", err
	}
	serverDir = dir
	exe := filepath.Join(dir, "server.exe")
	out, err := exec.Command("go", "build", "-o", exe, "./testdata/server").CombinedOutput()
	if err != nil {
		return "", fmt.Errorf("go build: %w\n%s", err, out)
	}
	return exe, nil
})

func (c *child) ready(t *testing.T) {
	t.Helper()
	line, err := c.out.ReadString('\n')
	require.NoError(t, err)
	require.Equal(t, "ready\n", line)
}

// kill is SIGKILL: the process gets no chance to do anything.
func (c *child) kill(t *testing.T) {
	t.Helper()
	require.NoError(t, c.cmd.Process.Kill())
	_, err := io.Copy(io.Discard, c.out) // or Wait would close it while it is read
	require.NoError(t, err)
	require.ErrorContains(t, c.cmd.Wait(), "killed")
}

// A cluster is three servers, each a process.
type cluster struct {
	configs []serverConfig
	servers []*child
}

type serverConfig struct {
	Name, Dir  string
	Port, Peer int
	Peers      []int
	Advertise  string // to other servers, "" for the peer's port
}

// startCluster starts three servers on ports that are free now, and waits until they
// have a leader that knows them.
func startCluster(t *testing.T) *cluster {
	t.Helper()
	return startClusterBy(t, nil)
}

// startClusterBy is startCluster for servers that reach each other by ports of the caller's:
// by returns that for server k to reach another one, which listens on port to.
func startClusterBy(t *testing.T, by func(k, other, to int) int) *cluster {
	t.Helper()
	dir := t.TempDir()
	var listeners []net.Listener
	var ports []int
	for range 6 {
		l, err := net.Listen("tcp", "127.0.0.1:0")
		require.NoError(t, err)
		listeners = append(listeners, l)
		ports = append(ports, l.Addr().(*net.TCPAddr).Port)
	}
	for _, l := range listeners {
		require.NoError(t, l.Close())
	}
	c := &cluster{servers: make([]*child, 3)}
	for k := range c.servers {
		name := fmt.Sprintf("s%d", k)
		config := serverConfig{name, filepath.Join(dir, name), ports[k], ports[3+k], ports[3:], ""}
		if by != nil {
			config.Peers, config.Advertise = nil, "127.0.0.1:1" // or they would find another way
			for other := range 3 {
				if other != k {
					config.Peers = append(config.Peers, by(k, other, ports[3+other]))
				}
			}
		}
		c.configs = append(c.configs, config)
		c.start(t, k)
	}
	t.Cleanup(func() {
		for _, s := range c.servers {
			s.kill(t)
		}
	})
	for _, s := range c.servers {
		s.ready(t)
	}
	c.whole(t)
	return c
}

// whole waits until the leader has heard of all servers. Until then it refuses what
// needs three of them: no suitable peers, peer offline.
func (c *cluster) whole(t *testing.T) {
	t.Helper()
	js := c.connect(t)
	defer js.Conn().Close()
	const probe = "whole"
	until := func(do func() error) {
		t.Helper()
		for end := time.Now().Add(3 * patience); ; time.Sleep(20 * time.Millisecond) {
			err := do()
			if err == nil {
				return
			}
			require.True(t, time.Now().Before(end), "%v", err)
		}
	}
	until(func() error {
		_, err := js.CreateStream(soon(t), jetstream.StreamConfig{Name: probe, Replicas: 3})
		return err
	})
	until(func() error { // its answer may come late, too, or be lost
		if err := js.DeleteStream(soon(t), probe); !errors.Is(err, jetstream.ErrStreamNotFound) {
			return err
		}
		return nil
	})
}

func (c *cluster) start(t *testing.T, k int) {
	t.Helper()
	c.servers[k] = startChild(t, "server", c.configs[k])
}

// connect connects a client that lives through restarts.
func (c *cluster) connect(t testing.TB, options ...nats.Option) jetstream.JetStream {
	t.Helper()
	var urls []string
	for _, s := range c.configs {
		urls = append(urls, fmt.Sprintf("nats://127.0.0.1:%d", s.Port))
	}
	options = append(append(fanoutnats.ConnectOptions(), nats.ReconnectWait(100*time.Millisecond)), options...)
	nc, err := nats.Connect(strings.Join(urls, ","), options...)
	require.NoError(t, err)
	t.Cleanup(nc.Close)
	js, err := jetstream.New(nc)
	require.NoError(t, err)
	return js
}

// check is for child processes, which have no testing.T.
func check(err error) {
	if err != nil {
		panic(err)
	}
}

// leader is the server that leads the topic's stream, the worst one to lose.
func (c *cluster) leader(t *testing.T, js jetstream.JetStream, stream string) int {
	t.Helper()
	s, err := js.Stream(t.Context(), stream)
	require.NoError(t, err)
	for k := range c.configs {
		if c.configs[k].Name == s.CachedInfo().Cluster.Leader {
			return k
		}
	}
	t.Fatalf("stream %s has no leader", stream)
	return 0
}

// current waits until all servers have all of the stream.
func (c *cluster) current(t *testing.T, js jetstream.JetStream, stream string) {
	t.Helper()
	require.Eventually(t, func() bool {
		s, err := js.Stream(t.Context(), stream)
		if err != nil || s.CachedInfo().Cluster == nil || len(s.CachedInfo().Cluster.Replicas) != 2 {
			return false
		}
		for _, r := range s.CachedInfo().Cluster.Replicas {
			if !r.Current || r.Offline {
				return false
			}
		}
		return true
	}, 3*patience, 50*time.Millisecond)
}

func TestNothingConfirmedIsLostWhenAServerOfAClusterIsKilled(t *testing.T) {
	c := startCluster(t)
	js := c.connect(t)
	e, err := fanoutnats.New(js, fanoutnats.WithReplicas(3), fanoutnats.WithTimeout(3*patience))
	require.NoError(t, err)
	top, err := onEngine("cluster", e)
	require.NoError(t, err)
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	book, load := newLedger(), &load{top: top}
	_, err = top.Subscribe(ctx, "q", func(attempt context.Context, d fanout.Delivery[string]) error {
		if err := failSomehow(attempt); ctx.Err() == nil && err != nil {
			return err
		}
		book.handle(d.ID())
		return nil // if that is not confirmed it comes again
	}, crashOptions(16)...)
	require.NoError(t, err)
	other, err := top.OpenQueue(ctx, "other")
	require.NoError(t, err)
	for k := range 2 {
		load.wg.Go(func() { load.publish(ctx, k, book) })
	}
	const stream = "fanout-messages-cluster"
	for round := range 2 {
		load.goOn(t, 200)
		k := c.leader(t, js, stream)
		t.Logf("round %d: %s, the leader, is killed after %d messages", round, c.configs[k].Name, load.published.Load())
		c.servers[k].kill(t)
		load.goOn(t, 200) // two of three go on
		c.start(t, k)
		c.servers[k].ready(t)
		load.goOn(t, 200)
		c.current(t, js, stream)
	}
	cancel()
	load.wg.Wait()

	// The other queue has never been received from, and has all of them too.
	all := newLedger()
	for id := range book.confirmed {
		all.confirm(id)
	}
	require.Zero(t, other.Stats().Delivered)
	_, err = other.Subscribe(t.Context(), func(_ context.Context, d fanout.Delivery[string]) error {
		all.handle(d.ID())
		return nil
	}, fanout.WithConcurrency(16))
	require.NoError(t, err)
	left := drain(t, top, "q", book)
	lost, duplicates := book.balance()
	t.Logf("2 kills: %d confirmed, %d publishes failed, the slowest took %v; %d left to the end, %d lost, %d handled more than once",
		len(book.confirmed), load.failed.Load(), time.Duration(load.slowest.Load()).Round(time.Millisecond), left, len(lost), duplicates)
	require.Empty(t, lost)
	lost, _ = all.balance()
	require.Empty(t, lost, "in the other queue")
}

// A load publishes to a topic, through whatever happens.
type load struct {
	top                        *fanout.Topic[string]
	published, failed, slowest atomic.Int64
	wg                         sync.WaitGroup
}

// goOn waits until n more messages were published.
func (l *load) goOn(t *testing.T, n int64) {
	t.Helper()
	from := l.published.Load()
	require.Eventually(t, func() bool { return l.published.Load() >= from+n }, 3*patience, 10*time.Millisecond)
}

func (l *load) publish(ctx context.Context, publisher int, book *ledger) {
	for n := 0; ctx.Err() == nil; n++ {
		ms := make([]fanout.Message[string], 1+n%2*4)
		var ids []string
		for k := range ms {
			ms[k].ID = fmt.Sprintf("%d-%d-%d", publisher, n, k)
			ids = append(ids, ms[k].ID)
		}
		began := time.Now()
		once, cancel := context.WithTimeout(ctx, 2*time.Second)
		err := l.top.PublishMessages(once, ms...)
		cancel()
		took := int64(time.Since(began))
		for old := l.slowest.Load(); took > old && !l.slowest.CompareAndSwap(old, took); old = l.slowest.Load() {
		}
		if err != nil {
			l.failed.Add(1)
			continue
		}
		book.confirm(ids...)
		l.published.Add(int64(len(ms)))
	}
}

func TestOnACluster(t *testing.T) {
	t.Parallel()
	c := startCluster(t)
	open := func() *fanoutnats.Engine {
		e, err := fanoutnats.New(c.connect(t), fanoutnats.WithReplicas(3), fanoutnats.WithTimeout(3*patience))
		require.NoError(t, err)
		return e
	}
	t.Run("what comes after Close is given back", func(t *testing.T) {
		connect := func() jetstream.JetStream { return c.connect(t) }
		openTopic(t, open(), engine.TopicSpec{Name: "closing"}) // with replicas
		openTopic(t, open(), engine.TopicSpec{Name: "attempts"})
		t.Run("to others", func(t *testing.T) { requireGivenBack(t, 0, connect) })
		t.Run("with all attempts", func(t *testing.T) { requireNoAttemptSpent(t, connect) })
	})
	t.Run("duplicates in a batch are left out", func(t *testing.T) { requireNoDuplicates(t, open()) })
	t.Run("what nobody received was not delivered", func(t *testing.T) {
		here := openQueue(t, openTopic(t, open(), engine.TopicSpec{Name: "uncounted"}), engine.QueueSpec{Name: "q"})
		top := openTopic(t, open(), engine.TopicSpec{Name: "uncounted"})
		there := openQueue(t, top, engine.QueueSpec{Name: "q"})
		requireEmpty(t, here) // and its request goes on: what comes now comes here
		ms := messages(1)
		ms[0].State = []byte("state")
		require.NoError(t, top.Publish(t.Context(), ms))
		r := receiveOne(t, there, 0)
		require.Equal(t, 1, r.Deliveries)
		require.Equal(t, "state", string(r.State))
		require.NoError(t, there.Return(t.Context(), r.Receipt, 0, nil))
		r = receiveOne(t, there, 0)
		require.Equal(t, 2, r.Deliveries)
		require.Empty(t, r.State)
	})
}
