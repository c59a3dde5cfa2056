package main

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
	"time"

	"github.com/BitBoxSwiss/bitbox-base/test/stage"
)

// nginx is Debian's NGINX before a Base and before its rival, with the settings of the
// appliance (internal/helper/proxy) but for what limits one address.
type nginx struct {
	process *exec.Cmd
	ended   chan error
}

// nginxTime bounds how long it may take to listen.
const nginxTime = 10 * time.Second

// nginxConfiguration: the module, the directory, then listen and pass on for ours
// and for the rival.
const nginxConfiguration = `load_module %[1]s;
daemon off;
user root;
pid %[2]s/nginx.pid;
error_log %[2]s/error.log;
worker_processes auto;
events { worker_connections 8192; }
stream {
    proxy_half_close on;
    proxy_buffer_size 64k;
    server {
        listen %[3]s so_keepalive=60s:10s:3;
        proxy_protocol on;
        proxy_timeout 25h;
        proxy_pass unix:%[4]s;
    }
    server {
        listen %[5]s so_keepalive=60s:10s:3;
        proxy_timeout 25h;
        proxy_pass %[6]s;
    }
}
`

// startNGINX passes connections on, from our to the unix socket ours, and from their to
// the TCP address theirs.
func startNGINX(dir, our, ours, their, theirs string) (*nginx, error) {
	root, err := stage.Debian()
	if err != nil {
		return nil, err
	}
	config := filepath.Join(dir, "nginx.conf")
	text := fmt.Sprintf(nginxConfiguration, filepath.Join(root, "usr/lib/nginx/modules/ngx_stream_module.so"), dir, our, ours, their, theirs)
	if err := os.WriteFile(config, []byte(text), 0o600); err != nil {
		return nil, err
	}
	// Its libraries are those of the root, so its loader is, too.
	libraries := filepath.Join(root, "usr/lib/x86_64-linux-gnu")
	loader := filepath.Join(root, "lib64/ld-linux-x86-64.so.2")
	n := &nginx{ended: make(chan error, 1)}
	n.process = exec.Command(loader, "--library-path", libraries, filepath.Join(root, "usr/sbin/nginx"),
		"-p", dir, "-e", filepath.Join(dir, "error.log"), "-c", config)
	n.process.Stderr = os.Stderr
	n.process.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGTERM}
	if err := n.process.Start(); err != nil {
		return nil, fmt.Errorf("start NGINX: %w", err)
	}
	go func() { n.ended <- n.process.Wait() }()
	return n, errors.Join(n.listens(our), n.listens(their))
}

func (n *nginx) listens(address string) error {
	ctx, cancel := context.WithTimeout(context.Background(), nginxTime)
	defer cancel()
	for {
		conn, err := net.Dial("tcp", address)
		if err == nil {
			return conn.Close()
		}
		select {
		case ended := <-n.ended:
			n.ended <- ended
			return fmt.Errorf("NGINX has ended: %w", ended)
		case <-ctx.Done():
			return fmt.Errorf("wait for NGINX: %w", err)
		case <-time.After(10 * time.Millisecond):
		}
	}
}

func (n *nginx) stop() error {
	if err := n.process.Process.Signal(syscall.SIGTERM); err != nil {
		return err
	}
	return <-n.ended
}
