//go:build !linux

package fanoutnats_test

import "testing"

// small says that no file system of its own can be mounted.
func small(t *testing.T, _ string) (dir string, ok bool) {
	t.Log("not part of this run: a disk that is full")
	return "", false
}

func fill(*testing.T, string) {}
