package main

import (
	"fmt"
	"go/ast"
	"go/token"
	"go/types"
	"strings"
)

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
