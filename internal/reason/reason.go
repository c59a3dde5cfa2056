// Package reason says in the words of this project why something failed. Owners read these words: in the
// signed log of changes, in refusals, and as the end of an update. The text of a library, of the operating
// system or of a program is for engineers: the journal has it.
package reason

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"os"
	"reflect"
	"strings"
	"syscall"
)

// module is the path of this module. The types of errors that are declared in it have texts of our own.
const module = "github.com/BitBoxSwiss/bitbox-base/"

// Teller is an error that has a reason for people besides its text for engineers.
type Teller interface {
	error
	Reason() string
}

// Of is the text of an error in one line. In it, words of our own replace each error that a library or the
// system has made. Errors made by package errors or fmt count as our own, except for known ones of the
// standard library: nothing tells where they were made.
func Of(err error) string {
	return strings.Join(strings.Fields(strings.ReplaceAll(text(err), "\n", "; ")), " ")
}

func text(err error) string {
	if teller, is := err.(Teller); is {
		return teller.Reason()
	}
	if isForeign(err) {
		return words(err)
	}
	all := err.Error()
	var causes []error
	switch wrapping := err.(type) {
	case interface{ Unwrap() error }:
		causes = []error{wrapping.Unwrap()}
	case interface{ Unwrap() []error }:
		causes = wrapping.Unwrap()
	}
	// From the end: a cause usually stands at the end of a text, and several stand in their order.
	end := len(all)
	for n := len(causes) - 1; n >= 0; n-- {
		if causes[n] == nil {
			continue
		}
		old := causes[n].Error()
		at := strings.LastIndex(all[:end], old)
		if at < 0 {
			continue // the text does not show it
		}
		all, end = all[:at]+text(causes[n])+all[at+len(old):], at
	}
	return all
}

// ownPackages declare types of errors that only carry the text of their maker.
var ownPackages = map[string]bool{"errors": true, "fmt": true, "main": true}

func isForeign(err error) bool {
	for _, known := range sentinels {
		if err == known.err {
			return true
		}
	}
	kind := reflect.TypeOf(err)
	if kind.Kind() == reflect.Pointer {
		kind = kind.Elem()
	}
	return !ownPackages[kind.PkgPath()] && !strings.HasPrefix(kind.PkgPath(), module)
}

const (
	tooLong   = "it took too long"
	broke     = "the connection or the file ended too early"
	isMissing = "it does not exist"
	forbidden = "permission denied"
	diskFull  = "the disk is full"
)

// sentinels are errors of the standard library without a type of their own.
var sentinels = []struct {
	err   error
	words string
}{
	{context.Canceled, "it was interrupted"}, {context.DeadlineExceeded, tooLong}, {os.ErrDeadlineExceeded, tooLong},
	{io.EOF, broke}, {io.ErrUnexpectedEOF, broke}, {io.ErrClosedPipe, broke}, {net.ErrClosed, broke}, {fs.ErrClosed, broke},
	{io.ErrShortWrite, "it was written in part only"}, {bufio.ErrTooLong, "a line is too long"},
	{fs.ErrNotExist, isMissing}, {fs.ErrPermission, forbidden},
	{fs.ErrExist, "it exists already"}, {os.ErrProcessDone, "the program has ended already"},
}

// numbers are the most frequent errors of the system.
var numbers = map[syscall.Errno]string{
	syscall.ENOSPC: diskFull, syscall.EDQUOT: diskFull, syscall.EROFS: "the disk is read-only", syscall.EIO: "the disk is failing",
	syscall.ENOENT: isMissing, syscall.EACCES: forbidden, syscall.EPERM: forbidden,
	syscall.ECONNREFUSED: "nothing answers there", syscall.ETIMEDOUT: tooLong, syscall.EPIPE: broke, syscall.ECONNRESET: broke,
	syscall.ENETUNREACH: "the network is not reachable", syscall.EHOSTUNREACH: "the network is not reachable",
	syscall.EAGAIN: "the machine is out of a resource", syscall.EMFILE: "the machine is out of a resource",
	syscall.ENOMEM: "the machine is out of a resource",
}

// words says what an error of a library or of the system means.
func words(err error) string {
	var number syscall.Errno
	var program interface{ ExitCode() int }
	var late interface{ Timeout() bool }
	switch {
	case errors.As(err, &number) && numbers[number] != "":
		return numbers[number]
	case errors.As(err, &program) && program.ExitCode() < 0:
		return "the program was ended from outside"
	case errors.As(err, &program):
		return fmt.Sprintf("the program ended with status %d", program.ExitCode())
	case errors.As(err, &late) && late.Timeout():
		return tooLong
	}
	for _, known := range sentinels {
		if errors.Is(err, known.err) {
			return known.words
		}
	}
	if errors.As(err, &number) {
		return fmt.Sprintf("the system refused it (%d)", int(number))
	}
	return "it failed; the Base's log says why"
}
