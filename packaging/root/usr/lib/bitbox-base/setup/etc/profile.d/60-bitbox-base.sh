# A shell at which nobody types for 15 minutes ends: who left the room may not come back
# before somebody else sits down. What runs in it meanwhile is waited for.
TMOUT=900
readonly TMOUT
export TMOUT
