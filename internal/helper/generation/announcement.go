package generation

import (
	"encoding/xml"
	"strings"
	"unicode"
	"unicode/utf8"

	"github.com/BitBoxSwiss/bitbox-base/internal/reason"
)

// Announcement is what Avahi tells the local network.
type Announcement struct {
	// Name is the Base's, at most 63 bytes (RFC 6763, section 4.1.1). Avahi changes it if another
	// machine has it.
	Name string
	Port uint16
	// TXT are the "key=value" strings of docs/protocol.md.
	TXT []string
}

// serviceType is the one of docs/protocol.md.
const serviceType = "_bitboxbase._tcp"

// avahiGroup is Avahi's service file, see avahi.service(5).
type avahiGroup struct {
	XMLName xml.Name `xml:"service-group"`
	Name    string   `xml:"name"`
	Service struct {
		Type string   `xml:"type"`
		Port uint16   `xml:"port"`
		TXT  []string `xml:"txt-record"`
	} `xml:"service"`
}

// RenderAnnouncement writes the file that Avahi reads. It takes each name that noiseconn.CheckName
// takes, also one with U+FFFD: nobody would find a Base whose name it refuses.
func RenderAnnouncement(a Announcement) (string, error) {
	for _, text := range append([]string{a.Name}, a.TXT...) {
		printable := utf8.ValidString(text) && !strings.ContainsFunc(text, unicode.IsControl)
		if text == "" || !printable || len(text) > 255 {
			return "", reason.Errorf("render the mDNS announcement: %q must be 1 to 255 bytes of text", text)
		}
	}
	if len(a.Name) > 63 || a.Port == 0 {
		return "", reason.Errorf("render the mDNS announcement: the name %q must be at most 63 bytes long, and the port %d not 0", a.Name, a.Port)
	}
	group := avahiGroup{Name: a.Name}
	group.Service.Type, group.Service.Port, group.Service.TXT = serviceType, a.Port, a.TXT
	body, err := xml.MarshalIndent(group, "", "  ")
	if err != nil {
		return "", reason.Errorf("render the mDNS announcement: %w", err)
	}
	return xml.Header + "<!DOCTYPE service-group SYSTEM \"avahi-service.dtd\">\n" + string(body) + "\n", nil
}
