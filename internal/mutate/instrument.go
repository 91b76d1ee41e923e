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

// statements removes statements, and turns x += y and x++ around.
func (in *instrumenter) statements(list []ast.Stmt) {
	for _, s := range list {
		switch s := s.(type) {
		case *ast.AssignStmt:
			if s.Tok == token.DEFINE || blank(s) {
				continue
			}
			if a, ok := arithmetic[s.Tok-token.ADD_ASSIGN+token.ADD]; ok && s.Tok >= token.ADD_ASSIGN && in.isBasic(s.Lhs[0], types.IsNumeric) {
				op := a.instead + token.ADD_ASSIGN - token.ADD
				in.turn(s, func() string { return fmt.Sprintf("%s %s %s", in.text(s.Lhs[0]), op, in.text(s.Rhs[0])) },
					fmt.Sprintf("%s → %s", in.source(s), op))
			}
		case *ast.IncDecStmt:
			op := token.INC + token.DEC - s.Tok
			in.turn(s, func() string { return fmt.Sprintf("%s%s", in.text(s.X), op) }, fmt.Sprintf("%s → %s", in.source(s), op))
		case *ast.ExprStmt:
			if call, ok := s.X.(*ast.CallExpr); ok && (isLock(call) || isPanic(call)) {
				continue
			}
		case *ast.DeferStmt:
			if isLock(s.Call) {
				continue
			}
		case *ast.GoStmt, *ast.SendStmt:
		default:
			continue
		}
		id := in.mutant(s, "remove "+in.source(s))
		in.wrap(s, func(inner string) string { return fmt.Sprintf("if !%sOn(%d) { %s }", sw, id, inner) })
	}
}

func (in *instrumenter) turn(s ast.Stmt, other func() string, change string) {
	id := in.mutant(s, change)
	in.wrap(s, func(inner string) string {
		return fmt.Sprintf("if %sOn(%d) { %s } else { %s }", sw, id, strings.ReplaceAll(other(), "\n", " "), inner)
	})
}

func blank(s *ast.AssignStmt) bool {
	for _, l := range s.Lhs {
		if id, ok := l.(*ast.Ident); !ok || id.Name != "_" {
			return false
		}
	}
	return true
}

// isLock says which calls stay: without its unlock any program hangs, without
// its lock it dies, which says nothing of the tests.
func isLock(c *ast.CallExpr) bool {
	s, ok := c.Fun.(*ast.SelectorExpr)
	return ok && (s.Sel.Name == "Lock" || s.Sel.Name == "Unlock")
}

func isPanic(c *ast.CallExpr) bool {
	f, ok := c.Fun.(*ast.Ident)
	return ok && f.Name == "panic"
}

// returned changes what a function returns, one result at a time.
func (in *instrumenter) returned(r *ast.ReturnStmt, parents []ast.Node) {
	for k, e := range r.Results {
		t := in.pkg.TypesInfo.TypeOf(e)
		if _, multiple := t.(*types.Tuple); multiple {
			continue
		}
		result := in.resultType(parents, k)
		if result == nil {
			continue
		}
		if _, ok := result.(*types.TypeParam); ok {
			continue
		}
		switch u := result.Underlying().(type) {
		case *types.Basic:
			switch {
			case u.Info()&types.IsBoolean != 0:
				in.condition(e)
			case in.isConst(e):
			case u.Info()&types.IsNumeric != 0:
				id := in.mutant(e, fmt.Sprintf("return %s → another number", in.source(e)))
				in.wrap(e, func(inner string) string { return fmt.Sprintf("%sNum(%d, %s)", sw, id, inner) })
			case u.Info()&types.IsString != 0:
				id := in.mutant(e, fmt.Sprintf("return %s → another string", in.source(e)))
				in.wrap(e, func(inner string) string { return fmt.Sprintf("%sStr(%d, %s)", sw, id, inner) })
			}
		case *types.Pointer, *types.Slice, *types.Map, *types.Chan, *types.Signature, *types.Interface:
			if in.pkg.TypesInfo.Types[e].IsNil() {
				continue
			}
			id := in.mutant(e, fmt.Sprintf("return %s → nil", in.source(e)))
			in.wrap(r, func(inner string) string {
				return fmt.Sprintf("if %sOn(%d) { %s }; %s", sw, id, in.withNil(r, k), inner)
			})
		}
	}
}

func (in *instrumenter) withNil(r *ast.ReturnStmt, nilled int) string {
	var results []string
	for k, e := range r.Results {
		if k == nilled {
			results = append(results, "nil")
		} else {
			results = append(results, strings.ReplaceAll(in.text(e), "\n", " "))
		}
	}
	return "return " + strings.Join(results, ", ")
}

// resultType is the type of the innermost function's k-th result.
func (in *instrumenter) resultType(parents []ast.Node, k int) types.Type {
	for i := len(parents) - 1; i >= 0; i-- {
		var sig *types.Signature
		switch f := parents[i].(type) {
		case *ast.FuncLit:
			sig = in.pkg.TypesInfo.TypeOf(f).(*types.Signature)
		case *ast.FuncDecl:
			sig = in.pkg.TypesInfo.Defs[f.Name].Type().(*types.Signature)
		default:
			continue
		}
		return sig.Results().At(k).Type()
	}
	return nil
}

// branch turns break and continue around where both belong to the same loop.
func (in *instrumenter) branch(b *ast.BranchStmt, parents []ast.Node) {
	if b.Label != nil || b.Tok != token.BREAK && b.Tok != token.CONTINUE {
		return
	}
	for i := len(parents) - 1; i >= 0; i-- {
		switch parents[i].(type) {
		case *ast.SwitchStmt, *ast.TypeSwitchStmt, *ast.SelectStmt:
			return
		case *ast.ForStmt, *ast.RangeStmt:
			other := token.BREAK + token.CONTINUE - b.Tok
			id := in.mutant(b, fmt.Sprintf("%s → %s after %q", b.Tok, other, in.above(b)))
			in.wrap(b, func(inner string) string {
				return fmt.Sprintf("if %sOn(%d) { %s } else { %s }", sw, id, other, inner)
			})
			return
		}
	}
}

// above is the line above a node.
func (in *instrumenter) above(n ast.Node) string {
	end := in.offset(n.Pos())
	for end > 0 && in.src[end] != '\n' {
		end--
	}
	start := end
	for start > 0 && in.src[start-1] != '\n' {
		start--
	}
	return strings.TrimSpace(string(in.src[start:end]))
}
