// Observed is the checkout as a service that one watches: payments come all the time, the
// inventory and the shipping service handle each, and shipping tells a third service to
// write a mail. OpenTelemetry has a trace of each payment, from its publisher to the mail,
// and Prometheus finds the metrics at /metrics.
//
//	go run . -traces stdout                                  # each span as JSON
//	OTEL_EXPORTER_OTLP_ENDPOINT=http://127.0.0.1:4318 \
//	go run . -traces otlp                                    # to a collector, Jaeger, Tempo …
//	go run . -trouble                                        # what dashboard and alerts are for
//
// In trouble warehouses and carriers fail, some orders can't be reserved at all, a carrier
// hangs now and then, and mails are written too slowly. So publishers wait, attempts fail
// and time out, there are dead letters, and mails are dropped.
//
// The README beside it says how to look at all that with Prometheus and Grafana. Ctrl-C
// publishes no more, drains for a few seconds, and exports what is left.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/signal"
	"syscall"
	"time"
)

// config is what the flags say.
type config struct {
	listen  string
	traces  string
	sample  float64
	rate    float64
	trouble bool
	lasts   time.Duration
}

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	context.AfterFunc(ctx, stop) // the second signal is not caught: it kills
	err := run(ctx, os.Args[1:], os.Stdout, os.Stderr)
	stop()
	switch {
	case err == nil || errors.Is(err, flag.ErrHelp):
	case errors.Is(err, errUsage):
		fmt.Fprintf(os.Stderr, "observed: %v\nUsage: go run . -h\n", err)
		os.Exit(2)
	default:
		fmt.Fprintln(os.Stderr, "observed:", err)
		os.Exit(1)
	}
}

var errUsage = errors.New("bad flags")

func parseFlags(args []string, out io.Writer) (config, error) {
	var c config
	fs := flag.NewFlagSet("observed", flag.ContinueOnError)
	fs.SetOutput(io.Discard) // an error is returned, and told once
	fs.StringVar(&c.listen, "listen", "127.0.0.1:9464", "serve /metrics at this `address`")
	fs.StringVar(&c.traces, "traces", "none", "`where` traces go: none, stdout, or otlp, which OTEL_EXPORTER_OTLP_ENDPOINT and its siblings configure")
	fs.Float64Var(&c.sample, "sample", 1, "`share` of the traces that is recorded, 0 to 1")
	fs.Float64Var(&c.rate, "rate", 50, "payments a `second`")
	fs.BoolVar(&c.trouble, "trouble", false, "make trouble")
	fs.DurationVar(&c.lasts, "for", 0, "end after this `time`; 0 is never")
	err := fs.Parse(args)
	switch {
	case errors.Is(err, flag.ErrHelp):
		fmt.Fprintln(out, "Usage: go run . [flags]")
		fs.SetOutput(out)
		fs.PrintDefaults()
		return c, err
	case err != nil:
	case fs.NArg() > 0:
		err = fmt.Errorf("unexpected argument %q", fs.Arg(0))
	case c.traces != "none" && c.traces != "stdout" && c.traces != "otlp":
		err = fmt.Errorf("-traces %s: want none, stdout or otlp", c.traces)
	case !(c.sample >= 0 && c.sample <= 1): // NaN too
		err = fmt.Errorf("-sample %v: want 0 to 1", c.sample)
	case !(c.rate >= 0.1 && c.rate <= 100_000):
		err = fmt.Errorf("-rate %v: want 0.1 to 100000", c.rate)
	case c.lasts < 0:
		err = fmt.Errorf("-for %v: want a duration that is not negative", c.lasts)
	}
	if err != nil {
		return c, fmt.Errorf("%w: %w", errUsage, err)
	}
	return c, nil
}

// grace is how long the service drains, and how long its telemetry has to be exported.
const grace = 5 * time.Second

// run is the program without the process around it. When ctx ends it shuts down.
func run(ctx context.Context, args []string, stdout, stderr io.Writer) error {
	c, err := parseFlags(args, stdout)
	if err != nil {
		return err
	}
	if c.lasts > 0 {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, c.lasts)
		defer cancel()
	}
	t, err := newTelemetry(ctx, c, stdout, stderr)
	if err != nil {
		return err
	}
	s, err := open(ctx, c, t)
	if err == nil {
		if err = t.serve(c.listen); err == nil {
			fmt.Fprintf(stderr, "metrics at http://%s/metrics; Ctrl-C ends it\n", t.listener.Addr())
			s.publish(ctx)
		}
		err = errors.Join(err, s.close())
		fmt.Fprintf(stderr, "%d payments published, %d refused\n", s.published.Load(), s.refused.Load())
	}
	return errors.Join(err, t.close())
}
