package fanoutweb_test

import (
	"context"
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"

	"github.com/gofanout/fanout"
	"github.com/gofanout/fanout/plugin/fanoutweb"
)

// The page is mounted below a path, behind the program's own authentication. What it may
// show and do is decided for each request.
func ExampleNew() {
	ctx := context.Background()
	orders, _ := fanout.NewTopic[string]("orders")
	orders.OpenQueue(ctx, "billing")

	page, err := fanoutweb.New(fanoutweb.Options{
		Title: "Shop",
		Allow: func(r *http.Request, a fanoutweb.Access) bool {
			switch a.Action {
			case fanoutweb.View:
				return true
			case fanoutweb.Body, fanoutweb.Stack:
				return r.Header.Get("X-Role") != ""
			}
			return r.Header.Get("X-Role") == "on-call" && a.Action != fanoutweb.Purge
		},
		Redact: func(t fanoutweb.Text) string {
			if t.Kind == "attribute" && t.Name == "email" {
				return "…"
			}
			return t.Text
		},
	}, orders)
	if err != nil {
		fmt.Println(err)
		return
	}
	mux := http.NewServeMux()
	mux.Handle("/queues/", page)
	server := httptest.NewServer(mux)
	server.Config.RegisterOnShutdown(page.Close)
	defer server.Close()

	answer, err := http.Get(server.URL + "/queues/queue?topic=orders&queue=billing")
	if err != nil {
		fmt.Println(err)
		return
	}
	defer answer.Body.Close()
	fmt.Println(answer.Status, answer.Header.Get("Cache-Control"))
	// Output:
	// 200 OK no-store
}

// Scripts get what the page shows as JSON.
func ExampleHandler_ServeHTTP() {
	ctx := context.Background()
	orders, _ := fanout.NewTopic[string]("orders")
	orders.OpenQueue(ctx, "billing", fanout.WithCapacity(1))
	orders.Publish(ctx, "o-17")
	page, _ := fanoutweb.New(fanoutweb.Options{}, orders)
	defer page.Close()

	r := httptest.NewRequest("GET", "/?q=bill", nil)
	r.Header.Set("Accept", "application/json")
	w := httptest.NewRecorder()
	page.ServeHTTP(w, r)
	for line := range strings.Lines(w.Body.String()) {
		if strings.Contains(line, `"text"`) || strings.Contains(line, `"held"`) {
			fmt.Println(strings.TrimSpace(line))
		}
	}
	// Output:
	// "held": 1,
	// "text": "It is full: the next publisher will wait."
}
