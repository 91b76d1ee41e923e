// Package policy reads and matches subscription filter policies in the grammar
// of Amazon SNS, on message attributes. The grammar stands above [Policy].
//
// It promises that what SNS refuses is refused with the key and the condition
// that is wrong, and that an Index finds the policies that match a message
// without asking those that want other values of its attributes.
//
// A Policy never changes. An Index is guarded by its owner's lock. Here is no
// lock, clock or goroutine.
package policy

// The limits that SNS puts on one policy.
const (
	maxSize         = 256 << 10
	maxKeys         = 5
	maxCombinations = 150
)

// A Policy says which messages a subscription wants, by their attributes.
// It is made by [Parse] and never changes: all methods may be called
// concurrently.
//
// A policy is a JSON object. Each key names an attribute and holds a list of
// conditions, of which one must match; all keys must match. The key $or, over
// two or more objects, wants one of those objects to match.
//
//	{
//	  "store":  ["example_corp"],
//	  "price":  [{"numeric": [">=", 100, "<", 200]}],
//	  "$or": [
//	    {"event": [{"anything-but": "order_cancelled"}]},
//	    {"urgent": [true]}
//	  ]
//	}
//
// A condition is a string, a number, true, false, null, or an object with one
// of the operators anything-but, prefix, suffix, equals-ignore-case, cidr,
// numeric and exists. Not supported are wildcard, which the present guide of
// SNS lists and its validation was not seen to accept, and the scope MessageBody.
//
// # Attributes have no types here
//
// An SNS publisher says of each attribute if it is a String, a Number or a
// String.Array, and a policy meets it as that. Here an attribute is a string,
// and a policy meets every reading it has:
//
//   - an array of strings, numbers, true, false and null, as JSON and with
//     nothing around it, is what SNS calls a String.Array and nothing else. It
//     matches if one of its elements does, each by its JSON type
//   - anything else is a string. If it is also a JSON number, or true, false
//     or null, then it is that too: 300.0 matches 300, "300.0" and {"prefix": "3"}
//
// So a value that SNS would have as a String is a number to a numeric condition
// if it looks like one, and {"anything-but": ...} refuses a value if one of its
// readings is listed: 100 is refused by {"anything-but": "100"} and by
// {"anything-but": 100}, and SNS refuses it by the one its type fits.
//
// # Where the guide of SNS leaves room
//
//   - anything-but on an array matches if one element is not listed, as in each
//     example of the guide (a sentence in it asks that none be)
//   - the empty policy {} matches every message: setting it is how SNS removes
//     a policy. An empty text is an error
//   - without any attribute a message matches no policy but {}, not even one
//     that says {"exists": false}
//   - an attribute that is empty, or an array without elements, does not exist
//     for exists, as it has no value; SNS can't carry the former
//   - numbers are compared by their first five decimals, rounded. A number
//     outside ±1e9 is an error in a policy; in an attribute it is only a string
//   - the limit of five keys counts the attribute names in a policy, each once,
//     and not $or. The limit of 150 combinations multiplies the lengths of the
//     lists, and adds up the objects of a $or
//   - a key that stands in a policy and again inside its $or must match both
//   - cidr ignores the bits of the address that its mask doesn't cover, and an
//     IPv4 address written as IPv6 (::ffff:10.0.0.1) is the IPv4 address
type Policy struct {
	root object
	text string // compact
}

// An object is a conjunction: all fields match, and one of or if there are any.
type object struct {
	fields []field
	or     []object
}

// A field is one key of a policy and its list of conditions, of which one must
// match. The conditions on exists are pulled out of the list, as they alone can
// match an attribute that isn't there.
type field struct {
	name            string
	tests           []test
	present, absent bool // {"exists": true}, {"exists": false}
}

// String returns the policy as it was given to Parse, without white space.
func (p *Policy) String() string { return p.text }
