package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
)

// A command is a line of testdata/commands.txt.
type command struct {
	path      string
	arguments []string
	ends      string // "well", "badly" or, of a server, "interrupted"
	says      string // what it prints, among other things
}

// readCommands reads lines of four columns: path, arguments, how it ends, what it says.
func readCommands(name string) (map[string]command, error) {
	text, err := os.ReadFile(name)
	if err != nil {
		return nil, err
	}
	commands := map[string]command{}
	for line := range strings.Lines(string(text)) {
		line = strings.TrimSpace(line)
		if line == "" || strings.HasPrefix(line, "#") {
			continue
		}
		columns := strings.Split(line, "|")
		for k := range columns {
			columns[k] = strings.TrimSpace(columns[k])
		}
		if len(columns) != 4 || !slices.Contains([]string{"well", "badly", "interrupted"}, columns[2]) || columns[3] == "" {
			return nil, fmt.Errorf("%s: %q: want path | arguments | well, badly or interrupted | what it says", name, line)
		}
		commands[columns[0]] = command{arguments: strings.Fields(columns[1]), ends: columns[2], says: columns[3]}
	}
	return commands, nil
}

// command runs a command as those do who have no copy of this repository.
func (w *world) command(ctx context.Context, c command) (string, error) {
	dir, err := os.MkdirTemp(w.scratch, "nowhere")
	if err != nil {
		return "", err
	}
	run := exec.CommandContext(ctx, "go", append([]string{"run", c.path + "@" + w.version}, c.arguments...)...)
	run.Dir, run.Env = dir, w.env
	heard := &listener{text: c.says}
	if c.ends == "interrupted" {
		// go run hands no interrupt on, so the server is found by its own folder:
		// it is built where it can be started itself.
		build := append(slices.Clone(w.env), "GOBIN="+dir)
		install := exec.CommandContext(ctx, "go", "install", c.path+"@"+w.version)
		install.Dir, install.Env = dir, build
		if _, err := finish(install); err != nil {
			return "", err
		}
		run = exec.CommandContext(ctx, filepath.Join(dir, c.path[strings.LastIndex(c.path, "/")+1:]), c.arguments...)
		run.Dir, run.Env = dir, w.env
		heard.then = func() { _ = run.Process.Signal(os.Interrupt) }
	}
	run.Stdout, run.Stderr = heard, heard
	err = run.Run()
	var exit *exec.ExitError
	switch {
	case err == nil && c.ends == "badly":
		return "", fmt.Errorf("it ended well\n%s", heard.all)
	case err != nil && (c.ends != "badly" || !errors.As(err, &exit)):
		return "", fmt.Errorf("%w\n%s", err, heard.all)
	case !heard.found:
		return "", fmt.Errorf("it did not say %q\n%s", c.says, heard.all)
	}
	return c.says, nil
}

// A listener keeps what is written, and calls then once when text was in it.
type listener struct {
	text  string
	then  func()
	all   []byte
	found bool
}

func (l *listener) Write(p []byte) (int, error) {
	l.all = append(l.all, p...)
	if !l.found && strings.Contains(string(l.all), l.text) {
		l.found = true
		if l.then != nil {
			l.then()
		}
	}
	return len(p), nil
}
