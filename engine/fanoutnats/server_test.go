package fanoutnats_test

import (
	"bytes"
	"io"
	"net"
	"sync/atomic"
	"testing"
	"time"

	"github.com/gofanout/fanout/engine/fanoutnats"
	"github.com/nats-io/nats-server/v2/server"
	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
	"github.com/stretchr/testify/require"
)

// A testServer is a server in this process whose clients can be made to lose answers.
type testServer struct {
	*server.Server
	losing atomic.Bool // the next confirmation of a publish
	lost   atomic.Int32
}

func startServer(t *testing.T, users ...*server.User) *testServer {
	t.Helper()
	s, err := server.NewServer(&server.Options{
		DontListen: true, NoSigs: true, NoLog: true, JetStream: true, StoreDir: t.TempDir(), Users: users, SyncInterval: time.Minute,
	})
	require.NoError(t, err)
	s.Start()
	require.True(t, s.ReadyForConnections(patience))
	t.Cleanup(func() {
		s.Shutdown()
		s.WaitForShutdown()
	})
	return &testServer{Server: s}
}

// engine connects a client.
func (s *testServer) engine(t *testing.T, user string, options ...fanoutnats.Option) *fanoutnats.Engine {
	t.Helper()
	with := append(fanoutnats.ConnectOptions(), nats.InProcessServer(s), nats.ReconnectWait(10*time.Millisecond))
	if user != "" {
		with = append(with, nats.UserInfo(user, "secret"))
	}
	nc, err := nats.Connect("", with...)
	require.NoError(t, err)
	t.Cleanup(nc.Close)
	js, err := jetstream.New(nc)
	require.NoError(t, err)
	e, err := fanoutnats.New(js, options...)
	require.NoError(t, err)
	return e
}

// InProcessConn returns a connection that ends instead of the next confirmation, if
// one is to be lost.
func (s *testServer) InProcessConn() (net.Conn, error) {
	c, err := s.Server.InProcessConn()
	return &lossyConn{c, s}, err
}

type lossyConn struct {
	net.Conn
	server *testServer
}

func (c *lossyConn) Read(b []byte) (int, error) {
	n, err := c.Conn.Read(b)
	if bytes.Contains(b[:n], []byte(`"seq":`)) && c.server.losing.CompareAndSwap(true, false) {
		c.server.lost.Add(1)
		_ = c.Close()
		return 0, io.EOF
	}
	return n, err
}
