package session

// Boundless is the broken variant: answers may be endless, and wait without end. It comes before
// Serve.
func (s *Server) Boundless() {
	const endless = 1 << 40
	s.bounds = bounds{send: endless, queue: endless, queues: endless}
}

// Queued is how many bytes wait to be read by all wallets.
func (s *Server) Queued() int64 { return s.queued.Load() }

// MaxQueue is how many may wait for one.
var MaxQueue = standard.queue
