//go:build linux

package main

import (
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"time"

	"github.com/rogpeppe/go-internal/testscript"

	"github.com/BitBoxSwiss/bitbox-base/internal/testbed/machinetest"
)

// feedCommand serves a list of releases with one of an image, and the image:
//
//	feed VERSION [AGE]
//
// The address is in $FEED.
func feedCommand(ts *testscript.TestScript, _ bool, args []string) {
	age := time.Minute
	if len(args) > 1 {
		var err error
		age, err = time.ParseDuration(args[1])
		ts.Check(err)
	}
	folder := filepath.Join(ts.Getenv("WORK"), "served")
	ts.Check(os.MkdirAll(folder, 0o700))
	feed, err := machinetest.Feed(args[0], time.Now().Add(-age))
	ts.Check(err)
	ts.Check(os.WriteFile(filepath.Join(folder, "feed"), feed, 0o600))
	ts.Check(os.WriteFile(filepath.Join(folder, "image.release"), machinetest.ImageRelease(args[0]), 0o600))
	if ts.Getenv("FEED") == "" {
		server := httptest.NewServer(http.FileServer(http.Dir(folder)))
		ts.Defer(server.Close)
		ts.Setenv("FEED", server.URL+"/feed")
	}
}
