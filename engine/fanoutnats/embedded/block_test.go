package embedded

import (
	"crypto/sha256"
	"encoding/binary"
	"hash"
	"math/rand/v2"
	"strings"
	"testing"

	"github.com/minio/highwayhash"
	"github.com/nats-io/nats-server/v2/server"
	"github.com/stretchr/testify/require"
)

func newSum(t *testing.T) hash.Hash {
	t.Helper()
	key := sha256.Sum256([]byte("s-1"))
	sum, err := highwayhash.NewDigest64(key[:])
	require.NoError(t, err)
	return sum
}

// put appends a record as the server writes it.
func put(buf []byte, sum hash.Hash, seq uint64, subject, headers, body string) []byte {
	var h [recordHeader]byte
	n := recordHeader + len(subject) + len(body) + checksum
	bits := uint32(0)
	if headers != "" {
		n, bits = n+4+len(headers), withHeaders
	}
	binary.LittleEndian.PutUint32(h[:], uint32(n)|bits)
	binary.LittleEndian.PutUint64(h[4:], seq)
	binary.LittleEndian.PutUint64(h[12:], 1_700_000_000_000_000_000)
	binary.LittleEndian.PutUint16(h[20:], uint16(len(subject)))
	sum.Reset()
	for _, s := range []string{string(h[4:20]), subject, headers, body} {
		_, _ = sum.Write([]byte(s))
	}
	buf = append(append(buf, h[:]...), subject...)
	if headers != "" {
		buf = append(binary.LittleEndian.AppendUint32(buf, uint32(len(headers))), headers...)
	}
	return sum.Sum(append(buf, body...))
}

func TestTheFilesOfThisServerAreKnown(t *testing.T) {
	require.True(t, strings.HasPrefix(server.VERSION, checked), "TestADamagedFileIsSaid... shows whether those of %s are the same", server.VERSION)
}

// Wherever bytes are changed in a file, what is whole is found, and what is lost is
// bounded.
func TestHolesAreFoundWhereverTheyAre(t *testing.T) {
	sum := newSum(t)
	var whole []byte
	var starts []int
	for seq := uint64(1); seq <= 50; seq++ {
		starts = append(starts, len(whole))
		switch {
		case seq%7 == 0:
			whole = put(whole, sum, seq|erased, "", "", "")
		case seq%5 == 0:
			whole = put(whole, sum, seq, "a.b", "NATS/1.0\r\nK: v\r\n\r\n", strings.Repeat("x", int(seq)))
		default:
			whole = put(whole, sum, seq, "a.b", "", strings.Repeat("y", int(seq)))
		}
		if seq%9 == 0 {
			whole = put(whole, sum, (seq-3)|tombstone, "", "", "")
		}
	}
	hs, end := holes(whole, sum, 0, true)
	require.Empty(t, hs)
	require.EqualValues(t, 50, end)

	random := rand.New(rand.NewPCG(1, 2))
	for range 2000 {
		from := random.IntN(len(whole))
		to := min(from+1+random.IntN(200), len(whole))
		buf := append([]byte(nil), whole...)
		for k := from; k < to; k++ {
			buf[k] ^= byte(1 + random.IntN(255))
		}
		hs, end := holes(buf, sum, 0, false)
		require.NotEmpty(t, hs)
		require.LessOrEqual(t, hs[0].from, from)
		require.GreaterOrEqual(t, hs[len(hs)-1].to, to)
		hit := 0 // messages that are changed
		for k, s := range starts {
			next := len(whole)
			if k+1 < len(starts) {
				next = starts[k+1]
			}
			if s < to && from < next {
				hit++
			}
		}
		bytes, lost := 0, uint64(0)
		for _, h := range hs {
			bytes += h.to - h.from
			lost += h.lost
			require.False(t, h.torn)
		}
		require.LessOrEqual(t, bytes, to-from+2*400, "only the records that are hit")
		require.LessOrEqual(t, lost, uint64(hit))
		if end == 50 && hs[0].from > 0 {
			require.GreaterOrEqual(t, int(lost)+1, hit-1)
		}
	}

	// Every beginning of a record at the end of all was being written.
	for n := 1; n < starts[1]; n++ {
		hs, _ := holes(append(append([]byte(nil), whole...), whole[:n]...), sum, 0, true)
		require.Len(t, hs, 1)
		require.True(t, hs[0].torn, n)
		hs, _ = holes(append(append([]byte(nil), whole...), whole[:n]...), sum, 0, false)
		require.False(t, hs[0].torn, "but not before another file")
	}
}
