//go:build linux

package main

import (
	"bytes"
	"context"
	"crypto/ed25519"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"sync"
	"time"

	"golang.org/x/crypto/ssh"

	"github.com/BitBoxSwiss/bitbox-base/internal/helper/sshaccess"
	"github.com/BitBoxSwiss/bitbox-base/internal/protocol/posture"
	"github.com/BitBoxSwiss/bitbox-base/test/stage"
)

// limit bounds the whole story, far above what it takes.
const limit = 10 * time.Minute

// story is where the demo stands.
type story struct {
	*stage.Stage
	ctx   context.Context
	app   string // the App's program
	dir   string // what it stores
	login ssh.Signer
}

// demo tells the story of the appliance, step by step.
func demo(ctx context.Context, s *stage.Stage) (err error) {
	begun := time.Now()
	ctx, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	app, err := filepath.Abs(filepath.Join("build", "bitbox-app"))
	if err != nil {
		return err
	}
	if _, err := os.Stat(app); err != nil {
		return fmt.Errorf("look for the App's program (make build makes it): %w", err)
	}
	dir, err := os.MkdirTemp("", "bitbox-appliance-demo")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	d := &story{Stage: s, ctx: ctx, app: app, dir: dir}
	for n, step := range []struct {
		title string
		do    func() error
	}{
		{"From the network only the entry answers.", d.closed},
		{"An App is paired: the number is accepted at the Base, the code compared on both sides.", d.pair},
		{"A new process of the App asks how the Base does, and how open it is.", d.status},
		{"The Base has a Bitcoin node of its own, on a network that is this machine alone.", d.node},
		{"The Electrum API is opened for a wallet. It connects, is paid by a block, and is cut when the API is closed.", d.wallets},
		{"SSH is switched on for an hour, with a key. Somebody logs in.", d.ssh},
		{"Lockdown: all is closed but the App's channel.", d.lockdown},
		{"The Base reboots. The App connects again, and everything is as it was.", d.reboot},
	} {
		fmt.Printf("\n%d. %s\n\n", n+1, step.title)
		if err := step.do(); err != nil {
			return fmt.Errorf("step %d: %w", n+1, err)
		}
	}
	fmt.Printf("\nEvery step did what it should, in %.1f s.\n", time.Since(begun).Seconds())
	return nil
}

func line(format string, args ...any) { fmt.Printf("   "+format+"\n", args...) }

func typed(who, name string, args []string) {
	words := []string{name}
	for _, a := range args {
		if strings.Contains(a, " ") {
			a = "'" + a + "'"
		}
		words = append(words, a)
	}
	line("%s $ %s", who, strings.Join(words, " "))
}

func printed(out []byte) {
	for text := range strings.Lines(string(out)) {
		if text = strings.TrimRight(text, "\n"); text != "" {
			line("         %s", text)
		}
	}
}

func (d *story) appCommand(args ...string) *exec.Cmd {
	command := exec.CommandContext(d.ctx, d.app, args...)
	command.Env = append(os.Environ(), "BITBOX_APP_DIR="+d.dir)
	return command
}

// onApp runs the App's program, and checks that it prints what it should.
func (d *story) onApp(want string, args ...string) error {
	typed("laptop", "bitbox-app", args)
	out, err := d.appCommand(args...).CombinedOutput()
	printed(out)
	if err != nil {
		return fmt.Errorf("bitbox-app %s: %w", strings.Join(args, " "), err)
	}
	if matched, err := regexp.Match("(?m)"+want, out); err != nil || !matched {
		return fmt.Errorf("bitbox-app %s did not print %q (%v)", strings.Join(args, " "), want, err)
	}
	return nil
}

// atBase types something at the Base.
func (d *story) atBase(args ...string) error {
	typed("base  ", "bitbox-base", args)
	out, err := d.Exec(append([]string{"bitbox-base"}, args...)...)
	printed([]byte(out))
	return err
}

// reach tells whether a TCP port of the Base answers from this machine.
func (d *story) reach(port uint16) error {
	conn, err := net.DialTimeout("tcp", netip.AddrPortFrom(d.V4, port).String(), 2*time.Second)
	if err == nil {
		_ = conn.Close()
	}
	return err
}

// ports checks which of the ports that could be open are. It asks all of them at once:
// a closed one says nothing, so that each takes until its time is over.
func (d *story) ports(open ...uint16) error {
	ports := []uint16{sshaccess.Port, 53, 80, 111, 443, 5355, posture.EntryPort, posture.Extras[0].Port}
	errs := make([]error, len(ports))
	var asking sync.WaitGroup
	for i, port := range ports {
		asking.Go(func() {
			errs[i] = d.until(func() error {
				if reached := d.reach(port); (reached == nil) != slices.Contains(open, port) {
					return fmt.Errorf("port %d: it should be open: %v; and: %v", port, slices.Contains(open, port), reached)
				}
				return nil
			})
		})
	}
	asking.Wait()
	if err := errors.Join(errs...); err != nil {
		return err
	}
	line("network  open are %v, and no other of those that are usual", open)
	return nil
}

// until waits until something is so.
func (d *story) until(condition func() error) (err error) {
	for deadline := time.Now().Add(stage.Patience); time.Now().Before(deadline) && d.ctx.Err() == nil; time.Sleep(50 * time.Millisecond) {
		if err = condition(); err == nil {
			return nil
		}
	}
	return errors.Join(err, d.ctx.Err())
}

func (d *story) closed() error { return d.ports(posture.EntryPort) }

var (
	requestNumber = regexp.MustCompile(`Request number:  (\d{3} \d{3})`)
	codeShown     = regexp.MustCompile(`"code":\s*"(\d{3} \d{3})"`)
)

// pair plays both people.
func (d *story) pair() error {
	args := []string{"pair", d.V4.String(), "--app-name", "laptop"}
	typed("laptop", "bitbox-app", args)
	command := d.appCommand(args...)
	output := &lockedBuffer{}
	command.Stdout, command.Stderr = output, output
	keyboard, err := command.StdinPipe()
	if err != nil {
		return err
	}
	if err := command.Start(); err != nil {
		return err
	}
	ended := make(chan error, 1)
	go func() { ended <- command.Wait() }()
	defer func() { _ = command.Process.Kill() }() // gone is as good
	var number string
	if err := d.until(func() error { return output.find(requestNumber, &number) }); err != nil {
		return err
	}
	line("laptop | request number %s", number)
	accept := []string{"pairing", "accept", strings.ReplaceAll(number, " ", "")}
	typed("base  ", "bitbox-base", accept)
	if err := d.until(func() error { _, err := d.Exec(append([]string{"bitbox-base"}, accept...)...); return err }); err != nil {
		return err
	}
	var code string
	err = d.until(func() error {
		out, err := d.Exec("bitbox-base", "pairing", "list", "--json")
		if err == nil {
			if found := codeShown.FindStringSubmatch(out); found != nil {
				code = found[1]
				return nil
			}
			err = errors.New("the Base shows no code")
		}
		return err
	})
	if err != nil {
		return err
	}
	line("base   | code %s", code)
	line("laptop > %s (read at the Base, typed into the App)", code)
	if _, err := io.WriteString(keyboard, code+"\n"); err != nil {
		return err
	}
	if err := d.atBase("pairing", "confirm", code); err != nil {
		return err
	}
	select {
	case err = <-ended:
	case <-d.ctx.Done():
		err = d.ctx.Err()
	}
	if text := output.String(); err != nil || !strings.Contains(text, "Paired with") {
		return fmt.Errorf("the App was not paired: %w: %s", err, text)
	}
	line("laptop | paired, as owner")
	return nil
}

func (d *story) status() error {
	if err := d.onApp(`^This App +laptop \(owner\)$`, "status"); err != nil {
		return err
	}
	return d.onApp(`.`, "posture", "show")
}

// node waits for the first block, which the node makes when it has started.
func (d *story) node() error {
	d.Until("the node has a block", func() error {
		out, err := d.appCommand("node", "blocks").CombinedOutput()
		if err == nil && !strings.Contains(string(out), "block 1 ") {
			err = fmt.Errorf("it says %s", out)
		}
		return err
	})
	if err := d.onApp(`^Network +regtest$`, "node"); err != nil {
		return err
	}
	return d.onApp(`block 1 `, "node", "blocks", "--lines", "3")
}

func (d *story) ssh() error {
	_, private, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		return err
	}
	if d.login, err = ssh.NewSignerFromSigner(private); err != nil {
		return err
	}
	key := filepath.Join(d.dir, "id_ed25519.pub")
	if err := os.WriteFile(key, append(bytes.TrimSpace(ssh.MarshalAuthorizedKey(d.login.PublicKey())), " laptop\n"...), 0o600); err != nil {
		return err
	}
	if err := d.onApp(`will be added`, "ssh", "keys", "add", key, "--yes"); err != nil {
		return err
	}
	if err := d.ports(posture.EntryPort); err != nil {
		return err
	}
	if err := d.onApp(`\[opens\] SSH will be switched on`, "ssh", "enable", "--for", "1h", "--yes"); err != nil {
		return err
	}
	if err := d.ports(posture.EntryPort, sshaccess.Port); err != nil {
		return err
	}
	out, err := d.run("id --user --name")
	if err != nil || strings.TrimSpace(out) != sshaccess.User {
		return fmt.Errorf("log in by SSH: %q: %w", out, err)
	}
	line("laptop $ ssh %s@%s id --user --name", sshaccess.User, d.V4)
	printed([]byte(out))
	return nil
}

// run runs a command on the Base by SSH.
func (d *story) run(command string) (string, error) {
	client, err := ssh.Dial("tcp", netip.AddrPortFrom(d.V4, sshaccess.Port).String(), &ssh.ClientConfig{
		User: sshaccess.User, Auth: []ssh.AuthMethod{ssh.PublicKeys(d.login)}, Timeout: 10 * time.Second,
		HostKeyCallback: ssh.InsecureIgnoreHostKey(), // this very container, made a moment ago
	})
	if err != nil {
		return "", err
	}
	defer client.Close()
	session, err := client.NewSession()
	if err != nil {
		return "", err
	}
	defer session.Close()
	out, err := session.CombinedOutput(command)
	return string(out), err
}

func (d *story) lockdown() error {
	if err := d.onApp(`.`, "lockdown", "--yes"); err != nil {
		return err
	}
	if err := d.ports(posture.EntryPort); err != nil {
		return err
	}
	return d.onApp(`(?i)lockdown`, "posture", "show")
}

func (d *story) reboot() error {
	line("base     reboots")
	d.Stop()
	begun := time.Now()
	d.Start()
	for {
		out, err := d.appCommand("status").CombinedOutput()
		if err == nil {
			break
		}
		if time.Since(begun) > stage.Patience || d.ctx.Err() != nil {
			return fmt.Errorf("the Base does not answer after its reboot: %s", out)
		}
	}
	line("laptop | the App was answered %.1f s after the power came back", time.Since(begun).Seconds())
	if err := d.onApp(`^This App +laptop \(owner\)$`, "status"); err != nil {
		return err
	}
	if err := d.ports(posture.EntryPort); err != nil {
		return err
	}
	return d.onApp(`(?i)lockdown`, "posture", "show")
}
