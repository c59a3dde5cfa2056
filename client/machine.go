package client

import (
	"context"
	"time"

	basev1 "github.com/BitBoxSwiss/bitbox-base/api/base/v1"
)

const (
	// lookAgain is the pause between two checks whether a Base is back.
	lookAgain = time.Second
	// lookTime bounds one check.
	lookTime = 10 * time.Second
)

// AwaitReboot returns when the Base answers again after Machine.Reboot, which was answered at
// rebooted. A Base that has not yet restarted does not count: its daemon must be younger than the
// answer.
func (s *Session) AwaitReboot(ctx context.Context, rebooted time.Time) (*basev1.GetInfoResponse, error) {
	for {
		s.transport.reconnect()
		info, err := s.uptime(ctx)
		if err == nil && time.Duration(info.GetDaemonUptimeSeconds())*time.Second < time.Since(rebooted) {
			return info, nil
		}
		if err != nil && !lost(err) {
			return nil, err
		}
		select {
		case <-ctx.Done():
			return nil, fail(ErrUnreachable, ctx.Err(),
				"the Base is restarting and has not answered yet; check it, or wait a little longer")
		case <-time.After(lookAgain):
		}
	}
}

func (s *Session) uptime(ctx context.Context) (*basev1.GetInfoResponse, error) {
	ctx, cancel := context.WithTimeout(ctx, lookTime)
	defer cancel()
	return s.Info.GetInfo(ctx, &basev1.GetInfoRequest{})
}

// InstallDebianUpdates has the Base install Debian's pending updates, and gives each line of the
// installer to progress. The Base continues if this ends early.
func (s *Session) InstallDebianUpdates(ctx context.Context, progress func(line string) error) error {
	stream, err := s.update.InstallDebianUpdates(ctx, &basev1.InstallDebianUpdatesRequest{})
	if err != nil {
		return err
	}
	for message, err := range stream.All() {
		switch {
		case err != nil && lost(err) && ctx.Err() == nil:
			return fail(ErrUpdateUnknown, err, "the connection ended while the Base installs Debian's updates; the Base continues, and the same command follows it again")
		case err != nil:
			return err
		case message.GetDone():
			return nil
		}
		if err := progress(message.GetProgress()); err != nil {
			return err
		}
	}
	return fail(ErrUpdateUnknown, nil, "the Base did not say how the installation of Debian's updates ended; 'bitbox-app logs debian-updates' shows it")
}
