package main

import (
	"fmt"
	"os"

	"github.com/BitBoxSwiss/bitbox-base/internal/helper/services"
)

// generatorName is the name by which systemd calls this program as a generator
// (systemd.generator(7)): before it starts anything, and whenever it reloads.
const generatorName = "bitbox-base-services"

// generate tells systemd about the services of this appliance. Its arguments are three
// directories; standard error goes to the log.
func generate(directories []string) int {
	if len(directories) != 3 {
		fmt.Fprintln(os.Stderr, generatorName+": systemd calls this program, with three directories")
		return exitUsage
	}
	if err := services.Generate("", services.OwnFile, directories[0]); err != nil {
		fmt.Fprintln(os.Stderr, generatorName+":", err)
		return exitFailed
	}
	return 0
}
