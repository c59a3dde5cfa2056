package words

// DeedNames are the deeds that German has words for.
func DeedNames() (names []string) {
	for name := range germanDeeds {
		names = append(names, name)
	}
	return names
}
