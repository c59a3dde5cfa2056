package audit

import (
	"context"
	"fmt"

	"github.com/BitBoxSwiss/bitbox-base/internal/helper/generation"
)

// checkGeneration compares the files that the servers read with those rendered. A key that was
// slipped into the file of SSH keys is a finding of its own.
func checkGeneration(_ context.Context, system System, want Expectation) ([]difference, error) {
	files, err := generation.RenderFor(want.Posture, generation.ThisMachine())
	if err != nil {
		return nil, err
	}
	number, drift, err := system.Generation(files)
	if err != nil {
		return nil, err
	}
	var differences []difference
	if want.Generation != 0 && number != want.Generation {
		differences = append(differences, difference{
			id: idGenerationNumber, expected: fmt.Sprintf("generation %d is in force", want.Generation),
			found: []string{fmt.Sprintf("generation %d is", number)},
		})
	}
	var others, keys []string
	for _, d := range drift {
		line := fmt.Sprintf("%s %s", d.File, d.What)
		if d.File == generation.AuthorizedKeys {
			keys = append(keys, line)
		} else {
			others = append(others, line)
		}
	}
	if others != nil {
		differences = append(differences, difference{id: idGenerationFiles, found: others})
	}
	if keys != nil {
		differences = append(differences, difference{id: idSSHKeys, found: keys})
	}
	return differences, nil
}
