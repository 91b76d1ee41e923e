//go:build linux || darwin || freebsd || netbsd || openbsd || dragonfly

package program

import (
	"os"
	"syscall"
	"unsafe"
)

// widthOf is how many columns the terminal has.
func widthOf(f *os.File) int {
	var size struct{ rows, columns, x, y uint16 }
	_, _, err := syscall.Syscall(syscall.SYS_IOCTL, f.Fd(), syscall.TIOCGWINSZ, uintptr(unsafe.Pointer(&size)))
	if err != 0 || size.columns == 0 {
		return usualWidth
	}
	return int(size.columns)
}
