package fakeaws

import (
	"encoding/base64"
	"encoding/binary"
	"hash/crc32"
	"strings"
)

// A receipt is what a receipt handle says: the queue, the message's number in
// it, and the receive.
type receipt struct{ queue, number, stamp uint64 }

// handlePrefix begins receipt handles, as SQS's begin.
const handlePrefix = "AQEB"

// handleOf returns the receipt handle of a message's last receive.
func (q *queue) handleOf(m *message) string {
	b := make([]byte, 0, 28)
	b = binary.BigEndian.AppendUint64(b, q.serial)
	b = binary.BigEndian.AppendUint64(b, m.number)
	b = binary.BigEndian.AppendUint64(b, m.stamp)
	b = binary.BigEndian.AppendUint32(b, crc32.ChecksumIEEE(b))
	return handlePrefix + base64.StdEncoding.EncodeToString(b)
}

// parseHandle reads a receipt handle. ok is false if it is none.
func parseHandle(s string) (r receipt, ok bool) {
	text, ok := strings.CutPrefix(s, handlePrefix)
	if !ok {
		return r, false
	}
	b, err := base64.StdEncoding.Strict().DecodeString(text)
	if err != nil || len(b) != 28 || crc32.ChecksumIEEE(b[:24]) != binary.BigEndian.Uint32(b[24:]) {
		return r, false
	}
	return receipt{binary.BigEndian.Uint64(b), binary.BigEndian.Uint64(b[8:]), binary.BigEndian.Uint64(b[16:])}, true
}
