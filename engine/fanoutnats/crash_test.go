package fanoutnats_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/gofanout/fanout"
	"github.com/gofanout/fanout/engine"
	"github.com/gofanout/fanout/engine/fanoutnats/embedded"
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

// onEngine makes a topic on e.
func onEngine(name string, e engine.Engine) (*fanout.Topic[string], error) {
	return fanout.NewTopic[string](name, fanout.WithEngine(e, fanout.Without(engine.Bounded)), fanout.WithLogger(slog.New(slog.DiscardHandler)))
}

// crashOptions are those of the queue whose processes crash.
func crashOptions(workers int) []fanout.SubscribeOption {
	return []fanout.SubscribeOption{
		fanout.WithConcurrency(workers), fanout.WithMaxAttempts(5), fanout.WithVisibilityTimeout(time.Second),
		fanout.WithBackoff(fanout.Exponential(time.Millisecond, 50*time.Millisecond)),
	}
}

// childWorker publishes and handles on an embedded engine until it is killed, and redrives,
// purges, opens and deletes queues. It says on its standard output what was confirmed, what
// it is about to acknowledge, and what it begins and ends to do. It puts up with a full
// disk, and with nothing else.
func childWorker() {
	var c workerConfig
	check(json.Unmarshal([]byte(os.Getenv(childConfig)), &c))
	e, err := embedded.Open(c.Dir)
	check(err)
	ctx := context.Background()
	top, err := onEngine("crash", e)
	check(err)
	purged, err := top.OpenQueue(ctx, "purged")
	check(err)
	say("ready")
	sub, err := top.Subscribe(ctx, "q", handleSomehow, crashOptions(4)...)
	check(err)
	var next atomic.Int64
	publish := func(n int) error {
		ms := make([]fanout.Message[string], n)
		var ids []string
		for k := range ms {
			ms[k].ID = fmt.Sprintf("%d-%d", c.Round, next.Add(1))
			if rand.IntN(4) == 0 {
				ms[k].Delay = time.Duration(rand.IntN(200)) * time.Millisecond
			}
			ids = append(ids, ms[k].ID)
		}
		err := top.PublishMessages(ctx, ms...)
		if err == nil {
			say("confirmed " + strings.Join(ids, " "))
		}
		return err
	}
	for what, do := range map[string]func() error{
		"publishing":         func() error { return publish(1) },
		"publishing a batch": func() error { return publish(2 + rand.IntN(8)) },
		"redriving":          func() error { _, err := sub.Queue().Redrive(ctx); return err },
		"purging":            func() error { _, err := purged.Purge(ctx); return err },
		"opening and deleting queues": func() error {
			q, err := top.OpenQueue(ctx, fmt.Sprintf("passing-%d", rand.IntN(3)))
			if err != nil {
				return err
			}
			used := publish(1)
			if used == nil && rand.IntN(2) == 0 {
				var d fanout.Delivery[string]
				var ok bool
				if d, ok, used = q.TryReceive(ctx); ok {
					used = d.Settle(ctx, fanout.Permanent(errors.New("a letter")))
				}
				if errors.Is(used, fanout.ErrStale) {
					used = nil // it was half done when the disk was full, and comes again
				}
			}
			// However that ended, the name has to be free.
			for err = q.Delete(ctx); err != nil && fullDisk(err); err = q.Delete(ctx) {
				time.Sleep(time.Millisecond)
			}
			if err != nil {
				return err
			}
			return used
		},
	} {
		go func() {
			for {
				say("begin " + what)
				if err := do(); err != nil {
					if !fullDisk(err) {
						panic(what + ": " + err.Error())
					}
					say("full")
					time.Sleep(5 * time.Millisecond) // for the disk's sake
				}
				say("end " + what)
				time.Sleep(time.Duration(rand.IntN(10)) * time.Millisecond) // or more would come than can be handled
			}
		}()
	}
	select {}
}

// fullDisk reports whether it is a full disk that failed something.
func fullDisk(err error) bool {
	return errors.Is(err, syscall.ENOSPC) || strings.Contains(err.Error(), syscall.ENOSPC.Error())
}

// say writes one line in one write: it is out when say returns, whatever happens
// then.
func say(line string) {
	_, err := os.Stdout.WriteString(line + "\n")
	check(err)
}

// handleSomehow ends deliveries in every way that there is.
func handleSomehow(ctx context.Context, d fanout.Delivery[string]) error {
	if err := failSomehow(ctx); err != nil {
		return err
	}
	say("handled " + d.ID())
	return nil
}

// failSomehow fails in every way that there is, half of the time.
func failSomehow(ctx context.Context) error {
	switch n := rand.IntN(100); {
	case n < 25:
		return errors.New("busy")
	case n < 35:
		return fanout.Permanent(errors.New("no such order"))
	case n < 45:
		return fanout.Snooze(time.Millisecond)
	case n < 47:
		<-ctx.Done() // it times out
		return ctx.Err()
	}
	return nil
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

// Whatever the process is doing when it is killed, and if its disk is full once, nothing
// that was confirmed is lost.
func TestNothingConfirmedIsLostWhenTheProcessIsKilled(t *testing.T) {
	t.Parallel()
	dir, ok := small(t, "256m")
	if !ok {
		dir = t.TempDir() // without the full disk
	}
	ballast, files := filepath.Join(dir, "ballast"), filepath.Join(dir, "files")
	book := newLedger()
	rounds := crashes(t)
	during := map[string]int{}
	full := 0 // calls that failed so
	for round := range rounds {
		c := startChild(t, "worker", workerConfig{files, round})
		c.ready(t)
		wait := time.Duration(50+rand.IntN(700)) * time.Millisecond
		onFull := ok && round == rounds/2
		if onFull {
			fill(t, ballast)
			time.AfterFunc(wait, func() { _ = os.Remove(ballast) })
			wait *= 2
		}
		time.AfterFunc(wait, func() { _ = c.cmd.Process.Kill() })
		doing := map[string]bool{}
		for {
			line, err := c.out.ReadString('\n')
			if err != nil {
				require.Equal(t, io.EOF, err)
				break // what is left of a line was not said
			}
			words := strings.Fields(line)
			_, what, _ := strings.Cut(strings.TrimSpace(line), " ")
			switch words[0] {
			case "confirmed":
				book.confirm(words[1:]...)
			case "handled":
				book.handle(words[1])
			case "begin":
				doing[what] = true
			case "end":
				delete(doing, what)
			case "full":
				full++
			default:
				t.Fatalf("the child said %q", line)
			}
		}
		err := c.cmd.Wait()
		require.ErrorContains(t, err, "killed", "it ended by itself: %s", c.why())
		for what := range doing {
			during[what]++
		}
		if onFull {
			require.Positive(t, full, "the disk was full")
			_ = os.Remove(ballast) // it may be gone
		}
	}

	top, err := onEngine("crash", openEmbedded(t, files))
	require.NoError(t, err)
	for k := range 3 {
		q, err := top.OpenQueue(t.Context(), fmt.Sprintf("passing-%d", k))
		require.NoError(t, err)
		require.NoError(t, q.Delete(t.Context()))
	}
	left := drain(t, top, "q", book)
	lost, duplicates := book.balance()
	t.Logf("%d crashes, %v; %d calls failed on a full disk: %d confirmed, %d left to the end, %d lost, %d handled more than once",
		rounds, during, full, len(book.confirmed), left, len(lost), duplicates)
	require.Empty(t, lost)
	require.Greater(t, len(book.confirmed), rounds, "the children did some work")
}

// drain handles all that a queue holds, dead letters included, and shuts the topic
// down. It returns how many there were.
func drain(t *testing.T, top *fanout.Topic[string], name string, book *ledger) (left int) {
	t.Helper()
	handle := func(_ context.Context, d fanout.Delivery[string]) error {
		book.handle(d.ID())
		return nil
	}
	q := top.Queue(name)
	if q == nil {
		s, err := top.Subscribe(soon(t), name, handle, crashOptions(16)...)
		require.NoError(t, err)
		q = s.Queue()
	}
	_, err := q.DeadLetters().Subscribe(soon(t), handle)
	require.NoError(t, err)
	for _, each := range []*fanout.Queue[string]{q, q.DeadLetters()} {
		n, err := each.Depth(soon(t))
		require.NoError(t, err)
		left += n.Unsettled()
	}
	// A message that dies while the queue drains is a letter by the time it is gone here.
	for _, each := range []*fanout.Queue[string]{q, q.DeadLetters()} {
		require.Eventually(t, func() bool { n, err := each.Depth(t.Context()); return err == nil && n.Unsettled() == 0 }, 3*patience, 20*time.Millisecond)
	}
	require.NoError(t, top.Shutdown(soon(t)))
	return left
}

const poison = "poison"

// childVictim dies of a message.
func childVictim() {
	var c workerConfig
	check(json.Unmarshal([]byte(os.Getenv(childConfig)), &c))
	e, err := embedded.Open(c.Dir)
	check(err)
	top, err := onEngine("poisoned", e)
	check(err)
	self, err := os.FindProcess(os.Getpid())
	check(err)
	_, err = top.Subscribe(context.Background(), "q", func(_ context.Context, d fanout.Delivery[string]) error {
		if d.Body == poison {
			say(fmt.Sprintf("attempt %d", d.Attempt()))
			// A server writes what it has delivered ten times a second. What was
			// delivered after that, and killed, is not known to the next one.
			time.Sleep(600 * time.Millisecond)
			check(self.Kill())
			select {}
		}
		return nil
	}, victimOptions...)
	check(err)
	if c.Round == 1 {
		check(top.PublishMessages(context.Background(), fanout.Message[string]{Body: poison}, fanout.Message[string]{Body: "fine"}))
	}
	say("ready")
	select {}
}

var victimOptions = []fanout.SubscribeOption{fanout.WithMaxAttempts(2), fanout.WithVisibilityTimeout(time.Second)}

func TestAMessageThatKillsItsProcessesIsDeadInTheEnd(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	for round, attempt := 1, 1; attempt <= 2; round++ {
		require.LessOrEqual(t, round, 10, "the attempts are not counted")
		c := startChild(t, "victim", workerConfig{dir, round})
		said, err := io.ReadAll(c.out)
		require.NoError(t, err)
		require.ErrorContains(t, c.cmd.Wait(), "killed")
		if strings.Contains(string(said), fmt.Sprintf("attempt %d\n", attempt)) {
			attempt++ // if not, the machine was too slow, and the attempt before comes again
		}
	}

	top, err := onEngine("poisoned", openEmbedded(t, dir))
	require.NoError(t, err)
	s, err := top.Subscribe(soon(t), "q", func(_ context.Context, d fanout.Delivery[string]) error {
		if d.Body == poison {
			t.Errorf("attempt %d at a message that has spent its attempts", d.Attempt())
		}
		return nil
	}, victimOptions...)
	require.NoError(t, err)
	letter, err := s.Queue().DeadLetters().Receive(soon(t))
	require.NoError(t, err)
	require.Equal(t, poison, letter.Body)
	require.Len(t, letter.History(), 2)
	for k, a := range letter.History() {
		require.Equal(t, fanout.TimedOut, a.Cause)
		require.Equal(t, k+1, a.Number)
		require.ErrorContains(t, a.Err, "without a word")
	}
	require.NoError(t, letter.Ack(soon(t)))
	require.NoError(t, top.Shutdown(soon(t)))
}
