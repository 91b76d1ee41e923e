package program

import (
	"context"
	"errors"
	"net"
	"net/http"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/gofanout/fanout/plugin/fanoutweb"
)

// serve serves the page of the queues. It returns what ends it.
func (c *checkout) serve() (end func(), err error) {
	page, err := fanoutweb.New(fanoutweb.Options{Title: "Checkout", Allow: play}, c.topic)
	if err != nil {
		return nil, err
	}
	listener, err := net.Listen("tcp", c.cfg.http)
	if err != nil {
		page.Close()
		return nil, err
	}
	server := &http.Server{Handler: page, ReadHeaderTimeout: 10 * time.Second}
	server.RegisterOnShutdown(page.Close)
	var serving errgroup.Group
	serving.Go(func() error { return server.Serve(listener) })
	c.out.say("the queues are at http://%v/", listener.Addr())
	return func() {
		grace, cancel := context.WithTimeout(context.Background(), time.Second)
		defer cancel()
		_ = server.Shutdown(grace)
		if err := serving.Wait(); !errors.Is(err, http.ErrServerClosed) {
			c.out.say("the page: %v", err)
		}
	}, nil
}

// play allows all but what would lose payments, for then the books don't balance.
func play(_ *http.Request, a fanoutweb.Access) bool {
	return a.Action != fanoutweb.Delete && a.Action != fanoutweb.Purge
}
