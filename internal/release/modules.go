package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"

	"golang.org/x/mod/modfile"
	"golang.org/x/mod/module"
	"golang.org/x/mod/semver"
)

// A repository is the modules of one work tree.
type repository struct {
	root    string
	core    string // the path of the module at the root, which all others begin with
	modules []*mod // in order of dependency
	version string // of the coming release
}

// A mod is one module.
type mod struct {
	dir      string // below the root, with slashes; "." is the root
	file     *modfile.File
	work     *modfile.WorkFile // what is in its go.work; nil without one
	released bool
}

func (m *mod) path() string { return m.file.Module.Mod.Path }

// tag is what names a version of the module in git.
func (m *mod) tag(version string) string {
	if m.dir == "." {
		return version
	}
	return m.dir + "/" + version
}

// open reads the modules below root.
func open(root string) (*repository, error) {
	r := &repository{root: root}
	err := filepath.WalkDir(root, func(name string, d fs.DirEntry, err error) error {
		switch {
		case err != nil:
			return err
		case d.IsDir() && name != root && (strings.HasPrefix(d.Name(), ".") || d.Name() == "testdata" || d.Name() == "node_modules"):
			return fs.SkipDir
		case d.Name() == "go.mod":
			m, err := read(root, filepath.Dir(name))
			r.modules = append(r.modules, m)
			return err
		}
		return nil
	})
	if err != nil {
		return nil, err
	}
	for _, m := range r.modules {
		if m.dir == "." {
			r.core = m.path()
		}
	}
	if r.core == "" {
		return nil, fmt.Errorf("no go.mod in %s", root)
	}
	if err := r.sort(); err != nil {
		return nil, err
	}
	return r, r.findVersion()
}

func read(root, dir string) (*mod, error) {
	rel, err := filepath.Rel(root, dir)
	if err != nil {
		return nil, err
	}
	m := &mod{dir: filepath.ToSlash(rel)}
	name := filepath.Join(dir, "go.mod")
	text, err := os.ReadFile(name)
	if err != nil {
		return nil, err
	}
	if m.file, err = modfile.Parse(name, text, nil); err != nil {
		return nil, err
	}
	name = filepath.Join(dir, "go.work")
	if text, err := os.ReadFile(name); err == nil {
		if m.work, err = modfile.ParseWork(name, text, nil); err != nil {
			return nil, err
		}
	} else if !errors.Is(err, fs.ErrNotExist) {
		return nil, err
	}
	onlyTests, err := hasOnlyTests(dir)
	m.released = !slices.Contains(strings.Split(m.dir, "/"), "internal") && !onlyTests
	return m, err
}

// hasOnlyTests says whether no package of the module at dir has more than tests.
func hasOnlyTests(dir string) (bool, error) {
	only := true
	err := filepath.WalkDir(dir, func(name string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if d.IsDir() && name != dir {
			if _, err := os.Stat(filepath.Join(name, "go.mod")); err == nil || d.Name() == "testdata" || strings.HasPrefix(d.Name(), ".") {
				return fs.SkipDir
			}
		}
		if strings.HasSuffix(name, ".go") && !strings.HasSuffix(name, "_test.go") {
			only = false
			return fs.SkipAll
		}
		return nil
	})
	return only, err
}

// ours is what the module requires of this repository.
func (r *repository) ours(m *mod) (requires []*modfile.Require) {
	for _, q := range m.file.Require {
		if strings.HasPrefix(q.Mod.Path+"/", r.core+"/") {
			requires = append(requires, q)
		}
	}
	return requires
}

// sort puts the modules into the order of dependency.
func (r *repository) sort() error {
	byPath := map[string]*mod{}
	for _, m := range r.modules {
		byPath[m.path()] = m
	}
	var sorted []*mod
	under := map[*mod]bool{} // true: on the way to here
	var visit func(m *mod) error
	visit = func(m *mod) error {
		switch on, seen := under[m]; {
		case on:
			return fmt.Errorf("%s requires itself", m.path())
		case seen:
			return nil
		}
		under[m] = true
		for _, q := range r.ours(m) {
			to := byPath[q.Mod.Path]
			if to == nil {
				return fmt.Errorf("%s requires %s, which is not here", m.path(), q.Mod.Path)
			}
			if m.released && !to.released {
				return fmt.Errorf("%s is released and requires %s, which is not", m.path(), to.path())
			}
			if err := visit(to); err != nil {
				return err
			}
		}
		under[m] = false
		sorted = append(sorted, m)
		return nil
	}
	for _, m := range r.modules {
		if err := visit(m); err != nil {
			return err
		}
	}
	r.modules = sorted
	return nil
}

// findVersion takes the coming release from what the modules require of each other.
func (r *repository) findVersion() error {
	from := ""
	for _, m := range r.modules {
		for _, q := range r.ours(m) {
			switch v := q.Mod.Version; {
			case semver.Canonical(v) != v || module.IsPseudoVersion(v) || v == "v0.0.0":
				return fmt.Errorf("%s requires %s %s: want the version of a release", m.path(), q.Mod.Path, v)
			case r.version == "":
				r.version, from = v, m.path()
			case v != r.version:
				return fmt.Errorf("%s requires %s %s, and %s requires %s: want one version everywhere", m.path(), q.Mod.Path, v, from, r.version)
			}
		}
	}
	if r.version == "" {
		return errors.New("no module requires another: what is the coming release?")
	}
	return nil
}

// released are the modules that users can fetch, in order of dependency.
func (r *repository) released() (ms []*mod) {
	for _, m := range r.modules {
		if m.released {
			ms = append(ms, m)
		}
	}
	return ms
}

func (r *repository) dir(m *mod) string { return filepath.Join(r.root, filepath.FromSlash(m.dir)) }

// commands are the import paths of the module's programs.
func (r *repository) commands(ctx context.Context, m *mod) ([]string, error) {
	out, err := output(ctx, r.dir(m), "go", "list", "-f", `{{if eq .Name "main"}}{{.ImportPath}}{{end}}`, "./...")
	if err != nil {
		return nil, err
	}
	return slices.DeleteFunc(strings.Split(out, "\n"), func(p string) bool { return p == "" || isInternal(p) }), nil
}

func isInternal(importPath string) bool {
	return slices.Contains(strings.Split(importPath, "/"), "internal")
}

// check says what stands in the way of a release.
func (r *repository) check(ctx context.Context) error {
	license, err := os.ReadFile(filepath.Join(r.root, "LICENSE"))
	if err != nil {
		return err
	}
	var errs []error
	for _, m := range r.released() {
		if own, err := os.ReadFile(filepath.Join(r.dir(m), "LICENSE")); err != nil {
			errs = append(errs, err)
		} else if !bytes.Equal(own, license) {
			errs = append(errs, fmt.Errorf("%s/LICENSE is not the LICENSE of the root", m.dir))
		}
		commands, err := r.commands(ctx, m)
		if err != nil {
			return err
		}
		if len(commands) > 0 && len(m.file.Replace) > 0 {
			errs = append(errs, fmt.Errorf("%s/go.mod replaces modules, so that go run %s@%s fails: the replacements belong into a go.work beside it", m.dir, commands[0], r.version))
		}
		errs = append(errs, r.checkAPI(ctx, m))
	}
	tagged, err := output(ctx, r.root, "git", "tag", "--list", r.version)
	if err != nil {
		return err
	}
	if tagged != "" {
		at, err := output(ctx, r.root, "git", "rev-parse", r.version+"^{commit}", "HEAD")
		if err != nil {
			return err
		}
		if commits := strings.Fields(at); commits[0] != commits[1] {
			errs = append(errs, fmt.Errorf("%s has been released: name the coming release, by go run -C internal/release . next VERSION", r.version))
		}
	}
	if err := errors.Join(errs...); err != nil {
		return err
	}
	fmt.Fprintf(os.Stdout, "%s: %d modules to release, %d not; their API is that of internal/api\n", r.version, len(r.released()), len(r.modules)-len(r.released()))
	return nil
}

// tidy runs go mod tidy in every module. What a go.work replaces is replaced
// for it, too.
func (r *repository) tidy(ctx context.Context, diff bool) error {
	scratch, err := os.MkdirTemp("", "tidy")
	if err != nil {
		return err
	}
	defer os.RemoveAll(scratch)
	var errs []error
	for _, m := range r.modules {
		errs = append(errs, r.tidyOne(ctx, m, diff, scratch))
	}
	return errors.Join(errs...)
}

func (r *repository) tidyOne(ctx context.Context, m *mod, diff bool, scratch string) error {
	arguments := []string{"env", "GOWORK=off", "go", "mod", "tidy"}
	if diff {
		arguments = append(arguments, "-diff")
	}
	dir := r.dir(m)
	if m.work == nil || len(m.work.Replace) == 0 {
		_, err := output(ctx, dir, arguments[0], arguments[1:]...)
		return err
	}
	// tidy takes no go.work, so it gets a go.mod that has the same replacements.
	// They stand on lines of their own at its end, and are taken off again.
	mine, err := os.ReadFile(filepath.Join(dir, "go.mod"))
	if err != nil {
		return err
	}
	f, err := modfile.Parse("go.mod", mine, nil)
	if err != nil {
		return err
	}
	for _, p := range m.work.Replace {
		if err := f.AddReplace(p.Old.Path, p.Old.Version, p.New.Path, p.New.Version); err != nil {
			return err
		}
	}
	text, err := f.Format()
	if err != nil {
		return err
	}
	sums, err := os.ReadFile(filepath.Join(dir, "go.sum"))
	if err != nil {
		return err
	}
	name := filepath.Join(scratch, "tidy.mod")
	if err := os.WriteFile(name, text, 0o666); err != nil {
		return err
	}
	if err := os.WriteFile(filepath.Join(scratch, "tidy.sum"), sums, 0o666); err != nil {
		return err
	}
	if _, err := output(ctx, dir, arguments[0], append(arguments[1:], "-modfile="+name)...); err != nil || diff {
		return err
	}
	if text, err = os.ReadFile(name); err != nil {
		return err
	}
	if f, err = modfile.Parse("go.mod", text, nil); err != nil {
		return err
	}
	for _, p := range m.work.Replace {
		if err := f.DropReplace(p.Old.Path, p.Old.Version); err != nil {
			return err
		}
	}
	f.Cleanup()
	if text, err = f.Format(); err != nil {
		return err
	}
	if sums, err = os.ReadFile(filepath.Join(scratch, "tidy.sum")); err != nil {
		return err
	}
	return errors.Join(os.WriteFile(filepath.Join(dir, "go.mod"), text, 0o666), os.WriteFile(filepath.Join(dir, "go.sum"), sums, 0o666))
}

// next names the coming release in all modules, and writes its API texts.
func (r *repository) next(ctx context.Context, version string) error {
	if semver.Canonical(version) != version || version == "" {
		return fmt.Errorf("%q: want a version such as v0.2.0", version)
	}
	if semver.Compare(version, r.version) <= 0 {
		return fmt.Errorf("%s: want a version after %s", version, r.version)
	}
	for _, m := range r.modules {
		for _, q := range r.ours(m) {
			if err := m.file.AddRequire(q.Mod.Path, version); err != nil {
				return err
			}
		}
		text, err := m.file.Format()
		if err != nil {
			return err
		}
		if err := os.WriteFile(filepath.Join(r.dir(m), "go.mod"), text, 0o666); err != nil {
			return err
		}
	}
	again, err := open(r.root)
	if err != nil {
		return err
	}
	return again.writeAPI(ctx)
}

// apiFile is where the API text of a version of the module is kept.
func (r *repository) apiFile(m *mod, version string) string {
	return filepath.Join(r.root, "internal", "api", filepath.FromSlash(path.Clean(m.dir)), version+".txt")
}
