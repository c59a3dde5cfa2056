package build

import "fmt"

// fstab says what is mounted beside the root and /var, which the initrd has mounted.
const fstab = `tmpfs /tmp tmpfs nodev,nosuid,size=25%,mode=1777 0 0
# Memory that programs share holds no programs.
tmpfs /dev/shm tmpfs nodev,nosuid,noexec 0 0
`

func hosts(name string) string {
	return fmt.Sprintf("127.0.0.1 localhost\n127.0.1.1 %s\n::1 localhost ip6-localhost ip6-loopback\n", name)
}
