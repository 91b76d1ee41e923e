package policy

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

// Values that read as several things, in policies and in attributes.
var (
	conditions = []string{
		`"a"`, `"b"`, `""`, `"100"`, `100`, `100.0`, `1e2`, `-1`, `true`, `"true"`, `false`, `null`, `"null"`, `"é"`, `"[\"a\"]"`, `"["`,
		`{"prefix": "1"}`, `{"suffix": "0"}`, `{"anything-but": ["a"]}`, `{"numeric": [">", 5]}`, `{"numeric": ["=", 100]}`,
		`{"exists": true}`, `{"exists": false}`, `{"equals-ignore-case": "A"}`, `{"cidr": "10.0.0.0/8"}`,
	}
	texts = []string{
		"a", "b", "A", "", "100", "100.0", "1e2", "-1", "7", "true", "false", "null", "é", "10.0.0.1", "[", "[]", "[ ]",
		`["a"]`, `["a", "a"]`, `["b", 100]`, `[100, "100"]`, `[true, null]`, `["a", oops]`, `["a", "b"`, `["a"] x`, `["\u0061"]`, `[1e99, "a"]`, `[["a"]]`,
	}
	names = []string{"x", "y", "z"}
)

func pick[E any](r *rand.Rand, all []E) E { return all[r.IntN(len(all))] }

// randomPolicy returns a policy of one to three keys, at times with an $or.
func randomPolicy(r *rand.Rand) *Policy {
	for {
		text := randomObject(r)
		if r.IntN(4) == 0 {
			text = fmt.Sprintf(`%s, "$or": [%s, %s]}`, strings.TrimSuffix(text, "}"), randomObject(r), randomObject(r))
		}
		if r.IntN(30) == 0 {
			text = "{}"
		}
		if r.IntN(30) == 0 {
			text = fmt.Sprintf(`{"$or": [%s, %s]}`, randomObject(r), randomObject(r))
		}
		if p, err := Parse(text); err == nil {
			return p
		}
	}
}

func randomObject(r *rand.Rand) string {
	var keys []string
	for _, k := range r.Perm(len(names))[:1+r.IntN(len(names))] {
		var list []string
		for range 1 + r.IntN(3) {
			c := pick(r, conditions)
			if r.IntN(3) > 0 { // most want exact values
				c = pick(r, conditions[:16])
			}
			list = append(list, c)
		}
		keys = append(keys, fmt.Sprintf("%q: [%s]", names[k], strings.Join(list, ", ")))
	}
	return "{" + strings.Join(keys, ", ") + "}"
}

func randomAttributes(r *rand.Rand) map[string]string {
	attributes := map[string]string{}
	for range r.IntN(6) {
		attributes[pick(r, append(slices.Clone(names), "other", "another", "third"))] = pick(r, texts)
	}
	return attributes
}

// check walks the index: each entry stands in the bucket that it says, and there is nothing
// else.
func (x *Index[K]) check(t *testing.T) {
	t.Helper()
	n := len(x.others)
	require.Len(t, x.all, len(x.byName))
	for at, a := range x.all {
		require.Equal(t, at, a.at)
		require.Same(t, a, x.byName[a.name])
		places := 0
		walk := func(b bucket[K], empty bool) {
			require.True(t, empty || len(b) > 0, "nothing empty is kept")
			for at, l := range b {
				require.Equal(t, at, l.e.places[l.n])
				if l.n == 0 {
					n++
				}
			}
			places += len(b)
		}
		for _, b := range a.strings {
			walk(*b, false)
		}
		for _, b := range a.numbers {
			walk(*b, false)
		}
		for _, b := range a.literals {
			walk(b, true)
		}
		require.Equal(t, a.n, places)
		require.Positive(t, places)
	}
	require.Equal(t, n, x.Len())
}

func TestAnIndexFindsExactlyThePoliciesThatAccept(t *testing.T) {
	found, many := 0, 0
	for seed := range uint64(20) {
		r := rand.New(rand.NewPCG(seed, 7))
		var x Index[int]
		var entries []*Entry[int] // in the order of addition
		var policies []*Policy
		for step := range 600 {
			switch {
			case len(entries) == 0 || r.IntN(3) == 0 && len(entries) < 60:
				p := randomPolicy(r)
				entries, policies = append(entries, x.Add(p, step)), append(policies, p)
			case r.IntN(4) == 0:
				k := r.IntN(len(entries))
				x.Remove(entries[k])
				entries, policies = slices.Delete(entries, k, k+1), slices.Delete(policies, k, k+1)
			default:
				attributes := randomAttributes(r)
				want := []*Entry[int]{nil}
				for k, p := range policies {
					if p.Match(attributes) {
						want = append(want, entries[k])
					}
				}
				got := x.Match(attributes, []*Entry[int]{nil})
				if !slices.Equal(want, got) {
					require.Fail(t, "not what the policies say", "attributes %q\nwant %v\ngot  %v", attributes, texted(want), texted(got))
				}
				found += len(got) - 1
				if len(got) > 2 {
					many++
				}
			}
			x.check(t)
		}
		for _, e := range entries {
			x.Remove(e)
		}
		require.Equal(t, Index[int]{added: x.added}, x, "it keeps nothing")
	}
	require.Greater(t, found, 1000, "the attributes meet the policies")
	require.Greater(t, many, 100)
}

func texted(es []*Entry[int]) (texts []string) {
	for _, e := range es[1:] {
		texts = append(texts, e.policy.String())
	}
	return texts
}

func TestAPolicyIsFoundByTheRarestOfItsValues(t *testing.T) {
	var x Index[int]
	for k := range 100 {
		p, err := Parse(fmt.Sprintf(`{"kind": ["order"], "customer": ["c%d"]}`, k))
		require.NoError(t, err)
		x.Add(p, k)
	}
	require.LessOrEqual(t, len(*x.byName["kind"].strings["order"]), 1, "else all would be asked for each order")
	got := x.Match(map[string]string{"kind": "order", "customer": "c77"}, nil)
	require.Len(t, got, 1)
	require.Equal(t, 77, got[0].Key)
}

func TestFindingAllocatesNothing(t *testing.T) {
	var x Index[int]
	for k := range 100 {
		p, err := Parse(fmt.Sprintf(`{"name": ["v%d", %d]}`, k, k))
		require.NoError(t, err)
		x.Add(p, k)
	}
	attributes := map[string]string{"name": "v50", "other": "x"}
	list := map[string]string{"name": `["v1", 2, 7]`}
	entries := make([]*Entry[int], 0, 8)
	require.Zero(t, testing.AllocsPerRun(100, func() {
		if len(x.Match(attributes, entries)) != 1 || len(x.Match(list, entries)) != 3 {
			t.Error("not found")
		}
	}))
}
