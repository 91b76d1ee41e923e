package main

import (
	"bytes"
	"os"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"
)

// in makes modules in a folder of their own, and runs their tests from there.
func in(t *testing.T, files map[string]string, terminal bool, arguments ...string) (string, error) {
	t.Helper()
	t.Chdir(t.TempDir())
	t.Setenv("GOFLAGS", "")
	for name, text := range files {
		require.NoError(t, os.MkdirAll(filepath.Dir(name), 0o777))
		require.NoError(t, os.WriteFile(name, []byte(text), 0o666))
	}
	var out bytes.Buffer
	err := run(t.Context(), &out, terminal, arguments)
	return out.String(), err
}

const (
	rootMod  = "module example.com/m\n\ngo 1.25\n"
	belowMod = "module example.com/m/below\n\ngo 1.25\n"
	twoTests = "package m\n\nimport \"testing\"\n\nfunc TestOne(t *testing.T) { t.Log(\"noise\"); t.Run(\"sub\", func(*testing.T) {}) }\n\nfunc TestTwo(t *testing.T) { t.Log(\"not part of this run: the half, no file system\") }\n"
)

func TestWhatIsLeftOutIsNamedAndNotSkipped(t *testing.T) {
	out, err := in(t, map[string]string{
		"go.mod": rootMod, "m_test.go": twoTests,
		"elsewhere_plan9_test.go": "package m\n\nimport \"testing\"\n\nfunc TestElsewhere(t *testing.T) {}\n",
		"never_test.go":           "//go:build never\n\npackage m\n\nimport \"testing\"\n\nfunc TestNever(t *testing.T) {}\n",
		"below/go.mod":            belowMod, "below/m_test.go": twoTests,
	}, false, "-run=Test")
	require.NoError(t, err, out)
	require.Contains(t, out, "2 modules, 2 packages with tests, 4 test functions")
	require.Contains(t, out, "not part of this run: example.com/m/elsewhere_plan9_test.go, which is for another platform: TestElsewhere\n")
	require.Contains(t, out, "not part of this run: example.com/m/never_test.go, which is for never: TestNever\n")
	require.Contains(t, out, "not part of this run: the tests that -run=Test leaves out\n")
	require.Contains(t, out, "not part of this run: example.com/m TestTwo: the half, no file system\n")
	require.Contains(t, out, "\n4 passed, 0 failed, 0 skipped\n")
	require.NotContains(t, out, "noise")
	require.NotContains(t, out, "\x1b")
	require.Regexp(t, `ok  \texample.com/m\t\d+\.\ds\t2 tests\n`, out)
}

const lengths = `package m

import "testing"

func rounds() int {
	if testing.Short() {
		return 3
	}
	return 3000
}

func TestRounds(t *testing.T) {
	if rounds() == 3000 {
		t.Log("not part of this run: the short one")
	}
}

func TestMore(t *testing.T) {
	if !testing.Short() {
		t.Log("not part of this run: the short one")
	}
}

func TestSame(t *testing.T) {}
`

func TestTheTestsThatAreShortAreNamedAndCanBeRunInFull(t *testing.T) {
	files := map[string]string{"go.mod": rootMod, "m_test.go": lengths, "below/go.mod": belowMod, "below/m_test.go": twoTests}
	out, err := in(t, files, false)
	require.NoError(t, err, out)
	require.Contains(t, out, "2 modules, 2 packages with tests, 5 test functions")
	require.Contains(t, out, "not part of this run: the full length (-full) of example.com/m TestMore, TestRounds\n")
	require.NotContains(t, out, "the short one")
	require.Contains(t, out, "\n5 passed, 0 failed, 0 skipped\n")

	out, err = in(t, files, false, "-full")
	require.NoError(t, err, out)
	require.Contains(t, out, "1 modules, 1 packages with tests, 2 test functions")
	require.Contains(t, out, "not part of this run: the tests that have one length (without -full)\n")
	require.Contains(t, out, "not part of this run: example.com/m TestMore: the short one\n")
	require.Contains(t, out, "not part of this run: example.com/m TestRounds: the short one\n")
	require.NotContains(t, out, "the full length")
	require.NotContains(t, out, "below")
	require.Contains(t, out, "\n2 passed, 0 failed, 0 skipped\n")

	out, err = in(t, files, false, "-short=false", "-run=Rounds")
	require.NoError(t, err, out)
	require.Contains(t, out, "2 modules, 2 packages with tests, 5 test functions")
	require.Contains(t, out, "not part of this run: example.com/m TestRounds: the short one\n")
	require.NotContains(t, out, "the full length")
	require.Contains(t, out, "\n1 passed, 0 failed, 0 skipped\n")
}

func TestWhatFailsIsPrinted(t *testing.T) {
	out, err := in(t, map[string]string{
		"go.mod": rootMod, "m_test.go": twoTests,
		"bad/bad_test.go":     "package bad\n\nimport \"testing\"\n\nfunc TestGood(t *testing.T) { t.Log(\"noise\") }\n\nfunc TestBad(t *testing.T) { t.Run(\"sub\", func(t *testing.T) { t.Error(\"this is why\") }) }\n",
		"panics/p_test.go":    "package panics\n\nimport \"testing\"\n\nfunc TestPanics(t *testing.T) { panic(\"out of memory\") }\n",
		"broken/x_test.go":    "package broken\n\nfunc TestBroken(t *testing.T) {}\n",
		"below/go.mod":        belowMod,
		"below/m_test.go":     twoTests,
		"below/sub/s_test.go": "package sub\n\nimport \"testing\"\n\nfunc TestLazy(t *testing.T) { t.Skip(\"later\") }\n",
	}, false)
	require.ErrorIs(t, err, errFailed)
	require.Contains(t, out, "this is why")
	require.Contains(t, out, "out of memory")
	require.Contains(t, out, "undefined: testing")
	require.Contains(t, out, "FAIL\texample.com/m/bad\t")
	require.Contains(t, out, "SKIPPED: example.com/m/below/sub TestLazy\n")
	require.Regexp(t, `below +\d+s +2 +SKIPPED tests\n`, out)
	require.Contains(t, out, "\n5 passed, 2 failed, 1 skipped\n")
	require.NotContains(t, out, "noise")
}

func TestATerminalSeesWhatIsUnderWay(t *testing.T) {
	out, err := in(t, map[string]string{"go.mod": rootMod, "m_test.go": twoTests}, true)
	require.NoError(t, err, out)
	require.Contains(t, out, "0s  0 of 1 modules, 0 tests; now .")
	require.Contains(t, out, "\r\x1b[K")
	require.Regexp(t, `\r\x1b\[K\n?[^\r]*1 passed|\r\x1b\[K[^\r]*2 passed`, out)
}

func TestVerboseShowsAll(t *testing.T) {
	out, err := in(t, map[string]string{"go.mod": rootMod, "m_test.go": twoTests}, false, "-v")
	require.NoError(t, err, out)
	require.Contains(t, out, "noise")
	require.Contains(t, out, "--- PASS: TestOne")
}
