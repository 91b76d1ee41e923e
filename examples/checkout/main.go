// Checkout is an e-commerce checkout in one process. A payment service publishes
// a Payment Successful event for each order; the inventory service reserves stock
// for each line of it, and the shipping service books a carrier. Each monitors a
// queue of its own with several workers, so that neither floods nor fails the other.
//
//	go run ./examples/checkout                        # 40 orders that come with it
//	go run ./examples/checkout -orders DIR            # orders.csv, order_details.csv, products.csv
//	go run ./examples/checkout -flood 1000000         # a million payments through small queues
//	go run ./examples/checkout -http 127.0.0.1:8080   # a shop that goes on, with a page to watch and mend it
//	go run ./examples/checkout -h                     # all flags
//
// DIR holds CSV files laid out as those of the Northwind sample database, of
// which there are many copies on the web.
//
// On a terminal the queues fill and drain in place; into a pipe go plain lines,
// about one a second. Some carriers are slow and some calls fail: these are
// retried, later each time. An order for more than there is in stock can't
// succeed, so it goes to the dead-letter queue at once, where it is shown with
// the history of its attempts; after a restock all dead letters are redriven.
//
// At the end the books are balanced order by order: what was published must be
// settled, dead or left, each order in exactly one place, by what the services
// did and by what the queues say. If the books don't balance, the program says
// where and exits with 1. An interrupt (Ctrl-C) publishes no more, drains what
// was published for a limited time, and says what is left; a second one kills.
package main

import "github.com/gofanout/fanout/examples/checkout/program"

func main() {
	program.Main(program.Where{Command: "go run ./examples/checkout"})
}
