// Checkout-nats is the checkout example with its queues kept by NATS JetStream:
// in a directory, by a server that is part of the process, or by the servers at
// a URL. The services are the same; what is different is in this file.
//
//	go run .                          # in a temporary directory
//	go run . -dir DIR                 # in a directory that stays
//	go run . -url nats://a:4222,...   # on servers, 2.14 or newer
//	go run . -orders DIR -sync 100ms  # and all flags of the other one: -h
package main

import "github.com/gofanout/fanout/examples/checkout/program"

func main() {
	program.Main(new(place).where())
}
