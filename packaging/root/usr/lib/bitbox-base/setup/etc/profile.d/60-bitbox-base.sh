# A shell at which nobody types for 15 minutes ends: somebody else may sit down before its
# user comes back. The shell waits for a command that runs in it.
TMOUT=900
readonly TMOUT
export TMOUT
