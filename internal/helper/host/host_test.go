package host

import "testing"

func TestListeningPortsAreRead(t *testing.T) {
	const text = `  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode
   0: 00000000:228D 00000000:0000 0A 00000000:00000000 00:00000000 00000000    33        0 1 1 0000000000000000 100 0 0 10 0
   1: 0100007F:C352 0100007F:D431 01 00000000:00000000 00:00000000 00000000    33        0 2 1 0000000000000000 20 4 0 10 -1
`
	ports := map[uint16]bool{}
	if err := parseListening(text, ports); err != nil || len(ports) != 1 || !ports[8845] {
		t.Errorf("ports %v, %v", ports, err)
	}
	if err := parseListening("0: 00000000:XYZ 0 0A", ports); err == nil {
		t.Error("nonsense was read")
	}
}
