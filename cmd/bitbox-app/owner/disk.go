package owner

import (
	"context"
	"fmt"
	"slices"
	"strings"

	basev1 "github.com/BitBoxSwiss/bitbox-base/api/base/v1"
	"github.com/BitBoxSwiss/bitbox-base/client"
	"github.com/BitBoxSwiss/bitbox-base/cmd/bitbox-app/words"
)

// DiskName is how people recognise a disk: by its label.
func DiskName(d *basev1.Disk) string {
	name := d.GetModel()
	if d.GetSerialEnd() != "" {
		name += " …" + d.GetSerialEnd()
	}
	return strings.TrimSpace(name)
}

// DiskSize is the size of a disk as it is sold, in powers of ten.
func DiskSize(bytes uint64) string {
	for _, unit := range []struct {
		size uint64
		name string
	}{{1e12, "TB"}, {1e9, "GB"}} {
		if bytes >= unit.size {
			return fmt.Sprintf("%.3g %s", float64(bytes)/float64(unit.size), unit.name)
		}
	}
	return fmt.Sprintf("%d MB", bytes/1e6)
}

// DiskUse is a disk that an owner wants for the chain.
type DiskUse struct {
	Disk *basev1.Disk
	// Erase: what is on it will be lost. Pruned: the owner knows that it is too small for the whole chain.
	Erase, Pruned bool
}

// ChooseDisk finds a disk by its name, and refuses beforehand what the Base would refuse. With erase a
// disk that has a chain is erased, too. Allow says what the owner does to have a small one used.
func ChooseDisk(list *basev1.ListDisksResponse, name string, erase, pruned bool, allow words.Said) (u DiskUse, err error) {
	at := slices.IndexFunc(list.GetDisks(), func(d *basev1.Disk) bool { return d.GetName() == name })
	if at < 0 {
		return u, words.Failing(client.ErrInvalid, "problems.disk.none", client.Printable(name))
	}
	d := list.GetDisks()[at]
	switch {
	case d.GetRefused() != "":
		return u, words.Failing(client.ErrNotNow, "problems.disk.refused", client.Printable(name), words.ByBase(client.Printable(d.GetRefused())))
	case d.GetSmall() && !pruned:
		return u, words.Failing(client.ErrNotNow, "problems.disk.small", client.Printable(name), DiskSize(d.GetSizeBytes()), allow)
	}
	return DiskUse{d, d.GetContent() != "" && (erase || d.GetChainUuid() == ""), pruned}, nil
}

// Sentence is what an owner types. Where data is lost, it says so.
func (u DiskUse) Sentence() words.Said {
	key := "typed.disk"
	if u.Erase {
		key = "typed.disk.erase"
	}
	return words.Saying(key, client.Printable(u.Disk.GetName()))
}

// Change says what happens to the disk and to the node.
func (u DiskUse) Change() client.PostureChange {
	d := u.Disk
	what := words.Saying("values.disk.empty")
	switch {
	case u.Erase:
		what = words.Saying("values.disk.lost", words.ByBase(client.Printable(d.GetContent())))
	case d.GetChainUuid() != "":
		what = words.Saying("values.disk.chain")
	}
	kind := "deed.use-disk"
	if d.GetSmall() {
		kind = "deed.use-disk.small"
	}
	return words.Change(client.PostureChange{Field: "disk", Subject: d.GetId()}, kind, client.Printable(d.GetName()),
		client.Printable(DiskName(d)), DiskSize(d.GetSizeBytes()), what)
}

// Done says that the Base has taken the order.
func (u DiskUse) Done() words.Said {
	return words.Saying("done.use-disk", client.Printable(DiskName(u.Disk)))
}

// Check refuses a sentence that is not the one of this disk.
func (u DiskUse) Check(typed string) error {
	if !words.Typed(u.Sentence(), typed) {
		return words.Failing(client.ErrNotApproved, "problems.disk.typed", u.Sentence())
	}
	return nil
}

// useDisk has the Base use a disk for the chain, once the owner has typed what that costs.
func useDisk(ctx context.Context, s *session, d Deed, h Hand) (words.Said, error) {
	list, err := s.Disks(ctx)
	if err != nil {
		return words.Said{}, err
	}
	use, err := ChooseDisk(list, d.Subject, d.Erase, d.Pruned, words.Saying("values.disk.pruned.box"))
	if err != nil {
		return words.Said{}, err
	}
	if err := h.types(ctx, use.Sentence(), use.Change(), use.Check); err != nil {
		return words.Said{}, err
	}
	return use.Done(), s.UseDisk(ctx, use.Disk, use.Erase, use.Pruned)
}

// types has the owner type a sentence, which says that a change is meant.
func (h Hand) types(ctx context.Context, sentence words.Said, change client.PostureChange, check func(typed string) error) error {
	typed, err := h.Ask(ctx, Question{Kind: TypeSentence, Sentence: sentence, Changes: []client.PostureChange{change}})
	switch {
	case err != nil:
		return err
	case !typed.Yes:
		return errNo
	}
	return check(strings.TrimSpace(typed.Text))
}

// isName tells whether the name of the Base was typed.
func isName(name string) func(typed string) error {
	return func(typed string) error {
		if typed != name {
			return words.Failing(client.ErrNotApproved, "problems.typed")
		}
		return nil
	}
}
