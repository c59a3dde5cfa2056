package machinetest

import (
	"context"
	"os"
	"path/filepath"

	basev1 "github.com/BitBoxSwiss/bitbox-base/api/base/v1"
	"github.com/BitBoxSwiss/bitbox-base/internal/helper/chaindisk"
)

// DiskStore is where the helper keeps what was ordered and chosen.
func (m *Machine) DiskStore() chaindisk.Store {
	s := chaindisk.Store{Directory: m.path("disk"), Run: m.path("disks")}
	for _, folder := range []string{s.Directory, s.Run} {
		if err := os.MkdirAll(filepath.Clean(folder), 0o700); err != nil {
			panic(err)
		}
	}
	return s
}

// SetDisks has the machine have these disks.
func (m *Machine) SetDisks(disks ...*basev1.Disk) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.disks = disks
}

// LookAtDisks implements chaindisk.Machine.
func (m *Machine) LookAtDisks(context.Context) error {
	if err := m.failure("look at disks"); err != nil {
		return err
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.DiskStore().WriteList(m.disks)
}

// PrepareDisk implements chaindisk.Machine.
func (m *Machine) PrepareDisk(context.Context) error {
	store := m.DiskStore()
	if err := m.failure("prepare disk"); err != nil {
		_ = store.WriteTrouble(err)
		return err
	}
	order, err := store.Order()
	if err != nil || order == nil {
		return err
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	for _, d := range m.disks {
		if d.GetId() == order.ID {
			d.ChainUuid, d.Content = order.UUID, `ext4 "`+chaindisk.Label+`"`
		}
	}
	if err := store.WriteChosen(chaindisk.Chosen{UUID: order.UUID}); err != nil {
		return err
	}
	return store.ForgetOrder()
}
