// Package window is the App's graphical interface: a page that the App serves on 127.0.0.1, to
// a browser of the same user of the same computer and to nobody else. The Base serves no page.
//
//   - door.go decides which request comes in;
//   - ticket.go has what a browser enters with, and what keeps it in;
//   - routes.go is the one table of what can be asked;
//   - deeds.go takes forms, and forms.go makes deeds of them;
//   - stream.go tells an open page what has changed;
//   - life.go decides when the process ends, and when a page locks;
//   - single.go hands a second start to the running process;
//   - settings.go keeps what a person has chosen, listener.go and server.go are the HTTP around it;
//   - peer/ asks the kernel to which user a connection belongs, browser/ opens a browser;
//   - pages/ and static/ are what a person sees.
//
// # What a page's script and this server agree on
//
// A document has three things for the script: <meta name="proof" content="…">, the key with which
// the server proves itself (64 hex digits, [pages.Frame]); data-page on <body>, the path of the
// page; and an id for each live part. The script makes a tab id (32 hex digits) for each document
// that it is loaded into, and a nonce (32 hex digits) for each stream that it opens.
//
//	POST /enter   form: ticket=…             from the fragment of /enter#…, by the script
//	              form: code=…               typed, also without the script
//	    204 and a cookie; the script goes on with location.replace("/")
//	    303 to / if the form was sent by the browser itself
//	    403 {"refused":"a sentence"}         the ticket is late, was used, or is unknown
//	    401 {"code":true,"refused":"…"}      the code of the terminal is needed
//
//	GET /stream?page=/base/…&tab=…&nonce=…&shape=…   text/event-stream; each event is one line of JSON:
//	    {"proof":"…"}                        first; HMAC-SHA-256 of the nonce's 16 bytes with the
//	                                         key's 32 bytes, in hex. The script changes nothing
//	                                         on the page unless it is right
//	    {"title":"…","parts":[{"id":"…","html":"…"},…]}  everything at first, then what changed. A part
//	                                         without an id is the whole document: the page has other
//	                                         parts, and its live ones follow in the same event
//	    {"alive":true}                       each 15 s; after 35 s of silence the script says since
//	                                         when the page is out of date
//	    {"idle":60}                          the page locks in 60 seconds, unless the script
//	                                         reports a key or a pointer; {"idle":0}: no longer
//	    {"locked":"a sentence"}              last: the page is locked
//	    {"gone":"a sentence"}                last: the App ends
//	    401, 403, 503                        locked; refused; too many pages are open
//
//	POST /tab     form: tab=…&state=shown|hidden|closed&active=0|1
//	    204                                  the session is open
//	    401                                  it is locked, or another one. The script says so in its own
//	                                         words: nobody has proven who answers
//
// The script opens the stream only while the page is visible. It posts /tab when the page is
// hidden, shown or left (sendBeacon), each 50 s while the page is hidden or locked, and at most
// each 20 s after keys or pointers (active=1). A page that does neither is over after three
// minutes. After a refusal of the stream the script posts /tab: no answer means that the App is
// gone, 401 that the page is locked, 204 that it may open the stream again. A locked page hides
// everything and keeps what was typed; once another tab has entered, its /tab answers 204, and
// the stream brings the page back.
//
// A form is sent as application/x-www-form-urlencoded, except one with a file:
// multipart/form-data, whose file is the last field. A browser that runs no script can do all but
// enter by ticket.
package window
