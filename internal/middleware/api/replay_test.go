package api

import (
	"context"
	"fmt"
	"io/fs"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"

	basev1 "github.com/BitBoxSwiss/bitbox-base/api/base/v1"
	"github.com/BitBoxSwiss/bitbox-base/api/base/v1/baserpc"
	systemv1 "github.com/BitBoxSwiss/bitbox-base/api/system/v1"
	"github.com/BitBoxSwiss/bitbox-base/internal/failpoint"
	"github.com/BitBoxSwiss/bitbox-base/internal/helperclient"
	"github.com/BitBoxSwiss/bitbox-base/internal/middleware/events"
	"github.com/BitBoxSwiss/bitbox-base/internal/middleware/registry/registrytest"
	"github.com/BitBoxSwiss/bitbox-base/internal/protocol/rpc"
)

func TestMissedEventsAreReplayedAlsoAfterARestart(t *testing.T) {
	h := registrytest.New(t, nil)
	boss := h.Active("boss", owner)
	h.Active("phone", viewer)
	h.Restart()
	h.Events.PublishStart("a boot")
	h.Restart()
	h.Events.PublishStart("a boot")
	h.Restart()
	h.Events.PublishStart("another boot")
	l := serve(t, h, nil)
	client := baserpc.NewEventsServiceClient(l.client(boss))
	replay := func(after uint64) (past []string, subscribed *basev1.SubscribedEvent) {
		t.Helper()
		stream, err := client.WatchEvents(t.Context(), &basev1.WatchEventsRequest{Replay: true, After: after, PastOnly: true})
		if err != nil {
			t.Fatal(err)
		}
		for e, err := range stream.All() {
			if err != nil {
				t.Fatal(err)
			}
			if e.GetSubscribed() != nil {
				subscribed = e.GetSubscribed()
				continue
			}
			if !e.GetPast() || subscribed != nil || e.GetSequence() == 0 {
				t.Errorf("%v", e)
			}
			text := events.KindOf(e)
			if e.GetBaseStarted().GetBooted() {
				text += " booted"
			}
			past = append(past, text)
		}
		return past, subscribed
	}
	past, subscribed := replay(0)
	want := []string{"app_paired", "app_paired", "base_started", "base_started", "base_started booted"}
	if !slices.Equal(past, want) || subscribed.GetLastSequence() != 5 || subscribed.GetGap() {
		t.Errorf("%q, %v", past, subscribed)
	}
	if past, subscribed := replay(4); len(past) != 1 || subscribed.GetLastSequence() != 5 {
		t.Errorf("after the fourth: %q, %v", past, subscribed)
	}
	if past, subscribed := replay(99); len(past) != 0 || subscribed.GetLastSequence() != 5 {
		t.Errorf("after one that never was: %q, %v", past, subscribed)
	}
}

// noting is a helper that notes what it is asked.
type noting struct {
	mu    sync.Mutex
	asked []*systemv1.SystemRequest
}

func (n *noting) Stream(_ context.Context, request *systemv1.SystemRequest, receive func(*systemv1.SystemReply) error) error {
	n.mu.Lock()
	n.asked = append(n.asked, request)
	n.mu.Unlock()
	return receive(&systemv1.SystemReply{})
}

// noted serves the API with a helper that notes what it is asked.
func noted(t *testing.T) (*hall, *noting) {
	t.Helper()
	helper := &noting{}
	l := serve(t, registrytest.New(t, nil), nil)
	l.Helper = helperclient.Client{Port: helper}
	return l, helper
}

func TestTheHelperIsToldForWhichAppItIsAsked(t *testing.T) {
	l, helper := noted(t)
	boss, phone := l.house.Active("boss", owner), l.house.Active("phone", viewer)
	of := func(a *registrytest.App) *caller { return l.client(a) }
	if _, err := baserpc.NewChangesServiceClient(of(phone)).ListChanges(t.Context(),
		&basev1.ListChangesRequest{Nonce: make([]byte, 32)}); err != nil {
		t.Fatal(err)
	}
	apps := baserpc.NewAppsServiceClient(of(boss))
	if _, err := apps.RenameApp(t.Context(), &basev1.RenameAppRequest{Id: phone.ID(), Name: "tablet"}); err != nil {
		t.Fatal(err)
	}
	if _, err := apps.RevokeApp(t.Context(), &basev1.RevokeAppRequest{Id: boss.ID()}); rpc.CodeOf(err) != rpc.Precondition {
		t.Fatal(err)
	}
	if _, err := apps.RevokeApp(t.Context(), &basev1.RevokeAppRequest{Id: phone.ID()}); err != nil {
		t.Fatal(err)
	}
	helper.mu.Lock()
	defer helper.mu.Unlock()
	var got []string
	for _, m := range helper.asked {
		text := fmt.Sprintf("%T", m.GetVerb())
		if c := m.GetRecordChange(); c != nil {
			text = c.GetWhat() + " " + c.GetDetail()
			if c.GetFailure() != "" {
				text += " FAILED"
			}
		}
		got = append(got, m.GetAppId()+" "+text)
	}
	want := []string{
		phone.ID() + " *systemv1.SystemRequest_ListChanges",
		boss.ID() + " rename-app phone (" + phone.ID() + ") to tablet",
		boss.ID() + " revoke-app boss (" + boss.ID() + ") FAILED",
		boss.ID() + " revoke-app tablet (" + phone.ID() + ")",
	}
	if !slices.Equal(got, want) {
		t.Errorf("the helper was asked\n%s\nnot\n%s", strings.Join(got, "\n"), strings.Join(want, "\n"))
	}
}

// The log of changes is for owners: the text of the system is not in it.
func TestAFailedRenameOrRevocationIsRecordedInOurOwnWords(t *testing.T) {
	l, helper := noted(t)
	boss, phone := l.house.Active("boss", owner), l.house.Active("phone", viewer)
	apps := baserpc.NewAppsServiceClient(l.client(boss))
	t.Cleanup(failpoint.Set(func(step string) error {
		if strings.HasPrefix(step, "before: store a pairing as ") {
			return &fs.PathError{Op: "write", Path: "/var/lib/x", Err: syscall.ENOSPC}
		}
		return nil
	}))
	if _, err := apps.RenameApp(t.Context(), &basev1.RenameAppRequest{Id: phone.ID(), Name: "tablet"}); err == nil {
		t.Fatal("the App was renamed")
	}
	if _, err := apps.RevokeApp(t.Context(), &basev1.RevokeAppRequest{Id: phone.ID()}); err == nil {
		t.Fatal("the App was revoked")
	}
	helper.mu.Lock()
	defer helper.mu.Unlock()
	var recorded []string
	for _, m := range helper.asked {
		if c := m.GetRecordChange(); c != nil {
			recorded = append(recorded, c.GetFailure())
		}
	}
	if len(recorded) != 2 {
		t.Fatalf("%q was recorded", recorded)
	}
	for _, failure := range recorded {
		if !strings.HasSuffix(failure, ": the disk is full") || strings.Contains(failure, "/") || strings.Contains(failure, "no space") {
			t.Errorf("%q was recorded", failure)
		}
	}
}
