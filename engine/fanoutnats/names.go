package fanoutnats

import (
	"crypto/sha256"
	"encoding/hex"
	"strings"
)

// maxToken is how long an encoded name may be: a stream's name is that of a
// directory, and two names and a number make a subject.
const maxToken = 120

// token makes a name of NATS out of any name: letters, digits and '-' stay, any
// other byte becomes '_' and two hexadecimal digits. Different names give
// different tokens. A token that would be too long ends in a hash instead, after
// "__", which no other token has.
func token(name string) string {
	var b strings.Builder
	for i := range len(name) {
		c := name[i]
		if plain(c) {
			b.WriteByte(c)
			continue
		}
		b.WriteByte('_')
		b.WriteString(hex.EncodeToString([]byte{c}))
	}
	if b.Len() <= maxToken {
		return b.String()
	}
	sum := sha256.Sum256([]byte(name))
	return b.String()[:maxToken-34] + "__" + hex.EncodeToString(sum[:16])
}

func plain(c byte) bool {
	return 'a' <= c && c <= 'z' || 'A' <= c && c <= 'Z' || '0' <= c && c <= '9' || c == '-'
}

// names are what a topic is called on the servers.
type names struct {
	messages, dead, state string // streams
	root                  string // of all subjects
}

func newNames(prefix, topic string) names {
	t := token(topic)
	return names{
		messages: prefix + "-messages-" + t,
		dead:     prefix + "-dead-" + t,
		state:    prefix + "-state-" + t,
		root:     prefix + "." + t,
	}
}

// all is where messages for every queue go.
func (n names) all() string { return n.root + ".all" }

// one is where messages for one queue go: those that are redriven.
func (n names) one(queue string) string { return n.root + ".one." + queue }

// letters is where a queue's dead letters go.
func (n names) letters(queue string) string { return n.root + ".dead." + queue }

// records is the prefix of where the bookkeeping of a queue's messages goes, or that
// of its letters.
func (n names) records(queue string, dead bool) string {
	if dead {
		return n.root + ".state." + queue + ".dead."
	}
	return n.root + ".state." + queue + ".live."
}
