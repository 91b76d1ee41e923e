package shop

import (
	"bufio"
	"bytes"
	"encoding/csv"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"math"
	"slices"
	"strconv"
	"strings"
	"unicode/utf8"
)

// A CSVError says what is wrong in a CSV file, and where.
type CSVError struct {
	File   string
	Line   int    // 0 if it is about the file as a whole
	Column string // empty if it is about the line as a whole
	Value  string // of that column
	Err    error
}

func (e *CSVError) Error() string {
	var b strings.Builder
	b.WriteString(e.File)
	if e.Line > 0 {
		fmt.Fprintf(&b, ": line %d", e.Line)
	}
	if e.Column != "" {
		fmt.Fprintf(&b, ": column %s: %q", e.Column, e.Value)
	}
	return b.String() + ": " + e.Err.Error()
}

// Unwrap returns e.Err.
func (e *CSVError) Unwrap() error { return e.Err }

// A table reads a CSV file row by row and finds columns by the names in the
// header. As with bufio.Scanner the first error ends it, and is kept.
type table struct {
	file    string
	r       *csv.Reader
	columns []string
	row     []string
	err     error
}

// readTable calls each for every row of a file that has the given columns.
func readTable(files fs.FS, file string, columns []string, each func(t *table)) error {
	f, err := files.Open(file)
	if err != nil {
		var path *fs.PathError
		if errors.As(err, &path) {
			err = path.Err // the rest of it is the file's name
		}
		return &CSVError{File: file, Err: err}
	}
	defer f.Close()
	t := &table{file: file, r: csv.NewReader(withoutMark(f))}
	t.r.ReuseRecord = true
	t.header(columns)
	for t.next() {
		each(t)
	}
	return t.err
}

// withoutMark skips the byte order mark that spreadsheets like to write.
func withoutMark(r io.Reader) io.Reader {
	b := bufio.NewReader(r)
	if mark, err := b.Peek(3); err == nil && bytes.Equal(mark, []byte("\uFEFF")) {
		_, _ = b.Discard(3)
	}
	return b
}

func (t *table) header(want []string) {
	row, err := t.r.Read()
	if errors.Is(err, io.EOF) {
		t.err = &CSVError{File: t.file, Err: errors.New("is empty, want a header")}
		return
	}
	if err != nil {
		t.fail(err)
		return
	}
	t.columns = slices.Clone(row)
	for _, column := range want {
		switch n := count(t.columns, column); {
		case n == 0:
			t.err = &CSVError{File: t.file, Line: 1, Err: fmt.Errorf("no column %s in the header %s", column, strings.Join(t.columns, ","))}
			return
		case n > 1:
			t.err = &CSVError{File: t.file, Line: 1, Err: fmt.Errorf("%d columns %s in the header", n, column)}
			return
		}
	}
}

func count(all []string, one string) (n int) {
	for _, s := range all {
		if s == one {
			n++
		}
	}
	return n
}

func (t *table) next() bool {
	if t.err != nil {
		return false
	}
	row, err := t.r.Read()
	if errors.Is(err, io.EOF) {
		return false
	}
	t.row = row
	if err != nil {
		t.fail(err)
	}
	return t.err == nil
}

// fail keeps an error of encoding/csv as ours, which say the file and the line once.
func (t *table) fail(err error) {
	e := &CSVError{File: t.file, Err: err}
	var parse *csv.ParseError
	if errors.As(err, &parse) {
		e.Line, e.Err = parse.Line, parse.Err
		if errors.Is(parse.Err, csv.ErrFieldCount) {
			e.Err = fmt.Errorf("%d fields (%.60q), want %d as in the header", len(t.row), strings.Join(t.row, ","), len(t.columns))
		}
	}
	t.err = e
}

// bad ends the table because of the value in a column of the row.
func (t *table) bad(column, value, format string, args ...any) {
	if t.err == nil {
		line, _ := t.r.FieldPos(slices.Index(t.columns, column))
		t.err = &CSVError{File: t.file, Line: line, Column: column, Value: value, Err: fmt.Errorf(format, args...)}
	}
}

// text returns a value, empty if it is NULL. The columns are those of readTable.
func (t *table) text(column string) string {
	s := t.row[slices.Index(t.columns, column)]
	if !utf8.ValidString(s) {
		t.bad(column, s, "want UTF-8")
	}
	if s == "NULL" {
		return ""
	}
	return strings.Clone(s) // rows are slices of one string each: keep no more of it than needed
}

// whole returns a whole number from least to most.
func (t *table) whole(column string, least, most int) int {
	s := t.text(column)
	n, err := strconv.Atoi(s)
	if err != nil || n < least || n > most {
		t.bad(column, s, "want a whole number from %d to %d", least, most)
		return least
	}
	return n
}

// decimal returns a number from 0 to most.
func (t *table) decimal(column string, most float64) float64 {
	s := t.text(column)
	f, err := strconv.ParseFloat(s, 64)
	if err != nil || math.IsNaN(f) || f < 0 || f > most {
		t.bad(column, s, "want a number from 0 to %.0f", most)
		return 0
	}
	return f
}
