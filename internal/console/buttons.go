package console

import (
	"encoding/binary"
	"time"
)

const (
	// holdBoth is how long both buttons are held for a factory reset.
	holdBoth = 5 * time.Second
	// holdPower is how long a single button is held to say yes.
	holdPower = 2 * time.Second
	// bounce is how long the contacts of a button may chatter: changes that follow another one
	// within this time are ignored.
	bounce = 50 * time.Millisecond
)

// inputEvent is struct input_event of the kernel (linux/input.h).
type inputEvent struct {
	at    time.Duration // of a clock that never goes back
	kind  uint16
	code  uint16
	value int32
}

// inputEventSize is that of 64-bit machines, the only ones that a Base is built for:
// seconds and microseconds (8 bytes each), type and code (2 each), value (4).
const inputEventSize = 24

// Kinds and codes of linux/input-event-codes.h.
const (
	evKey       = 0x01
	codeEscape  = 1
	codeEnter   = 28
	codeKPEnter = 96
	codePower   = 116
	codeCancel  = 223
	codeButton0 = 0x100
	codeButton1 = 0x101
	codeOK      = 0x160
	codeMax     = 0x2ff
)

// parseInputEvents reads as many whole events as b holds.
func parseInputEvents(b []byte) []inputEvent {
	var events []inputEvent
	for ; len(b) >= inputEventSize; b = b[inputEventSize:] {
		seconds, micros := int64(binary.NativeEndian.Uint64(b)), int64(binary.NativeEndian.Uint64(b[8:]))
		events = append(events, inputEvent{
			at:    time.Duration(seconds)*time.Second + time.Duration(micros)*time.Microsecond,
			kind:  binary.NativeEndian.Uint16(b[16:]),
			code:  binary.NativeEndian.Uint16(b[18:]),
			value: int32(binary.NativeEndian.Uint32(b[20:])),
		})
	}
	return events
}

// button is what a key of a device of buttons means.
type button int

const (
	buttonNone button = iota
	buttonYes
	buttonNo
	buttonPower // a single button is both: short press no, long press yes
)

func buttonOf(code uint16) button {
	switch code {
	case codeEnter, codeKPEnter, codeOK, codeButton0:
		return buttonYes
	case codeEscape, codeCancel, codeButton1:
		return buttonNo
	case codePower:
		return buttonPower
	}
	return buttonNone
}

// deviceKind is the console's use of an input device.
type deviceKind int

const (
	deviceOther deviceKind = iota
	// deviceButtons has a few keys that the console uses, and only the console may read them.
	deviceButtons
	// devicePower has only the power button. The console uses it during a question; otherwise it
	// switches the machine off, as everywhere.
	devicePower
)

// classify decides by the keys of a device, a bit for each code. A device with letters or digits
// is a keyboard; its keys come through the terminal.
func classify(keys []byte) deviceKind {
	has := func(code int) bool { return code/8 < len(keys) && keys[code/8]&(1<<(code%8)) != 0 }
	const (
		key1, key0, keyQ, keyM = 2, 11, 16, 50 // from 1 to 0, from Q to M
		keypad7, keypad0       = 71, 82
	)
	kind := deviceOther
	for code := range codeMax + 1 {
		switch {
		case !has(code):
		case code >= key1 && code <= key0, code >= keyQ && code <= keyM && code != codeEnter && code != 29 && code != 42,
			code >= keypad7 && code <= keypad0 && code != 74 && code != 78:
			return deviceOther
		case buttonOf(uint16(code)) == buttonPower && kind == deviceOther:
			kind = devicePower
		case buttonOf(uint16(code)) == buttonYes, buttonOf(uint16(code)) == buttonNo:
			kind = deviceButtons
		}
	}
	return kind
}

// buttons turns presses into answers. One press gives one answer, when it ends.
type buttons struct {
	down  map[uint16]bool
	since map[uint16]time.Duration // the last change that counted, by code
	edge  map[uint16]time.Duration // the last change at all
	// spent: both were down at once; neither answers until both are up.
	spent bool
	held  bool // that was reported
}

// event takes a change; a repetition by the kernel is not one.
func (b *buttons) event(e inputEvent) keyKind {
	which := buttonOf(e.code)
	if e.kind != evKey || which == buttonNone || e.value < 0 || e.value > 1 {
		return 0
	}
	if b.down == nil {
		b.down, b.since, b.edge = map[uint16]bool{}, map[uint16]time.Duration{}, map[uint16]time.Duration{}
	}
	pressed := e.value == 1
	before := b.since[e.code]
	edge, known := b.edge[e.code]
	b.edge[e.code] = e.at
	if b.down[e.code] == pressed || pressed && known && e.at-edge < bounce {
		return 0
	}
	b.down[e.code], b.since[e.code] = pressed, e.at
	if pressed {
		b.spent = b.spent || b.isDown(buttonYes) && b.isDown(buttonNo)
		return 0
	}
	if b.spent {
		if !b.isDown(buttonYes) && !b.isDown(buttonNo) {
			b.spent, b.held = false, false
		}
		return 0
	}
	switch {
	case which == buttonYes, which == buttonPower && e.at-before >= holdPower:
		return keyYes
	default:
		return keyNo
	}
}

// hold reports, once, that both buttons have been down for holdBoth.
func (b *buttons) hold(now time.Duration) keyKind {
	if b.held || !b.isDown(buttonYes) || !b.isDown(buttonNo) {
		return 0
	}
	for code, down := range b.down {
		if down && now-b.since[code] < holdBoth {
			return 0
		}
	}
	b.held = true
	return keyBothHeld
}

func (b *buttons) isDown(which button) bool {
	for code, down := range b.down {
		if down && buttonOf(code) == which {
			return true
		}
	}
	return false
}
