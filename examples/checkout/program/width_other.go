//go:build !(linux || darwin || freebsd || netbsd || openbsd || dragonfly)

package program

import "os"

// widthOf is how many columns the terminal has, as far as this platform tells.
func widthOf(*os.File) int { return usualWidth }
