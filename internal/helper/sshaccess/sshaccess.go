// Package sshaccess is the Base's SSH: what sshd is told, and whether the running
// sshd does what it was told. Which keys are accepted stands in package sshkey.
//
// SSH is an exception for an owner who has to look at the machine itself. So
// everything here is narrow: keys are the only way in, a key is a plain key
// (no options, no certificate), and one table (Settings) says both what is
// rendered into sshd_config and what `sshd -T` must answer.
//
// Rendering is pure. Who writes the files and starts the unit is elsewhere.
package sshaccess

// User is the only account that may log in. It has no password.
const User = "base"

// Port is where sshd listens while SSH is leased: the registered port, for a
// client needs no configuration then, and hiding it elsewhere protects nothing.
const Port = 22
