package fanoutnats

import (
	"fmt"
	"time"

	"github.com/gofanout/fanout/engine/fanoutnats/internal/failure"
	"github.com/nats-io/nats.go/jetstream"
)

// An Option is given to [New].
type Option func(*settings) error

type settings struct {
	prefix      string
	replicas    int
	replicasSet bool
	memory      bool
	maxMessages int64
	maxBytes    int64
	timeout     time.Duration
	failures    *failure.Last // of a server in this process, nil if it isn't
}

func (s *settings) storage() jetstream.StorageType {
	if s.memory {
		return jetstream.MemoryStorage
	}
	return jetstream.FileStorage
}

// WithReplicas sets on how many servers of a cluster each message is stored: 1, 3 or 5. The
// default is 1. With 3, a confirmed message survives the loss of any one server. If the
// topic exists with another number, opening it is engine.ErrMismatch. Without this option
// the existing number stays.
func WithReplicas(n int) Option {
	return func(s *settings) error {
		if n < 1 || n > 5 {
			return fmt.Errorf("WithReplicas(%d): want 1 to 5", n)
		}
		s.replicas, s.replicasSet = n, true
		return nil
	}
}

// WithMemoryStorage keeps messages in the memory of the servers and not in files. They
// survive this process, but not the servers. With replicas they survive as long as most
// servers run. The default is files.
func WithMemoryStorage() Option {
	return func(s *settings) error {
		s.memory = true
		return nil
	}
}

// WithPrefix begins the names of all streams and subjects, so that several applications can
// share an account. It has up to 32 letters, digits and '_'. The default is "fanout".
func WithPrefix(prefix string) Option {
	return func(s *settings) error {
		if prefix == "" || len(prefix) > 32 {
			return fmt.Errorf("WithPrefix(%q): want 1 to 32 characters", prefix)
		}
		for _, c := range []byte(prefix) {
			// Without '-', or the prefix could not be told from what comes after it.
			if !plain(c) && c != '_' || c == '-' {
				return fmt.Errorf("WithPrefix(%q): want letters, digits and '_'", prefix)
			}
		}
		s.prefix = prefix
		return nil
	}
}

// WithMaxMessages limits how many messages a topic's stream holds, for all its queues
// together. A publish beyond that fails with engine.ErrFull, which fanout's users see as
// fanout.ErrQueueFull. The default is no limit. If the topic exists with a lower limit, the
// limit is raised. If it exists with a higher one or none, opening it is engine.ErrMismatch.
// Without this option an existing limit stays.
func WithMaxMessages(n int64) Option {
	return func(s *settings) error {
		if n < 1 {
			return fmt.Errorf("WithMaxMessages(%d): want 1 or more", n)
		}
		s.maxMessages = n
		return nil
	}
}

// WithMaxBytes limits how many bytes a topic's stream holds, as WithMaxMessages limits their
// number.
func WithMaxBytes(n int64) Option {
	return func(s *settings) error {
		if n < 1 {
			return fmt.Errorf("WithMaxBytes(%d): want 1 or more", n)
		}
		s.maxBytes = n
		return nil
	}
}

// WithTimeout sets how long a call whose context has no deadline waits for the servers'
// answer, and how long a Receive waits for servers that say nothing. The default is 15
// seconds. The election of a new leader can take 10.
func WithTimeout(d time.Duration) Option {
	return func(s *settings) error {
		if d <= 0 {
			return fmt.Errorf("WithTimeout(%v): want more than 0", d)
		}
		s.timeout = d
		return nil
	}
}
