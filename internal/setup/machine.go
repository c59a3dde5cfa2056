package setup

// MachineRecord is what was changed on a running machine beside its files.
type MachineRecord struct {
	// Stopped are Debian's units that ran.
	Stopped []string `json:"stopped,omitempty"`
	// IPv4 and IPv6 are the packet filters as iptables-save(8) and ip6tables-save
	// printed them.
	IPv4 string `json:"ipv4,omitempty"`
	IPv6 string `json:"ipv6,omitempty"`
	// Kernel has settings, by the names of sysctl(8).
	Kernel map[string]string `json:"kernel,omitempty"`
	// Locked are users whose password was taken away.
	Locked []string `json:"locked,omitempty"`
}
