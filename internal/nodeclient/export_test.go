package nodeclient

import "time"

// WaitForRestart has questions wait this long for a bitbox-node that was there.
func (c *Client) WaitForRestart(d time.Duration) { c.restart = d }
