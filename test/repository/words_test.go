package repository

import (
	"go/ast"
	"go/parser"
	"go/token"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

// wordings are phrases that read foreign, each with a better one and an example that it finds. The
// table is for the worst and the most frequent; a reviewer finds the rest.
var wordings = []struct {
	worse  *regexp.Regexp
	better string
	bad    string
}{
	{regexp.MustCompile(`\bof before\b`), "earlier, old, former", "The disk of before is put back."},
	{regexp.MustCompile(`\bso many (?:of|bytes|cells|columns|lines|names|places|programs|rows|seconds|times|words)\b`),
		"this many, n, at most n", "It shows the last so many lines."},
	{regexp.MustCompile(`\balso if\b`), "even if", "It is refused also if it knows the key."},
	{regexp.MustCompile(`\bcomes? to lie\b`), "is created, is moved", "The folder is where it comes to lie."},
	{regexp.MustCompile(`\blooks? (?:whether|if)\b`), "checks whether", "It looks whether the port is free."},
	{regexp.MustCompile(`\b(?:the )?gravest\b`), "the most severe", "The gravest finding comes first."},
	// A comment of a type called Who begins with its name.
	{regexp.MustCompile(`(?:^Whoever|[.:;] (?:Who|Whoever)|^Who (?:acts|asks|builds|changes|does|gives|has|installs|may|means|pretends|sets|stands|started|starts|takes|writes)) [^.?]*[a-z][.,:;]`), "a subject: the user who, a file that, an attacker",
		"Who gives up is told nothing."},
	{regexp.MustCompile(`\bwho tries and tries\b`), "brute force", "It bans who tries and tries."},
	{regexp.MustCompile(`, as \S+(?: \S+){0,3} has asked\b`), "as requested by", "The machine restarts, as an App has asked."},
	{regexp.MustCompile(`\bdid not do well\b`), "failed", "Three Bases did not do well."},
	{regexp.MustCompile(`\bis let in, (?:also|too)\b`), "is accepted even", "The App is let in, also without a window."},
	{regexp.MustCompile(`\bmust not be there yet\b`), "must not exist yet", "It must not be there yet."},
	{regexp.MustCompile(`\b[Ww]hoever\b`), "a subject: an attacker who, an App that, no matter who", "It is refused, whoever brings it."},
	{regexp.MustCompile(`\b(?:for|by|against) who (?:[a-z]*s|has|had|was|is|may|can) `), "for a caller who, by an App that", "It is kept for who asks for it."},
	{regexp.MustCompile(`\banew\b`), "again, a new one", "The machine starts anew."},
	{regexp.MustCompile(`\bany more\b`), "no longer", "It is not an owner any more."},
	{regexp.MustCompile(`\b(?:one|version|document) of before\b|\bthe version before\b`), "the previous version",
		"The Base starts the version before."},
	// A comment of a field called What begins with its name, and a question ends with its mark.
	{regexp.MustCompile(`(?:^|[.:;] )What (?:an? |the |its? |is |was |were |are |has |had |comes |follows |makes |remains |runs |stays |cannot |may |must |[A-Z])[^.?]*[.,:;]`),
		"a subject: the bytes that, a file that",
		"What is left is removed."},
}

// prose returns the comments of a Go file, or the paragraphs of a document without its code, each
// on one line, by the line that it begins on.
func prose(t *testing.T, path string, content []byte) map[int]string {
	t.Helper()
	texts := map[int]string{}
	switch filepath.Ext(path) {
	case ".go":
		if generated.Match(content) {
			return nil
		}
		files := token.NewFileSet()
		file, err := parser.ParseFile(files, path, content, parser.ParseComments)
		if err != nil {
			t.Fatal(err)
		}
		for _, group := range file.Comments {
			for _, paragraph := range strings.Split(group.Text(), "\n\n") {
				texts[files.Position(group.Pos()).Line] += strings.Join(strings.Fields(paragraph), " ") + "\n"
			}
		}
	case ".md":
		fenced, start := false, 0
		for n, line := range strings.Split(string(content), "\n") {
			switch {
			case strings.HasPrefix(strings.TrimSpace(line), "```"):
				fenced, start = !fenced, 0
			case fenced || strings.TrimSpace(line) == "":
				start = 0
			case start == 0 || strings.HasPrefix(line, "|"):
				start = n + 1
				texts[start] = strings.TrimSpace(line)
			default:
				texts[start] += " " + strings.TrimSpace(line)
			}
		}
	}
	return texts
}

// foreign returns what a text says in a foreign way, with the better wording.
func foreign(text string) (found []string) {
	for _, w := range wordings {
		for _, match := range w.worse.FindAllString(text, -1) {
			found = append(found, `"`+strings.TrimSpace(match)+`": `+w.better)
		}
	}
	return found
}

func TestCommentsAndDocumentsAreInPlainEnglish(t *testing.T) {
	for _, w := range wordings {
		if len(foreign(w.bad)) == 0 {
			t.Errorf("%q is not found", w.bad)
		}
	}
	walk(t, func(path string, content []byte) {
		for line, text := range prose(t, path, content) {
			for _, paragraph := range strings.Split(text, "\n") {
				for _, found := range foreign(paragraph) {
					t.Errorf("%s:%d: %s", path, line, found)
				}
			}
		}
	})
}

// nameInText matches an exported name of two words or more, which no English sentence has by itself,
// unless it is a link, a part of a longer name, or quoted.
var nameInText = regexp.MustCompile(`(?:^|[\s(])([A-Z][a-z0-9]+(?:[A-Z][A-Za-z0-9]*)+)(?:$|[\s,.;:)])`)

// unlinked returns the exported names of a package that its comment names without a link.
func unlinked(comment string, exported map[string]bool) (names []string) {
	for _, line := range strings.Split(comment, "\n") {
		if strings.HasPrefix(line, "\t") {
			continue // code
		}
		for _, match := range nameInText.FindAllStringSubmatch(line, -1) {
			if exported[match[1]] {
				names = append(names, match[1])
			}
		}
	}
	return names
}

func TestPackageCommentsLinkTheNamesOfTheirPackage(t *testing.T) {
	exported := map[string]bool{"ReadFile": true, "Open": true}
	if got := unlinked("Package a reads. ReadFile does it, [ReadFile] too.\n\n\tReadFile(x)\n\nOpen is a word.", exported); len(got) != 1 {
		t.Fatalf("of one name without a link %q are found", got)
	}
	for _, p := range goList(t, nil, "./...") {
		if strings.HasPrefix(p.ImportPath, module+"/api/") {
			continue // generated
		}
		comment, exported := "", map[string]bool{}
		for _, name := range p.GoFiles {
			file, err := parser.ParseFile(token.NewFileSet(), filepath.Join(p.Dir, name), nil, parser.ParseComments)
			if err != nil {
				t.Fatal(err)
			}
			comment += file.Doc.Text()
			for _, d := range file.Decls {
				for _, name := range declared(d) {
					exported[name.Name] = name.IsExported()
				}
			}
		}
		for _, name := range unlinked(comment, exported) {
			t.Errorf("the comment of %s names %s; write [%s]", p.ImportPath, name, name)
		}
	}
}

// declared returns the names that a declaration gives to the package.
func declared(d ast.Decl) (names []*ast.Ident) {
	switch d := d.(type) {
	case *ast.FuncDecl:
		if d.Recv == nil {
			names = append(names, d.Name)
		}
	case *ast.GenDecl:
		for _, spec := range d.Specs {
			switch spec := spec.(type) {
			case *ast.TypeSpec:
				names = append(names, spec.Name)
			case *ast.ValueSpec:
				names = append(names, spec.Names...)
			}
		}
	}
	return names
}
