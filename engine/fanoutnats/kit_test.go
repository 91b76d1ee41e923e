package fanoutnats_test

import (
	"testing"
	"time"

	"github.com/gofanout/fanout/engine"
	"github.com/gofanout/fanout/engine/enginetest"
	"github.com/gofanout/fanout/engine/fanoutnats"
	"github.com/gofanout/fanout/engine/fanoutnats/embedded"
	"github.com/stretchr/testify/require"
)

// suite is what package enginetest needs to know of an engine.
type suite struct {
	make    func(t testing.TB) engine.Engine
	options []enginetest.Option
}

// foreign are the goroutines of the client's library and of the server, which have
// owners of their own.
var foreign = enginetest.ForeignGoroutines("github.com/nats-io/")

func onAnEmbeddedServer() suite {
	open := func(t testing.TB, dir string) engine.Engine {
		e, err := embedded.Open(dir, embedded.WithSyncInterval(time.Minute))
		require.NoError(t, err)
		t.Cleanup(func() { require.NoError(t, e.Close()) })
		return e
	}
	return suite{func(t testing.TB) engine.Engine { return open(t, t.TempDir()) }, []enginetest.Option{
		enginetest.Reopen(func(t testing.TB, e engine.Engine) engine.Engine {
			dir := e.(*embedded.Engine).Dir()
			require.NoError(t, e.(*embedded.Engine).Close())
			return open(t, dir)
		}),
		enginetest.TooLarge(9 << 20), enginetest.LargeBody(1 << 20), enginetest.LargeBatch(1000), enginetest.Attributes(100),
		enginetest.Early(time.Second), // after the restart of a server
		foreign,
	}}
}

func onACluster(t *testing.T) suite {
	t.Helper()
	c := startCluster(t)
	open := func(t testing.TB) engine.Engine {
		e, err := fanoutnats.New(c.connect(t), fanoutnats.WithReplicas(3), fanoutnats.WithTimeout(patience))
		require.NoError(t, err)
		return e
	}
	return suite{open, []enginetest.Option{
		enginetest.Sibling(func(t testing.TB, _ engine.Engine) engine.Engine { return open(t) }),
		enginetest.TooLarge(2 << 20), enginetest.LargeBatch(1000), enginetest.Concurrency(4), foreign,
	}}
}

func TestContractOnAnEmbeddedServer(t *testing.T) {
	t.Parallel()
	s := onAnEmbeddedServer()
	enginetest.Contract(t, s.make, s.options...)
}

func TestPromisesOnAnEmbeddedServer(t *testing.T) {
	t.Parallel()
	s := onAnEmbeddedServer()
	enginetest.Run(t, s.make, s.options...)
}

func TestContractOnACluster(t *testing.T) {
	t.Parallel()
	s := onACluster(t)
	enginetest.Contract(t, s.make, s.options...)
}

func TestPromisesOnACluster(t *testing.T) {
	t.Parallel()
	s := onACluster(t)
	enginetest.Run(t, s.make, s.options...)
}
