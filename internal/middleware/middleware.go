// Package middleware is the Base's API daemon: it knows who is paired, and
// serves those.
//
//   - Registry holds the identity of the Base and its pairings, on disk, and the
//     live sessions. It is what internal/middleware/admission asks who may come in.
//   - Server serves the API (api/base/v1) to the sessions, by Connect over HTTP/2.
//     One table, roles, says which role may call what.
//
// The daemon has no privilege. What needs some, it asks others for: the ceremony
// authority about pairing, System about the machine.
package middleware
