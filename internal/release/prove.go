package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"time"

	"golang.org/x/mod/module"
	"golang.org/x/mod/zip"
	"golang.org/x/sync/errgroup"
)

// prove does with the coming release what users will: it serves the modules of
// this work tree by a file-system proxy, as they will be once they are tagged,
// and has programs of testdata/outside get, build and run them, in folders that
// have nothing to do with this repository. Then it runs each command by go run.
//
// The module cache that these use is empty. Unless empty is set other modules
// come from the downloads of this machine's module cache where that has them.
// What git does not know is not part of the release.
func (r *repository) prove(ctx context.Context, empty bool, keep string) error {
	scratch, err := os.MkdirTemp("", "release")
	if err != nil {
		return err
	}
	defer os.RemoveAll(scratch)
	proxy := filepath.Join(scratch, "proxy")
	if keep != "" {
		if proxy, err = filepath.Abs(keep); err != nil {
			return err
		}
	}
	if err := r.serve(ctx, scratch, proxy); err != nil {
		return err
	}
	w := &world{version: r.version, scratch: scratch}
	if w.env, err = r.environment(ctx, scratch, proxy, empty); err != nil {
		return err
	}
	wanted, err := readCommands(filepath.Join(r.root, "internal", "release", "testdata", "commands.txt"))
	if err != nil {
		return err
	}
	var proofs []proof
	outside, err := r.outside()
	if err != nil {
		return err
	}
	for _, dir := range outside {
		proofs = append(proofs, proof{"outside/" + filepath.Base(dir), func() (string, error) { return w.outside(ctx, dir) }})
	}
	for _, m := range r.released() {
		commands, err := r.commands(ctx, m)
		if err != nil {
			return err
		}
		for _, path := range commands {
			c, is := wanted[strings.TrimPrefix(path, r.core+"/")]
			if !is {
				return fmt.Errorf("testdata/commands.txt does not say what to expect of %s", path)
			}
			delete(wanted, strings.TrimPrefix(path, r.core+"/"))
			c.path = path
			proofs = append(proofs, proof{"go run " + path + "@" + r.version, func() (string, error) { return w.command(ctx, c) }})
		}
	}
	for path := range wanted {
		return fmt.Errorf("testdata/commands.txt names %s, which no released module has", path)
	}
	return doAll(proofs)
}

// A proof is one thing that a user does. It returns what it shows.
type proof struct {
	name string
	do   func() (string, error)
}

// doAll does what there is to prove, two at a time, and prints each as it ends.
func doAll(proofs []proof) error {
	var mu sync.Mutex
	var errs []error
	var group errgroup.Group
	group.SetLimit(2)
	for _, p := range proofs {
		group.Go(func() error {
			began := time.Now()
			said, err := p.do()
			took := time.Since(began).Seconds()
			mu.Lock()
			defer mu.Unlock()
			if err != nil {
				fmt.Fprintf(os.Stdout, "%5.1fs  FAILED %s\n", took, p.name)
				errs = append(errs, fmt.Errorf("%s: %w", p.name, err))
			} else {
				fmt.Fprintf(os.Stdout, "%5.1fs  %s: %s\n", took, p.name, said)
			}
			return nil
		})
	}
	return errors.Join(append(errs, group.Wait())...)
}

// serve makes a file-system proxy of the released modules.
func (r *repository) serve(ctx context.Context, scratch, proxy string) error {
	// The commit of a stash has what git knows, as it is in the work tree now.
	revision, err := output(ctx, r.root, "git", "stash", "create")
	if err != nil {
		return err
	}
	if revision == "" {
		revision = "HEAD"
	}
	unknown, err := output(ctx, r.root, "git", "ls-files", "--others", "--exclude-standard", "--", "*.go", "*go.mod")
	if err != nil {
		return err
	}
	if unknown != "" {
		fmt.Fprintf(os.Stderr, "release: git does not know these files, so they are not part of the release:\n%s\n", unknown)
	}
	tree := filepath.Join(scratch, "tree")
	archive := filepath.Join(scratch, "tree.tar")
	if err := os.MkdirAll(tree, 0o777); err != nil {
		return err
	}
	if _, err := output(ctx, r.root, "git", "archive", "--output", archive, revision); err != nil {
		return err
	}
	if _, err := output(ctx, tree, "tar", "-xf", archive); err != nil {
		return err
	}
	for _, m := range r.released() {
		if err := r.serveOne(m, filepath.Join(tree, filepath.FromSlash(m.dir)), proxy); err != nil {
			return err
		}
	}
	return nil
}

// serveOne adds the module whose files are at dir. Modules below it are left out.
func (r *repository) serveOne(m *mod, dir, proxy string) error {
	escaped, err := module.EscapePath(m.path())
	if err != nil {
		return err
	}
	base := filepath.Join(proxy, filepath.FromSlash(escaped), "@v")
	if err := os.MkdirAll(base, 0o777); err != nil {
		return err
	}
	archive, err := os.Create(filepath.Join(base, r.version+".zip"))
	if err != nil {
		return err
	}
	defer archive.Close()
	at := module.Version{Path: m.path(), Version: r.version}
	if err := zip.CreateFromDir(archive, at, dir); err != nil {
		return err
	}
	size, err := archive.Seek(0, 1)
	if err != nil {
		return err
	}
	if err := archive.Close(); err != nil {
		return err
	}
	if _, err := zip.CheckZip(at, archive.Name()); err != nil {
		return err
	}
	gomod, err := os.ReadFile(filepath.Join(dir, "go.mod"))
	if err != nil {
		return err
	}
	info, err := json.Marshal(map[string]any{"Version": r.version, "Time": time.Now().UTC()})
	if err != nil {
		return err
	}
	fmt.Fprintf(os.Stdout, "        %s %s: %d kB\n", m.path(), r.version, size>>10)
	return errors.Join(
		os.WriteFile(filepath.Join(base, r.version+".mod"), gomod, 0o666),
		os.WriteFile(filepath.Join(base, r.version+".info"), info, 0o666),
		os.WriteFile(filepath.Join(base, "list"), []byte(r.version+"\n"), 0o666))
}

// environment is that of a user whose module cache is empty, and who gets our
// modules by proxy. Sums of ours are in no database yet; all others are checked.
func (r *repository) environment(ctx context.Context, scratch, proxy string, empty bool) ([]string, error) {
	out, err := output(ctx, r.root, "go", "env", "GOPROXY", "GOMODCACHE", "GONOSUMDB", "GOFLAGS")
	if err != nil {
		return nil, err
	}
	now := strings.Split(out, "\n")
	proxies := []string{"file://" + filepath.ToSlash(proxy)}
	if !empty {
		proxies = append(proxies, "file://"+filepath.ToSlash(now[1])+"/cache/download")
	}
	join := func(sep string, s ...string) string {
		return strings.Trim(strings.Join(s, sep), sep)
	}
	return append(os.Environ(),
		"GOWORK=off",
		"GOPROXY="+join(",", append(proxies, now[0])...),
		"GOMODCACHE="+filepath.Join(scratch, "modules"),
		"GONOSUMDB="+join(",", now[2], r.core),
		// -trimpath, so that what was built of other modules is found again though
		// the module cache is elsewhere each time.
		"GOFLAGS="+join(" ", now[3], "-trimpath -modcacherw"),
	), nil
}

// A world is where programs live that know only the proxy.
type world struct {
	version, scratch string
	env              []string
}

func (w *world) run(ctx context.Context, dir, name string, arguments ...string) (string, error) {
	c := exec.CommandContext(ctx, name, arguments...)
	c.Dir, c.Env = dir, w.env
	return finish(c)
}

// outside are the folders of testdata/outside, of which one at least gets each
// released module that can be imported.
func (r *repository) outside() ([]string, error) {
	dirs, err := filepath.Glob(filepath.Join(r.root, "internal", "release", "testdata", "outside", "*"))
	if err != nil {
		return nil, err
	}
	got := map[string]bool{}
	for _, dir := range dirs {
		p, err := readOutside(dir)
		if err != nil {
			return nil, err
		}
		for _, path := range p.gets {
			got[path] = true
		}
	}
	for _, m := range r.released() {
		if _, err := os.Stat(r.apiFile(m, r.version)); err == nil && !got[m.path()] {
			return nil, fmt.Errorf("no program of testdata/outside gets %s", m.path())
		}
	}
	return dirs, nil
}

// An outsider is a program of testdata/outside.
type outsider struct {
	files map[string][]byte
	gets  []string // the modules that it gets, named by lines "// go get MODULE"
}

func readOutside(dir string) (p outsider, err error) {
	entries, err := os.ReadDir(dir)
	if err != nil {
		return p, err
	}
	p.files = map[string][]byte{}
	for _, e := range entries {
		text, err := os.ReadFile(filepath.Join(dir, e.Name()))
		if err != nil {
			return p, err
		}
		p.files[e.Name()] = text
		for line := range strings.Lines(string(text)) {
			if path, is := strings.CutPrefix(strings.TrimSpace(line), "// go get "); is {
				p.gets = append(p.gets, path)
			}
		}
	}
	if len(p.gets) == 0 {
		return p, fmt.Errorf("%s: no line \"// go get MODULE\"", dir)
	}
	return p, nil
}

// outside copies the program at dir, gets what it needs, and runs it and its tests.
func (w *world) outside(ctx context.Context, from string) (string, error) {
	p, err := readOutside(from)
	if err != nil {
		return "", err
	}
	dir := filepath.Join(w.scratch, "outside", filepath.Base(from))
	if err := os.MkdirAll(dir, 0o777); err != nil {
		return "", err
	}
	steps := [][]string{{"mod", "init", "example.com/outside"}}
	program := false
	for name, text := range p.files {
		if err := os.WriteFile(filepath.Join(dir, name), text, 0o666); err != nil {
			return "", err
		}
		program = program || !strings.HasSuffix(name, "_test.go")
	}
	for _, path := range p.gets {
		steps = append(steps, []string{"get", path + "@" + w.version})
	}
	steps = append(steps, []string{"mod", "tidy"}, []string{"vet", "./..."}, []string{"test", "./..."})
	if program {
		steps = append(steps, []string{"run", "."})
	}
	last := ""
	for _, step := range steps {
		if last, err = w.run(ctx, dir, "go", step...); err != nil {
			return "", err
		}
	}
	said := last[strings.LastIndex(last, "\n")+1:]
	if said == "" {
		return "", errors.New("it says nothing, so nobody sees what it has shown")
	}
	return said, nil
}
