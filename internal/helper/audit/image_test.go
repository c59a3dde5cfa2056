package audit

import (
	"strings"
	"testing"

	"github.com/BitBoxSwiss/bitbox-base/internal/bootdisk"
)

func TestAnImageThatStartsWithoutSecureBootIsReported(t *testing.T) {
	image := func(f *fake, secure, setup string) {
		f.files[bootdisk.Directory+"/"+bootdisk.SlotFile] = "a\n"
		f.files["/proc/cmdline"] = "ro roothash=" + strings.Repeat("ab", 32)
		f.files["/usr/lib/os-release"] = "IMAGE_VERSION=1.2\n"
		const variable = "/sys/firmware/efi/efivars/%-8be4df61-93ca-11d2-aa0d-00e098032b8c"
		if secure != "" {
			f.files[strings.Replace(variable, "%", "SecureBoot", 1)] = "\x06\x00\x00\x00" + secure
			f.files[strings.Replace(variable, "%", "SetupMode", 1)] = "\x06\x00\x00\x00" + setup
		}
	}
	list := aptLists + "/deb.debian.org_debian-security_dists_trixie-security_InRelease"
	find(t, map[string]attack{
		"on":      {func(_ *testing.T, f *fake) { image(f, "\x01", "\x00") }, []string{}},
		"off":     {func(_ *testing.T, f *fake) { image(f, "\x00", "\x00") }, []string{idSecureBoot}},
		"setup":   {func(_ *testing.T, f *fake) { image(f, "\x00", "\x01") }, []string{idSecureBoot}},
		"no UEFI": {func(_ *testing.T, f *fake) { image(f, "", "") }, []string{idSecureBoot}},
		// Debian's lists say nothing about an image.
		"no lists": {func(_ *testing.T, f *fake) { image(f, "\x01", "\x00"); delete(f.stat, list) }, []string{}},
	})
}
