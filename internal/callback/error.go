package callback

import (
	"fmt"
)

// Error is an error for a panic. Its text is made of what p says of itself.
func Error(p any) (err error) {
	e := Apart(func() {
		if inner, ok := p.(error); ok {
			err = fmt.Errorf("panic: %w", inner)
		} else {
			err = fmt.Errorf("panic: %v", p)
		}
	})
	if !e.Returned {
		err = fmt.Errorf("panic: a %T, whose text could not be had", p)
	}
	return err
}
