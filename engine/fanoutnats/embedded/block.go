package embedded

import (
	"bytes"
	"crypto/sha256"
	"encoding/binary"
	"fmt"
	"hash"
	"math"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/minio/highwayhash"
	"github.com/nats-io/nats-server/v2/server"
)

// A stream's messages are in files of up to 8 MiB, N.blk, one record after the other: 22
// bytes of header, subject, headers and body, and a checksum. The server looks at a
// checksum when it reads the record; at a wrong one it cuts off the file, with all that
// comes after it, and logs at most a line. So the files are read here before the server
// has them.

// checked is the version of the server whose files are known here.
const checked = "2.15."

const (
	recordHeader = 22
	checksum     = 8
	longest      = 32 << 20 // record
	withHeaders  = 1 << 31  // in a record's length
	erased       = 1 << 63  // in a record's sequence: it has no message any more
	tombstone    = 1 << 62  // in a record's sequence: that message, here or elsewhere, was removed
)

// A hole is what is no record in a file of records.
type hole struct {
	from, to int
	lost     uint64 // messages, at most
	known    bool   // lost is: a message comes after it
	torn     bool   // the beginning of a record at the end of all: nobody was told that it is there
}

// holes finds what is no record in buf. before is the last sequence before it, 0 if it
// isn't known, and last says that no file comes after it. It returns the last sequence.
func holes(buf []byte, sum hash.Hash, before uint64, last bool) (hs []hole, end uint64) {
	end = before
	open := -1 // hs's last one, until the next message says what is lost
	for i := 0; i < len(buf); {
		n, seq := record(buf[i:], sum)
		if n == 0 {
			h := hole{from: i, to: nextRecord(buf, i+1, sum, end)}
			h.torn = last && h.to == len(buf) && unfinished(buf[i:])
			hs, i, open = append(hs, h), h.to, len(hs)
			continue
		}
		i += n
		if seq&tombstone != 0 {
			continue
		}
		seq &^= erased
		if open >= 0 && end > 0 {
			hs[open].lost, hs[open].known = max(seq, end+1)-end-1, true
		}
		end, open = max(end, seq), -1
	}
	return hs, end
}

// record returns the length of the record that buf begins with and its sequence, and 0
// if it begins with none.
func record(buf []byte, sum hash.Hash) (n int, seq uint64) {
	n, subject, headers := lengths(buf)
	if n == 0 || n > len(buf) {
		return 0, 0
	}
	sum.Reset()
	_, _ = sum.Write(buf[4:20]) // a hash takes all
	data := buf[recordHeader : n-checksum]
	_, _ = sum.Write(data[:subject])
	if headers {
		subject += 4
	}
	_, _ = sum.Write(data[subject:])
	var has [checksum]byte
	if !bytes.Equal(sum.Sum(has[:0]), buf[n-checksum:n]) {
		return 0, 0
	}
	return n, binary.LittleEndian.Uint64(buf[4:])
}

// lengths are those of the record that buf begins with, as its header has them, and 0 if
// that makes no sense.
func lengths(buf []byte) (n, subject int, headers bool) {
	if len(buf) < recordHeader {
		return 0, 0, false
	}
	length := binary.LittleEndian.Uint32(buf)
	headers = length&withHeaders != 0
	n, subject = int(length&^withHeaders), int(binary.LittleEndian.Uint16(buf[20:]))
	least := recordHeader + subject + checksum
	if headers {
		least += 4
	}
	if n < least || n > longest {
		return 0, 0, false
	}
	return n, subject, headers
}

// nextRecord returns where the next record begins, from i on; len(buf) if there is none.
// What could be one is tried only if its sequence and time are possible.
func nextRecord(buf []byte, i int, sum hash.Hash, before uint64) int {
	for ; i+recordHeader+checksum <= len(buf); i++ {
		seq := binary.LittleEndian.Uint64(buf[i+4:]) &^ (erased | tombstone)
		at := binary.LittleEndian.Uint64(buf[i+12:])
		if at > math.MaxInt64 || seq > before+math.MaxUint32 {
			continue
		}
		if n, _ := record(buf[i:], sum); n > 0 {
			return i
		}
	}
	return len(buf)
}

// unfinished reports whether buf is the beginning of a record, or room for one.
func unfinished(buf []byte) bool {
	if len(bytes.TrimLeft(buf, "\x00")) == 0 || len(buf) < recordHeader {
		return true
	}
	n, _, _ := lengths(buf)
	return n > len(buf)
}

// checkStream looks at the files of one stream's messages.
func checkStream(stream string) (ds []damage, err error) {
	if !strings.HasPrefix(server.VERSION, checked) {
		return nil, nil // other files, for all that is known here
	}
	var numbers []int
	files, err := filepath.Glob(filepath.Join(globbed(stream), "msgs", "*.blk"))
	if err != nil {
		return nil, err
	}
	for _, f := range files {
		var n int
		if _, err := fmt.Sscanf(filepath.Base(f), "%d.blk", &n); err == nil {
			numbers = append(numbers, n)
		}
	}
	slices.Sort(numbers)
	var end uint64
	for k, n := range numbers {
		file, last := filepath.Join(stream, "msgs", fmt.Sprintf("%d.blk", n)), k == len(numbers)-1
		buf, err := os.ReadFile(file)
		if err != nil {
			return nil, err
		}
		if bytes.HasPrefix(buf, []byte("cmp")) {
			end = 0
			continue // compressed, if somebody has set the stream so: it has a checksum of its own
		}
		key := sha256.Sum256(fmt.Appendf(nil, "%s-%d", filepath.Base(stream), n))
		sum, err := highwayhash.NewDigest64(key[:])
		if err != nil {
			return nil, err
		}
		var hs []hole
		hs, end = holes(buf, sum, end, last)
		if hs = slices.DeleteFunc(hs, func(h hole) bool { return h.torn }); len(hs) > 0 {
			harmless := !slices.ContainsFunc(hs, func(h hole) bool { return !h.known || h.lost > 0 })
			ds = append(ds, damage{file: file, what: describe(hs), holes: hs, last: last, harmless: harmless})
		}
	}
	return ds, nil
}

func describe(hs []hole) string {
	n, lost, known := 0, uint64(0), true
	for _, h := range hs {
		n += h.to - h.from
		lost += h.lost
		known = known && h.known
	}
	text := fmt.Sprintf("%d bytes from byte %d on can't be read", n, hs[0].from)
	if known && lost == 0 {
		return text + ", no message is lost"
	}
	if known {
		return fmt.Sprintf("%s, messages lost: up to %d", text, lost)
	}
	return text + ", messages lost: how many is not known"
}

// mend leaves out what can't be read of d's file. The server forgets then what it knew of
// the stream, and reads it anew. If it is the end that is lost it doesn't: it is what
// knows how far the sequences were, and it sees that by itself.
func (d damage) mend() error {
	buf, err := os.ReadFile(d.file)
	if err != nil {
		return err
	}
	rest := make([]byte, 0, len(buf))
	from := 0
	for _, h := range d.holes {
		rest = append(rest, buf[from:h.from]...)
		from = h.to
	}
	end := from == len(buf)
	rest = append(rest, buf[from:]...)
	if err := writeFile(d.file, rest); err != nil {
		return err
	}
	if d.last && end {
		return nil
	}
	return forget(filepath.Join(filepath.Dir(d.file), index))
}

// writeFile replaces a file as a whole.
func writeFile(file string, data []byte) error {
	f, err := os.CreateTemp(filepath.Dir(file), filepath.Base(file)+"-")
	if err != nil {
		return err
	}
	_, err = f.Write(data)
	if err == nil {
		err = f.Sync()
	}
	if closed := f.Close(); err == nil {
		err = closed
	}
	if err == nil {
		err = os.Rename(f.Name(), file)
	}
	if err != nil {
		_ = os.Remove(f.Name()) // it is of no use
	}
	return err
}

// putAside copies a file to the directory of damaged ones.
func putAside(dir, file string, now time.Time) error {
	rel, err := filepath.Rel(dir, file)
	if err != nil {
		return err
	}
	data, err := os.ReadFile(file)
	if err != nil {
		return err
	}
	to := filepath.Join(dir, "damaged", now.UTC().Format("20060102T150405.000"), rel)
	if err := os.MkdirAll(filepath.Dir(to), 0o700); err != nil {
		return err
	}
	return writeFile(to, data)
}
