package repository

import (
	"go/ast"
	"go/parser"
	"go/token"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// elsewhere has the packages without tests of their own, and those whose tests run them.
var elsewhere = map[string]string{
	"internal/helper/apply": "internal/helper/system", "internal/helper/debianupdates": "internal/helper/system",
	"internal/helper/ledger": "internal/helper/system", "internal/helper/server": "internal/helper/system",
}

// startsGoroutines tells whether a file does: by a go statement, or by a method or function
// that is known to.
func startsGoroutines(file *ast.File) (starts bool) {
	ast.Inspect(file, func(node ast.Node) bool {
		switch n := node.(type) {
		case *ast.GoStmt:
			starts = true
		case *ast.SelectorExpr:
			starts = starts || n.Sel.Name == "Go" || n.Sel.Name == "AfterFunc"
		}
		return !starts
	})
	return starts
}

func TestEachPackageThatStartsGoroutinesLooksForLeaks(t *testing.T) {
	const leaktest = module + "/internal/testbed/leaktest"
	looks := map[string]bool{}
	var start []string
	for _, p := range goList(t, nil, "./internal/...", "./client/...", "./cmd/...") {
		pkg := strings.TrimPrefix(p.ImportPath, module+"/")
		looks[pkg] = slices.Contains(slices.Concat(p.TestImports, p.XTestImports), leaktest)
		if g, _ := groupOf(pkg); g.forTests {
			continue
		}
		for _, name := range p.GoFiles {
			file, err := parser.ParseFile(token.NewFileSet(), filepath.Join(p.Dir, name), nil, parser.SkipObjectResolution)
			if err != nil {
				t.Fatal(err)
			}
			if startsGoroutines(file) {
				start = append(start, pkg)
				break
			}
		}
	}
	if len(start) == 0 {
		t.Error("no package starts goroutines: this test would not see one")
	}
	for _, pkg := range start {
		by := pkg
		if other, ok := elsewhere[pkg]; ok {
			by = other
		}
		if !looks[by] {
			t.Errorf("%s starts goroutines, and the tests of %s do not look for leaks (internal/testbed/leaktest)", pkg, by)
		}
	}
}
