// Gracefulhttp is an HTTP service that answers at once and works later, and that
// loses nothing when it is stopped.
//
//	go run ./examples/gracefulhttp
//
// POST /orders publishes the order and answers 202 Accepted; the shipping service
// works it off from a queue. If that is full the answer is 503, so that clients
// come back later instead of piling up. At the end it stops in this order: first
// accept no more requests and let those under way finish, then drain the queue,
// then report. One sees the program send itself a few requests on a loopback port
// and stop; what it had accepted by then is shipped all the same. Ctrl-C stops it
// in the same way.
package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/signal"
	"strings"
	"syscall"
	"time"

	"github.com/gofanout/fanout"
)

type order struct {
	ID string `json:"id"`
}

const (
	shipTime = 50 * time.Millisecond
	grace    = 3 * time.Second // for each step of the shutdown
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	if err := run(ctx, os.Stdout); err != nil {
		fmt.Fprintln(os.Stderr, "gracefulhttp:", err)
		os.Exit(1)
	}
}

// run is the program without the process around it. When ctx ends it shuts down.
func run(ctx context.Context, stdout io.Writer) error {
	orders, err := fanout.NewTopic[order]("orders")
	if err != nil {
		return err
	}
	defer orders.Close()
	shipping, err := orders.Subscribe(ctx, "shipping", ship, fanout.WithCapacity(100))
	if err != nil {
		return err
	}

	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return err
	}
	server := &http.Server{Handler: routes(orders), ReadHeaderTimeout: 5 * time.Second}
	served := make(chan error, 1)
	go func() { served <- server.Serve(listener) }()
	fmt.Fprintf(stdout, "listening on http://%s\n", listener.Addr())

	err = visit(ctx, stdout, "http://"+listener.Addr().String()+"/orders")
	if ctx.Err() != nil {
		err = nil // to be interrupted is no failure
	}
	err = errors.Join(err, stop(context.WithoutCancel(ctx), server, orders))
	if e := <-served; !errors.Is(e, http.ErrServerClosed) {
		err = errors.Join(err, e)
	}
	s := shipping.Queue().Stats()
	fmt.Fprintf(stdout, "stopped: %d accepted, %d shipped, %d left\n", s.Published, s.Acked, s.Left)
	return err
}

// stop ends the service from the outside in: nothing comes in any more before
// what is there is drained.
func stop(ctx context.Context, server *http.Server, orders *fanout.Topic[order]) error {
	accepting, cancel := context.WithTimeout(ctx, grace)
	defer cancel()
	err := server.Shutdown(accepting)
	if err != nil {
		err = errors.Join(err, server.Close()) // requests that don't end are cut off
	}

	draining, cancel := context.WithTimeout(ctx, grace)
	defer cancel()
	return errors.Join(err, orders.Shutdown(draining)) // names what is left, if anything is
}

// ship books a carrier, who takes a while.
func ship(ctx context.Context, _ fanout.Delivery[order]) error {
	select {
	case <-time.After(shipTime):
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

func routes(orders *fanout.Topic[order]) http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("POST /orders", func(w http.ResponseWriter, r *http.Request) {
		var o order
		if err := json.NewDecoder(http.MaxBytesReader(w, r.Body, 1<<16)).Decode(&o); err != nil || o.ID == "" {
			http.Error(w, "want an order with an id", http.StatusBadRequest)
			return
		}
		// Publish would wait for room, and the client with it.
		switch err := orders.TryPublish(r.Context(), o); {
		case errors.Is(err, fanout.ErrQueueFull), errors.Is(err, fanout.ErrClosed):
			w.Header().Set("Retry-After", "1")
			http.Error(w, "busy, come back later", http.StatusServiceUnavailable)
		case err != nil:
			http.Error(w, "internal error", http.StatusInternalServerError)
		default:
			w.WriteHeader(http.StatusAccepted)
		}
	})
	return mux
}

// visit is the clients.
func visit(ctx context.Context, stdout io.Writer, url string) error {
	client := &http.Client{Transport: &http.Transport{}, Timeout: 5 * time.Second}
	defer client.CloseIdleConnections()
	for _, body := range []string{`{"id": "o-17"}`, `{"id": "o-18"}`, `not an order`, `{"id": "o-19"}`, `{"id": "o-20"}`} {
		r, err := http.NewRequestWithContext(ctx, http.MethodPost, url, strings.NewReader(body))
		if err != nil {
			return err
		}
		r.Header.Set("Content-Type", "application/json")
		answer, err := client.Do(r)
		if err != nil {
			return err
		}
		if err := answer.Body.Close(); err != nil {
			return err
		}
		fmt.Fprintf(stdout, "POST /orders %s: %s\n", body, answer.Status)
	}
	return nil
}
