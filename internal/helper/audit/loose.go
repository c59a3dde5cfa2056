package audit

import (
	"context"
	"fmt"
	"io/fs"
	"slices"
	"strings"
)

// systemRoots are searched for files that are too open. Folders that every user may write to
// (/tmp, /var/tmp, /run) are not among them. Each root has its own limits. Those that a user or a
// daemon without privilege could fill come last, so that they use up no other root's time.
var systemRoots = []string{"/boot", "/etc", "/opt", "/root", "/srv", "/usr", "/var/cache", "/var/log", "/var/spool", "/var/lib",
	"/home", middlewareState, walletState, nodeState}

// The state of daemons without privilege, which an attacker may have taken over.
const (
	middlewareState = "/var/lib/bitbox-base/middleware"
	walletState     = "/var/lib/bitbox-electrum"
	nodeState       = "/var/lib/bitbox-bitcoin"
)

// knownSetuid are those of a Debian 13 with the packages in packaging/packages.
var knownSetuid = []string{
	"/usr/bin/chage", "/usr/bin/chfn", "/usr/bin/chsh", "/usr/bin/expiry", "/usr/bin/gpasswd", "/usr/bin/mount", "/usr/bin/newgrp",
	"/usr/bin/passwd", "/usr/bin/ssh-agent", "/usr/bin/su", "/usr/bin/umount",
	"/usr/lib/dbus-1.0/dbus-daemon-launch-helper", "/usr/lib/openssh/ssh-keysign", "/usr/sbin/unix_chkpwd",
}

// checkLooseFiles walks the system for files that everybody can write, and for
// programs that run with another's rights.
func checkLooseFiles(ctx context.Context, system System, _ Expectation) ([]difference, error) {
	writable, setuid := difference{id: idWorldWritable}, difference{id: idSetuid}
	leftOut := system.Walk(ctx, systemRoots, func(path string, f File) {
		if isLoose(f) {
			writable.add(fmt.Sprintf("%s (%s)", path, f.Mode))
		}
		if f.Mode.IsRegular() && f.Mode&(fs.ModeSetuid|fs.ModeSetgid) != 0 && !slices.Contains(knownSetuid, path) {
			setuid.add(fmt.Sprintf("%s (%s, user %d, group %d)", path, f.Mode, f.UID, f.GID))
		}
	})
	found := []difference{writable, setuid, {id: idLeftOut, found: leftOut}}
	return slices.DeleteFunc(found, func(d difference) bool { return len(d.found) == 0 }), nil
}

// isLoose ignores links, whose mode has no meaning, sockets, whose server decides, and sticky
// directories, where nobody can change the files of others.
func isLoose(f File) bool {
	everybody := f.Mode.Perm()&0o002 != 0
	return everybody && (f.Mode.IsRegular() || f.Mode.IsDir() && f.Mode&fs.ModeSticky == 0)
}

// closeFiles removes the write permission for other users. A file that somebody else removes or
// replaces meanwhile keeps no other one open.
func closeFiles(ctx context.Context, system System) error {
	var refused error
	_ = system.Walk(ctx, systemRoots, func(path string, f File) {
		if !isLoose(f) {
			return
		}
		if err := system.CloseFile(rootOf(path), path); err != nil && refused == nil {
			refused = err
		}
	})
	return refused
}

// rootOf is the innermost of the systemRoots that a path lies in.
func rootOf(path string) string {
	innermost := ""
	for _, root := range systemRoots {
		if (path == root || strings.HasPrefix(path, root+"/")) && len(root) > len(innermost) {
			innermost = root
		}
	}
	return innermost
}
