package fanoutnats

import (
	"testing"
	"time"

	"github.com/nats-io/nats-server/v2/server"
	"github.com/nats-io/nats.go"
	"github.com/stretchr/testify/require"

	"github.com/gofanout/fanout/engine"
)

// lingering gives the test a queue whose requests nobody answers but the test. There is one
// server, which the queue takes for one of a cluster if clustered is true.
func lingering(t *testing.T, clustered bool) (*queue, *nats.Conn) {
	t.Helper()
	s, err := server.NewServer(&server.Options{DontListen: true, NoSigs: true, NoLog: true})
	require.NoError(t, err)
	s.Start()
	t.Cleanup(s.Shutdown)
	require.True(t, s.ReadyForConnections(10*time.Second))
	nc, err := nats.Connect("", nats.InProcessServer(s))
	require.NoError(t, err)
	t.Cleanup(nc.Close)
	e := &Engine{nc: nc, settings: settings{timeout: 10 * time.Second}}
	e.clustered.Store(clustered)
	q := newTopic(e, engine.TopicSpec{Name: "t"}).newQueue(engine.QueueSpec{Name: "q", Visibility: time.Hour}, nil)
	q.next = "next"
	_, err = nc.Subscribe(q.next, func(*nats.Msg) {})
	require.NoError(t, err)
	return q, nc
}

func status(code, text string) *nats.Msg {
	m := nats.NewMsg("inbox")
	m.Header.Set("Status", code)
	m.Header.Set("Description", text)
	return m
}

func delivery() *nats.Msg { return &nats.Msg{Subject: "inbox", Reply: "given.back"} }

// An inbox of a queue that is closed stays as long as a server may send messages to it, and
// gives them back: for a request that was taken for lost, for one whose end has overtaken
// them, and for one that others were sent before. It does not stay for what has all come,
// nor for what no server has, nor if there is one server only.
func TestAnInboxStaysAsLongAsAServerMayAnswer(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		alone  bool
		happen func(t *testing.T, p *pull)
		stays  bool
	}{
		"never asked":                   {happen: func(*testing.T, *pull) {}},
		"open":                          {stays: true, happen: func(t *testing.T, p *pull) { require.NoError(t, p.request(1)) }},
		"open at one server":            {alone: true, happen: func(t *testing.T, p *pull) { require.NoError(t, p.request(1)) }},
		"taken for lost":                {stays: true, happen: func(t *testing.T, p *pull) { require.NoError(t, p.request(1)); p.lose() }},
		"taken for lost after its time": {stays: true, happen: func(t *testing.T, p *pull) { require.NoError(t, p.request(1)); p.until = time.Now(); p.lose() }},
		"taken for lost, alive after all": {stays: true, happen: func(t *testing.T, p *pull) {
			require.NoError(t, p.request(1))
			p.lose()
			p.until = time.Now()
			p.arrived(status("100", "Idle Heartbeat"))
		}},
		"expired": {stays: true, happen: func(t *testing.T, p *pull) {
			require.NoError(t, p.request(1))
			p.arrived(status("408", "Request Timeout"))
		}},
		"ended with its leader": {stays: true, happen: func(t *testing.T, p *pull) {
			require.NoError(t, p.request(1))
			p.arrived(status("409", "Leadership Change"))
		}},
		"nobody had it":       {happen: func(t *testing.T, p *pull) { require.NoError(t, p.request(1)); p.arrived(status("503", "")) }},
		"all have come":       {happen: func(t *testing.T, p *pull) { require.NoError(t, p.request(1)); p.arrived(delivery()) }},
		"one of two has come": {stays: true, happen: func(t *testing.T, p *pull) { require.NoError(t, p.request(2)); p.arrived(delivery()) }},
		"the lost one's has come, the next one's not": {stays: true, happen: func(t *testing.T, p *pull) {
			require.NoError(t, p.request(1))
			p.lose()
			require.NoError(t, p.request(1))
			p.arrived(delivery())
		}},
		"the lost one has expired, the next one not": {stays: true, happen: func(t *testing.T, p *pull) {
			require.NoError(t, p.request(1))
			p.lose()
			require.NoError(t, p.request(1))
			p.arrived(status("408", "Request Timeout"))
			require.Greater(t, time.Until(p.until), rest)
		}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			q, nc := lingering(t, !c.alone)
			back, err := nc.SubscribeSync("given.back")
			require.NoError(t, err)
			p, err := q.newPull()
			require.NoError(t, err)
			c.happen(t, p)
			p.messages(10) // they were received
			require.NoError(t, q.Close())
			q.leave(p)
			p.mu.Lock()
			draining := p.draining
			p.mu.Unlock()
			require.Equal(t, c.stays, !draining)
			if draining {
				require.NoError(t, q.topic.Close())
				require.False(t, p.sub.IsValid())
				return
			}
			late := delivery()
			late.Subject = p.inbox
			require.NoError(t, nc.PublishMsg(late))
			m, err := back.NextMsg(20 * time.Second)
			require.NoError(t, err)
			require.Equal(t, string(hideFor(0)), string(m.Data))
			require.NoError(t, q.topic.Close(), "it has ended in time")
			require.False(t, p.sub.IsValid())
		})
	}
}

// A connection that is being made again is to what it was to.
func TestAClusterIsOneWithoutAConnectionToo(t *testing.T) {
	t.Parallel()
	q, nc := lingering(t, false)
	require.True(t, q.topic.engine.alone())
	require.NoError(t, nc.ForceReconnect())
	q.topic.engine.clustered.Store(true)
	require.False(t, q.topic.engine.alone())
	q.topic.engine.clustered.Store(false)
	nc.Close()
	require.True(t, q.topic.engine.alone(), "nothing comes by a connection that is closed")
	require.False(t, (&Engine{nc: &nats.Conn{}}).alone(), "nobody knows what it is to")
}

// Close says what has not ended, and does not wait for it for ever.
func TestCloseReportsWhatLingers(t *testing.T) {
	t.Parallel()
	q, _ := lingering(t, true)
	require.True(t, q.enter())
	require.NoError(t, q.Close())
	require.False(t, q.enter())
	err := q.topic.Close()
	require.EqualError(t, err, `fanoutnats: topic "t": close: 1 requests have not ended after 5s: messages that they bring come again when their visibility timeouts have passed`)
	q.topic.under.end()
	require.NoError(t, q.topic.Close())
	require.False(t, q.topic.enter())
	require.ErrorIs(t, q.Return(t.Context(), &lease{queue: q}, 0, nil), engine.ErrClosed)
}

// What a lease that was added too late is of is given back: nobody has it.
func TestNoLeaseIsAddedAfterClose(t *testing.T) {
	t.Parallel()
	q, _ := lingering(t, true)
	held := &lease{queue: q, sequence: 1}
	q.ackWait = time.Hour
	require.NoError(t, q.addLeases([]*lease{held}, time.Now(), time.Hour))
	require.NoError(t, q.Close())
	require.ErrorIs(t, q.addLeases([]*lease{{queue: q, sequence: 2}}, time.Now(), time.Hour), engine.ErrClosed)
	require.ErrorIs(t, q.Ack(t.Context(), held), engine.ErrClosed)
	got, err := q.take(held)
	require.NoError(t, err)
	require.Same(t, held, got)
	q.restore(held)
	require.True(t, held.alive, "its return has failed: it may be tried again")
}
