// Package bitcoincore is about releases of Bitcoin Core, which a builder or an owner brings: the
// versions that a Base takes, what their files are called, and where a Base has the one that it
// runs. Package verify decides whether a release is genuine, and installs it.
package bitcoincore

// Programs are the only files of a release that are unpacked.
var Programs = []string{"bitcoind", "bitcoin-cli"}
