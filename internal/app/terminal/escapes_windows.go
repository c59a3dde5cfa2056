package terminal

import "golang.org/x/sys/windows"

// understandsEscapes makes the Windows console understand escape sequences; a console that is too
// old for that does not.
func understandsEscapes(fd int) bool {
	handle := windows.Handle(fd)
	var mode uint32
	if err := windows.GetConsoleMode(handle, &mode); err != nil {
		return false
	}
	return windows.SetConsoleMode(handle, mode|windows.ENABLE_VIRTUAL_TERMINAL_PROCESSING) == nil
}
