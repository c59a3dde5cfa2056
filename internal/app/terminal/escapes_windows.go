package terminal

import "golang.org/x/sys/windows"

// understandsEscapes has the console of Windows understand escape sequences; one that
// is too old for that does not.
func understandsEscapes(fd int) bool {
	handle := windows.Handle(fd)
	var mode uint32
	if err := windows.GetConsoleMode(handle, &mode); err != nil {
		return false
	}
	return windows.SetConsoleMode(handle, mode|windows.ENABLE_VIRTUAL_TERMINAL_PROCESSING) == nil
}
