// Package sshaccess renders the configuration of sshd, and checks whether the running sshd
// uses it. Package sshkey says which keys are accepted.
//
// SSH is an exception for an owner who has to work on the machine itself. So this package
// allows little: keys are the only way to log in, a key is a plain key (no options, no
// certificate), and one table ([Settings]) defines both the text of sshd_config and the
// expected answer of `sshd -T`.
//
// Rendering is pure. Other packages write the files and start the unit.
package sshaccess

// User is the only account that may log in. It has no password.
const User = "base"

// Port is where sshd listens during a lease: the registered port, because clients then need no
// configuration, and another one would protect nothing.
const Port = 22
