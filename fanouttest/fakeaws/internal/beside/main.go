//go:build linux

// Beside measures fakeaws beside moto, on the same machine with the same calls,
// and prints a table:
//
//	pip install 'moto[server]==5.2.1'
//	go run -C fanouttest/fakeaws ./internal/beside
//
// It starts the servers itself, on loopback, one after the other. A server is
// measured as a test would meet it: "fakeaws" is a fake in the test's process,
// one for each test; "fakeaws on a port" is cmd/fakeaws, and "moto" its server,
// one for all tests. The suite is that of engine/fanoutaws, in virtual time on
// fakeaws and in real time on the others. What a machine does besides changes
// all figures; compare those of one run.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"slices"
	"strconv"
	"sync"
	"syscall"
	"text/tabwriter"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/sqs"

	"github.com/gofanout/fanout/fanouttest/fakeaws"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	defer stop()
	if err := run(ctx, os.Args[1:], os.Stdout); err != nil {
		if !errors.Is(err, flag.ErrHelp) {
			fmt.Fprintln(os.Stderr, "beside:", err)
		}
		os.Exit(1)
	}
}

// settings are the flags.
type settings struct {
	python string
	suite  string // its directory, none if empty
	tests  int    // that run in parallel
	rounds int    // of starting
}

// A target is what is measured.
type target struct {
	name string
	// command returns the server's process, nil if the fake is in this one.
	command func(ctx context.Context, port int) *exec.Cmd
}

// A row is what was measured of a target.
type row struct {
	first    time.Duration // until the first message was received
	calls    time.Duration // for one call of many, by one client
	parallel time.Duration // for all tests that run in parallel
	suite    time.Duration
	checks   string // what the suite said
	memory   int64  // kilobytes, at most, of the server's process
	suiteMem int64  // of the suite's
}

func run(ctx context.Context, arguments []string, out io.Writer) error {
	var s settings
	flags := flag.NewFlagSet("beside", flag.ContinueOnError)
	flags.StringVar(&s.python, "python", "python3", "Python that has moto[server]")
	flags.StringVar(&s.suite, "suite", "../../engine/fanoutaws", "directory of the suite to run on each, none if empty")
	flags.IntVar(&s.tests, "tests", 400, "tests to run in parallel, 16 at a time")
	flags.IntVar(&s.rounds, "rounds", 5, "how often to start each server; the median counts")
	only := flags.String("only", "", "measure only this one: fakeaws, port or moto")
	if err := flags.Parse(arguments); err != nil {
		return err
	}
	if flags.NArg() > 0 || s.tests < 1 || s.rounds < 1 {
		return fmt.Errorf("unknown argument %q, or -tests %d or -rounds %d below 1", flags.Args(), s.tests, s.rounds)
	}
	dir, err := os.MkdirTemp("", "beside")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	server, suite := filepath.Join(dir, "fakeaws"), filepath.Join(dir, "suite.test")
	if err := command(ctx, "go", "build", "-o", server, "./cmd/fakeaws").Run(); err != nil {
		return fmt.Errorf("building cmd/fakeaws, which must be below the current directory: %w", err)
	}
	if s.suite != "" {
		if err := command(ctx, "go", "test", "-C", s.suite, "-c", "-o", suite, ".").Run(); err != nil {
			return fmt.Errorf("building the suite in %s: %w", s.suite, err)
		}
	}
	table := tabwriter.NewWriter(out, 0, 0, 2, ' ', 0)
	fmt.Fprintln(table, "\tfirst message after\tone call\t"+strconv.Itoa(s.tests)+" tests\tserver's memory\tsuite\tsuite's memory")
	for _, t := range []target{
		{"fakeaws", nil},
		{"fakeaws on a port", func(ctx context.Context, port int) *exec.Cmd {
			return exec.CommandContext(ctx, server, "-listen", "127.0.0.1:"+strconv.Itoa(port))
		}},
		{"moto", func(ctx context.Context, port int) *exec.Cmd {
			return exec.CommandContext(ctx, s.python, "-m", "moto.server", "-H", "127.0.0.1", "-p", strconv.Itoa(port))
		}},
	} {
		if *only != "" && *only != map[string]string{"fakeaws": "fakeaws", "fakeaws on a port": "port", "moto": "moto"}[t.name] {
			continue
		}
		r, err := t.measure(ctx, s, suite)
		if err != nil {
			return fmt.Errorf("%s: %w", t.name, err)
		}
		memory := "in the test's"
		if t.command != nil {
			memory = fmt.Sprintf("%d MB", r.memory/1024)
		}
		fmt.Fprintf(table, "%s\t%v\t%v\t%v\t%s\t%v%s\t%d MB\n", t.name, short(r.first), short(r.calls), short(r.parallel), memory, short(r.suite), r.checks, r.suiteMem/1024)
	}
	return table.Flush()
}

// short drops digits that say nothing.
func short(d time.Duration) time.Duration {
	unit := time.Duration(1)
	for d/unit >= 1000 {
		unit *= 10
	}
	return d.Round(unit)
}

func command(ctx context.Context, name string, arguments ...string) *exec.Cmd {
	c := exec.CommandContext(ctx, name, arguments...)
	c.Stderr = os.Stderr
	return c
}

// measure measures one target.
func (t target) measure(ctx context.Context, s settings, suite string) (r row, err error) {
	client := (*fakeaws.AWS).SQS
	var starts []time.Duration
	var process *exec.Cmd
	port := 0
	for k := range s.rounds {
		began := time.Now()
		if t.command == nil {
			a, err := fakeaws.Start()
			if err != nil {
				return r, err
			}
			err = exchange(ctx, a.SQS(), "first", 1)
			starts = append(starts, time.Since(began))
			a.Close()
			if err != nil {
				return r, err
			}
			continue
		}
		if port, err = freePort(); err != nil {
			return r, err
		}
		process = t.command(ctx, port)
		if err := process.Start(); err != nil {
			return r, err
		}
		if err = await(ctx, port); err == nil {
			err = exchange(ctx, portClient(port), "first", 1)
		}
		starts = append(starts, time.Since(began))
		if k < s.rounds-1 || err != nil {
			stop(process)
		}
		if err != nil {
			return r, err
		}
	}
	if process != nil {
		defer stop(process)
		client = func(*fakeaws.AWS) *sqs.Client { return portClient(port) }
	}
	slices.Sort(starts)
	r.first = starts[len(starts)/2]

	a, err := fakeaws.Start()
	if err != nil {
		return r, err
	}
	defer a.Close()
	const messages = 300
	began := time.Now()
	if err := exchange(ctx, client(a), "calls", messages); err != nil {
		return r, err
	}
	r.calls = time.Since(began) / (3*messages + 1)

	began = time.Now()
	var group sync.WaitGroup
	failed := make([]error, s.tests)
	rooms := make(chan struct{}, 16)
	for k := range s.tests {
		rooms <- struct{}{}
		group.Go(func() {
			defer func() { <-rooms }()
			own, err := fakeaws.Start() // each test has its own, or they share the server
			if err != nil {
				failed[k] = err
				return
			}
			defer own.Close()
			failed[k] = exchange(ctx, client(own), fmt.Sprint("test-", k), 10)
		})
	}
	group.Wait()
	if err := errors.Join(failed...); err != nil {
		return r, err
	}
	r.parallel = time.Since(began)

	if s.suite != "" {
		c := exec.CommandContext(ctx, suite, "-test.count=1", "-test.timeout=15m")
		c.Dir, c.Env = s.suite, os.Environ()
		if process != nil {
			c.Env = append(c.Env, "FANOUT_AWS_ENDPOINT=http://127.0.0.1:"+strconv.Itoa(port))
		}
		began := time.Now()
		text, err := c.CombinedOutput()
		r.suite = time.Since(began)
		if err != nil {
			if errors.As(err, new(*exec.ExitError)) {
				_, _ = os.Stderr.Write(text)
				r.checks = " (some failed)"
			} else {
				return r, err
			}
		}
		r.suiteMem = peak(c)
	}
	if process != nil {
		stop(process)
		r.memory = peak(process)
	}
	return r, nil
}

// exchange creates a queue, sends messages, and receives and deletes them.
func exchange(ctx context.Context, client *sqs.Client, name string, messages int) error {
	q, err := client.CreateQueue(ctx, &sqs.CreateQueueInput{QueueName: &name})
	if err != nil {
		return err
	}
	for range messages {
		if _, err := client.SendMessage(ctx, &sqs.SendMessageInput{QueueUrl: q.QueueUrl, MessageBody: aws.String(`{"order":17,"cents":4200}`)}); err != nil {
			return err
		}
	}
	for range messages {
		got, err := client.ReceiveMessage(ctx, &sqs.ReceiveMessageInput{QueueUrl: q.QueueUrl, WaitTimeSeconds: 5})
		if err != nil {
			return err
		}
		if len(got.Messages) != 1 {
			return fmt.Errorf("queue %s gave %d messages", name, len(got.Messages))
		}
		if _, err := client.DeleteMessage(ctx, &sqs.DeleteMessageInput{QueueUrl: q.QueueUrl, ReceiptHandle: got.Messages[0].ReceiptHandle}); err != nil {
			return err
		}
	}
	return nil
}

// portClient returns a client of a server on loopback.
func portClient(port int) *sqs.Client {
	keys := aws.CredentialsProviderFunc(func(context.Context) (aws.Credentials, error) {
		return aws.Credentials{AccessKeyID: "test", SecretAccessKey: "test"}, nil
	})
	return sqs.New(sqs.Options{Region: fakeaws.DefaultRegion, BaseEndpoint: aws.String("http://127.0.0.1:" + strconv.Itoa(port)), Credentials: keys})
}

func freePort() (int, error) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return 0, err
	}
	defer l.Close()
	return l.Addr().(*net.TCPAddr).Port, nil
}

// await waits until a server listens, for a minute.
func await(ctx context.Context, port int) error {
	ctx, cancel := context.WithTimeout(ctx, time.Minute)
	defer cancel()
	for {
		connection, err := net.Dial("tcp", "127.0.0.1:"+strconv.Itoa(port))
		if err == nil {
			return connection.Close()
		}
		select {
		case <-time.After(time.Millisecond):
		case <-ctx.Done():
			return fmt.Errorf("nothing listens at port %d: %w", port, err)
		}
	}
}

// stop ends a process that run started, once.
func stop(c *exec.Cmd) {
	if c.ProcessState == nil {
		_ = c.Process.Signal(os.Interrupt)
		kill := time.AfterFunc(5*time.Second, func() { _ = c.Process.Kill() })
		defer kill.Stop()
		_ = c.Wait()
	}
}

// peak returns how much memory a process that has ended had, at most, in
// kilobytes.
func peak(c *exec.Cmd) int64 {
	if u, ok := c.ProcessState.SysUsage().(*syscall.Rusage); ok {
		return u.Maxrss
	}
	return 0
}
