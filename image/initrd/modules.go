//go:build linux

package main

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// moduleDirectory holds modules.dep, modules.alias and the modules, as depmod(8) lays them out. The maker of the image
// chooses them (image/build), and has unpacked them.
const moduleDirectory = "/modules"

// firstModules are needed whatever the machine is. The others are found by what the machine's devices are.
var firstModules = []string{"efivarfs", "dm_verity", "erofs", "sd_mod"}

// modules are those of the initrd.
type modules struct {
	directory string
	paths     map[string]string   // by name, with underscores
	needs     map[string][]string // names, by name
	aliases   []alias
	loaded    map[string]bool
}

// alias says which devices a module drives.
type alias struct{ pattern, module string }

func readModules(directory string) (*modules, error) {
	m := &modules{directory: directory, paths: map[string]string{}, needs: map[string][]string{}, loaded: map[string]bool{}}
	dependencies, err := os.ReadFile(filepath.Join(directory, "modules.dep"))
	if err != nil {
		return nil, fmt.Errorf("read the list of modules: %w", err)
	}
	aliases, err := os.ReadFile(filepath.Join(directory, "modules.alias"))
	if err != nil {
		return nil, fmt.Errorf("read the list of modules: %w", err)
	}
	for line := range strings.Lines(string(dependencies)) {
		path, needs, _ := strings.Cut(strings.TrimSpace(line), ":")
		name := moduleName(path)
		m.paths[name] = path
		for _, need := range strings.Fields(needs) {
			m.needs[name] = append(m.needs[name], moduleName(need))
		}
	}
	for line := range strings.Lines(string(aliases)) {
		if fields := strings.Fields(line); len(fields) == 3 && fields[0] == "alias" {
			m.aliases = append(m.aliases, alias{fields[1], fields[2]})
		}
	}
	return m, nil
}

// moduleName is what a module is called that lies in a file.
func moduleName(file string) string {
	name, _, _ := strings.Cut(path.Base(file), ".")
	return strings.ReplaceAll(name, "-", "_")
}

// load loads a module, after those that it needs.
func (m *modules) load(name string) error {
	file, ok := m.paths[name]
	if !ok || m.loaded[name] {
		return nil // it is part of the kernel, or not for us
	}
	m.loaded[name] = true
	for _, need := range m.needs[name] {
		if err := m.load(need); err != nil {
			return err
		}
	}
	f, err := os.Open(filepath.Join(m.directory, file))
	if err != nil {
		return fmt.Errorf("load the module %s: %w", name, err)
	}
	defer f.Close()
	if err := unix.FinitModule(int(f.Fd()), "", 0); err != nil && !errors.Is(err, unix.EEXIST) {
		return fmt.Errorf("load the module %s: %w", name, err)
	}
	return nil
}

func (m *modules) loadFirst() error {
	for _, name := range firstModules {
		if err := m.load(name); err != nil {
			return err
		}
	}
	return nil
}

// matching returns the modules for what the kernel says of a device.
func (m *modules) matching(device string) (names []string) {
	if _, ok := m.paths[moduleName(device)]; ok {
		names = append(names, moduleName(device))
	}
	for _, a := range m.aliases {
		if ok, err := path.Match(a.pattern, device); err == nil && ok {
			names = append(names, a.module)
		}
	}
	return names
}

// loadForDevices loads the modules of all devices that the machine has now. A module that cannot be loaded is passed over:
// it may be for a device that nobody needs here.
func (m *modules) loadForDevices(sys string) {
	_ = filepath.WalkDir(filepath.Join(sys, "devices"), func(path string, entry fs.DirEntry, err error) error {
		if err == nil && entry.Name() == "modalias" {
			device, _ := os.ReadFile(path)
			for _, name := range m.matching(string(bytes.TrimSpace(device))) {
				_ = m.load(name)
			}
		}
		return nil // a device may go while we look
	})
}

// modprobe is called by the kernel: modprobe -q -- NAME.
func modprobe(arguments []string) error {
	if len(arguments) == 0 {
		return errors.New("no module is named")
	}
	m, err := readModules(moduleDirectory)
	if err != nil {
		return err
	}
	loaded, err := os.Open("/proc/modules")
	if err != nil {
		return err
	}
	defer loaded.Close()
	for lines := bufio.NewScanner(loaded); lines.Scan(); {
		name, _, _ := strings.Cut(lines.Text(), " ")
		m.loaded[name] = true
	}
	names := m.matching(arguments[len(arguments)-1])
	if len(names) == 0 {
		return errors.New("there is no such module")
	}
	for _, name := range names {
		err = errors.Join(err, m.load(name))
	}
	return err
}

// each calls try until it says that it is done, and meanwhile loads modules for devices that have appeared.
func (m *modules) each(patience time.Duration, try func() (done bool, err error)) error {
	for begun := time.Now(); ; time.Sleep(100 * time.Millisecond) {
		m.loadForDevices("/sys")
		done, err := try()
		if done || err != nil && time.Since(begun) > patience {
			return err
		}
	}
}
