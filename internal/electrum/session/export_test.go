package session

// Boundless is the broken variant: answers may be endless, and wait without end, and a long line
// costs as much as a short one. It comes before Serve.
func (s *Server) Boundless() {
	const endless = 1 << 40
	s.bounds = bounds{send: endless, queue: endless, queues: endless, perUnit: endless, params: endless}
}

// Queued is how many bytes wait to be read by all wallets.
func (s *Server) Queued() int64 { return s.queued.Load() }

// MaxQueue is how many may wait for one.
var MaxQueue = standard.queue

// Parse reads a line whose requests have at most so many parameters, and tells whether it may be
// answered.
func Parse(line []byte, params int) bool {
	_, _, err := parse(line, params, func(string) []string { return []string{"a", "b"} })
	return err == nil
}
