package walletcheck

import basev1 "github.com/BitBoxSwiss/bitbox-base/api/base/v1"

// networks are the hashes of the first blocks (chainparams.cpp of Bitcoin Core, chaincfg of btcd).
var networks = map[string]basev1.Network{
	"000000000019d6689c085ae165831e934ff763ae46a2a6c172b3f1b60a8ce26f": basev1.Network_NETWORK_MAINNET,
	"00000000da84f2bafbbc53dee25a72ae507ff4914b867c565be350b0da8bf043": basev1.Network_NETWORK_TESTNET4,
	"00000008819873e925422c1ff0f99f7cc9bbb232af63a077a480a3633bee1ef6": basev1.Network_NETWORK_SIGNET,
	"0f9188f13cb7b2c71f2a335e3a4fc328bf5beb436012afca590b1a11466e2206": basev1.Network_NETWORK_REGTEST,
	"683e86bd5c6d110d91b94b97137ba6bfe02dbbdb8e3dff722a669b5d69d77af6": basev1.Network_NETWORK_SIMNET,
}

// Network returns the network that a server serves; unspecified if it is unknown or not told.
func (s Server) Network() basev1.Network { return networks[s.Genesis] }
