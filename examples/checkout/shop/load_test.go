package shop

import (
	"encoding/json"
	"errors"
	"io/fs"
	"testing"
	"testing/fstest"

	"github.com/stretchr/testify/require"
)

const (
	goodProducts = "productID,productName,unitsInStock\n1,Chai,39\n2,Röd Kaviar,101\n"
	goodOrders   = "orderID,customerID,shipVia,freight,shipName,shipCity,shipCountry\n" +
		"10248,VINET,3,32.38,Vins et alcools Chevalier,Reims,France\n" +
		"10250,HANAR,2,65.83,\"Toms \"\"Spezialitäten\"\", Laden\",NULL,Germany\n"
	goodDetails = "orderID,productID,unitPrice,quantity,discount\n" +
		"10248,1,14.00,12,0\n10248,2,9.80,10,0.25\n10250,1,7.70,10,0\n"
)

func files(products, orders, details string) fs.FS {
	return fstest.MapFS{
		productsFile: {Data: []byte(products)},
		ordersFile:   {Data: []byte(orders)},
		detailsFile:  {Data: []byte(details)},
	}
}

func TestLoadReadsOrdersAsTheyAre(t *testing.T) {
	w, err := Load(files(goodProducts, goodOrders, goodDetails))
	require.NoError(t, err)
	require.Equal(t, []Product{{1, "Chai", 39}, {2, "Röd Kaviar", 101}}, w.Products)
	require.Equal(t, 2, w.Len())
	require.Equal(t, 3, w.Lines())
	require.Equal(t, PaymentSucceeded{
		OrderID: 10248, Customer: "VINET", ShipTo: "Vins et alcools Chevalier, Reims, France", Carrier: 3,
		Cents: 3238 + 12*1400 + 10*735, Lines: []Line{{1, 12}, {2, 10}},
	}, w.Payment(0))
	require.Equal(t, `Toms "Spezialitäten", Laden, Germany`, w.Payment(1).ShipTo)
}

func TestLoadFindsColumnsByNameWhateverWroteTheFile(t *testing.T) {
	products := "\uFEFFunitsInStock,extra,productName,productID\r\n39,\"two\nlines\",Chai,1\r\n101,,Röd Kaviar,2\r\n"
	w, err := Load(files(products, goodOrders, goodDetails))
	require.NoError(t, err)
	require.Equal(t, []Product{{1, "Chai", 39}, {2, "Röd Kaviar", 101}}, w.Products)
}

func TestLoadNamesFileLineColumnAndValueOfWhatIsWrong(t *testing.T) {
	for name, tt := range map[string]struct{ products, orders, details, want string }{
		"not a number": {
			details: "orderID,productID,unitPrice,quantity,discount\n10248,1,14.00,twelve,0\n",
			want:    `order_details.csv: line 2: column quantity: "twelve": want a whole number from 1 to 1000000`,
		},
		"a number too large": {
			details: "orderID,productID,unitPrice,quantity,discount\n10248,1,14.00,99999999999999999999,0\n",
			want:    `order_details.csv: line 2: column quantity: "99999999999999999999": want a whole number from 1 to 1000000`,
		},
		"no units": {
			details: "orderID,productID,unitPrice,quantity,discount\n10248,1,14.00,0,0\n",
			want:    `order_details.csv: line 2: column quantity: "0": want a whole number from 1 to 1000000`,
		},
		"a discount over 1": {
			details: "orderID,productID,unitPrice,quantity,discount\n10248,1,14.00,1,25\n",
			want:    `order_details.csv: line 2: column discount: "25": want a number from 0 to 1`,
		},
		"a price that is no number": {
			details: "orderID,productID,unitPrice,quantity,discount\n10248,1,NaN,1,0\n",
			want:    `order_details.csv: line 2: column unitPrice: "NaN": want a number from 0 to 1000000`,
		},
		"NULL where a value is needed": {
			orders: "orderID,customerID,shipVia,freight,shipName,shipCity,shipCountry\n10248,A,NULL,1,a,b,c\n",
			want:   `orders.csv: line 2: column shipVia: "": want a whole number from 1 to 2147483647`,
		},
		"the line after a field of two lines": {
			orders: "orderID,customerID,shipVia,freight,shipName,shipCity,shipCountry\n10248,A,1,1,\"a\nb\",b,c\nx,A,1,1,a,b,c\n",
			want:   `orders.csv: line 4: column orderID: "x": want a whole number from 1 to 2147483647`,
		},
		"an order twice": {
			orders: "orderID,customerID,shipVia,freight,shipName,shipCity,shipCountry\n10248,A,1,1,a,b,c\n10248,A,1,1,a,b,c\n",
			want:   `orders.csv: line 3: column orderID: "10248": is there twice`,
		},
		"an order without lines": {
			details: "orderID,productID,unitPrice,quantity,discount\n10248,1,14.00,1,0\n",
			want:    `orders.csv: line 3: column orderID: "10250": no lines in order_details.csv`,
		},
		"a line without its order": {
			details: goodDetails + "7,1,14.00,1,0\n",
			want:    `order_details.csv: line 5: column orderID: "7": no such order in orders.csv`,
		},
		"a line without its product": {
			details: goodDetails + "10248,3,14.00,1,0\n",
			want:    `order_details.csv: line 5: column productID: "3": no such product in products.csv`,
		},
		"a product twice": {
			products: goodProducts + "2,Chang,1\n",
			want:     `products.csv: line 4: column productID: "2": is there twice`,
		},
		"too few fields": {
			products: "productID,productName,unitsInStock\n1,Chai\n",
			want:     `products.csv: line 2: 2 fields ("1,Chai"), want 3 as in the header`,
		},
		"a quote that does not end": {
			products: "productID,productName,unitsInStock\n1,\"Chai,3\n",
			want:     `products.csv: line 2: extraneous or missing " in quoted-field`,
		},
		"another encoding": {
			products: "productID,productName,unitsInStock\n1,R\xf6d,3\n",
			want:     `products.csv: line 2: column productName: "R\xf6d": want UTF-8`,
		},
		"a column missing": {
			products: "productID,productName\n1,Chai\n",
			want:     `products.csv: line 1: no column unitsInStock in the header productID,productName`,
		},
		"a column twice": {
			products: "productID,productName,unitsInStock,productID\n",
			want:     `products.csv: line 1: 2 columns productID in the header`,
		},
		"an empty file": {products: " ", want: `products.csv: line 1: no column productID in the header  `},
		"no orders": {
			orders:  "orderID,customerID,shipVia,freight,shipName,shipCity,shipCountry\n",
			details: "orderID,productID,unitPrice,quantity,discount\n",
			want:    `orders.csv: no orders`,
		},
	} {
		t.Run(name, func(t *testing.T) {
			or := func(s, good string) string {
				if s == "" {
					return good
				}
				return s
			}
			_, err := Load(files(or(tt.products, goodProducts), or(tt.orders, goodOrders), or(tt.details, goodDetails)))
			require.EqualError(t, err, tt.want)
			var bad *CSVError
			require.ErrorAs(t, err, &bad)
		})
	}
}

func TestLoadNamesAFileThatIsMissingOrEmpty(t *testing.T) {
	_, err := Load(fstest.MapFS{})
	require.ErrorIs(t, err, fs.ErrNotExist)
	require.EqualError(t, err, "products.csv: file does not exist")
	_, err = Load(files("", "", ""))
	require.EqualError(t, err, "products.csv: is empty, want a header")
}

func TestTheSampleIsAShop(t *testing.T) {
	w, err := Load(Sample())
	require.NoError(t, err)
	require.Equal(t, 40, w.Len())
	require.Equal(t, 95, w.Lines())
	require.Len(t, w.Products, 15)
}

func TestAPaymentSurvivesJSON(t *testing.T) {
	w, err := Load(Sample())
	require.NoError(t, err)
	for p := range w.All() {
		b, err := json.Marshal(p)
		require.NoError(t, err)
		var back PaymentSucceeded
		require.NoError(t, json.Unmarshal(b, &back))
		require.Equal(t, p, back)
	}
}

// FuzzOrders gives Load orders of all kinds: it returns a workload that holds
// together, or an error that names the file.
func FuzzOrders(f *testing.F) {
	f.Add(goodOrders)
	f.Add("orderID\n1\n")
	f.Fuzz(func(t *testing.T, orders string) {
		w, err := Load(files(goodProducts, orders, goodDetails))
		if err != nil {
			var bad *CSVError
			require.True(t, errors.As(err, &bad), "%v", err)
			require.Contains(t, []string{ordersFile, detailsFile}, bad.File)
			return
		}
		require.Equal(t, w.Len(), w.Orders.Len())
		for p := range w.All() {
			slot, ok := w.Orders.Slot(p.OrderID)
			require.True(t, ok)
			require.Equal(t, p.OrderID, w.Orders.OrderID(slot))
			require.NotEmpty(t, p.Lines)
			require.GreaterOrEqual(t, p.Cents, int64(0))
		}
	})
}
