package shop

import (
	"embed"
	"errors"
	"io/fs"
	"math"
	"strconv"
	"strings"
)

// The files of a workload, laid out as in the Northwind sample database. Columns
// are found by name; others may be there too.
const (
	ordersFile   = "orders.csv"
	detailsFile  = "order_details.csv"
	productsFile = "products.csv"
)

//go:embed sample/*.csv
var sample embed.FS

// Sample returns the CSV files of a small shop of our own, for [Load].
func Sample() fs.FS {
	files, err := fs.Sub(sample, "sample")
	if err != nil {
		panic("shop: bug: " + err.Error())
	}
	return files
}

// Bounds that keep sums of a whole file far from overflowing.
const (
	mostID    = math.MaxInt32
	mostUnits = 1_000_000
	mostPrice = 1_000_000
)

// Load reads orders.csv, order_details.csv and products.csv: one payment for
// each order, in the order of the file. What is wrong in a file is a [*CSVError].
func Load(files fs.FS) (*Workload, error) {
	products, err := loadProducts(files)
	if err != nil {
		return nil, err
	}
	l := &loader{w: &Workload{Products: products}, products: map[int]bool{}, slots: map[int]int{}}
	for _, p := range products {
		l.products[p.ID] = true
	}
	if err := l.orders(files); err != nil {
		return nil, err
	}
	if err := l.details(files); err != nil {
		return nil, err
	}
	return l.workload()
}

func loadProducts(files fs.FS) ([]Product, error) {
	var products []Product
	seen := map[int]bool{}
	err := readTable(files, productsFile, []string{"productID", "productName", "unitsInStock"}, func(t *table) {
		p := Product{
			ID:    t.whole("productID", 1, mostID),
			Name:  t.text("productName"),
			Stock: t.whole("unitsInStock", 0, mostUnits),
		}
		if seen[p.ID] {
			t.bad("productID", t.text("productID"), "is there twice")
		}
		seen[p.ID] = true
		products = append(products, p)
	})
	return products, err
}

// A loader puts orders together from their files.
type loader struct {
	w        *Workload
	products map[int]bool
	slots    map[int]int // where in payments an order is
	payments []PaymentSucceeded
	lineOf   []int // in orders.csv
	cents    []float64
}

func (l *loader) orders(files fs.FS) error {
	columns := []string{"orderID", "customerID", "shipVia", "freight", "shipName", "shipCity", "shipCountry"}
	return readTable(files, ordersFile, columns, func(t *table) {
		p := PaymentSucceeded{
			OrderID:  t.whole("orderID", 1, mostID),
			Customer: t.text("customerID"),
			Carrier:  t.whole("shipVia", 1, mostID),
			ShipTo:   address(t.text("shipName"), t.text("shipCity"), t.text("shipCountry")),
		}
		freight := t.decimal("freight", mostPrice)
		if _, twice := l.slots[p.OrderID]; twice {
			t.bad("orderID", t.text("orderID"), "is there twice")
		}
		line, _ := t.r.FieldPos(0)
		l.slots[p.OrderID] = len(l.payments)
		l.payments = append(l.payments, p)
		l.lineOf = append(l.lineOf, line)
		l.cents = append(l.cents, freight*100)
	})
}

func address(parts ...string) string {
	var known []string
	for _, p := range parts {
		if p != "" {
			known = append(known, p)
		}
	}
	return strings.Join(known, ", ")
}

func (l *loader) details(files fs.FS) error {
	columns := []string{"orderID", "productID", "unitPrice", "quantity", "discount"}
	return readTable(files, detailsFile, columns, func(t *table) {
		orderID := t.whole("orderID", 1, mostID)
		line := Line{ProductID: t.whole("productID", 1, mostID), Quantity: t.whole("quantity", 1, mostUnits)}
		price, discount := t.decimal("unitPrice", mostPrice), t.decimal("discount", 1)
		slot, known := l.slots[orderID]
		if !known {
			t.bad("orderID", t.text("orderID"), "no such order in %s", ordersFile)
		}
		if !l.products[line.ProductID] {
			t.bad("productID", t.text("productID"), "no such product in %s", productsFile)
		}
		if t.err != nil {
			return
		}
		p := &l.payments[slot]
		p.Lines = append(p.Lines, line)
		l.cents[slot] += price * float64(line.Quantity) * (1 - discount) * 100
	})
}

func (l *loader) workload() (*Workload, error) {
	if len(l.payments) == 0 {
		return nil, &CSVError{File: ordersFile, Err: errors.New("no orders")}
	}
	ids := make([]int, len(l.payments))
	for i := range l.payments {
		p := &l.payments[i]
		if len(p.Lines) == 0 {
			return nil, &CSVError{
				File: ordersFile, Line: l.lineOf[i], Column: "orderID", Value: strconv.Itoa(p.OrderID),
				Err: errors.New("no lines in " + detailsFile),
			}
		}
		p.Cents = int64(math.Round(l.cents[i]))
		ids[i] = p.OrderID
	}
	payments := l.payments
	l.w.Orders, l.w.n = IndexOf(ids), len(payments)
	l.w.payment = func(i int) PaymentSucceeded { return payments[i] }
	return l.w, nil
}
