// Package peer asks the kernel to which user of this computer the other end of a TCP connection
// on loopback belongs.
package peer

// Whose tells whose connection it is.
type Whose int

const (
	// Unknown: the kernel does not say.
	Unknown Whose = iota
	// Own: it belongs to the user of this process.
	Own
	// Other: it belongs to another user.
	Other
)
