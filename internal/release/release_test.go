package main

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// shop is a repository of a module and of one that requires it.
func shop(t *testing.T, files map[string]string) *repository {
	t.Helper()
	root := t.TempDir()
	write(t, root, map[string]string{
		"go.mod":           "module example.com/shop\n\ngo 1.25.0\n",
		"plugin/go.mod":    "module example.com/shop/plugin\n\ngo 1.25.0\n\nrequire example.com/shop v0.2.0\n\nreplace example.com/shop => ../\n",
		"plugin/plugin.go": "package plugin\n",
		"CHANGELOG.md":     "# Changelog\n\n## Unreleased\n\n## 0.1.0 - 2026-11-27\n\n### Breaking\n- `Order.Ship`\n",
	})
	write(t, root, files)
	r, err := open(root)
	require.NoError(t, err)
	require.Equal(t, "v0.2.0", r.version)
	return r
}

func write(t *testing.T, root string, files map[string]string) {
	t.Helper()
	for name, text := range files {
		name = filepath.Join(root, filepath.FromSlash(name))
		require.NoError(t, os.MkdirAll(filepath.Dir(name), 0o777))
		require.NoError(t, os.WriteFile(name, []byte(text), 0o666))
	}
}

const order = `// Package shop sells.
package shop

import "context"

// An Order is one.
type Order struct {
	ID    string
	cents int
}

// Ship ships.
func (o *Order) Ship(ctx context.Context, to string) error { return nil }

// A Carrier carries.
type Carrier interface {
	Carry(o Order) error
}

// Find finds.
func Find[K comparable](keys map[K]func(at int) string, k K) (*Order, bool) { return nil, false }

// Most is the most.
const Most = 12
`

const orderAPI = `pkg example.com/shop, const Most untyped int = 12
pkg example.com/shop, func Find[K comparable](map[K]func(int) string, K) (*shop.Order, bool)
pkg example.com/shop, method (*Order) Ship(context.Context, string) error
pkg example.com/shop, type Carrier interface { Carry }
pkg example.com/shop, type Carrier interface, Carry(shop.Order) error
pkg example.com/shop, type Order struct
pkg example.com/shop, type Order struct, ID string
`

func TestTheTextOfAnAPIHasWhatCallersDependOn(t *testing.T) {
	r := shop(t, map[string]string{"order.go": order, "internal/hidden/hidden.go": "package hidden\n\nvar Hidden int\n",
		"examples/till/till.go": "package till\n\nvar Till int\n"})
	got, err := apiText(t.Context(), r.root)
	require.NoError(t, err)
	require.Equal(t, orderAPI, got)
}

// Each row breaks the API of the last release.
func TestWhatTheLastReleaseHadMayNotGoUnnamed(t *testing.T) {
	for _, c := range []struct {
		what, from, to, name, other string
	}{
		{"a method goes", "func (o *Order) Ship(ctx", "func (o *Order) Send(ctx", "Order.Ship", "shop.Order.Ship"},
		{"a method gets a parameter", "Ship(ctx context.Context, to string)", "Ship(ctx context.Context, to, from string)", "Order.Ship", "shop.Order"},
		{"a field goes", "ID    string", "id    string", "Order.ID", "Order"},
		{"an interface gets a method", "Carry(o Order) error", "Carry(o Order) error\n\tStop()", "Carrier", "shop.Carrier"},
		{"a function goes", "func Find[", "func find[", "Find", "shop.Find"},
		{"a constraint is another", "K comparable", "K ~string", "Find", "shop.Find"},
		{"a constant changes", "Most = 12", "Most = 13", "Most", "shop.Most"},
	} {
		t.Run(c.what, func(t *testing.T) {
			code := replaced(t, order, c.from, c.to)
			r := shop(t, map[string]string{"order.go": code, "internal/api/v0.1.0.txt": orderAPI, "internal/api/v0.2.0.txt": orderAPI})
			core := r.modules[0]
			require.Equal(t, ".", core.dir)
			require.ErrorContains(t, r.checkAPI(t.Context(), core), "write that anew")
			require.NoError(t, r.writeAPI(t.Context()))
			require.ErrorContains(t, r.checkAPI(t.Context(), core), "CHANGELOG.md does not name `"+c.name+"` under Breaking")
			for _, name := range []string{c.name, c.other} {
				write(t, r.root, map[string]string{"CHANGELOG.md": "# Changelog\n\n## Unreleased\n\n### Breaking\n- `" + name + "` is another.\n\n### Added\n"})
				require.NoError(t, r.checkAPI(t.Context(), core), name)
				write(t, r.root, map[string]string{"CHANGELOG.md": "# Changelog\n\n## Unreleased\n\n### Breaking\n\n### Added\n- `" + name + "` is another.\n"})
				require.Error(t, r.checkAPI(t.Context(), core), name)
			}
		})
	}
}

func replaced(t *testing.T, s, from, to string) string {
	t.Helper()
	before, after, is := strings.Cut(s, from)
	require.True(t, is, from)
	return before + to + after
}

func TestNothingIsBrokenByWhatIsAddedOrRenamedInside(t *testing.T) {
	code := replaced(t, replaced(t, order, "to string", "where string"), "cents int", "cents int64\n\tName string")
	r := shop(t, map[string]string{"order.go": code, "internal/api/v0.1.0.txt": orderAPI})
	require.ErrorContains(t, r.checkAPI(t.Context(), r.modules[0]), "has no text")
	require.NoError(t, r.writeAPI(t.Context()))
	require.NoError(t, r.checkAPI(t.Context(), r.modules[0]))
}

func TestModulesRequireOneVersionOfEachOther(t *testing.T) {
	for version, want := range map[string]string{
		"v0.3.0":                             "want one version everywhere",
		"v0.0.0":                             "want the version of a release",
		"v0.0.0-20261127102527-5ed78ca00000": "want the version of a release",
	} {
		root := shop(t, map[string]string{"order.go": order}).root
		write(t, root, map[string]string{"second/go.mod": "module example.com/shop/second\n\ngo 1.25.0\n\nrequire example.com/shop " + version + "\n", "second/second.go": "package second\n"})
		_, err := open(root)
		require.ErrorContains(t, err, want, version)
	}
}

func TestAReleasedModuleRequiresReleasedOnes(t *testing.T) {
	root := shop(t, map[string]string{"order.go": order}).root
	write(t, root, map[string]string{
		"internal/kit/go.mod": "module example.com/shop/internal/kit\n\ngo 1.25.0\n",
		"second/go.mod":       "module example.com/shop/second\n\ngo 1.25.0\n\nrequire example.com/shop/internal/kit v0.2.0\n",
		"second/second.go":    "package second\n",
	})
	_, err := open(root)
	require.ErrorContains(t, err, "is released and requires example.com/shop/internal/kit, which is not")
}

func TestModulesThatHoldOnlyTestsAreNotReleased(t *testing.T) {
	r := shop(t, map[string]string{"order.go": order, "plugin/next/go.mod": "module example.com/shop/plugin/next\n\ngo 1.25.0\n", "plugin/next/next_test.go": "package next\n"})
	var paths []string
	for _, m := range r.released() {
		paths = append(paths, m.tag(r.version))
	}
	require.Equal(t, []string{"v0.2.0", "plugin/v0.2.0"}, paths)
}

func TestNextNamesTheComingReleaseEverywhere(t *testing.T) {
	r := shop(t, map[string]string{"order.go": order})
	require.Error(t, r.next(t.Context(), "v0.2.0"))
	require.Error(t, r.next(t.Context(), "0.3.0"))
	require.NoError(t, r.next(t.Context(), "v0.3.0"))
	again, err := open(r.root)
	require.NoError(t, err)
	require.Equal(t, "v0.3.0", again.version)
	require.FileExists(t, again.apiFile(again.modules[0], "v0.3.0"))
}

func TestTheChangelogGetsTheVersionAndItsDay(t *testing.T) {
	day := time.Date(2026, 11, 27, 0, 0, 0, 0, time.UTC)
	got, err := dated("# Changelog\n\n## Unreleased\n\n### Added\n- A.\n", "v0.1.0", day)
	require.NoError(t, err)
	require.Equal(t, "# Changelog\n\n## Unreleased\n\n## 0.1.0 - 2026-11-27\n\n### Added\n- A.\n", got)
	again, err := dated(got, "v0.1.0", day.AddDate(0, 0, 1))
	require.NoError(t, err)
	require.Equal(t, got, again)
	_, err = dated(got, "v0.2.0", day)
	require.ErrorContains(t, err, "says nothing of v0.2.0")
	_, err = dated("# Changelog\n", "v0.2.0", day)
	require.ErrorContains(t, err, "has no line")
}

// What a go.work replaces is replaced for go mod tidy, and go.mod stays without it.
func TestTidyKnowsWhatAWorkspaceReplaces(t *testing.T) {
	t.Setenv("GOPROXY", "off")
	r := shop(t, map[string]string{
		"order.go":      order,
		"go.sum":        "",
		"plugin/go.mod": "module example.com/shop/plugin\n\ngo 1.25.0\n\nrequire example.com/shop v0.2.0\n\nrequire example.com/shop/unused v0.2.0\n",
		"plugin/go.sum": "", "plugin/plugin.go": "package plugin\n\nimport _ \"example.com/shop\"\n",
		"plugin/go.work": "go 1.25.0\n\nuse .\n\nreplace example.com/shop => ../\n\nreplace example.com/shop/unused => ../unused\n",
		"unused/go.mod":  "module example.com/shop/unused\n\ngo 1.25.0\n", "unused/unused.go": "package unused\n", "unused/go.sum": "",
	})
	require.ErrorContains(t, r.tidy(t.Context(), true), "-require example.com/shop/unused")
	require.NoError(t, r.tidy(t.Context(), false))
	text, err := os.ReadFile(filepath.Join(r.root, "plugin", "go.mod"))
	require.NoError(t, err)
	require.Equal(t, "module example.com/shop/plugin\n\ngo 1.25.0\n\nrequire example.com/shop v0.2.0\n", string(text))
	require.NoError(t, r.tidy(t.Context(), true))
}
