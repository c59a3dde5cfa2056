package verify

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/BitBoxSwiss/bitbox-base/internal/bitcoincore"
	"github.com/BitBoxSwiss/bitbox-base/internal/failpoint"
	"github.com/BitBoxSwiss/bitbox-base/internal/testbed/coretest"
)

const archive31 = "bitcoin-31.0-x86_64-linux-gnu.tar.gz"

type (
	keys  struct{ *coretest.Keys }
	entry = coretest.Entry
)

var (
	programs  = coretest.Programs
	archiveOf = coretest.Archive
)

// builders makes keys, and the list of a builder who trusts all but the stranger.
func builders(t *testing.T) (keys, Signers) {
	t.Helper()
	k := keys{coretest.New(t)}
	return k, k.trusting(t, coretest.Builders...)
}

func (k keys) trusting(t *testing.T, names ...string) Signers {
	t.Helper()
	s, err := ReadSigners(k.List(names...))
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// release makes one that these have signed.
func (k keys) release(t *testing.T, name string, archive []byte, signers ...string) Release {
	t.Helper()
	sums := coretest.Sums(name, archive)
	return Release{name, bytes.NewReader(archive), sums, k.Sign(sums, signers...)}
}

// older is a genuine release of 30.2.
func (k keys) older(t *testing.T) Release {
	return k.release(t, "bitcoin-30.2-x86_64-linux-gnu.tar.gz", archiveOf(t, programs("30.2")...), "ann", "bob", "dan")
}

var when = time.Date(2026, 11, 28, 13, 0, 0, 0, time.UTC)

// contents lists the files of a place, with what is in them.
func contents(t *testing.T, place string) map[string]string {
	t.Helper()
	found := map[string]string{}
	err := filepath.WalkDir(place, func(path string, e os.DirEntry, err error) error {
		if err != nil || e.IsDir() {
			return err
		}
		text, err := os.ReadFile(path)
		name, _ := filepath.Rel(place, path)
		found[name] = string(text)
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return found
}

func TestAReleaseThatThreeBuildersHaveSignedIsInstalled(t *testing.T) {
	k, s := builders(t)
	place := t.TempDir()
	r := k.release(t, archive31, archiveOf(t, programs("31.0")...), "stranger", "cyd", "ann", "bob")
	got, err := s.Install(t.Context(), r, "amd64", place, when)
	if err != nil {
		t.Fatal(err)
	}
	if d := cmp.Diff([]string{"ann", "bob", "cyd"}, got.Signers); d != "" || got.Version != "31.0" || !got.Installed.Equal(when) {
		t.Errorf("%+v", got)
	}
	path, found, err := bitcoincore.Find(place)
	if err != nil || found.Folder != got.Folder {
		t.Fatalf("%+v, %v", found, err)
	}
	want := map[string]string{got.Folder + "/bitcoind": "node 31.0", got.Folder + "/bitcoin-cli": "cli 31.0"}
	all := contents(t, place)
	delete(all, "release.json")
	if d := cmp.Diff(want, all); d != "" {
		t.Error(d)
	}
	if info, err := os.Stat(path); err != nil || info.Mode() != 0o755 {
		t.Errorf("%v, %v", info.Mode(), err) // the archive's mode has the bit that makes its user root
	}
}

// TestTheBuildersListedHereHaveSignedARealRelease verifies the list that the project has, by the
// published signatures of Bitcoin Core 31.0.
func TestTheBuildersListedHereHaveSignedARealRelease(t *testing.T) {
	if _, err := os.Stat(gpgv); err != nil {
		t.Skip("gpgv is not installed (Debian's package gpgv)")
	}
	s, err := ReadSigners("../../../packaging/bitcoin-core")
	if err != nil {
		t.Fatal(err)
	}
	read := func(name string) []byte {
		b, err := os.ReadFile(filepath.Join("testdata/31.0", name))
		if err != nil {
			t.Fatal(err)
		}
		return b
	}
	sums, signatures := read("SHA256SUMS"), read("SHA256SUMS.asc")
	status, err := s.check(t.Context(), sums, signatures)
	if err != nil {
		t.Fatal(err)
	}
	// Keys expire, and this test does not: a signature by such a key is still one.
	once := bytes.ReplaceAll(status, []byte("] EXPKEYSIG "), []byte("] GOODSIG "))
	var want []string
	for _, signer := range s.list {
		want = append(want, signer.Fingerprint)
	}
	got := readStatus(once)
	slices.Sort(got)
	slices.Sort(want)
	if d := cmp.Diff(want, got); d != "" {
		t.Errorf("%s\n%s", d, status)
	}
	sum, err := bitcoincore.Sum(sums, archive31)
	if err != nil || sum != "d3e4c58a35b1d0a97a457462c94f55501ad167c660c245cb1ffa565641c65074" {
		t.Errorf("%s, %v", sum, err)
	}
}

// refusal is an attack, and the sentence that it meets.
type refusal struct {
	release func(*testing.T, keys) Release
	want    string
}

// plain is a release of 31.0 that these have signed.
func plain(signers ...string) func(*testing.T, keys) Release {
	return func(t *testing.T, k keys) Release {
		return k.release(t, archive31, archiveOf(t, programs("31.0")...), signers...)
	}
}

// holding is a genuine release that holds these.
func holding(entries ...entry) func(*testing.T, keys) Release {
	return func(t *testing.T, k keys) Release {
		return k.release(t, archive31, archiveOf(t, entries...), "ann", "bob", "cyd")
	}
}

// named is a genuine release with another name.
func named(name string) func(*testing.T, keys) Release {
	return func(t *testing.T, k keys) Release {
		return k.release(t, name, archiveOf(t, programs("31.0")...), "ann", "bob", "cyd")
	}
}

// but changes a genuine release.
func but(change func(*Release, []byte)) func(*testing.T, keys) Release {
	return func(t *testing.T, k keys) Release {
		archive := archiveOf(t, programs("31.0")...)
		r := k.release(t, archive31, archive, "ann", "bob", "cyd")
		change(&r, archive)
		return r
	}
}

var refusals = map[string]refusal{
	"nobody has signed":      {but(func(r *Release, _ []byte) { r.Signatures = nil }), "0 of the builder's signers"},
	"two have signed":        {plain("ann", "bob"), "(counted: ann, bob)"},
	"two, and a stranger":    {plain("ann", "bob", "stranger"), "2 of the builder's signers"},
	"one signed three times": {plain("ann", "ann", "ann"), "1 of the builder's signers"},
	"three subkeys of one":   {threeSubkeys, "1 of the builder's signers"},
	"a key that has expired": {plain("ann", "bob", "expired"), "(counted: ann, bob)"},
	"a key that was revoked": {plain("ann", "bob", "revoked"), "(counted: ann, bob)"},
	"signatures of another file": {but(func(r *Release, _ []byte) {
		r.Sums = append([]byte(strings.Repeat("0", 64)+"  evil\n"), r.Sums...)
	}), "0 of the builder's signers"},
	"signed messages, not signatures": {messages, "0 of the builder's signers"},
	"garbage for signatures":          {but(func(r *Release, _ []byte) { r.Signatures = bytes.Repeat([]byte{'A'}, 4000) }), "0 of the builder's"},
	"a great many signatures": {but(func(r *Release, _ []byte) {
		r.Signatures = bytes.Repeat(r.Signatures, bitcoincore.MaxSignatures/len(r.Signatures)+1)
	}), "larger than those of any release"},
	"another archive":      {but(func(r *Release, a []byte) { r.Archive = bytes.NewReader(append(a, 0)) }), "is damaged or not genuine"},
	"a truncated archive":  {but(func(r *Release, a []byte) { r.Archive = bytes.NewReader(a[:len(a)-1]) }), "is damaged or not genuine"},
	"an empty archive":     {but(func(r *Release, _ []byte) { r.Archive = bytes.NewReader(nil) }), "is damaged or not genuine"},
	"a name from nowhere":  {but(func(r *Release, _ []byte) { r.Name = "bitcoin-31.1-x86_64-linux-gnu.tar.gz" }), "SHA256SUMS does not list"},
	"another architecture": {named("bitcoin-31.0-aarch64-linux-gnu.tar.gz"), "for aarch64-linux-gnu, and this Base needs the one for x86_64"},
	"another machine":      {named("bitcoin-31.0-riscv64-linux-gnu.tar.gz"), "the release is for riscv64-linux-gnu"},
	"for Windows":          {named("bitcoin-31.0-win64.zip"), "is not the name of a release of Bitcoin Core for Linux"},
	"a path for a name":    {named("../bitcoin-31.0-x86_64-linux-gnu.tar.gz"), "is not the name of a release of Bitcoin Core for Linux"},
	"a version too old":    {named("bitcoin-28.4-x86_64-linux-gnu.tar.gz"), "takes Bitcoin Core 29 to 31, and this is 28.4"},
	"a version too new":    {named("bitcoin-32.0-x86_64-linux-gnu.tar.gz"), "takes Bitcoin Core 29 to 31, and this is 32.0"},
	"another version inside": {holding(programs("30.0")...),
		"it does not hold [bitcoind bitcoin-cli] in the folder bitcoin-31.0/bin/"},
	"no bitcoind":        {holding(programs("31.0")[:5]...), "it does not hold [bitcoind bitcoin-cli]"},
	"bitcoind twice":     {holding(append(programs("31.0"), programs("31.0")[5])...), "is no single file"},
	"a way out":          {holding(append(programs("31.0"), coretest.Regular("bitcoin-31.0/../../x", "evil"))...), "leads elsewhere"},
	"an absolute path":   {holding(append(programs("31.0"), coretest.Regular("/etc/passwd", "evil"))...), "leads elsewhere"},
	"a link to a file":   {holding(link(tar.TypeSymlink)...), "bitcoind in it is no single file"},
	"a hard link":        {holding(link(tar.TypeLink)...), "bitcoind in it is no single file"},
	"a device":           {holding(link(tar.TypeChar)...), "bitcoind in it is no single file"},
	"a huge program":     {holding(append(programs("31.0")[:5], coretest.Zeros("bitcoin-31.0/bin/bitcoind", maxProgram+1))...), "128 MiB"},
	"a bomb":             {holding(append(programs("31.0"), coretest.Zeros("bitcoin-31.0/bomb", maxUnpacked))...), "more than a release does"},
	"no archive at all":  {not31([]byte("an archive")), "it is no gzip file"},
	"an archive cut off": {not31(cutOff()), "it is damaged"},
}

func link(kind byte) []entry {
	entries := programs("31.0")
	entries[5] = entry{Name: "bitcoin-31.0/bin/bitcoind", Content: "/bin/sh", Kind: kind}
	if kind == tar.TypeChar {
		entries[5].Content = ""
	}
	return entries
}

// not31 is signed, and is no archive.
func not31(b []byte) func(*testing.T, keys) Release {
	return func(t *testing.T, k keys) Release { return k.release(t, archive31, b, "ann", "bob", "cyd") }
}

func cutOff() []byte {
	out := &bytes.Buffer{}
	zipped := gzip.NewWriter(out)
	_, _ = zipped.Write(bytes.Repeat([]byte("tar"), 400))
	_ = zipped.Close()
	return out.Bytes()
}

func threeSubkeys(t *testing.T, k keys) Release {
	r := plain()(t, k)
	for _, subkey := range k.Subkeys("subkeys") {
		r.Signatures = append(r.Signatures, k.Sign(r.Sums, subkey+"!")...)
	}
	return r
}

// messages are signed messages in the place of signatures: each has a text of its own, which is what
// its signature is of. The text is older than the evil release.
func messages(t *testing.T, k keys) Release {
	r := plain()(t, k)
	for _, name := range []string{"ann", "bob", "cyd"} {
		out := k.GPG([]byte("I have built what is good."), "--local-user", name, "--armor", "--sign")
		r.Signatures = append(r.Signatures, strings.ReplaceAll(out, "PGP MESSAGE", "PGP SIGNATURE")...)
	}
	return r
}

func TestWhatIsNotGenuineIsRefusedByOneSentenceAndChangesNothing(t *testing.T) {
	k, _ := builders(t)
	// One of the builders revokes a key after it has signed.
	before := map[string]Release{}
	for name, attack := range refusals {
		before[name] = attack.release(t, k)
	}
	k.Revoke("revoked")
	s := k.trusting(t, coretest.Builders...)
	for name, attack := range refusals {
		t.Run(name, func(t *testing.T) {
			place := t.TempDir()
			first, err := s.Install(t.Context(), k.older(t), "amd64", place, when)
			if err != nil {
				t.Fatal(err)
			}
			was := contents(t, place)
			_, err = s.Install(t.Context(), before[name], "amd64", place, when)
			if err == nil || !strings.Contains(err.Error(), attack.want) || strings.Contains(err.Error(), "\n") {
				t.Errorf("%v", err)
			}
			_, now, err := bitcoincore.Find(place)
			if err != nil || now.Folder != first.Folder {
				t.Errorf("%+v, %v", now, err)
			}
			got := contents(t, place)
			for path := range got { // what a failure left behind is removed by the next call
				if strings.HasPrefix(path, beginning) {
					delete(got, path)
				}
			}
			if d := cmp.Diff(was, got); d != "" {
				t.Error(d)
			}
		})
	}
}

// Each defence is needed: without it, its attack succeeds.
func TestAnExitStatusOrAFingerprintOfASubkeyWouldBeFooled(t *testing.T) {
	k, s := builders(t)
	for _, name := range []string{"a key that has expired", "three subkeys of one"} {
		r := refusals[name].release(t, k)
		status, err := s.check(t.Context(), r.Sums, r.Signatures)
		if err != nil {
			t.Fatal(err)
		}
		// Each keyword counts that a careless reader takes for a verdict, and the key that has signed.
		signers := map[string]bool{}
		for line := range strings.Lines(string(status)) {
			if fields := strings.Fields(line); len(fields) > 2 && fields[1] == "VALIDSIG" || len(fields) > 2 && fields[1] == "GOODSIG" {
				signers[fields[2]] = true
			}
		}
		if len(signers) < Least {
			t.Errorf("%s: the careless reader is not fooled: %v\n%s", name, signers, status)
		}
		if good := readStatus(status); len(good) == Least && good[0] != good[1] {
			t.Errorf("%s: %v", name, good)
		}
	}
}

func TestAPowerCutLeavesTheOldReleaseOrTheNewOne(t *testing.T) {
	k, s := builders(t)
	old := k.older(t)
	fresh := k.release(t, archive31, archiveOf(t, programs("31.0")...), "ann", "bob", "cyd")
	again := func(r Release) Release {
		_, _ = r.Archive.Seek(0, 0)
		return r
	}
	var steps []string
	clear := failpoint.Set(func(step string) error { steps = append(steps, step); return nil })
	if _, err := s.Install(t.Context(), fresh, "amd64", t.TempDir(), when); err != nil {
		t.Fatal(err)
	}
	clear()
	cut := errors.New("the power is cut")
	seen := map[string]int{}
	for _, at := range steps {
		place := t.TempDir()
		if _, err := s.Install(t.Context(), again(old), "amd64", place, when); err != nil {
			t.Fatal(err)
		}
		clear := failpoint.Set(func(step string) error {
			if step == at {
				return cut
			}
			return nil
		})
		if _, err := s.Install(t.Context(), again(fresh), "amd64", place, when); !errors.Is(err, cut) {
			t.Fatalf("%s: %v", at, err)
		}
		clear()
		path, is, err := bitcoincore.Find(place)
		if err != nil {
			t.Fatalf("%s: %v", at, err)
		}
		if b, err := os.ReadFile(path); err != nil || string(b) != "node "+is.Version {
			t.Errorf("%s: version %s is %q, %v", at, is.Version, b, err)
		}
		seen[is.Version]++
		// The next try succeeds, and leaves the release before it beside its own.
		if _, err := s.Install(t.Context(), again(fresh), "amd64", place, when); err != nil {
			t.Errorf("%s: %v", at, err)
		}
		if got := len(contents(t, place)); got != 5 {
			t.Errorf("%s: %d files are left: %v", at, got, contents(t, place))
		}
	}
	if seen["30.2"] == 0 || seen["31.0"] == 0 {
		t.Errorf("cuts left %v", seen)
	}
}

func TestTheListOfABuilderIsReadStrictly(t *testing.T) {
	k, _ := builders(t)
	good := k.Fingerprints["ann"] + " ann\n"
	for text, want := range map[string]string{
		strings.ToLower(good):                       "line 1: it needs the 40 capital digits",
		"AB ann":                                    "line 1: it needs",
		k.Fingerprints["ann"]:                       "line 1: it needs",
		k.Fingerprints["ann"] + " ../ann":           "line 1: it needs",
		good + "\n" + good:                          "line 3: this fingerprint or name is listed twice",
		good + k.Fingerprints["bob"] + " bob":       "line 2: the file bob.asc with the key is missing",
		strings.Replace(good, " ann", " broken", 1): "broken.asc: it is not one public key",
	} {
		folder := t.TempDir()
		for name, content := range map[string]string{
			"ann.asc": k.GPG(nil, "--armor", "--export", "ann"), "broken.asc": "no key", listFile: text,
		} {
			if err := os.WriteFile(filepath.Join(folder, name), []byte(content), 0o644); err != nil {
				t.Fatal(err)
			}
		}
		if _, err := ReadSigners(folder); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%q: %v", text, err)
		}
	}
	s := k.trusting(t, "ann", "bob")
	if _, err := s.Signatures(t.Context(), []byte("x"), nil); err == nil || !strings.Contains(err.Error(), "listed 2 signers") {
		t.Errorf("%v", err)
	}
}

func FuzzStatusOfGpgv(f *testing.F) {
	f.Add([]byte("[GNUPG:] NEWSIG\n[GNUPG:] GOODSIG A b\n[GNUPG:] VALIDSIG A 2026-04-17 1 0 4 0 22 8 00 B\n"))
	f.Fuzz(func(t *testing.T, status []byte) {
		for _, good := range readStatus(status) {
			if !bytes.Contains(status, []byte(good)) {
				t.Errorf("%q", good)
			}
		}
	})
}
