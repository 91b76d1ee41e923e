package main

import (
	"context"
	"database/sql"
	_ "embed"
	"errors"
	"fmt"
	"sync"
	"time"

	_ "github.com/mattn/go-sqlite3" // the fastest driver; it needs a C compiler
	"maragu.dev/goqite"
)

// goqite on SQLite in memory. A queue for each subscriber, as it has no topics.
// Up to 64 messages share a transaction, on both sides. One
// connection: a database in memory belongs to it. No journal and no syncing.
var goqiteSystem = system{
	name: "goqite", gives: "at least once; unbounded, SQLite", throttled: true, competes: true, costly: true, widest: 4, polls: true,
	open: func(s shape) (bus, error) {
		db, err := sql.Open("sqlite3", ":memory:?_journal=OFF&_sync=OFF")
		if err != nil {
			return nil, err
		}
		db.SetMaxOpenConns(1)
		if _, err := db.Exec(goqiteSchema); err != nil {
			return nil, errors.Join(err, db.Close())
		}
		ctx, cancel := context.WithCancel(context.Background())
		b := &goqiteBus{db: db, ctx: ctx, cancel: cancel}
		for k := range s.queues {
			q := goqite.New(goqite.NewOpts{DB: db, Name: fmt.Sprint(k), Timeout: time.Minute})
			b.queues = append(b.queues, q)
			for w := range s.workers {
				t := s.tally(k, w)
				b.wg.Go(func() { b.consume(q, t) })
			}
		}
		return b, nil
	},
}

//go:embed goqite_schema.sql
var goqiteSchema string

type goqiteBus struct {
	db     *sql.DB
	queues []*goqite.Queue
	ctx    context.Context
	cancel context.CancelFunc
	wg     sync.WaitGroup
	mu     sync.Mutex
	err    error
}

func (b *goqiteBus) transact(f func(*sql.Tx) error) error {
	tx, err := b.db.Begin()
	if err != nil {
		return err
	}
	if err := f(tx); err != nil {
		return errors.Join(err, tx.Rollback())
	}
	return tx.Commit()
}

func (b *goqiteBus) publish(_ int, ms []*payload) error {
	return b.transact(func(tx *sql.Tx) error {
		for _, m := range ms {
			for _, q := range b.queues {
				if err := q.SendTx(context.Background(), tx, goqite.Message{Body: m.raw}); err != nil {
					return err
				}
			}
		}
		return nil
	})
}

func (b *goqiteBus) consume(q *goqite.Queue, t *tally) {
	for b.ctx.Err() == nil {
		got, err := b.consumeSome(q, t)
		if err != nil {
			b.mu.Lock()
			b.err = errors.Join(b.err, err)
			b.mu.Unlock()
			return
		}
		if got == 0 {
			time.Sleep(100 * time.Microsecond)
		}
	}
}

func (b *goqiteBus) consumeSome(q *goqite.Queue, t *tally) (int, error) {
	ctx := context.Background()
	var ms []*goqite.Message
	err := b.transact(func(tx *sql.Tx) error {
		for len(ms) < chunk {
			m, err := q.ReceiveTx(ctx, tx)
			if err != nil || m == nil {
				return err
			}
			ms = append(ms, m)
		}
		return nil
	})
	if err != nil || len(ms) == 0 {
		return 0, err
	}
	for _, m := range ms {
		t.take(wordOf(m.Body))
	}
	return len(ms), b.transact(func(tx *sql.Tx) error {
		for _, m := range ms {
			if err := q.DeleteTx(ctx, tx, m.ID); err != nil {
				return err
			}
		}
		return nil
	})
}

func (b *goqiteBus) stop() error {
	b.cancel()
	b.wg.Wait()
	return errors.Join(b.err, b.db.Close())
}
