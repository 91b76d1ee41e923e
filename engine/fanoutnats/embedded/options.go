package embedded

import (
	"fmt"
	"log/slog"
	"time"

	"github.com/gofanout/fanout/engine/fanoutnats"
)

// An Option is given to [Open].
type Option func(*settings) error

type settings struct {
	syncAlways   bool
	syncInterval time.Duration
	maxPayload   int32
	maxStore     int64
	logger       *slog.Logger
	salvage      bool
	engine       []fanoutnats.Option
}

// WithSyncInterval flushes files to the disk every d instead of before each
// confirmation. Publishing is about ten times as fast then. A crash of the process
// still loses nothing, since the kernel has it; a crash of the machine loses up to d.
func WithSyncInterval(d time.Duration) Option {
	return func(s *settings) error {
		if d <= 0 {
			return fmt.Errorf("WithSyncInterval(%v): want more than 0", d)
		}
		s.syncAlways, s.syncInterval = false, d
		return nil
	}
}

// WithMaxPayload limits a message, with its headers and its history, to n bytes;
// the default is 8 MiB. A larger one is engine.ErrTooLarge. At most 64 MiB.
func WithMaxPayload(n int) Option {
	return func(s *settings) error {
		if n < 1<<10 || n > 64<<20 {
			return fmt.Errorf("WithMaxPayload(%d): want 1 KiB to 64 MiB", n)
		}
		s.maxPayload = int32(n)
		return nil
	}
}

// WithMaxStore limits the files to n bytes; the default is three quarters of what the
// disk has free. Publishing beyond it fails.
func WithMaxStore(n int64) Option {
	return func(s *settings) error {
		if n < 1<<20 {
			return fmt.Errorf("WithMaxStore(%d): want 1 MiB or more", n)
		}
		s.maxStore = n
		return nil
	}
}

// WithLogger logs what the server has to say. The default hands its warnings and errors
// to slog.Default, and nothing else. For none at all give a logger on slog.DiscardHandler.
func WithLogger(l *slog.Logger) Option {
	return func(s *settings) error {
		if l == nil {
			return fmt.Errorf("WithLogger: the logger is nil")
		}
		s.logger = l
		return nil
	}
}

// WithSalvage opens a directory whose files are damaged, where [Open] else returns
// [ErrDamaged]. It keeps all that can be read, and logs a warning for each damaged file, of
// which a copy goes to the directory "damaged" beside the server's files. Messages that
// can't be read are lost; those of a queue whose state can't be read are delivered again,
// also those that were acknowledged while another queue still had them. It does nothing to
// files that are whole.
func WithSalvage() Option {
	return func(s *settings) error {
		s.salvage = true
		return nil
	}
}

// WithEngine gives options to the engine itself: fanoutnats.WithTimeout,
// fanoutnats.WithMaxMessages.
func WithEngine(options ...fanoutnats.Option) Option {
	return func(s *settings) error {
		s.engine = append(s.engine, options...)
		return nil
	}
}
