package main

import (
	"context"
	"errors"
	"fmt"
	"go/types"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"golang.org/x/mod/semver"
	"golang.org/x/tools/go/packages"
)

// apiText is what the module at dir exports, a line for each thing, sorted. The
// form is that of Go's own api folder. Examples are no API. Names of parameters are left out, as no
// caller depends on them.
func apiText(ctx context.Context, dir string) (string, error) {
	named, err := packages.Load(&packages.Config{Context: ctx, Dir: dir, Mode: packages.NeedName}, "./...")
	if err != nil {
		return "", err
	}
	var public []string // what is not public is not compiled for its types
	for _, p := range named {
		for _, e := range p.Errors {
			return "", fmt.Errorf("%s: %w", p.PkgPath, e)
		}
		if p.Name != "main" && !isInternal(p.PkgPath) && !strings.Contains(p.PkgPath+"/", "/examples/") {
			public = append(public, p.PkgPath)
		}
	}
	if len(public) == 0 {
		return "\n", nil
	}
	a := &api{}
	all, err := packages.Load(&packages.Config{Context: ctx, Dir: dir, Mode: packages.NeedName | packages.NeedTypes | packages.NeedImports | packages.NeedExportFile}, public...)
	if err != nil {
		return "", err
	}
	for _, p := range all {
		for _, e := range p.Errors {
			return "", fmt.Errorf("%s: %w", p.PkgPath, e)
		}
		a.pkg(p.Types)
	}
	slices.Sort(a.lines)
	lines := slices.Compact(a.lines)
	return strings.Join(lines, "\n") + "\n", nil
}

type api struct {
	lines  []string
	prefix string
}

func (a *api) line(format string, args ...any) {
	a.lines = append(a.lines, a.prefix+fmt.Sprintf(format, args...))
}

func (a *api) pkg(p *types.Package) {
	a.prefix = "pkg " + p.Path() + ", "
	scope := p.Scope()
	for _, name := range scope.Names() {
		o := scope.Lookup(name)
		if !o.Exported() {
			continue
		}
		switch o := o.(type) {
		case *types.Const:
			a.line("const %s %s = %s", name, text(o.Type()), o.Val().ExactString())
		case *types.Var:
			a.line("var %s %s", name, text(o.Type()))
		case *types.Func:
			s := o.Signature()
			a.line("func %s%s%s", name, params(s.TypeParams()), signature(s))
		case *types.TypeName:
			a.typeName(o)
		}
	}
}

func (a *api) typeName(o *types.TypeName) {
	name := o.Name()
	if o.IsAlias() {
		rhs := o.Type()
		if alias, ok := rhs.(*types.Alias); ok {
			name += params(alias.TypeParams())
			rhs = alias.Rhs()
		}
		a.line("type %s = %s", name, text(rhs))
		return
	}
	named := o.Type().(*types.Named)
	full := name + params(named.TypeParams())
	switch u := named.Underlying().(type) {
	case *types.Struct:
		a.line("type %s struct", full)
		for f := range u.Fields() {
			switch {
			case !f.Exported():
			case f.Embedded():
				a.line("type %s struct, embedded %s", name, text(f.Type()))
			default:
				a.line("type %s struct, %s %s", name, f.Name(), text(f.Type()))
			}
		}
	case *types.Interface:
		a.iface(name, full, u)
	default:
		a.line("type %s %s", full, text(u))
	}
	if types.IsInterface(named) {
		return
	}
	byValue := types.NewMethodSet(named)
	for m := range types.NewMethodSet(types.NewPointer(named)).Methods() {
		f := m.Obj().(*types.Func)
		if !f.Exported() {
			continue
		}
		receiver := name
		if byValue.Lookup(f.Pkg(), f.Name()) == nil {
			receiver = "*" + name
		}
		a.line("method (%s) %s%s", receiver, f.Name(), signature(m.Type().(*types.Signature)))
	}
}

// iface writes an interface. One that others can implement has all its methods
// on one line too, so that one more is a change of that line: it breaks them.
func (a *api) iface(name, full string, u *types.Interface) {
	var names []string
	sealed := false
	for m := range u.Methods() {
		if !m.Exported() {
			sealed = true
			continue
		}
		names = append(names, m.Name())
		a.line("type %s interface, %s%s", name, m.Name(), signature(m.Signature()))
	}
	switch {
	case !u.IsMethodSet():
		a.line("type %s %s", full, text(u))
	case sealed:
		a.line("type %s interface, unexported methods", full)
	default:
		a.line("type %s interface { %s }", full, strings.Join(names, ", "))
	}
}

func qualifier(p *types.Package) string { return p.Name() }

func text(t types.Type) string { return types.TypeString(unnamed(t), qualifier) }

func params(list *types.TypeParamList) string {
	if list.Len() == 0 {
		return ""
	}
	var each []string
	for p := range list.TypeParams() {
		each = append(each, p.Obj().Name()+" "+text(p.Constraint()))
	}
	return "[" + strings.Join(each, ", ") + "]"
}

func signature(s *types.Signature) string {
	return strings.TrimPrefix(text(types.NewSignatureType(nil, nil, nil, s.Params(), s.Results(), s.Variadic())), "func")
}

// unnamed is t without the names of parameters and results.
func unnamed(t types.Type) types.Type {
	switch t := t.(type) {
	case *types.Signature:
		return types.NewSignatureType(nil, nil, nil, unnamedTuple(t.Params()), unnamedTuple(t.Results()), t.Variadic())
	case *types.Pointer:
		return types.NewPointer(unnamed(t.Elem()))
	case *types.Slice:
		return types.NewSlice(unnamed(t.Elem()))
	case *types.Array:
		return types.NewArray(unnamed(t.Elem()), t.Len())
	case *types.Map:
		return types.NewMap(unnamed(t.Key()), unnamed(t.Elem()))
	case *types.Chan:
		return types.NewChan(t.Dir(), unnamed(t.Elem()))
	}
	return t
}

func unnamedTuple(t *types.Tuple) *types.Tuple {
	var vars []*types.Var
	for v := range t.Variables() {
		vars = append(vars, types.NewParam(0, nil, "", unnamed(v.Type())))
	}
	return types.NewTuple(vars...)
}

// writeAPI writes the API texts of the coming release.
func (r *repository) writeAPI(ctx context.Context) error {
	for _, m := range r.released() {
		text, err := apiText(ctx, r.dir(m))
		if err != nil {
			return err
		}
		name := r.apiFile(m, r.version)
		if text == "\n" { // commands alone
			continue
		}
		if err := os.MkdirAll(filepath.Dir(name), 0o777); err != nil {
			return err
		}
		if err := os.WriteFile(name, []byte(text), 0o666); err != nil {
			return err
		}
	}
	return nil
}

// checkAPI compares what the module exports with the text of the coming release,
// and that with the one of the release before.
func (r *repository) checkAPI(ctx context.Context, m *mod) error {
	now, err := apiText(ctx, r.dir(m))
	if err != nil {
		return err
	}
	coming, err := os.ReadFile(r.apiFile(m, r.version))
	if errors.Is(err, fs.ErrNotExist) && now == "\n" {
		return nil
	}
	if err != nil {
		return fmt.Errorf("the API of %s has no text: write it by go run -C internal/release . api: %w", m.path(), err)
	}
	if gone, added := minus(string(coming), now), minus(now, string(coming)); len(gone)+len(added) > 0 {
		return fmt.Errorf("the API of %s is not that of %s: if it should not be, write that anew by go run -C internal/release . api\n%s",
			m.path(), r.apiFile(m, r.version), "-"+strings.Join(gone, "\n-")+"\n+"+strings.Join(added, "\n+"))
	}
	last, err := r.lastAPI(m)
	if err != nil || last == "" {
		return err
	}
	changelog, err := os.ReadFile(filepath.Join(r.root, "CHANGELOG.md"))
	if err != nil {
		return err
	}
	return broken(last, now, breaking(string(changelog), r.version))
}

// lastAPI is the API text of the release before the coming one, if there is one.
func (r *repository) lastAPI(m *mod) (string, error) {
	dir := filepath.Dir(r.apiFile(m, r.version))
	entries, err := os.ReadDir(dir)
	if err != nil {
		return "", err
	}
	last := ""
	for _, e := range entries {
		v, is := strings.CutSuffix(e.Name(), ".txt")
		if is && semver.IsValid(v) && semver.Compare(v, r.version) < 0 && (last == "" || semver.Compare(v, last) > 0) {
			last = v
		}
	}
	if last == "" {
		return "", nil
	}
	text, err := os.ReadFile(filepath.Join(dir, last+".txt"))
	return string(text), err
}

// minus is the lines of a that are not in b.
func minus(a, b string) []string {
	have := map[string]bool{}
	for line := range strings.Lines(b) {
		have[strings.TrimSpace(line)] = true
	}
	var only []string
	for line := range strings.Lines(a) {
		if line = strings.TrimSpace(line); line != "" && !have[line] {
			only = append(only, line)
		}
	}
	return only
}

// broken says what of the last release is gone that section does not name.
func broken(last, now, section string) error {
	var errs []error
	for _, line := range minus(last, now) {
		if names := symbols(line); !slices.ContainsFunc(names, func(n string) bool { return strings.Contains(section, "`"+n+"`") }) {
			errs = append(errs, fmt.Errorf("CHANGELOG.md does not name `%s` under Breaking, and this of the last release is gone: %s", names[0], line))
		}
	}
	return errors.Join(errs...)
}

// symbols are the names by which a changelog can speak of a line of an API text:
// Type.Method, the same with its package, and the type alone.
func symbols(line string) []string {
	where, what, _ := strings.Cut(strings.TrimPrefix(line, "pkg "), ", ")
	pkg := where[strings.LastIndex(where, "/")+1:]
	name := func(s string) string { // as far as a name goes
		if end := strings.IndexFunc(s, func(r rune) bool { return strings.ContainsRune(" ([{,", r) }); end >= 0 {
			s = s[:end]
		}
		return s
	}
	kind, rest, _ := strings.Cut(what, " ")
	owner, member := name(rest), ""
	switch kind {
	case "method": // method (*T) M(...)
		receiver, m, _ := strings.Cut(rest, ") ")
		owner, member = strings.TrimLeft(receiver, "(*"), name(m)
	case "type": // type T struct, F int
		if _, m, is := strings.Cut(rest, " struct, "); is {
			member = name(strings.TrimPrefix(m, "embedded "))
		} else if _, m, is := strings.Cut(rest, " interface, "); is && m != "unexported methods" {
			member = name(m)
		}
	}
	if member == "" {
		return []string{owner, pkg + "." + owner}
	}
	return []string{owner + "." + member, pkg + "." + owner + "." + member, owner, pkg + "." + owner}
}

// breaking is what the changelog says under Breaking of what is not released, or
// of version.
func breaking(changelog, version string) string {
	var b strings.Builder
	in, is := false, false
	for line := range strings.Lines(changelog) {
		switch {
		case strings.HasPrefix(line, "## "):
			in = strings.HasPrefix(line, "## Unreleased") || strings.HasPrefix(line, "## "+strings.TrimPrefix(version, "v"))
			is = false
		case strings.HasPrefix(line, "### "):
			is = in && strings.TrimSpace(line) == "### Breaking"
		case is:
			b.WriteString(line)
		}
	}
	return b.String()
}
