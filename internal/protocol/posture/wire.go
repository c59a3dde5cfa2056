package posture

import (
	"errors"
	"fmt"
	"math"
	"time"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"

	systemv1 "github.com/BitBoxSwiss/bitbox-base/api/system/v1"
	"github.com/BitBoxSwiss/bitbox-base/internal/protocol/sshkey"
	"github.com/BitBoxSwiss/bitbox-base/internal/reason"
)

// Sizes in bytes. A whole chain fits into one frame of the helper's socket
// (1 MiB, internal/ipc).
const (
	// MaxDocumentSize bounds one signed message: 32 Apps and 16 keys of RSA 4096
	// take less than half of it.
	MaxDocumentSize = 32 << 10
	// MaxChainSize bounds what the Base keeps and an App reads.
	MaxChainSize = 1 << 20
)

// Errors of reading.
var (
	// ErrMalformed: these bytes are not the message they should be.
	ErrMalformed = reason.New("the message cannot be read")
	// ErrUnknownField: the message has a field that this version does not know.
	ErrUnknownField = reason.New("the message has an unknown field; update the Base or the App, whichever is older")
)

// read decodes b into m. Unknown fields are looked for by refuseUnknown.
func read(b []byte, limit int, m proto.Message) error {
	name := m.ProtoReflect().Descriptor().Name()
	if len(b) > limit {
		return reason.Errorf("%w: %s of %d bytes; at most %d are read", ErrMalformed, name, len(b), limit)
	}
	if err := proto.Unmarshal(b, m); err != nil {
		return reason.Errorf("%w: %s of %d bytes: %w", ErrMalformed, name, len(b), err)
	}
	return nil
}

// readStrict is read, and refuses unknown fields.
func readStrict(b []byte, limit int, m proto.Message) error {
	if err := read(b, limit, m); err != nil {
		return err
	}
	return refuseUnknown(m.ProtoReflect())
}

// refuseUnknown returns ErrUnknownField when m, or a message inside it at any
// depth, carries a field that posture.proto does not have.
func refuseUnknown(m protoreflect.Message) error {
	if len(m.GetUnknown()) > 0 {
		return reason.Errorf("%s: %w", m.Descriptor().Name(), ErrUnknownField)
	}
	var err error
	m.Range(func(field protoreflect.FieldDescriptor, value protoreflect.Value) bool {
		switch {
		case field.Message() == nil:
		case field.IsList():
			for i := range value.List().Len() {
				if err = refuseUnknown(value.List().Get(i).Message()); err != nil {
					return false
				}
			}
		default:
			err = refuseUnknown(value.Message())
		}
		return err == nil
	})
	return err
}

// RefuseUnknown returns ErrUnknownField when m, or a message inside it at any
// depth, carries a field that this version does not know.
func RefuseUnknown(m proto.Message) error { return refuseUnknown(m.ProtoReflect()) }

// encode cannot fail for the messages of posture.proto: they have no required
// fields, and their strings have passed Validate.
func encode(m proto.Message) []byte {
	b, err := proto.Marshal(m)
	if err != nil {
		panic(fmt.Sprintf("posture: encode %s: %v", m.ProtoReflect().Descriptor().Name(), err))
	}
	return b
}

// FromProto reads the content of a document and validates it. The error is one
// FieldError or several, joined.
func FromProto(m *systemv1.Posture) (Posture, error) {
	p, shape := decodePosture(m)
	return p, errors.Join(shape, p.Validate())
}

// decodePosture reads what can be read; the error tells what could not.
func decodePosture(m *systemv1.Posture) (Posture, error) {
	var v validation
	p := Posture{
		NodeName:      m.GetNodeName(),
		PairingClosed: m.GetPairingClosed(),
		OldestVersion: m.GetOldestVersion(),
		Bans: BanPolicy{
			MaxTries: m.GetBans().GetMaxTries(),
			Window:   seconds(m.GetBans().GetWindowSeconds()),
			BanTime:  seconds(m.GetBans().GetBanSeconds()),
		},
	}
	for i, app := range m.GetApps() {
		a := App{Role: app.GetRole(), Name: app.GetName(), ID: app.GetAppId()}
		if copy(a.SigningKey[:], app.GetSigningKey()) != len(a.SigningKey) || len(app.GetSigningKey()) != len(a.SigningKey) {
			v.add(fmt.Sprintf("apps[%d].signing_key", i), fmt.Sprintf("has %d bytes", len(app.GetSigningKey())), "32 bytes")
		}
		p.Apps = append(p.Apps, a)
	}
	for i, line := range m.GetSshKeys() {
		key, err := sshkey.Parse(line)
		switch {
		case err != nil:
			v.add(fmt.Sprintf("ssh_keys[%d]", i), "cannot be accepted: "+reason.Of(err), "")
			continue
		case key.Line != line:
			v.add(fmt.Sprintf("ssh_keys[%d]", i), "is not written in the one way that is accepted", key.Line)
		}
		p.SSHKeys = append(p.SSHKeys, key)
	}
	if m.GetSsh() != nil {
		lease := decodeLease(m.GetSsh())
		p.SSH = &lease
	}
	for i, extra := range m.GetExtraEndpoints() {
		p.Extras = append(p.Extras, ExtraEndpoint{
			Kind: Kind(extra.GetKind()), OwnPort: extra.GetOwnPort(), Lease: decodeLease(extra.GetLease()),
			From: v.networks(fmt.Sprintf("extra_endpoints[%d].from", i), extra.GetFrom()),
		})
	}
	for _, service := range m.GetEgress() {
		p.Egress = append(p.Egress, Service(service))
	}
	return p, errors.Join(v.errs...)
}

func decodeLease(m *systemv1.PostureLease) Lease {
	return Lease{Length: seconds(m.GetSeconds()), GrantedIn: m.GetGrantedIn(), UntilClosed: m.GetUntilClosed()}
}

// Proto writes p as the content of a document.
func (p Posture) Proto() *systemv1.Posture {
	m := &systemv1.Posture{
		NodeName:      p.NodeName,
		PairingClosed: p.PairingClosed,
		OldestVersion: p.OldestVersion,
		Bans: &systemv1.BanPolicy{
			MaxTries: p.Bans.MaxTries, WindowSeconds: wholeSeconds(p.Bans.Window), BanSeconds: wholeSeconds(p.Bans.BanTime),
		},
	}
	for _, app := range p.Apps {
		m.Apps = append(m.Apps, &systemv1.EnrolledApp{
			SigningKey: app.SigningKey[:], Role: app.Role, Name: app.Name, AppId: app.ID,
		})
	}
	for _, key := range p.SSHKeys {
		m.SshKeys = append(m.SshKeys, key.Line)
	}
	if p.SSH != nil {
		m.Ssh = p.SSH.proto()
	}
	for _, extra := range p.Extras {
		m.ExtraEndpoints = append(m.ExtraEndpoints, &systemv1.ExtraEndpoint{
			Kind: string(extra.Kind), OwnPort: extra.OwnPort, Lease: extra.Lease.proto(), From: extra.From.Strings(),
		})
	}
	for _, service := range p.Egress {
		m.Egress = append(m.Egress, string(service))
	}
	return m
}

func (l Lease) proto() *systemv1.PostureLease {
	return &systemv1.PostureLease{Seconds: wholeSeconds(l.Length), GrantedIn: l.GrantedIn, UntilClosed: l.UntilClosed}
}

func seconds(n uint32) time.Duration { return time.Duration(n) * time.Second }

// wholeSeconds writes what does not fit as 0, which Validate refuses.
func wholeSeconds(d time.Duration) uint32 {
	if n := d / time.Second; n >= 0 && n <= math.MaxUint32 {
		return uint32(n)
	}
	return 0
}

func milliseconds(d time.Duration) uint64 { return uint64(max(d, 0) / time.Millisecond) }

// fromMilliseconds caps what a Duration cannot hold.
func fromMilliseconds(n uint64) time.Duration {
	return time.Duration(min(n, uint64(math.MaxInt64/time.Millisecond))) * time.Millisecond
}
