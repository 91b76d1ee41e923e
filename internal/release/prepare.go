package main

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"time"
)

// prepare makes this work tree the coming release: the changelog gets its version
// and day, the API texts are written, and all is checked and proved. It changes
// nothing in git, and prints what is left to do there.
func (r *repository) prepare(ctx context.Context, day time.Time) error {
	name := filepath.Join(r.root, "CHANGELOG.md")
	before, err := os.ReadFile(name)
	if err != nil {
		return err
	}
	after, err := dated(string(before), r.version, day)
	if err != nil {
		return err
	}
	if err := os.WriteFile(name, []byte(after), 0o666); err != nil {
		return err
	}
	if err := r.writeAPI(ctx); err != nil {
		return err
	}
	if err := r.check(ctx); err != nil {
		return err
	}
	if err := r.prove(ctx, true, ""); err != nil {
		return err
	}
	fmt.Fprintf(os.Stdout, "\nWhat is left: commit this, and set the tags, in this order:\n\n\tgit commit -am 'release %s'\n", r.version)
	for _, m := range r.released() {
		fmt.Fprintf(os.Stdout, "\tgit tag -a -m '%s %s' %s\n", m.path(), r.version, m.tag(r.version))
	}
	fmt.Fprintf(os.Stdout, "\nPush them together: git push --follow-tags. Then name the release after it:\n\n\tgo run -C internal/release . next VERSION\n")
	return nil
}

// dated is the changelog with what is unreleased under the version. One that has
// the version is left as it is.
func dated(changelog, version string, day time.Time) (string, error) {
	number := strings.TrimPrefix(version, "v")
	if strings.Contains(changelog, "\n## "+number+" ") {
		return changelog, nil
	}
	const heading = "\n## Unreleased\n"
	before, rest, is := strings.Cut(changelog, heading)
	if !is {
		return "", fmt.Errorf("CHANGELOG.md has no line %q", strings.TrimSpace(heading))
	}
	unreleased, _, _ := strings.Cut(rest, "\n## ")
	if strings.TrimSpace(unreleased) == "" {
		return "", fmt.Errorf("CHANGELOG.md says nothing of %s", version)
	}
	return before + heading + "\n## " + number + " - " + day.Format(time.DateOnly) + "\n" + rest, nil
}
