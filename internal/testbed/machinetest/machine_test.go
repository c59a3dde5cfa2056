package machinetest_test

import (
	"sync"
	"testing"

	"github.com/BitBoxSwiss/bitbox-base/internal/helper/generation"
	"github.com/BitBoxSwiss/bitbox-base/internal/protocol/posture"
	"github.com/BitBoxSwiss/bitbox-base/internal/testbed/machinetest"
)

// A test asks how the machine is while a helper changes it: it gets an answer from before a change or from
// after it.
func TestAMachineIsSeenWholeWhileItChanges(t *testing.T) {
	m := machinetest.New(t.TempDir())
	closed := posture.Effective{NodeName: "base", Endpoints: []posture.Endpoint{{Kind: posture.KindEntry, Port: posture.EntryPort}},
		Bans: posture.Factory().Bans}
	files, err := generation.Render(closed)
	if err != nil {
		t.Fatal(err)
	}
	at := func() int {
		differences, err := m.Differences(t.Context(), closed, files)
		if err != nil {
			t.Error(err)
		}
		return len(differences)
	}
	without := at()
	var changing sync.WaitGroup
	changing.Go(func() {
		for range 500 {
			if m.StartSSH(t.Context(), nil) != nil || m.StopSSH(t.Context()) != nil {
				t.Error("SSH does not start or stop")
			}
		}
	})
	for range 500 {
		if n := at(); n != without && n != without+1 {
			t.Errorf("it differs in %d places, not in %d or in one more for SSH", n, without)
		}
	}
	changing.Wait()
}
