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
	"slices"
	"strings"
	"syscall"

	"github.com/BitBoxSwiss/bitbox-base/internal/harmless"
)

// module is the path of this module. The types of errors that are declared in it have texts of our own. Program
// main is ours, too.
const module = "github.com/BitBoxSwiss/bitbox-base/"

// Teller is an error that has a reason for people besides its text for engineers.
type Teller interface {
	error
	Reason() string
}

// own is an error that New or Errorf has made: its text is ours, and a library could not have made it.
type own struct {
	text   string  // for engineers
	told   string  // for people
	causes []error // those that the format wraps
}

// New makes an error, as errors.New does, whose text people may read.
func New(text string) error { return &own{text: text, told: text} }

// Errorf makes an error, as fmt.Errorf does, whose format people may read. Of replaces what libraries have made
// among its arguments.
func Errorf(format string, args ...any) error {
	made := fmt.Errorf(format, args...)
	told := slices.Clone(args)
	for i, arg := range args {
		if err, is := arg.(error); is {
			told[i] = retold{err}
		}
	}
	return &own{text: made.Error(), told: fmt.Errorf(format, told...).Error(), causes: causesOf(made)}
}

func (o *own) Error() string   { return o.text }
func (o *own) Reason() string  { return o.told }
func (o *own) Unwrap() []error { return o.causes }

// retold stands for an error in a text for people.
type retold struct{ error }

func (r retold) Error() string { return text(r.error) }

func causesOf(err error) []error {
	var causes []error
	switch wrapping := err.(type) {
	case interface{ Unwrap() error }:
		causes = []error{wrapping.Unwrap()}
	case interface{ Unwrap() []error }:
		causes = slices.Clone(wrapping.Unwrap())
	}
	return slices.DeleteFunc(causes, func(cause error) bool { return cause == nil })
}

// Of is the text of an error in one harmless line, as far as it was made in this module: by New or Errorf, or as
// a type that is declared here. Words of our own replace each other error, also one that package errors or fmt
// has made: nothing tells whether a library had it made.
func Of(err error) string {
	line := strings.ReplaceAll(strings.ToValidUTF8(text(err), "?"), "\n", "; ")
	return strings.Join(strings.Fields(harmless.Line(line)), " ")
}

func text(err error) string {
	if reflect.TypeOf(err) == joined {
		var all []string
		for _, cause := range causesOf(err) {
			all = append(all, text(cause))
		}
		return strings.Join(all, "; ")
	}
	if !isOurs(err) {
		return words(err)
	}
	if teller, is := err.(Teller); is {
		return teller.Reason()
	}
	// A type of ours has one text. A cause usually stands at its end, and several stand in their order.
	all := err.Error()
	end := len(all)
	for _, cause := range slices.Backward(causesOf(err)) {
		old := cause.Error()
		at := strings.LastIndex(all[:end], old)
		if at < 0 {
			continue // the text does not show it
		}
		all, end = all[:at]+text(cause)+all[at+len(old):], at
	}
	return all
}

// joined is the type of several errors at once, which has no text of its own.
var joined = reflect.TypeOf(errors.Join(io.EOF))

func isOurs(err error) bool {
	kind := reflect.TypeOf(err)
	if kind == joined {
		return true
	}
	if kind.Kind() == reflect.Pointer {
		kind = kind.Elem()
	}
	return kind.PkgPath() == "main" || strings.HasPrefix(kind.PkgPath(), module)
}

// ours is the first error of ours that another one wraps, nil if there is none.
func ours(err error) error {
	for _, cause := range causesOf(err) {
		if isOurs(cause) {
			return cause
		}
		if found := ours(cause); found != nil {
			return found
		}
	}
	return nil
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
	if wrapped := ours(err); wrapped != nil {
		return text(wrapped)
	}
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
