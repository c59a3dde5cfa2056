// Package packaging embeds the files that are installed on a Base. So the audit knows the
// expected files without relying on the installed ones.
package packaging

import "embed"

// Units are the systemd units, and Sysctl the kernel's settings, below root/ as on
// the appliance.
//
//go:embed root/usr/lib/systemd/system/*.service root/usr/lib/systemd/system/*.socket
var Units embed.FS

// Sysctl is the file of kernel settings.
//
//go:embed root/usr/lib/bitbox-base/setup/etc/sysctl.d/60-bitbox-base.conf
var Sysctl string
