package posture

import (
	"fmt"
	"maps"
	"strings"
	"time"

	basev1 "github.com/BitBoxSwiss/bitbox-base/api/base/v1"
	"github.com/BitBoxSwiss/bitbox-base/internal/protocol/sshkey"
)

// ChangeKind names what is different, such as "ssh.on".
type ChangeKind string

// sentences are those of each kind in English: the Base itself writes them into its events and
// its log of changes. "{be}" becomes "will be", "is now" and, where something was done, "was";
// "{is}" is for what is in a state, and becomes "will be" and "is now". A full stop is added.
var sentences = map[ChangeKind]string{
	"lockdown.on":             "The Base {be} locked down: SSH off, extra APIs closed, no pairing from the network",
	"lockdown.off":            "The lockdown {be} lifted",
	"undone":                  "A change {be} undone",
	"base.name":               "The Base {be} named \"%[1]s\" instead of \"%[2]s\"",
	"endpoint.open":           "The %[1]s {is} reachable for %[2]s on %[3]s",
	"endpoint.open.from":      "The %[1]s {is} reachable for %[2]s on %[3]s, from %[4]s alone",
	"endpoint.open.good":      "The %[1]s {is} reachable for good, until somebody closes it, on %[2]s",
	"endpoint.open.good.from": "The %[1]s {is} reachable for good, until somebody closes it, on %[2]s, from %[3]s alone",
	"endpoint.from":           "The %[1]s on %[2]s {is} reachable from %[3]s instead of %[4]s",
	"endpoint.close":          "The %[1]s {be} closed on %[2]s, and its connections ended",
	"endpoint.longer":         "The time of the %[3]s on %[4]s {is} longer: %[1]s instead of %[2]s",
	"endpoint.shorter":        "The time of the %[3]s on %[4]s {is} shorter: %[1]s instead of %[2]s",
	"ssh.on":                  "SSH {be} switched on for %[1]s for %[2]s",
	"ssh.off":                 "SSH {be} switched off, and its sessions ended",
	"ssh.longer":              "The time of the SSH access {is} longer: %[1]s instead of %[2]s",
	"ssh.shorter":             "The time of the SSH access {is} shorter: %[1]s instead of %[2]s",
	"ssh.key.open":            "SSH {is} open to %[1]s too",
	"ssh.key.close":           "SSH {be} closed to %[1]s",
	"key.add":                 "The SSH key %[1]s {be} added; a key lets somebody in only while SSH is on",
	"key.name":                "The SSH key %[1]s {be} named so instead of '%[2]s'",
	"key.remove":              "The SSH key %[1]s {be} removed",
	"app.pair":                "The App '%[1]s' {be} paired as %[2]s",
	"app.role":                "The App '%[1]s' {is} %[2]s instead of %[3]s",
	"app.name":                "The App '%[1]s' {be} named '%[2]s'",
	"app.cut":                 "The App '%[1]s' {be} cut off",
	"pairing.close":           "Pairing from the network {be} closed; the console can still open a window",
	"pairing.open":            "Pairing {is} possible again when an owner opens a window",
	"bans.tries":              "An address {is} banned after %[1]s failures instead of %[2]s",
	"bans.window":             "The time over which failures are counted {is} %[1]s instead of %[2]s",
	"bans.length":             "A ban {is} %[1]s long instead of %[2]s",
	"version.any":             "The Base {is} free to go back to any version of its software",
	"version.oldest":          "The Base {be} kept from running any version of its software older than %[1]s",
	ChangeKind("egress.open." + ServiceBitcoin):        "The Bitcoin node {be} allowed to reach the internet",
	ChangeKind("egress.open." + ServiceLightning):      "The Lightning node {be} allowed to reach the internet",
	ChangeKind("egress.open." + ServiceTor):            "The service Tor {be} allowed to reach the internet",
	ChangeKind("egress.open." + ServiceBitcoinHome):    "The Bitcoin node {be} allowed to reach your home: private and link-local addresses",
	ChangeKind("egress.open." + ServiceLightningHome):  "The Lightning node {be} allowed to reach your home: private and link-local addresses",
	ChangeKind("egress.close." + ServiceBitcoin):       "The Bitcoin node {be} kept from the internet",
	ChangeKind("egress.close." + ServiceLightning):     "The Lightning node {be} kept from the internet",
	ChangeKind("egress.close." + ServiceTor):           "The service Tor {be} kept from the internet",
	ChangeKind("egress.close." + ServiceBitcoinHome):   "The Bitcoin node {be} kept from your home: private and link-local addresses",
	ChangeKind("egress.close." + ServiceLightningHome): "The Lightning node {be} kept from your home: private and link-local addresses",
}

// Sentences returns the English sentence of each kind of change, with its places for Args.
func Sentences() map[ChangeKind]string { return maps.Clone(sentences) }

// Said returns the change with its sentences in English.
func (c Change) Said() Change {
	words := make([]any, len(c.Args))
	for i, arg := range c.Args {
		words[i] = Word(arg)
	}
	say := func(be, is string) string {
		sentence := strings.NewReplacer("{be}", be, "{is}", is).Replace(sentences[c.Kind])
		if len(words) == 0 {
			return sentence + "."
		}
		return fmt.Sprintf(sentence, words...) + "."
	}
	c.Text, c.Done, c.Told = say("will be", "will be"), say("is now", "is now"), say("was", "is now")
	return c
}

// Word writes an argument of a change in English. It is a Kind, a Place, a time.Duration, ForGood,
// Networks, a role, an SSH key or several, a text or a number.
func Word(arg any) string {
	switch a := arg.(type) {
	case Kind:
		return title(a)
	case Place:
		if a.Shared {
			return fmt.Sprintf("port %d, beside the encrypted channel", a.Port)
		}
		return fmt.Sprintf("port %d", a.Port)
	case time.Duration:
		return durationWords(a)
	case ForGood:
		return "for good"
	case Networks:
		return a.words()
	case basev1.Role:
		return a.Name()
	case sshkey.Key:
		return keyName(a)
	case []sshkey.Key:
		return keyList(a)
	}
	return fmt.Sprint(arg)
}

func title(kind Kind) string {
	if extra, known := extraOf(kind); known {
		return extra.Title
	}
	return "encrypted channel"
}

// keyName is "'laptop' (SHA256:…)", or the fingerprint alone.
func keyName(key sshkey.Key) string {
	if key.Comment == "" {
		return key.Fingerprint
	}
	return fmt.Sprintf("'%s' (%s)", key.Comment, key.Fingerprint)
}

func keyList(keys []sshkey.Key) string {
	names := make([]string, len(keys))
	for i, key := range keys {
		names[i] = keyName(key)
	}
	if len(names) == 1 {
		return "the key " + names[0]
	}
	return "the keys " + strings.Join(names, ", ")
}
