package policy

import (
	"fmt"
	"testing"

	"github.com/stretchr/testify/require"
)

// attrs makes attributes of names and values in turn.
func attrs(pairs ...string) map[string]string {
	m := make(map[string]string)
	for i := 0; i < len(pairs); i += 2 {
		m[pairs[i]] = pairs[i+1]
	}
	return m
}

type matchCase struct {
	policy     string
	attributes map[string]string
	want       bool
}

// matchCases are the examples of the guide of SNS, then what its rules say of
// other values, then what the package comment decides where it says nothing.
var matchCases = []matchCase{
	// Exact strings.
	{`{"customer_interests": ["rugby", "tennis"]}`, attrs("customer_interests", "rugby"), true},
	{`{"customer_interests": ["rugby", "tennis"]}`, attrs("customer_interests", "tennis"), true},
	{`{"customer_interests": ["rugby", "tennis"]}`, attrs("customer_interests", "baseball"), false},
	{`{"customer_interests": ["rugby", "tennis"]}`, attrs("customer_interests", `["rugby", "tennis"]`), true},
	{`{"customer_interests": ["rugby", "tennis"]}`, attrs("customer_interests", `["baseball"]`), false},
	{`{"customer_interests": ["rugby", "tennis"]}`, attrs("customer_interests", `["baseball","tennis"]`), true},
	{`{"customer_interests": ["rugby", "tennis"]}`, attrs("customer_interests", `[]`), false},
	{`{"customer_interests": ["rugby", "tennis"]}`, attrs("interests", "rugby"), false},
	{`{"customer_interests": ["rugby", "tennis"]}`, nil, false},
	{`{"store": ["example_corp"]}`, attrs("store", "Example_Corp"), false},
	{`{"store": ["example_corp"]}`, attrs("Store", "example_corp"), false},
	{`{"store": ["example_corp"]}`, attrs("store", "example_corp "), false},
	{`{"store": ["example_corp"]}`, attrs("store", "example"), false},
	{`{"store": ["example_corp"]}`, attrs("store", ""), false},
	{`{"store": ["example_corp"]}`, attrs("store", "example_corp", "other", "ignored"), true},
	{`{"store": [""]}`, attrs("store", ""), true},
	{`{"store": ["zürich \u20ac"]}`, attrs("store", "zürich €"), true},
	{`{"store": ["a\"b\\c"]}`, attrs("store", `a"b\c`), true},
	{`{"a.b": ["x"]}`, attrs("a.b", "x"), true},

	// The policy and messages of the guide's overview.
	{overview, attrs("store", "example_corp", "event", "order_placed", "customer_interests", `["soccer","rugby","hockey"]`, "price_usd", "210.75"), true},
	{overview, attrs("store", "example_corp", "event", "order_cancelled", "customer_interests", `["soccer","rugby","hockey"]`, "price_usd", "210.75"), false},
	{overview, attrs("store", "example_corp", "event", "order_placed", "customer_interests", `["soccer","hockey"]`, "price_usd", "210.75"), false},
	{overview, attrs("store", "example_corp", "event", "order_placed", "customer_interests", "football", "price_usd", "100"), true},
	{overview, attrs("store", "example_corp", "event", "order_placed", "customer_interests", "football", "price_usd", "99.99"), false},
	{overview, attrs("store", "example_corp", "event", "order_placed", "customer_interests", "football"), false},
	{overview, attrs("store", "another_corp", "event", "order_placed", "customer_interests", "football", "price_usd", "100"), false},

	// Exact numbers: all spellings of a number are the number.
	{`{"price": [300]}`, attrs("price", "300"), true},
	{`{"price": [300]}`, attrs("price", "300.0"), true},
	{`{"price": [300]}`, attrs("price", "3.0e2"), true},
	{`{"price": [300]}`, attrs("price", "3E+2"), true},
	{`{"price": [3.0e2]}`, attrs("price", "300"), true},
	{`{"price": [300.00000]}`, attrs("price", "300"), true},
	{`{"price": [300]}`, attrs("price", "301"), false},
	{`{"price": [300]}`, attrs("price", "0300"), false},
	{`{"price": [300]}`, attrs("price", "+300"), false},
	{`{"price": [300]}`, attrs("price", " 300"), false},
	{`{"price": [300]}`, attrs("price", "300."), false},
	{`{"price": [300]}`, attrs("price", "0x12c"), false},
	{`{"price": [300]}`, attrs("price", "three hundred"), false},
	{`{"price": [300]}`, attrs("price", ""), false},
	{`{"price": [300]}`, attrs("price", `[300]`), true},
	{`{"price": [300]}`, attrs("price", `[1, 3e2]`), true},
	{`{"price": [300]}`, attrs("price", `["300"]`), false},
	{`{"price": [0]}`, attrs("price", "-0"), true},
	{`{"price": [-1.5]}`, attrs("price", "-1.50"), true},
	{`{"price": [-1.5]}`, attrs("price", "1.50"), false},
	{`{"price": [100, 100.12]}`, attrs("price", "100.12"), true},
	{`{"price": ["300"]}`, attrs("price", "300"), true},
	{`{"price": ["300"]}`, attrs("price", "300.0"), false},
	{`{"price": ["300"]}`, attrs("price", `[300]`), false},
	{`{"price": [1000000000]}`, attrs("price", "1e9"), true},
	{`{"price": [-1000000000]}`, attrs("price", "-1000000000.0"), true},

	// Five decimals.
	{`{"price": [1.00001]}`, attrs("price", "1.00001"), true},
	{`{"price": [1.00001]}`, attrs("price", "1.00002"), false},
	{`{"price": [1.00001]}`, attrs("price", "1.000012"), true},
	{`{"price": [0.1]}`, attrs("price", "0.1000000001"), true},
	{`{"price": [999999999.99999]}`, attrs("price", "999999999.99999"), true},
	{`{"price": [999999999.99999]}`, attrs("price", "999999999.99998"), false},

	// true, false and null.
	{`{"encrypted": [false]}`, attrs("encrypted", "false"), true},
	{`{"encrypted": [false]}`, attrs("encrypted", "true"), false},
	{`{"encrypted": [false]}`, attrs("encrypted", "False"), false},
	{`{"encrypted": [true]}`, attrs("encrypted", "true"), true},
	{`{"encrypted": ["true"]}`, attrs("encrypted", "true"), true},
	{`{"encrypted": [true, false]}`, attrs("encrypted", "null"), false},
	{`{"error": [null]}`, attrs("error", "null"), true},
	{`{"error": [null]}`, attrs("error", ""), false},
	{`{"error": [null]}`, attrs("other", "x"), false},
	{`{"error": [null]}`, attrs("error", `["a", null]`), true},
	{`{"error": [null]}`, attrs("error", `["null"]`), false},
	{`{"error": [true]}`, attrs("error", `[false, true]`), true},
	{`{"error": [true]}`, attrs("error", `["true"]`), false},
	{`{"error": [false]}`, attrs("error", `[true]`), false},
	{`{"attr1": [null, {"anything-but": "whatever"}]}`, nil, false},
	{`{"attr1": [null, {"anything-but": "whatever"}]}`, attrs("attr2", "x"), false},
	{`{"attr1": [null, {"anything-but": "whatever"}]}`, attrs("attr1", "null"), true},

	// anything-but.
	{`{"customer_interests": [{"anything-but": ["rugby", "tennis"]}]}`, attrs("customer_interests", "baseball"), true},
	{`{"customer_interests": [{"anything-but": ["rugby", "tennis"]}]}`, attrs("customer_interests", "football"), true},
	{`{"customer_interests": [{"anything-but": ["rugby", "tennis"]}]}`, attrs("customer_interests", "rugby"), false},
	{`{"customer_interests": [{"anything-but": ["rugby", "tennis"]}]}`, attrs("customer_interests", "Rugby"), true},
	{`{"customer_interests": [{"anything-but": ["rugby", "tennis"]}]}`, attrs("customer_interests", `["rugby", "baseball"]`), true},
	{`{"customer_interests": [{"anything-but": ["rugby", "tennis"]}]}`, attrs("customer_interests", `["rugby"]`), false},
	{`{"customer_interests": [{"anything-but": ["rugby", "tennis"]}]}`, attrs("customer_interests", `["rugby", "tennis"]`), false},
	{`{"customer_interests": [{"anything-but": ["rugby", "tennis"]}]}`, attrs("customer_interests", `[]`), false},
	{`{"customer_interests": [{"anything-but": ["rugby", "tennis"]}]}`, attrs("customer_interests", `[null]`), true},
	{`{"customer_interests": [{"anything-but": ["rugby", "tennis"]}]}`, attrs("customer_interests", ""), true},
	{`{"customer_interests": [{"anything-but": ["rugby", "tennis"]}]}`, attrs("other", "x"), false},
	{`{"customer_interests": [{"anything-but": "rugby"}]}`, attrs("customer_interests", "rugby"), false},
	{`{"customer_interests": [{"anything-but": "rugby"}]}`, attrs("customer_interests", "tennis"), true},
	{`{"customer_interests": [{"anything-but": "rugby"}, {"exists": false}]}`, attrs("other", "x"), true},
	{`{"customer_interests": [{"anything-but": "rugby"}, {"exists": false}]}`, attrs("customer_interests", "rugby"), false},
	{`{"customer_interests": [{"anything-but": "rugby"}, "rugby"]}`, attrs("customer_interests", "rugby"), true},
	{`{"price": [{"anything-but": [100, 500]}]}`, attrs("price", "101"), true},
	{`{"price": [{"anything-but": [100, 500]}]}`, attrs("price", "100.1"), true},
	{`{"price": [{"anything-but": [100, 500]}]}`, attrs("price", "[100, 50]"), true},
	{`{"price": [{"anything-but": [100, 500]}]}`, attrs("price", "[100, 500]"), false},
	{`{"price": [{"anything-but": [100, 500]}]}`, attrs("price", "100"), false},
	{`{"price": [{"anything-but": [100, 500]}]}`, attrs("price", "5e2"), false},
	{`{"price": [{"anything-but": [100, 500]}]}`, attrs("price", "cheap"), true},
	{`{"price": [{"anything-but": 100}]}`, attrs("price", "100.00"), false},
	{`{"price": [{"anything-but": 100}]}`, attrs("price", "2e9"), true},
	{`{"price": [{"anything-but": "100"}]}`, attrs("price", "100"), false},
	{`{"price": [{"anything-but": "100"}]}`, attrs("price", "[100]"), true},

	// anything-but with a prefix or a suffix.
	{`{"event": [{"anything-but": {"prefix": "order-"}}]}`, attrs("event", "data-entry"), true},
	{`{"event": [{"anything-but": {"prefix": "order-"}}]}`, attrs("event", "order_number"), true},
	{`{"event": [{"anything-but": {"prefix": "order-"}}]}`, attrs("event", "order-cancelled"), false},
	{`{"event": [{"anything-but": {"prefix": "order-"}}]}`, attrs("event", `["order-cancelled"]`), false},
	{`{"event": [{"anything-but": {"prefix": "order-"}}]}`, attrs("event", `["order-cancelled", "x"]`), true},
	{`{"event": [{"anything-but": {"prefix": "order-"}}]}`, attrs("other", "x"), false},
	{`{"interests": [{"anything-but": {"suffix": "ball"}}]}`, attrs("interests", `["hockey", "rugby", "soccer"]`), true},
	{`{"interests": [{"anything-but": {"suffix": "ball"}}]}`, attrs("interests", `["baseball", "basketball"]`), false},
	{`{"interests": [{"anything-but": {"suffix": "ball"}}]}`, attrs("interests", "football"), false},
	{`{"interests": [{"anything-but": {"suffix": "ball"}}]}`, attrs("interests", "ballet"), true},
	{`{"event": [{"anything-but": {"prefix": "a"}}, {"anything-but": {"prefix": "b"}}]}`, attrs("event", "apple"), true},

	// prefix and suffix.
	{`{"customer_interests": [{"prefix": "bas"}]}`, attrs("customer_interests", "baseball"), true},
	{`{"customer_interests": [{"prefix": "bas"}]}`, attrs("customer_interests", "basketball"), true},
	{`{"customer_interests": [{"prefix": "bas"}]}`, attrs("customer_interests", "bas"), true},
	{`{"customer_interests": [{"prefix": "bas"}]}`, attrs("customer_interests", "rugby"), false},
	{`{"customer_interests": [{"prefix": "bas"}]}`, attrs("customer_interests", "Baseball"), false},
	{`{"customer_interests": [{"prefix": "bas"}]}`, attrs("customer_interests", `["rugby", "baseball"]`), true},
	{`{"customer_interests": [{"prefix": "bas"}]}`, attrs("customer_interests", `["a bas"]`), false},
	{`{"customer_interests": [{"prefix": ""}]}`, attrs("customer_interests", "x"), true},
	{`{"customer_interests": [{"suffix": "ball"}]}`, attrs("customer_interests", "baseball"), true},
	{`{"customer_interests": [{"suffix": "ball"}]}`, attrs("customer_interests", "basketball"), true},
	{`{"customer_interests": [{"suffix": "ball"}]}`, attrs("customer_interests", "rugby"), false},
	{`{"customer_interests": [{"suffix": "ball"}]}`, attrs("customer_interests", "ballroom"), false},
	{`{"customer_interests": [{"suffix": "ball"}]}`, attrs("customer_interests", `["rugby","football"]`), true},
	{`{"price": [{"prefix": "3"}]}`, attrs("price", "300"), true},
	{`{"price": [{"prefix": "3"}]}`, attrs("price", "[300]"), false},
	{`{"price": [{"suffix": "0"}]}`, attrs("price", "[300]"), false},
	{`{"price": [{"prefix": ""}]}`, attrs("price", "[300]"), false},
	{`{"price": [{"suffix": ""}]}`, attrs("price", "[null]"), false},

	// equals-ignore-case.
	{`{"customer_interests": [{"equals-ignore-case": "tennis"}]}`, attrs("customer_interests", "TENNIS"), true},
	{`{"customer_interests": [{"equals-ignore-case": "tennis"}]}`, attrs("customer_interests", "Tennis"), true},
	{`{"customer_interests": [{"equals-ignore-case": "tEnnIs"}]}`, attrs("customer_interests", "teNnis"), true},
	{`{"customer_interests": [{"equals-ignore-case": "tennis"}]}`, attrs("customer_interests", "tennis"), true},
	{`{"customer_interests": [{"equals-ignore-case": "tennis"}]}`, attrs("customer_interests", "tenni"), false},
	{`{"customer_interests": [{"equals-ignore-case": "ZÜRICH"}]}`, attrs("customer_interests", "zürich"), true},
	{`{"customer_interests": [{"equals-ignore-case": "tennis"}]}`, attrs("customer_interests", `["golf","TENNIS"]`), true},
	{`{"customer_interests": [{"equals-ignore-case": "TRUE"}]}`, attrs("customer_interests", `[true]`), false},

	// cidr.
	{`{"source_ip": [{"cidr": "10.0.0.0/24"}]}`, attrs("source_ip", "10.0.0.0"), true},
	{`{"source_ip": [{"cidr": "10.0.0.0/24"}]}`, attrs("source_ip", "10.0.0.255"), true},
	{`{"source_ip": [{"cidr": "10.0.0.0/24"}]}`, attrs("source_ip", "10.1.1.0"), false},
	{`{"source_ip": [{"cidr": "10.0.0.0/24"}]}`, attrs("source_ip", "10.0.1.0"), false},
	{`{"source_ip": [{"cidr": "10.0.0.0/24"}]}`, attrs("source_ip", "localhost"), false},
	{`{"source_ip": [{"cidr": "10.0.0.0/24"}]}`, attrs("source_ip", "10.0.0.0/24"), false},
	{`{"source_ip": [{"cidr": "10.0.0.0/24"}]}`, attrs("source_ip", "10.0.0"), false},
	{`{"source_ip": [{"cidr": "10.0.0.0/24"}]}`, attrs("source_ip", `["10.0.1.1","10.0.0.7"]`), true},
	{`{"source_ip": [{"cidr": "10.0.0.0/24"}]}`, attrs("source_ip", "::ffff:10.0.0.1"), true},
	{`{"source_ip": [{"cidr": "10.0.0.5/24"}]}`, attrs("source_ip", "10.0.0.1"), true},
	{`{"source_ip": [{"cidr": "10.0.0.1/32"}]}`, attrs("source_ip", "10.0.0.1"), true},
	{`{"source_ip": [{"cidr": "10.0.0.1/32"}]}`, attrs("source_ip", "10.0.0.2"), false},
	{`{"source_ip": [{"cidr": "0.0.0.0/0"}]}`, attrs("source_ip", "203.0.113.9"), true},
	{`{"source_ip": [{"cidr": "0.0.0.0/0"}]}`, attrs("source_ip", "2001:db8::1"), false},
	{`{"source_ip": [{"cidr": "2001:db8::/32"}]}`, attrs("source_ip", "2001:db8:1::1"), true},
	{`{"source_ip": [{"cidr": "2001:db8::/32"}]}`, attrs("source_ip", "2001:DB8:0:0::1"), true},
	{`{"source_ip": [{"cidr": "2001:db8::/32"}]}`, attrs("source_ip", "2001:db9::1"), false},

	// numeric.
	{`{"price_usd": [{"numeric": ["=", 301.5]}]}`, attrs("price_usd", "301.5"), true},
	{`{"price_usd": [{"numeric": ["=", 301.5]}]}`, attrs("price_usd", "3.015e2"), true},
	{`{"price_usd": [{"numeric": ["=", 301.5]}]}`, attrs("price_usd", "301"), false},
	{`{"price_usd": [{"numeric": ["=", 301.5]}]}`, attrs("price_usd", "302"), false},
	{`{"price_usd": [{"numeric": ["<", 0]}]}`, attrs("price_usd", "-0.5"), true},
	{`{"price_usd": [{"numeric": ["<", 0]}]}`, attrs("price_usd", "-1e9"), true},
	{`{"price_usd": [{"numeric": ["<", 0]}]}`, attrs("price_usd", "0"), false},
	{`{"price_usd": [{"numeric": ["<", 0]}]}`, attrs("price_usd", "-0"), false},
	{`{"price_usd": [{"numeric": ["<=", 0]}]}`, attrs("price_usd", "0"), true},
	{`{"price_usd": [{"numeric": ["<=", 0]}]}`, attrs("price_usd", "0.00001"), false},
	{`{"price_usd": [{"numeric": [">", 0]}]}`, attrs("price_usd", "0"), false},
	{`{"price_usd": [{"numeric": [">", 0]}]}`, attrs("price_usd", "0.00001"), true},
	{`{"price_usd": [{"numeric": [">", 0]}]}`, attrs("price_usd", "0.000001"), false},
	{`{"price_usd": [{"numeric": [">=", 100]}]}`, attrs("price_usd", "100"), true},
	{`{"price_usd": [{"numeric": [">=", 100]}]}`, attrs("price_usd", "99.99999"), false},
	{`{"price_usd": [{"numeric": [">=", 100]}]}`, attrs("price_usd", "1000000000"), true},
	{`{"price_usd": [{"numeric": [">=", 100]}]}`, attrs("price_usd", "1000000001"), false},
	{`{"price_usd": [{"numeric": [">=", 100]}]}`, attrs("price_usd", "1e400"), false},
	{`{"price_usd": [{"numeric": [">", 0, "<=", 150]}]}`, attrs("price_usd", "150"), true},
	{`{"price_usd": [{"numeric": [">", 0, "<=", 150]}]}`, attrs("price_usd", "0.5"), true},
	{`{"price_usd": [{"numeric": [">", 0, "<=", 150]}]}`, attrs("price_usd", "0"), false},
	{`{"price_usd": [{"numeric": [">", 0, "<=", 150]}]}`, attrs("price_usd", "150.1"), false},
	{`{"price_usd": [{"numeric": [">=", 0, "<", 10]}]}`, attrs("price_usd", "0"), true},
	{`{"price_usd": [{"numeric": [">=", 0, "<", 10]}]}`, attrs("price_usd", "10"), false},
	{`{"price_usd": [{"numeric": [">=", 0, "<", 10]}]}`, attrs("price_usd", "cheap"), false},
	{`{"price_usd": [{"numeric": [">=", 0, "<", 10]}]}`, attrs("price_usd", `[12, 5]`), true},
	{`{"price_usd": [{"numeric": [">=", 0, "<", 10]}]}`, attrs("price_usd", `[12, 11]`), false},
	{`{"price_usd": [{"numeric": [">=", 0, "<", 10]}]}`, attrs("price_usd", `["5"]`), false},
	{`{"price_usd": [{"numeric": ["<", 10]}, {"numeric": [">", 20]}]}`, attrs("price_usd", "25"), true},
	{`{"price_usd": [{"numeric": ["<", 10]}, {"numeric": [">", 20]}]}`, attrs("price_usd", "15"), false},

	// exists.
	{`{"store": [{"exists": true}]}`, attrs("store", "fans", "customer_interests", `["baseball", "basketball"]`), true},
	{`{"store": [{"exists": true}]}`, attrs("customer_interests", `["baseball", "basketball"]`), false},
	{`{"store": [{"exists": true}]}`, attrs("store", ""), false},
	{`{"store": [{"exists": true}]}`, attrs("store", "[]"), false},
	{`{"store": [{"exists": true}]}`, attrs("store", "[ ]"), false},
	{`{"store": [{"exists": true}]}`, attrs("store", `[""]`), true},
	{`{"store": [{"exists": true}]}`, nil, false},
	{`{"store": [{"exists": false}]}`, attrs("store", "fans", "customer_interests", `["baseball", "basketball"]`), false},
	{`{"store": [{"exists": false}]}`, attrs("customer_interests", `["baseball", "basketball"]`), true},
	{`{"store": [{"exists": false}]}`, attrs("store", ""), true},
	{`{"store": [{"exists": false}]}`, attrs("store", "[]"), true},
	{`{"store": [{"exists": false}]}`, attrs("store", "x"), false},
	{`{"store": [{"exists": false}]}`, nil, false},
	{`{"store": [{"exists": false}]}`, map[string]string{}, false},
	{`{"store": [{"exists": false}, "fans"]}`, attrs("store", "fans"), true},
	{`{"store": [{"exists": false}, "fans"]}`, attrs("store", "foes"), false},
	{`{"store": [{"exists": false}, {"exists": true}]}`, attrs("other", "x"), true},
	{`{"store": [{"exists": true}, {"exists": false}]}`, attrs("store", "x"), true},

	// AND and OR.
	{`{"customer_interests": ["rugby"], "price_usd": [{"numeric": [">", 100]}]}`, attrs("customer_interests", "rugby", "price_usd", "101"), true},
	{`{"customer_interests": ["rugby"], "price_usd": [{"numeric": [">", 100]}]}`, attrs("customer_interests", "rugby", "price_usd", "100"), false},
	{`{"customer_interests": ["rugby"], "price_usd": [{"numeric": [">", 100]}]}`, attrs("customer_interests", "golf", "price_usd", "101"), false},
	{`{"customer_interests": ["rugby"], "price_usd": [{"numeric": [">", 100]}]}`, attrs("customer_interests", "rugby"), false},
	{`{"customer_interests": ["rugby", "football", "baseball"]}`, attrs("customer_interests", "football"), true},

	// $or.
	{standardOr, attrs("source", "aws.cloudwatch", "metricName", "CPUUtilization"), true},
	{standardOr, attrs("source", "aws.cloudwatch", "namespace", "AWS/EC2"), true},
	{standardOr, attrs("source", "aws.cloudwatch", "namespace", "AWS/EC2", "metricName", "CPUUtilization"), true},
	{standardOr, attrs("source", "aws.cloudwatch"), false},
	{standardOr, attrs("source", "aws.cloudwatch", "namespace", "AWS/ES"), false},
	{standardOr, attrs("metricName", "CPUUtilization"), false},
	{nestedOr, attrs("source", "aws.cloudwatch", "metricName", "ReadLatency"), true},
	{nestedOr, attrs("source", "aws.cloudwatch", "metricType", "MetricType", "metricId", "4321"), true},
	{nestedOr, attrs("source", "aws.cloudwatch", "metricType", "MetricType", "spaceId", "3000.0"), true},
	{nestedOr, attrs("source", "aws.cloudwatch", "metricType", "MetricType"), false},
	{nestedOr, attrs("source", "aws.cloudwatch", "spaceId", "3000"), false},
	{nestedOr, attrs("metricType", "MetricType", "spaceId", "3000"), false},
	{`{"$or": [{"a": ["1"]}, {"b": [{"exists": false}]}]}`, attrs("c", "x"), true},
	{`{"$or": [{"a": ["1"]}, {"b": [{"exists": false}]}]}`, nil, false},
	{`{"a": [{"prefix": "x"}], "$or": [{"a": [{"suffix": "y"}]}, {"b": ["z"]}]}`, attrs("a", "xy"), true},
	{`{"a": [{"prefix": "x"}], "$or": [{"a": [{"suffix": "y"}]}, {"b": ["z"]}]}`, attrs("a", "ay"), false},

	// $or is a name like another if it is no list of alternatives.
	{`{"$or": ["x"]}`, attrs("$or", "x"), true},
	{`{"$or": [{"prefix": "abc"}, {"numeric": ["=", 123]}]}`, attrs("$or", "abcd"), true},
	{`{"$or": [{"prefix": "abc"}, {"numeric": ["=", 123]}]}`, attrs("$or", "123"), true},
	{`{"$or": [{"prefix": "abc"}, {"numeric": ["=", 123]}]}`, attrs("$or", "12"), false},

	// The empty policy.
	{`{}`, attrs("a", "b"), true},
	{` { } `, nil, true},

	// What is an array, and what only looks like one.
	{`{"a": ["x"]}`, attrs("a", `["x"`), false},
	{`{"a": ["x"]}`, attrs("a", `["x",]`), false},
	{`{"a": ["x"]}`, attrs("a", `["x","`), false},
	{`{"a": ["x"]}`, attrs("a", `["x",1`), false},
	{`{"a": ["x"]}`, attrs("a", `["x",`), false},
	{`{"a": ["x"]}`, attrs("a", "[\"x\",\"\n\"]"), false},
	{`{"a": ["x"]}`, attrs("a", `["x"] `), false},
	{`{"a": ["x"]}`, attrs("a", ` ["x"]`), false},
	{`{"a": ["x"]}`, attrs("a", `["x" "y"]`), false},
	{`{"a": ["x"]}`, attrs("a", `["w"; "x"]`), false},
	{`{"a": ["x"]}`, attrs("a", `["x", ["y"]]`), false},
	{`{"a": ["x"]}`, attrs("a", `["x", {"y": 1}]`), false},
	{`{"a": ["x"]}`, attrs("a", `["x", 01]`), false},
	{`{"a": ["x"]}`, attrs("a", `["x", yes]`), false},
	{`{"a": ["x"]}`, attrs("a", "[\n\t\"w\" ,\r\n \"x\"\n]"), true},
	{`{"a": ["x\"]"]}`, attrs("a", `["w,]", "x\"]"]`), true},
	{`{"a": ["€"]}`, attrs("a", `["\u20ac"]`), true},
	{`{"a": ["x"]}`, attrs("a", `["x", "\q"]`), false},
	{`{"a": [{"prefix": "["}]}`, attrs("a", `["x", ["y"]]`), true},
	{`{"a": [{"prefix": "["}]}`, attrs("a", `["x"]`), false},
	{`{"a": ["[1]"]}`, attrs("a", `[1]`), false},
}

const (
	overview = `{
		"store": ["example_corp"],
		"event": [{"anything-but": "order_cancelled"}],
		"customer_interests": ["rugby", "football", "baseball"],
		"price_usd": [{"numeric": [">=", 100]}]
	}`
	standardOr = `{
		"source": ["aws.cloudwatch"],
		"$or": [{"metricName": ["CPUUtilization"]}, {"namespace": ["AWS/EC2"]}]
	}`
	nestedOr = `{
		"source": ["aws.cloudwatch"],
		"$or": [
			{"metricName": ["CPUUtilization", "ReadLatency"]},
			{
				"metricType": ["MetricType"],
				"$or": [{"metricId": [1234, 4321]}, {"spaceId": [1000, 2000, 3000]}]
			}
		]
	}`
)

func TestAPolicyMatchesWhatSNSWouldDeliver(t *testing.T) {
	for i, c := range matchCases {
		t.Run(fmt.Sprint(i), func(t *testing.T) {
			p, err := Parse(c.policy)
			require.NoError(t, err)
			require.Equal(t, c.want, p.Match(c.attributes), "%s on %v", p, c.attributes)
		})
	}
}

// A publish asks every queue that has a policy, so the common ones must not
// leave garbage behind.
func TestMatchingDoesNotAllocate(t *testing.T) {
	for _, c := range []matchCase{
		{`{"store": ["example_corp", "other"]}`, attrs("store", "other"), true},
		{overview, attrs("store", "example_corp", "event", "order_placed", "customer_interests", `["soccer","rugby"]`, "price_usd", "210.75"), true},
		{nestedOr, attrs("source", "aws.cloudwatch", "metricType", "MetricType", "spaceId", "3000"), true},
		{`{"ip": [{"cidr": "10.0.0.0/8"}, {"cidr": "2001:db8::/32"}]}`, attrs("ip", "2001:db8::1"), true},
		{`{"a": [{"equals-ignore-case": "X"}, {"exists": false}, null]}`, attrs("a", "y"), false},
	} {
		p, err := Parse(c.policy)
		require.NoError(t, err)
		allocs := testing.AllocsPerRun(100, func() {
			if p.Match(c.attributes) != c.want {
				t.Error("wrong answer for", c.policy)
			}
		})
		require.Zero(t, allocs, c.policy)
	}
}

func TestAPolicyIsSafeForConcurrentUse(t *testing.T) {
	p, err := Parse(overview)
	require.NoError(t, err)
	done := make(chan bool)
	for range 8 {
		go func() {
			ok := true
			for range 200 {
				ok = ok && p.Match(attrs("store", "example_corp", "event", "x", "customer_interests", `["\u0072ugby"]`, "price_usd", "1e3"))
				ok = ok && p.String() != ""
			}
			done <- ok
		}()
	}
	for range 8 {
		require.True(t, <-done)
	}
}

func BenchmarkMatch(b *testing.B) {
	for _, bench := range []struct{ name, policy, value string }{
		{"string", `{"a": ["x", "y", "order_placed"]}`, "order_placed"},
		{"number", `{"a": [100]}`, "100.0"},
		{"numeric", `{"a": [{"numeric": [">=", 100, "<", 200]}]}`, "150"},
		{"prefix", `{"a": [{"prefix": "order_"}]}`, "order_placed"},
		{"anything-but", `{"a": [{"anything-but": ["x", "y"]}]}`, "order_placed"},
		{"equals-ignore-case", `{"a": [{"equals-ignore-case": "ORDER_PLACED"}]}`, "order_placed"},
		{"cidr", `{"a": [{"cidr": "10.0.0.0/8"}]}`, "10.1.2.3"},
		{"array", `{"a": ["hockey"]}`, `["soccer", "rugby", "hockey"]`},
		{"exists", `{"a": [{"exists": true}]}`, "x"},
	} {
		b.Run(bench.name, func(b *testing.B) {
			p, err := Parse(bench.policy)
			require.NoError(b, err)
			attributes := attrs("a", bench.value, "b", "other")
			b.ReportAllocs()
			for b.Loop() {
				if !p.Match(attributes) {
					b.Fatal("no match")
				}
			}
		})
	}
}
