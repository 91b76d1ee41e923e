package main

import (
	"fmt"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"

	"golang.org/x/tools/go/packages"

	_ "embed"
)

//go:embed mutswitch/mutswitch.go
var switchSource []byte

// core are the packages that are mutated.
var core = []string{
	".", "./internal/admission", "./internal/alarm", "./internal/alive", "./internal/block", "./internal/callback", "./internal/callsite", "./internal/consumers", "./internal/core", "./internal/deadletter", "./internal/dedup", "./internal/delivery", "./internal/due", "./internal/ending", "./internal/engineletters", "./internal/enginequeue", "./internal/filter", "./internal/handling", "./internal/instep", "./internal/intercept", "./internal/jsontype", "./internal/keyline", "./internal/lease", "./internal/lifecycle",
	"./internal/log", "./internal/message", "./internal/notice", "./internal/offer", "./internal/onengine", "./internal/overflow", "./internal/policy", "./internal/queue", "./internal/ranges", "./internal/routing", "./internal/settings", "./internal/slots", "./internal/store", "./internal/topic", "./internal/view",
	"./internal/waitline", "./internal/window", "./internal/workers",
}

// prepare copies the module to dir and puts the mutants into it. above says which packages
// of the patterns import one of them, itself or by others; all are relative to the module.
func prepare(module, dir string, patterns ...string) (mutants []Mutant, above map[string][]string, err error) {
	if module, err = filepath.Abs(module); err != nil {
		return nil, nil, err
	}
	if err := copyModule(module, dir); err != nil {
		return nil, nil, err
	}
	mode := packages.NeedName | packages.NeedFiles | packages.NeedSyntax | packages.NeedTypes | packages.NeedTypesInfo | packages.NeedImports | packages.NeedDeps
	pkgs, err := packages.Load(&packages.Config{Mode: mode, Dir: dir}, patterns...)
	if err != nil {
		return nil, nil, err
	}
	above = map[string][]string{}
	for _, p := range pkgs {
		if len(p.Errors) > 0 {
			return nil, nil, fmt.Errorf("%s: %v", p.PkgPath, p.Errors[0])
		}
		noteImports(above, p, relative(p.PkgPath))
		for k, file := range p.Syntax {
			name := p.GoFiles[k]
			if filepath.Base(name) == "check.go" { // the invariants, for tests
				continue
			}
			src, err := os.ReadFile(name)
			if err != nil {
				return nil, nil, err
			}
			rel, err := filepath.Rel(dir, name)
			if err != nil {
				return nil, nil, err
			}
			mutated := instrument(p, file, filepath.ToSlash(rel), src, &mutants)
			if err := os.WriteFile(name, []byte(mutated), 0o644); err != nil {
				return nil, nil, err
			}
		}
	}
	at := filepath.Join(dir, "internal", "mutswitch")
	if err := os.MkdirAll(at, 0o755); err != nil {
		return nil, nil, err
	}
	return mutants, above, os.WriteFile(filepath.Join(at, "mutswitch.go"), switchSource, 0o644)
}

// relative is a package's path in the module.
func relative(pkgPath string) string {
	return path.Join(".", strings.TrimPrefix(pkgPath, modulePath))
}

// noteImports says that what p imports, itself or by others, is below the package from.
func noteImports(above map[string][]string, p *packages.Package, from string) {
	for at, imported := range p.Imports {
		below := relative(at)
		if !strings.HasPrefix(at, modulePath) || slices.Contains(above[below], from) {
			continue
		}
		above[below] = append(above[below], from)
		noteImports(above, imported, from)
	}
}

// copyModule copies all but the modules inside it, the examples, and what
// begins with a dot.
func copyModule(from, to string) error {
	return filepath.WalkDir(from, func(path string, d fs.DirEntry, err error) error {
		if err != nil || path == from {
			return err
		}
		rel, err := filepath.Rel(from, path)
		if err != nil {
			return err
		}
		target := filepath.Join(to, rel)
		if !d.IsDir() {
			if !d.Type().IsRegular() || strings.HasPrefix(d.Name(), ".") {
				return nil
			}
			data, err := os.ReadFile(path)
			if err != nil {
				return err
			}
			return os.WriteFile(target, data, 0o644)
		}
		if strings.HasPrefix(d.Name(), ".") || rel == "examples" {
			return fs.SkipDir
		}
		if _, err := os.Stat(filepath.Join(path, "go.mod")); err == nil {
			return fs.SkipDir
		}
		return os.MkdirAll(target, 0o755)
	})
}
