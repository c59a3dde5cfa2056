package chaindisk

import (
	"bytes"
	"context"
	"errors"
	"io"
	"log/slog"
	"os"
	"os/exec"
	"time"

	"github.com/BitBoxSwiss/bitbox-base/internal/bounded"
	"github.com/BitBoxSwiss/bitbox-base/internal/reason"
)

// Programs, by absolute path: PATH decides nothing.
const (
	lsblk    = "/usr/bin/lsblk"
	blkid    = "/usr/sbin/blkid"
	smartctl = "/usr/sbin/smartctl"
	mkfs     = "/usr/sbin/mkfs.ext4"
	e2fsck   = "/usr/sbin/e2fsck"
)

const (
	// lookTime is how long a program may take that looks at a disk: one that sleeps takes 10 s to
	// turn.
	lookTime = 20 * time.Second
	// maxOutput is how much of what a program prints is read, in bytes.
	maxOutput = 1 << 20
)

// Run runs a program without a shell, and returns the beginning of what it printed and how it has
// ended. An error says that it did not end by itself.
type Run func(ctx context.Context, limit time.Duration, argv ...string) (output []byte, code int, err error)

// Exec is the Run of a real machine.
func Exec(ctx context.Context, limit time.Duration, argv ...string) ([]byte, int, error) {
	ctx, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	command := exec.CommandContext(ctx, argv[0], argv[1:]...)
	command.Env, command.Dir = []string{"LC_ALL=C.UTF-8"}, "/"
	command.WaitDelay = time.Second
	output := &bounded.Buffer{Most: maxOutput}
	command.Stdout = output
	err := command.Run()
	var exit *exec.ExitError
	if errors.As(err, &exit) && exit.Exited() && ctx.Err() == nil {
		err = nil
	}
	if err != nil {
		return nil, 0, reason.Errorf("run %s: %w", argv[0], errors.Join(err, ctx.Err()))
	}
	if output.Full() {
		return nil, 0, reason.Errorf("run %s: it printed more than %d bytes", argv[0], maxOutput)
	}
	return output.Bytes(), command.ProcessState.ExitCode(), nil
}

// look looks at all disks, without their health; probe looks at what is on them.
func look(ctx context.Context, run Run, probe probe) ([]*seen, error) {
	text, code, err := run(ctx, lookTime, lsblk, "--json", "--bytes", "--tree", "--output", columns)
	if err == nil && code != 0 {
		err = reason.Errorf("lsblk ended with %d", code)
	}
	if err != nil {
		return nil, reason.Errorf("look at the disks: %w", err)
	}
	nodes, err := parseTree(text)
	if err != nil {
		return nil, reason.Errorf("look at the disks: %w", err)
	}
	var list []*seen
	for _, n := range nodes {
		s := see(n, probe)
		if ctx.Err() != nil {
			return nil, reason.Errorf("look at the disks: %w", ctx.Err())
		}
		s.Refused = refusal(rules, s)
		list = append(list, s)
	}
	return list, nil
}

// content asks blkid what is on a device. It probes the device itself, and does not ask udev, which
// may be late.
func content(ctx context.Context, run Run, n *node) (signature, error) {
	// Exit codes of blkid(8).
	const nothing, ambivalent = 2, 8
	text, code, err := run(ctx, lookTime, blkid, "--probe", "--output", "export", n.path())
	switch {
	case err != nil:
		return signature{}, err
	case code == ambivalent:
		return signature{kind: unknown}, nil
	case code == nothing:
		empty, err := zero(n.path(), n.Size)
		if err == nil && !empty {
			return signature{kind: unknown}, nil
		}
		return signature{}, err
	case code != 0:
		return signature{}, reason.Errorf("blkid ended with %d", code)
	}
	return parseSignature(text), nil
}

// sampled is how much is read of the beginning and of the middle of a device on which blkid finds
// nothing: an encrypted disk looks like that.
const sampled = 1 << 20

func zero(path string, size uint64) (bool, error) {
	file, err := os.Open(path)
	if err != nil {
		return false, err
	}
	defer file.Close()
	block := make([]byte, sampled)
	for _, at := range []int64{0, int64(size / 2)} {
		n, err := file.ReadAt(block, at)
		if err != nil && !errors.Is(err, io.EOF) {
			return false, err
		}
		if len(bytes.Trim(block[:n], "\x00")) > 0 {
			return false, nil
		}
	}
	return true, nil
}

// Look lists the disks with their health. It logs why a disk cannot be read.
func Look(ctx context.Context, run Run, log *slog.Logger) ([]*Disk, error) {
	list, err := look(ctx, run, func(n *node) (signature, error) { return content(ctx, run, n) })
	if err != nil {
		return nil, err
	}
	var disks []*Disk
	for _, s := range list {
		if s.broken != "" {
			log.Warn("a disk cannot be read", "disk", s.GetName(), "error", s.fault)
			disks = append(disks, &s.Disk)
			continue
		}
		// Bits of the exit status tell of old errors, too; the answer says what they mean.
		text, _, err := run(ctx, lookTime, smartctl, "--json=c", "--info", "--health", "--attributes", s.path)
		if err != nil {
			text = nil // a disk that does not answer in time has no verdict
		}
		health, rotation := parseHealth(text)
		s.Health = health
		if rotation != nil && *rotation == 0 && s.GetSpinning() {
			// Many cases for USB hide from Linux that an SSD is in them.
			s.Spinning = false
			s.Refused = refusal(rules, s)
		}
		disks = append(disks, &s.Disk)
	}
	return disks, nil
}
