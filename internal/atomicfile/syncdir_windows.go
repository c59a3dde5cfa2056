package atomicfile

// SyncDir does nothing: Windows cannot sync a directory, and its file systems
// keep their own journal of names.
func SyncDir(string) error { return nil }
