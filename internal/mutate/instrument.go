package main

import (
	"fmt"
	"go/ast"
	"go/token"
	"go/types"
	"slices"
	"strings"

	"golang.org/x/tools/go/packages"
)

// A Mutant is one change to the code. All of them are compiled into one
// program, in which an environment variable switches one on.
type Mutant struct {
	ID     int
	File   string // relative to the module
	Func   string
	Change string // what the reasons name it by, unique in its function
	Line   int
}

// An instrumenter writes one file anew, with the mutants that it finds in it.
type instrumenter struct {
	pkg     *packages.Package
	src     []byte
	path    string
	mutants *[]Mutant

	fn    string
	seen  map[string]int
	wraps map[ast.Node][]func(inner string) string
}

const sw = "mutswitch."

// instrument returns the text of file with its mutants in it.
func instrument(pkg *packages.Package, file *ast.File, path string, src []byte, mutants *[]Mutant) string {
	in := &instrumenter{pkg: pkg, src: src, path: path, mutants: mutants, wraps: map[ast.Node][]func(string) string{}}
	before := len(*mutants)
	for _, d := range file.Decls {
		if f, ok := d.(*ast.FuncDecl); ok && f.Body != nil {
			in.fn, in.seen = name(f), map[string]int{}
			in.walk(f)
		}
	}
	if len(*mutants) == before {
		return string(src)
	}
	at := in.offset(file.Name.End())
	return string(src[:at]) + `; import "` + switchPath + `"` + in.between(file.Name.End(), file.FileEnd, file)
}

func name(f *ast.FuncDecl) string {
	if f.Recv == nil {
		return f.Name.Name
	}
	t := f.Recv.List[0].Type
	if s, ok := t.(*ast.StarExpr); ok {
		t = s.X
	}
	switch x := t.(type) {
	case *ast.IndexExpr:
		t = x.X
	case *ast.IndexListExpr:
		t = x.X
	}
	return t.(*ast.Ident).Name + "." + f.Name.Name
}

func (in *instrumenter) offset(p token.Pos) int { return in.pkg.Fset.Position(p).Offset }

// text is a node's text with its mutants in it.
func (in *instrumenter) text(n ast.Node) string {
	s := in.between(n.Pos(), n.End(), n)
	for _, w := range in.wraps[n] {
		s = w(s)
	}
	return s
}

// between is the source from one place to another inside n, its mutants included.
func (in *instrumenter) between(from, to token.Pos, n ast.Node) string {
	var b strings.Builder
	at := in.offset(from)
	ast.Inspect(n, func(c ast.Node) bool {
		if c == nil || c == n || c.Pos() < from || len(in.wraps[c]) == 0 {
			return true
		}
		b.Write(in.src[at:in.offset(c.Pos())])
		b.WriteString(in.text(c))
		at = in.offset(c.End())
		return false
	})
	b.Write(in.src[at:in.offset(to)])
	return b.String()
}

// source is a node's text as it is, on one line and not too long.
func (in *instrumenter) source(n ast.Node) string {
	s := string(in.src[in.offset(n.Pos()):in.offset(n.End())])
	s = strings.ReplaceAll(strings.Join(strings.Fields(s), " "), "`", "'")
	if r := []rune(s); len(r) > 70 {
		s = string(r[:70]) + "…"
	}
	return s
}

// mutant makes a mutant and returns its number.
func (in *instrumenter) mutant(at ast.Node, change string) int {
	in.seen[change]++
	if k := in.seen[change]; k > 1 {
		change = fmt.Sprintf("%s (%d)", change, k)
	}
	m := Mutant{ID: len(*in.mutants) + 1, File: in.path, Func: in.fn, Change: change, Line: in.pkg.Fset.Position(at.Pos()).Line}
	*in.mutants = append(*in.mutants, m)
	return m.ID
}

// wrap puts a mutant around n.
func (in *instrumenter) wrap(n ast.Node, w func(inner string) string) {
	in.wraps[n] = append(in.wraps[n], w)
}

// replace puts a mutant in n's place, inside of those around it.
func (in *instrumenter) replace(n ast.Node, w func() string) {
	in.wraps[n] = slices.Insert(in.wraps[n], 0, func(string) string { return w() })
}

// walk finds the mutants of a function.
func (in *instrumenter) walk(f *ast.FuncDecl) {
	var stack []ast.Node
	ast.Inspect(f, func(n ast.Node) bool {
		if n == nil {
			stack = stack[:len(stack)-1]
			return true
		}
		if !in.visit(n, stack) {
			return false
		}
		stack = append(stack, n)
		return true
	})
}

// visit reports whether there may be mutants inside n.
func (in *instrumenter) visit(n ast.Node, parents []ast.Node) bool {
	switch n := n.(type) {
	case *ast.GenDecl:
		return n.Tok == token.VAR
	case *ast.Field, *ast.ArrayType, *ast.FuncType:
		return false // types
	case *ast.BlockStmt:
		in.statements(n.List)
	case *ast.CommClause:
		in.statements(n.Body)
	case *ast.CaseClause:
		in.statements(n.Body)
		if s, ok := parents[len(parents)-2].(*ast.SwitchStmt); ok && s.Tag == nil {
			for _, e := range n.List {
				in.condition(e)
			}
		}
	case *ast.IfStmt:
		in.condition(n.Cond)
	case *ast.ForStmt:
		if n.Cond != nil {
			in.condition(n.Cond)
		}
	case *ast.ReturnStmt:
		in.returned(n, parents)
	case *ast.BranchStmt:
		in.branch(n, parents)
	case ast.Expr:
		return in.expression(n)
	}
	return true
}

func (in *instrumenter) isConst(e ast.Expr) bool { return in.pkg.TypesInfo.Types[e].Value != nil }

// isBasic reports whether e is of a basic type with the given properties.
func (in *instrumenter) isBasic(e ast.Expr, with types.BasicInfo) bool {
	t := in.pkg.TypesInfo.TypeOf(e)
	if t == nil {
		return false
	}
	if _, ok := t.(*types.TypeParam); ok {
		return false
	}
	b, ok := t.Underlying().(*types.Basic)
	return ok && b.Info()&with != 0
}

// condition negates what is not already mutated as a comparison or the like.
func (in *instrumenter) condition(e ast.Expr) {
	switch x := ast.Unparen(e).(type) {
	case *ast.BinaryExpr:
		return
	case *ast.UnaryExpr:
		if x.Op == token.NOT {
			return
		}
	}
	if in.isConst(e) || !in.isBasic(e, types.IsBoolean) {
		return
	}
	id := in.mutant(e, fmt.Sprintf("%s → !(%[1]s)", in.source(e)))
	in.wrap(e, func(inner string) string { return fmt.Sprintf("((%s) != %sOn(%d))", inner, sw, id) })
}

var comparisons = map[token.Token]struct {
	helper   string
	boundary token.Token
	negated  token.Token
}{

	token.LSS: {"Lt", token.LEQ, token.GEQ}, token.LEQ: {"Le", token.LSS, token.GTR},
	token.GTR: {"Gt", token.GEQ, token.LEQ}, token.GEQ: {"Ge", token.GTR, token.LSS},
	token.EQL: {"", 0, token.NEQ}, token.NEQ: {"", 0, token.EQL},
}

var arithmetic = map[token.Token]struct {
	helper  string
	instead token.Token
}{

	token.ADD: {"Add", token.SUB}, token.SUB: {"Sub", token.ADD}, token.MUL: {"Mul", token.QUO},
	token.QUO: {"Quo", token.MUL}, token.REM: {"Rem", token.MUL}, token.AND: {"And", token.OR},
	token.OR: {"Or", token.AND}, token.XOR: {"Xor", token.AND}, token.AND_NOT: {"AndNot", token.AND},
	token.SHL: {"Shl", token.SHR}, token.SHR: {"Shr", token.SHL},
}

func (in *instrumenter) expression(e ast.Expr) bool {
	if id, ok := e.(*ast.Ident); ok && (id.Name == "true" || id.Name == "false") && in.pkg.TypesInfo.Uses[id] == types.Universe.Lookup(id.Name) {
		n := in.mutant(e, fmt.Sprintf("%s → !%[1]s in line %q", id.Name, in.line(e)))
		in.wrap(e, func(inner string) string { return fmt.Sprintf("(%s != %sOn(%d))", inner, sw, n) })
		return false
	}
	if in.isConst(e) {
		return false
	}
	switch e := e.(type) {
	case *ast.BinaryExpr:
		in.binary(e)
	case *ast.UnaryExpr:
		switch {
		case e.Op == token.NOT:
			id := in.mutant(e, fmt.Sprintf("%s → %s", in.source(e), in.source(e.X)))
			in.wrap(e, func(inner string) string { return fmt.Sprintf("((%s) != %sOn(%d))", inner, sw, id) })
		case e.Op == token.SUB && in.isBasic(e, types.IsNumeric):
			id := in.mutant(e, fmt.Sprintf("%s → %s", in.source(e), in.source(e.X)))
			in.replace(e, func() string { return fmt.Sprintf("%sNeg(%d, %s)", sw, id, in.text(e.X)) })
		}
	case *ast.CallExpr:
		f, ok := e.Fun.(*ast.Ident)
		if !ok || f.Name != "min" && f.Name != "max" {
			break
		}
		if _, ok := in.pkg.TypesInfo.Uses[f].(*types.Builtin); !ok {
			break
		}
		other := map[string]string{"min": "max", "max": "min"}[f.Name]
		id := in.mutant(e, fmt.Sprintf("%s → %s", in.source(e), other))
		in.replace(e, func() string {
			helper := strings.ToUpper(f.Name[:1]) + f.Name[1:]
			return fmt.Sprintf("%s%s(%d, %s", sw, helper, id, in.between(e.Lparen+1, e.End(), e))
		})
	}
	return true
}

// line is what of a node's line comes before it.
func (in *instrumenter) line(n ast.Node) string {
	at := in.offset(n.Pos())
	start := at
	for start > 0 && in.src[start-1] != '\n' {
		start--
	}
	return strings.TrimSpace(string(in.src[start:at]))
}

func (in *instrumenter) binary(e *ast.BinaryExpr) {
	src := func(op token.Token) string {
		return fmt.Sprintf("%s → %s %s %s", in.source(e), in.source(e.X), op, in.source(e.Y))
	}
	// Lines keep their numbers.
	lines := strings.Repeat("\n", in.pkg.Fset.Position(e.Y.Pos()).Line-in.pkg.Fset.Position(e.X.End()).Line)
	if e.Op == token.LAND || e.Op == token.LOR {
		in.condition(e.X)
		in.condition(e.Y)
		other := token.LAND + token.LOR - e.Op
		id := in.mutant(e, src(other))
		in.replace(e, func() string {
			on := fmt.Sprintf("%sOn(%d)", sw, id)
			return fmt.Sprintf("((((%s) != %s) %s %s ((%s) != %s)) != %s)", in.text(e.X), on, e.Op, lines, in.text(e.Y), on, on)
		})
		return
	}
	if c, ok := comparisons[e.Op]; ok {
		if c.helper != "" {
			id := in.mutant(e, src(c.boundary))
			in.replace(e, func() string {
				return fmt.Sprintf("%s%s(%d, %s, %s %s)", sw, c.helper, id, in.text(e.X), lines, in.text(e.Y))
			})
		}
		id := in.mutant(e, src(c.negated))
		in.wrap(e, func(inner string) string { return fmt.Sprintf("((%s) != %sOn(%d))", inner, sw, id) })
		return
	}
	if a, ok := arithmetic[e.Op]; ok && in.isBasic(e, types.IsNumeric) {
		id := in.mutant(e, src(a.instead))
		in.replace(e, func() string {
			x := in.text(e.X)
			if in.isConst(e.X) && (e.Op == token.SHL || e.Op == token.SHR) {
				x = fmt.Sprintf("%s(%s)", in.pkg.TypesInfo.TypeOf(e), x)
			}
			return fmt.Sprintf("%s%s(%d, %s, %s %s)", sw, a.helper, id, x, lines, in.text(e.Y))
		})
	}
}
