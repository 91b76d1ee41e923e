// Server is a NATS server of a cluster, for the tests: a process, so that it can be
// killed, until its standard input ends. It says "ready" when it can be used.
package main

import (
	"encoding/json"
	"fmt"
	"io"
	"log"
	"net/url"
	"os"
	"time"

	"github.com/nats-io/nats-server/v2/server"
)

func main() {
	var c struct {
		Name, Dir  string
		Port, Peer int
		Peers      []int
		Advertise  string // to other servers, "" for the peer's port
	}
	if err := json.Unmarshal([]byte(os.Getenv("FANOUTNATS_CHILD_CONFIG")), &c); err != nil {
		log.Fatal(err)
	}
	var routes []*url.URL
	for _, p := range c.Peers {
		routes = append(routes, &url.URL{Scheme: "nats", Host: fmt.Sprintf("127.0.0.1:%d", p)})
	}
	s, err := server.NewServer(&server.Options{
		ServerName: c.Name, Host: "127.0.0.1", Port: c.Port, NoSigs: true, NoLog: true,
		JetStream: true, StoreDir: c.Dir, Routes: routes,
		Cluster: server.ClusterOpts{Name: "test", Host: "127.0.0.1", Port: c.Peer, Advertise: c.Advertise},
	})
	if err != nil {
		log.Fatal(err)
	}
	s.Start()
	for !s.ReadyForConnections(20*time.Second) || !s.JetStreamIsCurrent() {
		time.Sleep(20 * time.Millisecond)
	}
	fmt.Println("ready")
	_, _ = io.Copy(io.Discard, os.Stdin)
	s.Shutdown()
}
