// Package static has the files that a page of the window loads beside itself. All are our own, and
// part of the program.
package static

import (
	"crypto/sha256"
	_ "embed" // the files are embedded
	"encoding/base64"
	"encoding/hex"
	"path"
	"strings"
)

// File is a static file.
type File struct {
	// Path names the content, such as "/static/app.0123456789abcdef.js".
	Path string
	// Integrity is its hash for the document that names it: a browser may have kept another file of
	// that path, from a program that had this port before.
	Integrity string
	// Type is the Content-Type.
	Type    string
	Content []byte
}

var (
	//go:embed style.css
	style []byte
	//go:embed app.js
	script []byte
	//go:embed icon.svg
	icon []byte
)

// The files.
var (
	Style  = file("style.css", "text/css; charset=utf-8", style)
	Script = file("app.js", "text/javascript; charset=utf-8", script)
	Icon   = file("icon.svg", "image/svg+xml", icon)
)

// All lists them.
var All = []File{Style, Script, Icon}

func file(name, kind string, content []byte) File {
	hash, extension := sha256.Sum256(content), path.Ext(name)
	const letters = 16 // 64 bits tell versions of our own files apart
	return File{
		Path:      "/static/" + strings.TrimSuffix(name, extension) + "." + hex.EncodeToString(hash[:])[:letters] + extension,
		Integrity: "sha256-" + base64.StdEncoding.EncodeToString(hash[:]), Type: kind, Content: content,
	}
}
