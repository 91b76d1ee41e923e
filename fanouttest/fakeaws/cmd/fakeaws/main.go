// Fakeaws serves the fake of SQS and SNS on a port of the loopback interface,
// for programs in other processes and languages:
//
//	go run github.com/gofanout/fanout/fanouttest/fakeaws/cmd/fakeaws@latest -listen 127.0.0.1:4566
//
// Point SDKs at it by their endpoint (AWS_ENDPOINT_URL=http://127.0.0.1:4566)
// and give them any credentials: signatures are not checked. An access key of
// twelve digits names the account. Everything is in memory, and gone when it
// ends. SNS delivers to HTTP endpoints on loopback. It prints a line for each call
// and each delivery:
//
//	15:04:05.123  ReceiveMessage      orders  us-east-1  20.001s
//	15:04:25.130  SendMessage         ordres  us-east-1  0s       AWS.SimpleQueueService.NonExistentQueue: The specified queue does not exist.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/signal"
	"sync"
	"syscall"
	"time"

	"github.com/gofanout/fanout/fanouttest/fakeaws"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	defer stop()
	if err := run(ctx, os.Args[1:], os.Stdout); err != nil {
		if !errors.Is(err, flag.ErrHelp) {
			fmt.Fprintln(os.Stderr, "fakeaws:", err)
		}
		os.Exit(2)
	}
}

// run serves until ctx ends.
func run(ctx context.Context, arguments []string, out io.Writer) error {
	flags := flag.NewFlagSet("fakeaws", flag.ContinueOnError)
	listen := flags.String("listen", "127.0.0.1:4566", "loopback address to serve at; port 0 takes a free one")
	region := flags.String("region", fakeaws.DefaultRegion, "region of requests that name none")
	account := flags.String("account", fakeaws.DefaultAccount, "account of requests that name none, twelve digits")
	if err := flags.Parse(arguments); err != nil {
		return err
	}
	if flags.NArg() > 0 {
		return fmt.Errorf("unknown argument %q", flags.Arg(0))
	}
	host, _, err := net.SplitHostPort(*listen)
	if err != nil {
		return fmt.Errorf("-listen %s: %w", *listen, err)
	}
	if ip := net.ParseIP(host); host != "localhost" && (ip == nil || !ip.IsLoopback()) {
		return fmt.Errorf("-listen %s: the fake checks no signatures and serves on loopback only: want a host such as 127.0.0.1", *listen)
	}
	l := &log{out: out}
	a, err := fakeaws.Start(fakeaws.WithRegion(*region), fakeaws.WithAccount(*account), fakeaws.WithObserver(l.call),
		fakeaws.WithDeliveries(&http.Transport{DialContext: (&net.Dialer{Control: loopbackOnly}).DialContext}))
	if err != nil {
		return err
	}
	listener, err := net.Listen("tcp", *listen)
	if err != nil {
		return err
	}
	server := &http.Server{Handler: a.Handler(), ReadHeaderTimeout: 10 * time.Second}
	context.AfterFunc(ctx, func() {
		a.Close()
		_ = server.Close()
	})
	l.printf("SQS and SNS at http://%s, region %s, account %s\n", listener.Addr(), *region, *account)
	if err := server.Serve(listener); !errors.Is(err, http.ErrServerClosed) {
		return err
	}
	return nil
}

// loopbackOnly refuses connections to other machines.
func loopbackOnly(_, address string, _ syscall.RawConn) error {
	if host, _, err := net.SplitHostPort(address); err != nil || !net.ParseIP(host).IsLoopback() {
		return fmt.Errorf("fakeaws delivers to HTTP endpoints on loopback only, not to %s", address)
	}
	return nil
}

// A log prints calls, one a line.
type log struct {
	mu  sync.Mutex // guards out
	out io.Writer
}

func (l *log) printf(format string, args ...any) {
	l.mu.Lock()
	defer l.mu.Unlock()
	fmt.Fprintf(l.out, format, args...)
}

func (l *log) call(c fakeaws.Call) {
	resource := c.Resource
	if resource == "" {
		resource = "-"
	}
	line := fmt.Sprintf("%s  %-28s %-24s %s  %s", c.Time.Format("15:04:05.000"), c.Operation, resource, c.Region, c.Took.Round(time.Millisecond))
	if c.Error != "" {
		line += "  " + c.Error
	}
	l.printf("%s\n", line)
}
