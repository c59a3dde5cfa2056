package repository

import (
	"go/ast"
	"go/parser"
	"go/token"
	"path/filepath"
	"strings"
	"testing"
)

// nameless returns where a file makes errors of which nobody can tell that they are ours.
func nameless(file *ast.File) (at []token.Pos) {
	ast.Inspect(file, func(node ast.Node) bool {
		if n, is := node.(*ast.SelectorExpr); is {
			from, _ := n.X.(*ast.Ident)
			if from != nil && (from.Name == "fmt" && n.Sel.Name == "Errorf" || from.Name == "errors" && n.Sel.Name == "New") {
				at = append(at, n.Pos())
			}
		}
		return true
	})
	return at
}

// People read errors of the helper and of the Middleware. Package reason lets only those texts through of
// which it knows that they are ours.
func TestTheBaseMakesErrorsOfWhichItKnowsThatTheyAreItsOwn(t *testing.T) {
	for _, p := range goList(t, nil, "-deps", "./internal/helper/...", "./internal/middleware/daemon") {
		pkg, ours := strings.CutPrefix(p.ImportPath, module+"/")
		if !ours || pkg == reasons || !within(pkg, "internal") {
			continue
		}
		for _, name := range p.GoFiles {
			files := token.NewFileSet()
			file, err := parser.ParseFile(files, filepath.Join(p.Dir, name), nil, parser.SkipObjectResolution)
			if err != nil {
				t.Fatal(err)
			}
			for _, at := range nameless(file) {
				t.Errorf("%v: use reason.New or reason.Errorf here, or people read only that it failed", files.Position(at))
			}
		}
	}
	const broken = "package p\nvar a, b = errors.New(`x`), fmt.Errorf(`y`)\nvar c = reason.New(`z`)"
	file, err := parser.ParseFile(token.NewFileSet(), "", broken, 0)
	if err != nil {
		t.Fatal(err)
	}
	if found := nameless(file); len(found) != 2 {
		t.Errorf("%d errors found in the broken variant, not 2", len(found))
	}
}
