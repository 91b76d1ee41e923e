package policy

import (
	"encoding/json"
	"fmt"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

// list returns n distinct values, without brackets.
func list(n int) string {
	values := make([]string, n)
	for i := range values {
		values[i] = fmt.Sprint(i)
	}
	return strings.Join(values, ",")
}

var badPolicies = []struct{ policy, key, reason string }{
	// JSON.
	{``, "", "failed to parse JSON: unexpected end of JSON input"},
	{`   `, "", "failed to parse JSON: unexpected end of JSON input"},
	{`{`, "", "failed to parse JSON: unexpected end of JSON input"},
	{`{"a": ["x"]} x`, "", "failed to parse JSON: invalid character 'x' after top-level value"},
	{`{"a": ["x"]}{}`, "", "failed to parse JSON: invalid character '{' after top-level value"},
	{`{"a": ["x",]}`, "", "failed to parse JSON: invalid character ']'"},
	{`{a: ["x"]}`, "", "failed to parse JSON: invalid character 'a'"},
	{`{"a": [01]}`, "", "failed to parse JSON: invalid character '1'"},
	{"{\"a\": [\"\xff\"]}", "", "failed to parse JSON: not valid UTF-8"},
	{strings.Repeat("[", 20_000), "", "failed to parse JSON: invalid character '[' exceeded max depth"},
	{`{"a": ["` + strings.Repeat("x", maxSize) + `"]}`, "", "the policy has 262155 bytes, the limit is 262144"},

	// The shape.
	{`[]`, "", "Filter is not an object"},
	{`[{"a": 1, "a": 2}]`, "a", `duplicate key "a"`},
	{`null`, "", "Filter is not an object"},
	{`"a"`, "", "Filter is not an object"},
	{`{"key_a": "value_one"}`, "key_a", `FilterPolicy: "key_a" must be an object or an array`},
	{`{"key_a": 1}`, "key_a", `"key_a" must be an object or an array`},
	{`{"key_a": null}`, "key_a", `"key_a" must be an object or an array`},
	{`{"key_a": []}`, "key_a", "FilterPolicy: Empty arrays are not allowed"},
	{`{"object": {"key": [{"prefix": "auto-"}]}}`, "object", "Invalid parameter: Filter policy scope MessageAttributes does not support nested filter policy"},
	{`{"key": {"suffix": "value"}}`, "key", "scope MessageAttributes does not support nested"},
	{`{"key": {}}`, "key", "scope MessageAttributes does not support nested"},
	{`{"a": ["x"], "b": ["y"], "a": ["z"]}`, "a", `duplicate key "a"`},
	{`{"a": [{"prefix": "x", "prefix": "y"}]}`, "a[0].prefix", `duplicate key "prefix"`},
	{`{"$or": [{"a": [1]}, {"b": [1], "b": [2]}]}`, "$or[1].b", `duplicate key "b"`},

	// Conditions.
	{`{"key": [["value"]]}`, "key", "FilterPolicy: Match value must be String, number, true, false, or null"},
	{`{"key": [{}]}`, "key", "Match expression name not found"},
	{`{"key": [{"wrong-operator": true}]}`, "key", "FilterPolicy: Unrecognized match type wrong-operator"},
	{`{"key": [{"wildcard": "*ball"}]}`, "key", "FilterPolicy: Unrecognized match type wildcard"},
	{`{"key": [{"Prefix": "x"}]}`, "key", "Unrecognized match type Prefix"},
	{`{"key": [{"suffix": "value", "prefix": "value2"}]}`, "key", "FilterPolicy: Only one key allowed in match expression"},
	{`{"key": [{"exists": true, "prefix": "value2"}]}`, "key", "Only one key allowed in match expression"},
	{`{"key": [{"suffix": 100}]}`, "key", "FilterPolicy: suffix match pattern must be a string"},
	{`{"key": [{"suffix": null}]}`, "key", "suffix match pattern must be a string"},
	{`{"key": [{"suffix": []}]}`, "key", "suffix match pattern must be a string"},
	{`{"key": [{"suffix": ["test", "test2"]}]}`, "key", "suffix match pattern must be a string"},
	{`{"key": [{"prefix": true}]}`, "key", "prefix match pattern must be a string"},
	{`{"key": [{"equals-ignore-case": 1}]}`, "key", "equals-ignore-case match pattern must be a string"},
	{`{"key": [{"exists": null}]}`, "key", "FilterPolicy: exists match pattern must be either true or false."},
	{`{"key": [{"exists": "no"}]}`, "key", "exists match pattern must be either true or false."},
	{`{"key": [{"exists": 1}]}`, "key", "exists match pattern must be either true or false."},

	// numeric.
	{`{"key": [{"numeric": []}]}`, "key", "FilterPolicy: Invalid member in numeric match: ]"},
	{`{"key": [{"numeric": 1}]}`, "key", "Value of numeric must be an array."},
	{`{"key": [{"numeric": ["operator"]}]}`, "key", "FilterPolicy: Unrecognized numeric range operator: operator"},
	{`{"key": [{"numeric": ["==", 1]}]}`, "key", "Unrecognized numeric range operator: =="},
	{`{"key": [{"numeric": [1, "<="]}]}`, "key", "FilterPolicy: Invalid member in numeric match: 1"},
	{`{"key": [{"numeric": [null]}]}`, "key", "Invalid member in numeric match: null"},
	{`{"key": [{"numeric": [[]]}]}`, "key", "Invalid member in numeric match: ["},
	{`{"key": [{"numeric": ["=", "000"]}]}`, "key", "FilterPolicy: Value of equals must be numeric"},
	{`{"key": [{"numeric": [">="]}]}`, "key", "FilterPolicy: Value of >= must be numeric"},
	{`{"key": [{"numeric": ["<", 100, ">", 10]}]}`, "key", "FilterPolicy: Too many elements in numeric expression"},
	{`{"key": [{"numeric": ["=", 1, 2]}]}`, "key", "Too many elements in numeric expression"},
	{`{"key": [{"numeric": [">=", 1, ">", 2]}]}`, "key", "FilterPolicy: Bad numeric range operator: >"},
	{`{"key": [{"numeric": [">=", 1, "=", 2]}]}`, "key", "Bad numeric range operator: ="},
	{`{"key": [{"numeric": [">", 3, "<", 1]}]}`, "key", "FilterPolicy: Bottom must be less than top"},
	{`{"key": [{"numeric": [">=", 3, "<=", 3]}]}`, "key", "Bottom must be less than top"},
	{`{"key": [{"numeric": [">", 20, "<="]}]}`, "key", "FilterPolicy: Value of <= must be numeric"},
	{`{"key": [{"numeric": [">", 20, 30]}]}`, "key", "FilterPolicy: Bad value in numeric range: 30"},
	{`{"key": [{"numeric": [">", 20, {}]}]}`, "key", "Bad value in numeric range: {"},
	{`{"key": [{"numeric": [">", 20, true]}]}`, "key", "Bad value in numeric range: true"},
	{`{"key": [{"numeric": [">", 20, false]}]}`, "key", "Bad value in numeric range: false"},
	{`{"key": [{"numeric": [">", 20, "test"]}]}`, "key", "FilterPolicy: Bad numeric range operator: test"},
	{`{"key": [{"numeric": [">", "20", "<", "30"]}]}`, "key", "FilterPolicy: Value of > must be numeric"},
	{`{"key": [{"numeric": [">", 20, "<", "30"]}]}`, "key", "FilterPolicy: Value of < must be numeric"},
	{`{"key": [{"numeric": [">", 20, "<", 30, "<", 50]}]}`, "key", "FilterPolicy: Too many terms in numeric range expression"},
	{`{"key": [{"numeric": ["<", 1000000000.1]}]}`, "key", "Value must be between -1.0E9 and 1.0E9, inclusive: 1000000000.1"},
	{`{"key": [{"numeric": [">", 0, "<", 1e10]}]}`, "key", "Value must be between -1.0E9 and 1.0E9, inclusive: 1e10"},
	{`{"key": [-1000000001]}`, "key", "Value must be between -1.0E9 and 1.0E9, inclusive: -1000000001"},
	{`{"key": [1e999]}`, "key", "Value must be between -1.0E9 and 1.0E9, inclusive: 1e999"},

	// anything-but.
	{`{"key": [{"anything-but": {"wrong-operator": null}}]}`, "key", "FilterPolicy: Unsupported anything-but pattern: wrong-operator"},
	{`{"key": [{"anything-but": {"exists": false}}]}`, "key", "FilterPolicy: Unsupported anything-but pattern: exists"},
	{`{"key": [{"anything-but": {"wildcard": "*ball"}}]}`, "key", "Unsupported anything-but pattern: wildcard"},
	{`{"key": [{"anything-but": {"equals-ignore-case": "x"}}]}`, "key", "Unsupported anything-but pattern: equals-ignore-case"},
	{`{"key": [{"anything-but": {}}]}`, "key", "Anything-But expression name not found"},
	{`{"key": [{"anything-but": {"prefix": false}}]}`, "key", "prefix match pattern must be a string"},
	{`{"key": [{"anything-but": {"prefix": ["a", "b"]}}]}`, "key", "prefix match pattern must be a string"},
	{`{"key": [{"anything-but": {"suffix": ""}}]}`, "key", "Null prefix/suffix not allowed"},
	{`{"key": [{"anything-but": {"prefix": "a", "suffix": "b"}}]}`, "key", "Only one key allowed in match expression"},
	{`{"key": [{"anything-but": []}]}`, "key", "Inside anything but list, either all values are number or string"},
	{`{"key": [{"anything-but": [1, "a"]}]}`, "key", "Inside anything but list, either all values are number or string"},
	{`{"key": [{"anything-but": [null]}]}`, "key", "Inside anything but list, start|null|boolean is not supported."},
	{`{"key": [{"anything-but": [["a"]]}]}`, "key", "Inside anything but list, start|null|boolean is not supported."},
	{`{"key": [{"anything-but": [2e9]}]}`, "key", "Value must be between -1.0E9 and 1.0E9, inclusive: 2e9"},
	{`{"key": [{"anything-but": true}]}`, "key", "Value of anything-but must be an array or single string/number value."},

	// cidr.
	{`{"key": [{"cidr": 10}]}`, "key", "cidr match pattern must be a string"},
	{`{"key": [{"cidr": "10.0.0.0"}]}`, "key", "Malformed CIDR, one '/' required"},
	{`{"key": [{"cidr": "10.0.0.0/8/8"}]}`, "key", "Malformed CIDR, one '/' required"},
	{`{"key": [{"cidr": "10.0.0.0/x"}]}`, "key", "Malformed CIDR, mask bits must be an integer"},
	{`{"key": [{"cidr": "10.0.0/8"}]}`, "key", "Nonstandard IP address: 10.0.0"},
	{`{"key": [{"cidr": "::ffff:10.0.0.0/104"}]}`, "key", "Nonstandard IP address: ::ffff:10.0.0.0"},
	{`{"key": [{"cidr": "fe80::1%eth0/64"}]}`, "key", "Nonstandard IP address: fe80::1%eth0"},
	{`{"key": [{"cidr": "10.0.0.0/33"}]}`, "key", "Malformed CIDR, mask bits must be from 0 to 32"},
	{`{"key": [{"cidr": "2001:db8::/-1"}]}`, "key", "Malformed CIDR, mask bits must be from 0 to 128"},

	// $or.
	{`{"$or": [{}, {}]}`, "$or[0]", "FilterPolicy: Empty objects are not allowed"},
	{`{"$or": [{"a": ["x"]}, {"b": []}]}`, "$or[1].b", "Empty arrays are not allowed"},
	{`{"$or": [{"a": ["x"]}, {"b": {"c": ["y"]}}]}`, "$or[1].b", "does not support nested"},
	{`{"$or": [{"a": ["x"]}, {"$or": [{"b": ["y"]}, {"c": [{"x": 1}]}]}]}`, "$or[1].$or[1].c", "Unrecognized match type x"},
	{`{"$or": []}`, "$or", "Empty arrays are not allowed"},
	{`{"$or": {"a": ["x"]}}`, "$or", "does not support nested"},
	{`{"$or": [{"a": ["x"]}]}`, "$or", "Unrecognized match type a ($or is an attribute's name unless over two or more objects"},
	{`{"$or": [{"a": ["x"]}, "b"]}`, "$or", "Unrecognized match type a ($or is an attribute's name"},
	{`{"$or": [{"numeric": 123}, {"prefix": "abc"}]}`, "$or", "Value of numeric must be an array. ($or is an attribute's name"},

	// Limits.
	{`{"key1": [1], "key2": [2], "key3": [3], "key4": [4], "key5": [5], "key6": [6]}`, "key6", "FilterPolicy: Filter policy can not have more than 5 keys"},
	{`{"a": [1], "b": [1], "c": [1], "$or": [{"d": [1]}, {"e": [1]}, {"f": [1]}]}`, "$or[2].f", "Filter policy can not have more than 5 keys"},
	{`{"key": [` + list(151) + `]}`, "key", "FilterPolicy: Filter policy is too complex"},
	{`{"key1": [` + list(100) + `], "key2": [` + list(51) + `]}`, "key2", "Filter policy is too complex"},
	{`{"a": [` + list(16) + `], "$or": [{"b": [` + list(5) + `]}, {"c": [` + list(5) + `]}]}`, "$or", "Filter policy is too complex"},
	{complexOr(4, 6, 4, 4, 4), "$or", "Filter policy is too complex"}, // 4·6 + 4·4·4 + 4·4·4 = 152
}

// complexOr is the shape of the guide's own sum: source and (metricName or
// metricType and (metricId or spaceId)), with that many values in each.
func complexOr(source, metricName, metricType, metricID, spaceID int) string {
	return fmt.Sprintf(`{"source": [%s], "$or": [{"metricName": [%s]},
		{"metricType": [%s], "$or": [{"metricId": [%s]}, {"spaceId": [%s]}]}]}`,
		list(source), list(metricName), list(metricType), list(metricID), list(spaceID))
}

func TestABadPolicyIsRefusedInTheWordsOfSNS(t *testing.T) {
	for i, c := range badPolicies {
		t.Run(fmt.Sprint(i), func(t *testing.T) {
			p, err := Parse(c.policy)
			require.Nil(t, p)
			require.ErrorContains(t, err, c.reason)
			require.ErrorContains(t, err, "invalid filter policy: ")
			var e *Error
			require.ErrorAs(t, err, &e)
			require.Equal(t, c.key, e.Key)
			if c.key != "" {
				require.ErrorContains(t, err, fmt.Sprintf("key %q", c.key))
			}
		})
	}
}

func TestAnErrorReadsAsASentence(t *testing.T) {
	_, err := Parse(`{"price": [100, {"numeric": ["=", "x"]}]}`)
	require.EqualError(t, err, `invalid filter policy: key "price", condition 2: Invalid parameter: FilterPolicy: Value of equals must be numeric`)
	_, err = Parse(`{"price": {"usd": [100]}}`)
	require.EqualError(t, err, `invalid filter policy: key "price": Invalid parameter: Filter policy scope MessageAttributes does not support nested filter policy`)
	_, err = Parse(`[]`)
	require.EqualError(t, err, `invalid filter policy: Invalid parameter: FilterPolicy: Filter is not an object`)
}

func TestTheLimitsThemselvesAreAllowed(t *testing.T) {
	for _, policy := range []string{
		`{"a": [1], "b": [1], "c": [1], "d": [1], "e": [1]}`,
		`{"a": [1], "$or": [{"a": [2], "b": [1], "c": [1]}, {"c": [1], "d": [1]}, {"e": [1]}]}`, // five names, however often
		`{"key": [` + list(150) + `]}`,
		`{"key1": [` + list(15) + `], "key2": [` + list(10) + `]}`,
		complexOr(3, 6, 4, 4, 7),                            // 3·6 + 3·4·4 + 3·4·7 = 150
		`{"key": [{"anything-but": [` + list(1000) + `]}]}`, // one condition is one value
		`{"a": ["` + strings.Repeat("x", maxSize-len(`{"a": [""]}`)) + `"]}`,
		`{"key": [1000000000, -1000000000]}`,
		`{"key": [{"numeric": [">=", 1, "<", 1.00001]}]}`,
	} {
		_, err := Parse(policy)
		require.NoError(t, err)
	}
}

func TestStringIsThePolicyWithoutSpace(t *testing.T) {
	p, err := Parse("\n{ \"price\": [ 3.0e2, {\"prefix\" : \"a b\"} ],\t\"b\":[null] }\n")
	require.NoError(t, err)
	require.Equal(t, `{"price":[3.0e2,{"prefix":"a b"}],"b":[null]}`, p.String())
}

// seeds are all policies of the tables.
func seeds() (policies []string) {
	for _, c := range matchCases {
		policies = append(policies, c.policy)
	}
	for _, c := range badPolicies {
		if len(c.policy) < 1000 {
			policies = append(policies, c.policy)
		}
	}
	return policies
}

// FuzzParse: no text makes Parse or Match panic, every error is an *Error, and
// what a policy says of itself is the same policy.
func FuzzParse(f *testing.F) {
	for i, policy := range seeds() {
		f.Add(policy, "customer_interests", matchCases[i%len(matchCases)].attributes["price"])
	}
	f.Fuzz(func(t *testing.T, policy, name, text string) {
		p, err := Parse(policy)
		if err != nil {
			var e *Error
			require.ErrorAs(t, err, &e)
			return
		}
		require.True(t, json.Valid([]byte(p.String())))
		again, err := Parse(p.String())
		require.NoError(t, err)
		require.Equal(t, p, again)
		tried := []map[string]string{nil, {name: text}}
		for _, c := range matchCases {
			tried = append(tried, c.attributes)
		}
		for key := range keysOf(p.root, nil) {
			tried = append(tried, map[string]string{key: text}, map[string]string{key: text, name: "x"})
		}
		for _, attributes := range tried {
			require.Equal(t, p.Match(attributes), again.Match(attributes), "%v", attributes)
		}
	})
}

// keysOf returns the attribute names in o, added to names.
func keysOf(o object, names map[string]bool) map[string]bool {
	if names == nil {
		names = make(map[string]bool)
	}
	for _, f := range o.fields {
		names[f.name] = true
	}
	for _, alternative := range o.or {
		keysOf(alternative, names)
	}
	return names
}

func BenchmarkParse(b *testing.B) {
	b.ReportAllocs()
	for b.Loop() {
		if _, err := Parse(nestedOr); err != nil {
			b.Fatal(err)
		}
	}
}
