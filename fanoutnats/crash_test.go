package fanoutnats_test

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/gofanout/fanout/engine"
	"github.com/gofanout/fanout/fanoutnats/embedded"
	"github.com/stretchr/testify/require"
)

// A ledger knows what was confirmed and what was handled.
type ledger struct {
	mu        sync.Mutex
	confirmed map[string]bool
	handled   map[string]int
}

func newLedger() *ledger {
	return &ledger{confirmed: map[string]bool{}, handled: map[string]int{}}
}

func (l *ledger) confirm(ids ...string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, id := range ids {
		l.confirmed[id] = true
	}
}

func (l *ledger) handle(id string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.handled[id]++
}

// balance returns the IDs that were confirmed and not handled, and how many were
// handled more than once.
func (l *ledger) balance() (lost []string, duplicates int) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for id := range l.confirmed {
		if l.handled[id] == 0 {
			lost = append(lost, id)
		}
	}
	for _, n := range l.handled {
		if n > 1 {
			duplicates++
		}
	}
	return lost, duplicates
}

type workerConfig struct {
	Dir   string
	Round int
}

var crashQueue = engine.QueueSpec{Name: "q", Visibility: time.Second}

// childWorker publishes and handles on an embedded engine until it is killed. It
// says on its standard output what was confirmed, and what it is about to
// acknowledge.
func childWorker() {
	var c workerConfig
	check(json.Unmarshal([]byte(os.Getenv(childConfig)), &c))
	e, err := embedded.Open(c.Dir)
	check(err)
	ctx := context.Background()
	top, err := e.OpenTopic(ctx, engine.TopicSpec{Name: "crash"})
	check(err)
	q, err := top.OpenQueue(ctx, crashQueue)
	check(err)
	say("ready")
	var next atomic.Int64
	for range 2 {
		go func() {
			for {
				ms := make([]engine.Message, 1+rand.IntN(5))
				var ids []string
				for k := range ms {
					ms[k] = message(0)
					ms[k].ID = fmt.Sprintf("%d-%d", c.Round, next.Add(1))
					if rand.IntN(4) == 0 {
						ms[k].Delay = time.Duration(rand.IntN(200)) * time.Millisecond
					}
					ids = append(ids, ms[k].ID)
				}
				check(top.Publish(ctx, ms))
				say("confirmed " + strings.Join(ids, " "))
			}
		}()
		go workOn(ctx, q, false)
		go workOn(ctx, q.DeadLetters(), true)
	}
	select {}
}

// say writes one line in one write: it is out when say returns, whatever happens
// then.
func say(line string) {
	_, err := os.Stdout.WriteString(line + "\n")
	check(err)
}

// workOn does everything to messages that can be done to them.
func workOn(ctx context.Context, q engine.Queue, dead bool) {
	for {
		rs, err := q.Receive(ctx, 8, 0)
		check(err)
		for _, r := range rs {
			switch n := rand.IntN(10); {
			case n < 4:
				say("handled " + r.ID)
				check(q.Ack(ctx, r.Receipt))
			case n < 6:
				check(q.Return(ctx, r.Receipt, time.Duration(rand.IntN(50))*time.Millisecond, []byte("state")))
			case n < 7:
				// Left to its lease.
			case dead:
				check(q.Redrive(ctx, r.Receipt, r.Message))
			default:
				check(q.DeadLetter(ctx, r.Receipt, r.Message))
			}
		}
	}
}

// crashes is how often the process is killed: 5, or what FANOUTNATS_CRASHES says.
func crashes(t *testing.T) int {
	t.Helper()
	s := os.Getenv("FANOUTNATS_CRASHES")
	if s == "" {
		return 5
	}
	n, err := strconv.Atoi(s)
	require.NoError(t, err)
	return n
}

func TestNothingConfirmedIsLostWhenTheProcessIsKilled(t *testing.T) {
	dir := t.TempDir()
	book := newLedger()
	rounds := crashes(t)
	for round := range rounds {
		c := startChild(t, "worker", workerConfig{dir, round})
		c.ready(t)
		time.AfterFunc(time.Duration(50+rand.IntN(700))*time.Millisecond, func() { _ = c.cmd.Process.Kill() })
		for {
			line, err := c.out.ReadString('\n')
			if err != nil {
				require.Equal(t, io.EOF, err)
				break // what is left of a line was not said
			}
			words := strings.Fields(line)
			switch words[0] {
			case "confirmed":
				book.confirm(words[1:]...)
			case "handled":
				book.handle(words[1])
			default:
				t.Fatalf("the child said %q", line)
			}
		}
		require.ErrorContains(t, c.cmd.Wait(), "killed", "it ended by itself")
	}

	e := openEmbedded(t, dir)
	top := openTopic(t, e, engine.TopicSpec{Name: "crash"})
	q, err := top.OpenQueue(t.Context(), crashQueue)
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, q.Close()) })
	left := total(t, q) + total(t, q.DeadLetters())
	drain(t, q, book)
	drain(t, q.DeadLetters(), book)
	lost, duplicates := book.balance()
	t.Logf("%d crashes: %d confirmed, %d left to the end, %d lost, %d handled more than once",
		rounds, len(book.confirmed), left, len(lost), duplicates)
	require.Empty(t, lost)
	require.Greater(t, len(book.confirmed), rounds, "the children did some work")
}

// drain handles all that q holds, leases of the dead included.
func drain(t *testing.T, q engine.Queue, book *ledger) {
	t.Helper()
	for total(t, q) > 0 {
		ctx, cancel := context.WithTimeout(t.Context(), patience)
		rs, err := q.Receive(ctx, 100, 10*time.Second)
		cancel()
		require.NoError(t, err)
		for _, r := range rs {
			book.handle(r.ID)
			require.NoError(t, q.Ack(t.Context(), r.Receipt))
		}
	}
}
