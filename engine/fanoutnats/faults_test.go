package fanoutnats_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"os"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/gofanout/fanout"
	"github.com/gofanout/fanout/engine/fanoutnats"
	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
	"github.com/stretchr/testify/require"
)

// A link is the way from one server to another one. When it is cut nothing comes through,
// and nobody is told.
type link struct {
	listener net.Listener
	to       string
	wg       sync.WaitGroup

	mu   sync.Mutex
	cut  chan struct{} // closed when it is whole; nil if it is
	ends []net.Conn
}

func newLink(t *testing.T, to int) *link {
	t.Helper()
	l := &link{to: fmt.Sprintf("127.0.0.1:%d", to)}
	var err error
	l.listener, err = net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	l.wg.Go(l.accept)
	t.Cleanup(func() {
		l.set(false)
		require.NoError(t, l.listener.Close())
		l.mu.Lock()
		for _, c := range l.ends {
			_ = c.Close()
		}
		l.mu.Unlock()
		l.wg.Wait()
	})
	return l
}

func (l *link) accept() {
	for {
		from, err := l.listener.Accept()
		if err != nil {
			return
		}
		to, err := net.Dial("tcp", l.to)
		if err != nil {
			_ = from.Close()
			continue
		}
		l.mu.Lock()
		l.ends = append(l.ends, from, to)
		l.mu.Unlock()
		l.wg.Go(func() { l.copy(from, to) })
		l.wg.Go(func() { l.copy(to, from) })
	}
}

func (l *link) copy(from, to net.Conn) {
	defer from.Close()
	defer to.Close()
	buf := make([]byte, 32<<10)
	for {
		n, err := from.Read(buf)
		l.whole()
		if n > 0 {
			if _, err := to.Write(buf[:n]); err != nil {
				return
			}
		}
		if err != nil {
			return
		}
	}
}

// whole waits until the link is whole.
func (l *link) whole() {
	l.mu.Lock()
	cut := l.cut
	l.mu.Unlock()
	if cut != nil {
		<-cut
	}
}

func (l *link) set(cut bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	switch {
	case cut && l.cut == nil:
		l.cut = make(chan struct{})
	case !cut && l.cut != nil:
		close(l.cut)
		l.cut = nil
	}
}

// A gauge knows the longest time without an event.
type gauge struct {
	mu      sync.Mutex
	last    time.Time
	longest time.Duration
}

func (g *gauge) event() {
	g.mu.Lock()
	defer g.mu.Unlock()
	now := time.Now()
	if !g.last.IsZero() {
		g.longest = max(g.longest, now.Sub(g.last))
	}
	g.last = now
}

// read returns the longest time since it was read, that which goes on included.
func (g *gauge) read() time.Duration {
	g.event()
	g.mu.Lock()
	defer g.mu.Unlock()
	d := g.longest
	g.longest = 0
	return d
}

// Servers are killed, stopped, cut off and restarted in turn, while a client of each one
// publishes and handles: nothing that was confirmed is lost. FANOUTNATS_FAULTS says how many
// of these there are; 2 by default, a partition and a stop.
func TestNothingConfirmedIsLostWhateverHappensToACluster(t *testing.T) {
	faults := 2
	if s := os.Getenv("FANOUTNATS_FAULTS"); s != "" {
		var err error
		faults, err = strconv.Atoi(s)
		require.NoError(t, err)
	}
	var links [3][3]*link
	c := startClusterBy(t, func(k, other, to int) int {
		links[k][other] = newLink(t, to)
		return links[k][other].listener.Addr().(*net.TCPAddr).Port
	})
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	book := newLedger()
	var wg sync.WaitGroup
	var failed, published atomic.Int64
	var gauges [3]gauge // of publishes, by client
	var handled gauge
	var conns [3]*nats.Conn
	var tops [3]*fanout.Topic[string]
	for k := range 3 {
		var urls []string
		for n := range 3 {
			urls = append(urls, fmt.Sprintf("nats://127.0.0.1:%d", c.configs[(k+n)%3].Port))
		}
		nc, err := nats.Connect(strings.Join(urls, ","), append(fanoutnats.ConnectOptions(), nats.DontRandomize(), nats.ReconnectWait(100*time.Millisecond))...)
		require.NoError(t, err)
		t.Cleanup(nc.Close)
		js, err := jetstream.New(nc)
		require.NoError(t, err)
		e, err := fanoutnats.New(js, fanoutnats.WithReplicas(3), fanoutnats.WithTimeout(3*patience))
		require.NoError(t, err)
		tops[k], err = onEngine("faults", e)
		require.NoError(t, err)
		conns[k] = nc
		_, err = tops[k].Subscribe(ctx, "q", func(attempt context.Context, d fanout.Delivery[string]) error {
			handled.event()
			if err := failSomehow(attempt); ctx.Err() == nil && err != nil {
				return err
			}
			book.handle(d.ID())
			return nil
		}, crashOptions(8)...)
		require.NoError(t, err)
		wg.Go(func() {
			for n := 0; ctx.Err() == nil; n++ {
				id := fmt.Sprintf("%d-%d", k, n)
				once, stop := context.WithTimeout(ctx, patience)
				err := tops[k].PublishMessages(once, fanout.Message[string]{ID: id})
				stop()
				if err != nil {
					failed.Add(1)
					continue
				}
				book.confirm(id)
				published.Add(1)
				gauges[k].event()
				time.Sleep(5 * time.Millisecond) // or there would be too many to drain
			}
		})
	}
	goOn := func() {
		from := published.Load()
		require.Eventually(t, func() bool { return published.Load() >= from+100 }, 3*patience, 10*time.Millisecond)
	}
	cut := func(victim int, is bool) {
		for other := range 3 {
			if other != victim {
				links[victim][other].set(is)
				links[other][victim].set(is)
			}
		}
	}
	current := func() {
		t.Helper()
		js, err := jetstream.New(conns[0])
		require.NoError(t, err)
		c.current(t, js, "fanout-messages-faults")
	}
	restart := func(k int) {
		c.start(t, k)
		c.servers[k].ready(t)
		current()
	}
	names := []string{"partition", "stop", "kill", "rolling restart"}
	var others, own, deliveries time.Duration
	for n := range faults {
		goOn()
		for k := range gauges {
			gauges[k].read()
		}
		handled.read()
		js, err := jetstream.New(conns[n%3])
		require.NoError(t, err)
		victim := c.leader(t, js, "fanout-messages-faults")
		var on [3]bool
		for k, nc := range conns {
			on[k] = nc.ConnectedServerName() == c.configs[victim].Name
		}
		what := names[n%len(names)]
		switch what {
		case "partition":
			cut(victim, true)
			time.Sleep(8 * time.Second)
			cut(victim, false)
		case "stop":
			require.NoError(t, c.servers[victim].cmd.Process.Signal(syscall.SIGSTOP))
			time.Sleep(8 * time.Second)
			require.NoError(t, c.servers[victim].cmd.Process.Signal(syscall.SIGCONT))
		case "kill":
			c.servers[victim].kill(t)
			time.Sleep(time.Duration(rand.IntN(3000)) * time.Millisecond)
			restart(victim)
		case "rolling restart":
			on = [3]bool{true, true, true}
			for k := range c.servers {
				s := c.servers[k]
				require.NoError(t, s.in.Close()) // it shuts down
				_, err := io.Copy(io.Discard, s.out)
				require.NoError(t, err)
				require.NoError(t, s.cmd.Wait())
				restart(k)
			}
		}
		goOn()
		current()
		var row [3]time.Duration
		for k := range gauges {
			row[k] = gauges[k].read()
			if on[k] {
				own = max(own, row[k])
			} else {
				others = max(others, row[k])
			}
		}
		d := handled.read()
		deliveries = max(deliveries, d)
		t.Logf("%s of %s: longest silence of each client's publishes %v, on it %v; of deliveries %v", what, c.configs[victim].Name, row, on, d)
	}
	cancel()
	wg.Wait()
	left := drain(t, tops[0], "q", book)
	for _, top := range tops[1:] {
		if err := top.Close(); !errors.Is(err, fanout.ErrClosed) {
			require.NoError(t, err)
		}
	}
	lost, duplicates := book.balance()
	t.Logf("%d faults: %d confirmed, %d lost, %d handled more than once, %d left to the end, %d publishes failed; longest silence: publishes %v, of the server's own clients %v, deliveries %v",
		faults, len(book.confirmed), len(lost), duplicates, left, failed.Load(), others, own, deliveries)
	require.Empty(t, lost)
}
