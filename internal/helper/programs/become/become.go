// Package become makes a process that was started as [Name] the program that its arguments name,
// in cgroups whose files it was given, and with the OOM score of any other process.
//
// It imports nothing but syscall, for Go initialises packages by their import path as soon as what
// they import is ready: so this one comes before those of libraries, which take milliseconds.
package become

import "syscall"

// Name is argv[0] of a process that is to become a program. The next argument is a digit, the
// number of cgroups: from descriptor 3 on it has a file cgroup.procs of each, open for writing.
// The arguments of the program follow, the first of which is its absolute path.
const Name = "bitbox-base: start a program"

// NotStarted is the exit status of a process that could not become a program, as env(1) has it.
const NotStarted = 127

// MaxArguments is how many bytes the arguments have together, with a zero byte after each. More is
// refused: a program that is started with half of its arguments does something else.
const MaxArguments = 256 << 10

func init() {
	argv, whole := arguments()
	if len(argv) == 0 {
		return
	}
	if len(argv) < 3 || !whole {
		_, _ = syscall.Write(2, []byte("start a program: its arguments are missing, or longer than 256 KiB\n"))
		syscall.Exit(NotStarted)
	}
	step, err := become(int(argv[1][0]-'0'), argv[2:])
	_, _ = syscall.Write(2, []byte("start "+argv[2]+": "+step+": "+err.Error()+"\n"))
	syscall.Exit(NotStarted)
}

// arguments are those of this process; os.Args is not set yet. There are none if it has another
// name. whole: there are no more than MaxArguments bytes of them.
func arguments() (argv []string, whole bool) {
	const path = "/proc/self/cmdline"
	fd, err := syscall.Open(path, syscall.O_RDONLY|syscall.O_CLOEXEC, 0)
	if err != nil {
		return nil, false
	}
	defer syscall.Close(fd)
	// Only the name is read of a process that has another one.
	buffer := make([]byte, len(Name)+1)
	n, err := syscall.Read(fd, buffer)
	if err != nil || string(buffer[:n]) != Name+"\x00" {
		return nil, false
	}
	argv = append(argv, Name)
	argument := []byte{}
	buffer = make([]byte, 4096)
	for read := 0; read <= MaxArguments; read += n {
		if n, err = syscall.Read(fd, buffer); err != nil || n == 0 {
			return argv, err == nil && len(argument) == 0
		}
		for _, b := range buffer[:n] {
			if b != 0 {
				argument = append(argument, b)
				continue
			}
			argv, argument = append(argv, string(argument)), nil
		}
	}
	return argv, false
}

// become returns only if it fails, with the step that did.
func become(cgroups int, argv []string) (step string, err error) {
	for fd := 3; fd < 3+cgroups; fd++ {
		if _, err := syscall.Write(fd, []byte("0")); err != nil {
			return "enter the cgroup of programs", err
		}
		syscall.CloseOnExec(fd)
	}
	fd, err := syscall.Open("/proc/self/oom_score_adj", syscall.O_WRONLY|syscall.O_CLOEXEC, 0)
	if err == nil {
		_, err = syscall.Write(fd, []byte("0"))
	}
	if err != nil {
		return "set the OOM score", err
	}
	return "execute it", syscall.Exec(argv[0], argv, syscall.Environ())
}
