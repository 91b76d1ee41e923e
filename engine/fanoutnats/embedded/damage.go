package embedded

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/nats-io/nats-server/v2/server"
)

// ErrDamaged is returned by [Open] for a directory whose files are not as they were
// written. The error says which ones, and what is lost.
var ErrDamaged = errors.New("files are damaged")

// A damage is what is wrong with a file.
type damage struct {
	file  string
	what  string
	holes []hole // of a file of messages
	last  bool   // no file of messages comes after it
	// harmless says that no message was where the holes are. A write that a full disk
	// ended leaves such a one, and the server would cut off what comes after it.
	harmless bool

	consumer bool // the file is a consumer's state
	settings bool // the file has the settings of a stream or a consumer
}

// damaged is the error for ds in dir.
func damaged(dir string, ds []damage) error {
	texts := make([]string, 0, len(ds))
	for _, d := range ds {
		texts = append(texts, d.text(dir))
	}
	return fmt.Errorf("%w: %s; restore the directory from a backup, or open it with embedded.WithSalvage, which keeps all that can be read",
		ErrDamaged, strings.Join(texts, "; "))
}

func (d damage) text(dir string) string {
	if rel, err := filepath.Rel(dir, d.file); err == nil {
		return rel + ": " + d.what
	}
	return d.file + ": " + d.what
}

// closedFile has the sizes of all files, as they were when the directory was closed. It
// is there only while it is closed.
const closedFile = "closed.json"

// index is the file with what a server knows of a stream's messages. It can be made anew.
const index = "index.db"

// sizes returns the sizes of the server's files in dir, but for indexes.
func sizes(dir string) (map[string]int64, error) {
	all := map[string]int64{}
	err := filepath.WalkDir(filepath.Join(dir, server.JetStreamStoreDir), func(path string, d fs.DirEntry, err error) error {
		if err != nil || !d.Type().IsRegular() || d.Name() == index {
			return err
		}
		info, err := d.Info()
		if err != nil {
			return err
		}
		rel, err := filepath.Rel(dir, path)
		all[rel] = info.Size()
		return err
	})
	if errors.Is(err, fs.ErrNotExist) {
		err = nil
	}
	return all, err
}

// noteClosed writes the closedFile.
func noteClosed(dir string) error {
	all, err := sizes(dir)
	if err != nil {
		return err
	}
	data, err := json.Marshal(all)
	if err != nil {
		return err
	}
	return writeFile(filepath.Join(dir, closedFile), data)
}

// inspect looks for damages, and changes nothing.
func inspect(dir string) (ds []damage, err error) {
	now, err := sizes(dir)
	if err != nil {
		return nil, err
	}
	data, err := os.ReadFile(filepath.Join(dir, closedFile))
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, err
	}
	if err == nil {
		var then map[string]int64
		if err := json.Unmarshal(data, &then); err != nil {
			return nil, fmt.Errorf("%w: %s: %w", ErrDamaged, closedFile, err)
		}
		for rel, size := range then {
			d := damage{file: filepath.Join(dir, rel)}
			n, ok := now[rel]
			switch {
			case !ok:
				d.what = fmt.Sprintf("it is gone, and had %d bytes when the directory was closed", size)
			case n != size:
				d.what = fmt.Sprintf("it has %d bytes, and had %d when the directory was closed", n, size)
			default:
				continue
			}
			if d.consumer = filepath.Base(rel) == consumerState; d.consumer {
				d.what += comeAgain
			}
			ds = append(ds, d)
		}
	}
	streams, err := filepath.Glob(filepath.Join(globbed(dir), server.JetStreamStoreDir, "*", "streams", "*"))
	if err != nil {
		return nil, err
	}
	for _, s := range streams {
		more, err := checkStream(s)
		if err != nil {
			return nil, err
		}
		for _, m := range more {
			k := slices.IndexFunc(ds, func(d damage) bool { return d.file == m.file })
			if k < 0 {
				ds = append(ds, m)
				continue
			}
			m.what = ds[k].what + "; " + m.what
			m.harmless = false // it had another size
			ds[k] = m
		}
	}
	slices.SortFunc(ds, func(a, b damage) int { return strings.Compare(a.file, b.file) })
	return ds, nil
}

// salvage keeps what can be read of damaged files, after a copy of them is put aside.
func (e *Engine) salvage(ds []damage) error {
	now := time.Now()
	for _, d := range ds {
		e.log.Warn("embedded: a damaged file: " + d.text(e.dir))
		err := putAside(e.dir, d.file, now)
		if errors.Is(err, fs.ErrNotExist) {
			continue // it is the file that is lost
		}
		switch {
		case err != nil:
		case len(d.holes) > 0:
			err = d.mend()
		case d.consumer:
			// Without it the server begins with the first message that the stream has.
			err = os.Remove(d.file)
		case d.settings:
			// They are written again when it is made again, on the files that it has.
			err = errors.Join(os.Remove(d.file), forget(filepath.Join(filepath.Dir(d.file), settingsSum)))
		}
		if err != nil {
			return err
		}
	}
	return nil
}

const (
	// consumerState is the file with what a consumer has delivered and what was
	// acknowledged.
	consumerState = "o.dat"
	// settingsFile is the file with the settings of a stream or a consumer, and
	// settingsSum the one with its checksum. It is written last.
	settingsFile = "meta.inf"
	settingsSum  = "meta.sum"

	comeAgain = "; without it messages may come again that were acknowledged"
)

// A thing is a stream or a consumer that has files.
type thing struct{ stream, consumer string }

// stored returns the things that dir has files of, and where they are: not those that
// were being made when the process ended.
func stored(dir string) (map[thing]string, error) {
	all := map[thing]string{}
	for _, pattern := range []string{"*", filepath.Join("*", "obs", "*")} {
		found, err := filepath.Glob(filepath.Join(globbed(dir), server.JetStreamStoreDir, "*", "streams", pattern, settingsSum))
		if err != nil {
			return nil, err
		}
		for _, f := range found {
			at := filepath.Dir(f)
			t := thing{stream: filepath.Base(at)}
			if pattern != "*" {
				t = thing{filepath.Base(filepath.Dir(filepath.Dir(at))), filepath.Base(at)}
			}
			all[t] = at
		}
	}
	return all, nil
}

// missing says which of the things that were stored the server does not have. Messages
// that it takes to be lost are only logged: after a crash it may be wrong.
func (e *Engine) missing(was map[thing]string) (ds []damage, err error) {
	e.mu.Lock()
	s := e.server
	e.mu.Unlock()
	info, err := s.Jsz(&server.JSzOptions{Accounts: true, Streams: true, Consumer: true, Limit: 1 << 20})
	if err != nil {
		return nil, err
	}
	has := map[thing]bool{}
	for _, a := range info.AccountDetails {
		for _, s := range a.Streams {
			has[thing{stream: s.Name}] = true
			if l := s.State.Lost; l != nil && len(l.Msgs) > 0 {
				e.log.Warn(fmt.Sprintf("embedded: the server misses %d messages of stream %s: they were removed, or a file was", len(l.Msgs), s.Name))
			}
			for _, c := range s.Consumer {
				has[thing{s.Name, c.Name}] = true
			}
		}
	}
	for t, at := range was {
		switch {
		case has[t]:
		case t.consumer == "":
			ds = append(ds, damage{
				file: filepath.Join(at, settingsFile), settings: true,
				what: fmt.Sprintf("the server can't read the settings of stream %s; its messages are there again when its topic is opened", t.stream),
			})
		case !has[thing{stream: t.stream}]: // said of the stream
		default:
			// One of the two: its settings are text, and fail as such.
			d := damage{file: filepath.Join(at, consumerState), consumer: true,
				what: fmt.Sprintf("the server can't read the state of consumer %s of stream %s", t.consumer, t.stream) + comeAgain}
			if text, err := os.ReadFile(filepath.Join(at, settingsFile)); err != nil || !json.Valid(text) {
				d = damage{file: filepath.Join(at, settingsFile), settings: true,
					what: fmt.Sprintf("the server can't read the settings of consumer %s of stream %s; it goes on where it was if its queue is opened before anything else is done", t.consumer, t.stream)}
			}
			ds = append(ds, d)
		}
	}
	slices.SortFunc(ds, func(a, b damage) int { return strings.Compare(a.file, b.file) })
	return ds, nil
}

// forget removes a file that may not be there.
func forget(file string) error {
	err := os.Remove(file)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	return err
}

// globbed is dir as a pattern that only it matches.
func globbed(dir string) string {
	return strings.NewReplacer(`\`, `\\`, `*`, `\*`, `?`, `\?`, `[`, `\[`).Replace(dir)
}
