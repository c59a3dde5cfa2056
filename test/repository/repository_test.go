// Package repository tests the repository itself: its packages, dependencies and documents.
package repository

import (
	"bytes"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"go/doc"
	"go/parser"
	"go/token"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/BitBoxSwiss/bitbox-base/test/repository/claims"
)

const (
	root   = "../.."
	module = "github.com/BitBoxSwiss/bitbox-base"
)

var update = flag.Bool("update", false, "rewrite the lists of dependencies")

// listed is what `go list -json` says of a package.
type listed struct {
	ImportPath                string
	Dir                       string
	Standard                  bool
	GoFiles                   []string
	Imports                   []string
	TestImports, XTestImports []string
	Module                    *struct{ Path string }
}

func goList(t *testing.T, env []string, args ...string) []listed {
	t.Helper()
	command := exec.Command("go", append([]string{"list", "-json=ImportPath,Dir,Standard,GoFiles,Imports,TestImports,XTestImports,Module"},
		args...)...)
	command.Dir = root
	command.Env = append(os.Environ(), env...)
	command.Stderr = os.Stderr
	out, err := command.Output()
	if err != nil {
		t.Fatalf("%v: %v", command.Args, err)
	}
	var packages []listed
	for decoder := json.NewDecoder(bytes.NewReader(out)); ; {
		var p listed
		if err := decoder.Decode(&p); errors.Is(err, io.EOF) {
			return packages
		} else if err != nil {
			t.Fatalf("output of %v: %v", command.Args, err)
		}
		packages = append(packages, p)
	}
}

func TestEachPackageSaysWhatItIs(t *testing.T) {
	for _, p := range goList(t, nil, "./...") {
		if len(p.GoFiles) == 0 || strings.HasPrefix(p.ImportPath, module+"/api/") {
			continue // tests only, or generated
		}
		synopsis := ""
		for _, file := range p.GoFiles {
			parsed, err := parser.ParseFile(token.NewFileSet(), filepath.Join(p.Dir, file), nil, parser.PackageClauseOnly|parser.ParseComments)
			if err != nil {
				t.Fatal(err)
			}
			if parsed.Doc != nil {
				synopsis += new(doc.Package).Synopsis(parsed.Doc.Text())
			}
		}
		if synopsis == "" {
			t.Errorf("%s has no package comment", p.ImportPath)
		}
		switch name := p.ImportPath[strings.LastIndex(p.ImportPath, "/")+1:]; name {
		case "util", "utils", "common", "helper", "helpers", "misc":
			t.Errorf("%s: a package is a noun that says what is in it", p.ImportPath)
		}
	}
}

// linked returns the packages outside the standard library and this module
// that a binary links, one a line, with their modules.
func linked(t *testing.T, binary, goos, goarch string) (packages string, modules []string) {
	t.Helper()
	var lines []string
	for _, p := range goList(t, []string{"GOOS=" + goos, "GOARCH=" + goarch, "CGO_ENABLED=0"}, "-deps", "./cmd/"+binary) {
		if p.Standard || p.Module == nil || p.Module.Path == module {
			continue
		}
		lines = append(lines, p.ImportPath)
		modules = append(modules, p.Module.Path)
	}
	slices.Sort(lines)
	slices.Sort(modules)
	return strings.Join(lines, "\n") + "\n", slices.Compact(modules)
}

// The packages that a binary links are its attack surface: a new one must show up in
// the diff of a checked-in list.
func TestEachBinaryLinksTheListedPackagesOnly(t *testing.T) {
	for _, binary := range []string{"bitbox-base", "bitbox-node", "bitbox-app"} {
		got, modules := linked(t, binary, "linux", "amd64")
		file := filepath.Join(root, "cmd", binary, "dependencies.txt")
		if *update {
			if err := os.WriteFile(file, []byte(got), 0o644); err != nil {
				t.Fatal(err)
			}
		}
		want, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		if got != string(want) {
			t.Errorf("%s links other packages than %s lists; if that is meant, run `make dependencies` and give a new module its sentence in docs/dependencies.md. Linked now:\n%s", binary, file, got)
		}
		sentences, err := os.ReadFile(filepath.Join(root, "docs", "dependencies.md"))
		if err != nil {
			t.Fatal(err)
		}
		for _, m := range modules {
			if !bytes.Contains(sentences, []byte("`"+m+"`")) {
				t.Errorf("%s links %s, which has no sentence in docs/dependencies.md", binary, m)
			}
		}
	}
}

// Nothing that faces the network or has privilege speaks HTTP: the code for it is not there.
// bitbox-node, which speaks it to the node, shows that it would be found.
func TestTheBaseLinksNoHTTP(t *testing.T) {
	links := func(program string) bool {
		return slices.ContainsFunc(goList(t, []string{"CGO_ENABLED=0"}, "-deps", program),
			func(p listed) bool { return p.ImportPath == "net/http" })
	}
	if links("./cmd/bitbox-base") {
		t.Error("bitbox-base links net/http; `go mod why -vendor net/http` and `go list -deps` tell by which package")
	}
	if !links("./cmd/bitbox-node") {
		t.Error("bitbox-node, which speaks HTTP to the node, does not link net/http; this test proves nothing")
	}
}

// That the tests named there ran and passed is checked after each run of all
// tests by the command test/ran.
func TestEachSecurityClaimNamesTestsThatExist(t *testing.T) {
	table, err := os.ReadFile(filepath.Join(root, "docs", "security-claims.md"))
	if err != nil {
		t.Fatal(err)
	}
	exists := map[string]bool{}
	function := regexp.MustCompile(`(?m)^func (Test[A-Za-z0-9_]+)\(`)
	walk(t, func(path string, content []byte) {
		if strings.HasSuffix(path, "_test.go") {
			for _, match := range function.FindAllSubmatch(content, -1) {
				exists[string(match[1])] = true
			}
		}
	})
	names := claims.Tests(string(table))
	if len(names) == 0 {
		t.Error("the table names no test")
	}
	for _, name := range names {
		if !exists[name] {
			t.Errorf("docs/security-claims.md names %s, which does not exist", name)
		}
	}
}

// A toolchain line in go.mod is ignored where GOTOOLCHAIN is set, so it is set in the two
// places from which everything is built.
func TestEverythingIsBuiltWithTheSameGo(t *testing.T) {
	var versions []string
	for file, line := range map[string]*regexp.Regexp{
		"go.mod": regexp.MustCompile(`(?m)^go (\S+)$`),
		// btcd is a module of its own.
		"node/btcd/go.mod": regexp.MustCompile(`(?m)^go (\S+)$`),
		"Makefile":         regexp.MustCompile(`(?m)^export GOTOOLCHAIN := go(\S+)$`),
		".ci/run":          regexp.MustCompile(`(?m)^export GOTOOLCHAIN=go(\S+)$`),
	} {
		content, err := os.ReadFile(filepath.Join(root, file))
		if err != nil {
			t.Fatal(err)
		}
		match := line.FindSubmatch(content)
		if match == nil {
			t.Fatalf("%s names no version of Go", file)
		}
		versions = append(versions, string(match[1]))
	}
	if len(slices.Compact(versions)) != 1 {
		t.Errorf("go.mod, node/btcd/go.mod, Makefile and .ci/run name different versions of Go: %q", versions)
	}
}

// The packages bring btcd too, which is a module of its own.
func TestEachProgramOfThePackagesIsScannedForVulnerabilities(t *testing.T) {
	words := func(script string, line *regexp.Regexp) (found []string) {
		content, err := os.ReadFile(filepath.Join(root, "scripts", script))
		if err != nil {
			t.Fatal(err)
		}
		for _, match := range line.FindAllSubmatch(content, -1) {
			found = append(found, strings.Trim(string(match[1]), `"`))
		}
		return found
	}
	built := words("package", regexp.MustCompile(`\bbuild usr/\S+ ([^\s)]+)`))
	scanned := words("vulnerabilities", regexp.MustCompile(`(?m)^scan linux \S+ (\S+)$`))
	if len(built) < 4 {
		t.Fatalf("scripts/package builds only %q", built)
	}
	for _, program := range built {
		if !slices.ContainsFunc(scanned, func(pattern string) bool {
			folder, all := strings.CutSuffix(pattern, "...")
			return program == pattern || all && strings.HasPrefix(program, folder)
		}) {
			t.Errorf("scripts/package builds %s, which scripts/vulnerabilities does not scan: %q", program, scanned)
		}
	}
}

var (
	link = regexp.MustCompile(`\]\(([^)#:\s]*)(?:#([^)\s]*))?\)`)
	// heading is one of a document, and mark what a forge leaves out of its anchor.
	heading = regexp.MustCompile(`(?m)^#{1,6} +(.+?) *$`)
	mark    = regexp.MustCompile(`[^\p{L}\p{N} _-]`)
	fence   = regexp.MustCompile("(?ms)^```.*?^```$")
)

// anchors returns the anchors that a forge gives the headings of a document.
func anchors(document []byte) map[string]bool {
	found := map[string]bool{}
	for _, match := range heading.FindAllSubmatch(fence.ReplaceAll(document, nil), -1) {
		text := link.ReplaceAllString(string(match[1]), "")
		anchor := strings.ReplaceAll(mark.ReplaceAllString(strings.ToLower(text), ""), " ", "-")
		unique := anchor
		for n := 1; found[unique]; n++ {
			unique = fmt.Sprintf("%s-%d", anchor, n)
		}
		found[unique] = true
	}
	return found
}

// deadLinks returns the links of a document that lead nowhere: to no file, or to no heading of a
// document.
func deadLinks(path string, content []byte) (dead []string) {
	for _, match := range link.FindAllSubmatch(fence.ReplaceAll(content, nil), -1) {
		target, anchor, document := path, string(match[2]), content
		if len(match[1]) > 0 {
			target = filepath.Join(filepath.Dir(path), string(match[1]))
			if _, err := os.Stat(target); err != nil {
				dead = append(dead, string(match[0]))
				continue
			}
			document, _ = os.ReadFile(target) // a folder has no headings
		}
		if anchor != "" && filepath.Ext(target) == ".md" && !anchors(document)[anchor] {
			dead = append(dead, string(match[0]))
		}
	}
	return dead
}

// Links between documents, and from documents to files and headings, must lead somewhere.
func TestDocumentsLinkToWhatExists(t *testing.T) {
	const bad = "# A title, `code` and more\n[a](#a-title-code-and-more) [b](#a-title) [c](gone.md) [d](../../README.md#try-it) " +
		"[e](../../README.md#gone)"
	if dead := deadLinks("x.md", []byte(bad)); len(dead) != 3 {
		t.Fatalf("of three dead links %q are found", dead)
	}
	walk(t, func(path string, content []byte) {
		if filepath.Ext(path) != ".md" {
			return
		}
		for _, dead := range deadLinks(path, content) {
			t.Errorf("%s: %s leads nowhere", path, dead)
		}
	})
}

// walk calls f with each file of the repository.
func walk(t *testing.T, f func(path string, content []byte)) {
	t.Helper()
	out, err := exec.Command("git", "-C", root, "ls-files", "--cached", "--others", "--exclude-standard").Output()
	if err != nil {
		t.Fatal(fmt.Errorf("list the repository's files: %w", err))
	}
	for _, name := range strings.Fields(string(out)) {
		path := filepath.Join(root, name)
		content, err := os.ReadFile(path)
		if errors.Is(err, fs.ErrNotExist) {
			continue // deleted, not yet committed
		}
		if err != nil {
			t.Fatal(err)
		}
		f(path, content)
	}
}
