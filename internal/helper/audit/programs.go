package audit

// The programs that are run, by absolute path: PATH decides nothing.
const (
	aptGet     = "/usr/bin/apt-get"
	chmod      = "/usr/bin/chmod"
	chown      = "/usr/bin/chown"
	fail2ban   = "/usr/bin/fail2ban-client"
	iptables   = "/usr/sbin/iptables-save"
	ip6tables  = "/usr/sbin/ip6tables-save"
	legacy     = "/usr/sbin/iptables-legacy-save"
	legacy6    = "/usr/sbin/ip6tables-legacy-save"
	legacySet  = "/usr/sbin/iptables-legacy"
	legacySet6 = "/usr/sbin/ip6tables-legacy"
	nft        = "/usr/sbin/nft"
	remove     = "/usr/bin/rm"
	sshd       = "/usr/sbin/sshd"
	ss         = "/usr/bin/ss"
	systemctl  = "/usr/bin/systemctl"
	usermod    = "/usr/sbin/usermod"
)
