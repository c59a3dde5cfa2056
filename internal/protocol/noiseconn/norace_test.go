//go:build !race

package noiseconn

// underRace thins tests that would take minutes with the race detector.
const underRace = false
