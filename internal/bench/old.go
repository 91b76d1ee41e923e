package main

import (
	"errors"
	"fmt"
	"os/exec"
	"strings"
)

// old ends the name of a system that is measured with an older library, by this
// program built with that. It runs as a process of its own, in the same rounds.
const old = "-old"

// measureOld has the program measure one system in one setting, once.
func measureOld(program, workload, setting, system string) ([]value, error) {
	only := fmt.Sprintf("^%s %s$", workload, setting)
	out, err := exec.Command(program, "-rounds", "1", "-only", only, "-peers", "^"+system+"$").Output()
	if err != nil {
		if exit := (*exec.ExitError)(nil); errors.As(err, &exit) {
			return nil, fmt.Errorf("%s: %w: %s", program, err, exit.Stderr)
		}
		return nil, fmt.Errorf("%s: %w", program, err)
	}
	return valuesOf(string(out), strings.ToLower(strings.Join([]string{workload, setting, system}, ".")+"."))
}

// valuesOf reads the figures in out whose names begin with prefix.
func valuesOf(out, prefix string) (vs []value, err error) {
	for line := range strings.Lines(out) {
		if !strings.HasPrefix(line, "figure ") {
			continue
		}
		f, err := parseFigure(line)
		if err != nil {
			return nil, err
		}
		if metric, ok := strings.CutPrefix(f.name, prefix); ok {
			vs = append(vs, value{metric, f.unit, f.value})
		}
	}
	if len(vs) == 0 {
		return nil, fmt.Errorf("the older program printed no figure %s*", prefix)
	}
	return vs, nil
}
