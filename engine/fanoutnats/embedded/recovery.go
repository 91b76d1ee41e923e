package embedded

import (
	"errors"
	"os"
	"time"
)

const (
	// room is how much has to be free on the disk before the server is started again.
	room = 1 << 20
	// firstTry and lastTry are how long recovery waits between tries, at first and in
	// the end.
	firstTry = 100 * time.Millisecond
	lastTry  = 2 * time.Second
)

// recovery starts the server again after it has failed to write to its disk, once that
// can be written again. What has not been confirmed by then may be lost or not, as its
// publishers are told; what has is in the files.
//
// Started by open; ends when Close says so; joined by Close.
func (e *Engine) recovery() {
	defer close(e.done)
	for {
		select {
		case <-e.log.failed:
		case <-e.quit:
			return
		}
		e.log.Warn("embedded: the server can't write to its disk, and is started again once there is room")
		for wait := firstTry; ; wait = min(2*wait, lastTry) {
			if !e.pause(wait) {
				return
			}
			if probe(e.dir, room) != nil {
				continue
			}
			err := e.restart()
			if err == nil {
				e.log.Warn("embedded: the server runs again")
				break
			}
			e.log.Error("embedded: the server can't be started again: " + err.Error())
			e.log.failures.Set(err)
			if errors.Is(err, ErrDamaged) {
				return // which time does not heal
			}
		}
	}
}

// restart starts another server on the same files. The client connects to it by itself.
func (e *Engine) restart() error {
	e.stop()
	select {
	case <-e.log.failed: // by the one that has ended
	default:
	}
	before := e.log.failures.Last()
	if err := e.check(); err != nil {
		return err
	}
	// Until the client is connected again, nothing is answered.
	for !e.conn.IsConnected() {
		if !e.pause(reconnectWait) {
			return nil
		}
	}
	e.log.failures.Over(before)
	return nil
}

// pause waits for d, and reports false if Close comes first.
func (e *Engine) pause(d time.Duration) bool {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return true
	case <-e.quit:
		return false
	}
}

// look sees whether n bytes could be written, and else has the server started again once
// they can.
func (e *Engine) look(n int64) {
	if err := probe(e.dir, max(n, room)); err != nil {
		e.log.notice(err.Error())
	}
}

// probe returns an error if there is no room for n bytes in dir.
func probe(dir string, n int64) error {
	f, err := os.CreateTemp(dir, "room-")
	if err != nil {
		return err
	}
	chunk := make([]byte, room)
	for ; n > 0 && err == nil; n -= int64(len(chunk)) {
		_, err = f.Write(chunk)
	}
	if err == nil {
		err = f.Sync()
	}
	return errors.Join(err, f.Close(), os.Remove(f.Name()))
}
