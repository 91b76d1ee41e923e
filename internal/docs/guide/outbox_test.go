package guide_test

import (
	"context"
	"errors"
	"slices"
	"strconv"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/gofanout/fanout"
)

// An OutboxRow is an event that was committed and whose work is not done yet.
type OutboxRow struct {
	ID    int64
	Event string
}

// An Outbox is a table of the database, with the columns id, event and published_by.
type Outbox interface {
	// Unpublished returns rows that this run of the program has not published, oldest first:
	//	SELECT id, event FROM outbox WHERE published_by IS DISTINCT FROM $1 ORDER BY id LIMIT $2
	Unpublished(ctx context.Context, run string, most int) ([]*OutboxRow, error)
	// Published notes that this run has published rows:
	//	UPDATE outbox SET published_by = $1 WHERE id = ANY($2)
	Published(ctx context.Context, run string, rows []*OutboxRow) error
}

// A Relay publishes what was committed. It is the only one that publishes to the topic.
type Relay struct {
	Outbox Outbox
	Topic  *fanout.Topic[*OutboxRow]
	RunID  string          // another one each time the program starts
	Wake   <-chan struct{} // has room for one; send without waiting after each commit
}

// Run relays until ctx ends or the topic is closed. It looks once a second, too, in case
// that somebody else has committed.
func (r *Relay) Run(ctx context.Context) error {
	for {
		more, err := r.relay(ctx)
		if errors.Is(err, fanout.ErrClosed) || ctx.Err() != nil {
			return err
		}
		if more && err == nil {
			continue
		}
		select {
		case <-r.Wake:
		case <-time.After(time.Second): // after an error of the database, too
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
}

func (r *Relay) relay(ctx context.Context) (more bool, err error) {
	rows, err := r.Outbox.Unpublished(ctx, r.RunID, 100)
	if err != nil || len(rows) == 0 {
		return false, err
	}
	batch := make([]fanout.Message[*OutboxRow], len(rows))
	for k, row := range rows {
		batch[k] = fanout.Message[*OutboxRow]{ID: strconv.FormatInt(row.ID, 10), Body: row}
	}
	if err := r.Topic.PublishMessages(ctx, batch...); err != nil { // waits while the queue is full
		return false, err
	}
	return true, r.Outbox.Published(ctx, r.RunID, rows) // if this fails, they are published twice
}

// A database stands for a real one: orders and their events are committed together.
type database struct {
	mu        sync.Mutex // guards the fields below
	lastID    int64
	rows      []*OutboxRow
	published map[int64]string
	mailed    []string
	busy      int // so many statements fail
}

func (db *database) begin() (commit func(), err error) {
	db.mu.Lock()
	if db.busy > 0 {
		db.busy--
		db.mu.Unlock()
		return nil, errors.New("the database is busy")
	}
	return db.mu.Unlock, nil
}

// PlaceOrder stores an order, and in the same transaction its event:
//
//	BEGIN; INSERT INTO orders ...; INSERT INTO outbox (event) VALUES ($1); COMMIT
func (db *database) PlaceOrder(order string) {
	commit, _ := db.begin()
	defer commit()
	db.lastID++
	db.rows = append(db.rows, &OutboxRow{db.lastID, order})
}

// Mail sends a mail once for each row, and deletes the row in the same transaction.
func (db *database) Mail(_ context.Context, d fanout.Delivery[*OutboxRow]) error {
	commit, err := db.begin()
	if err != nil {
		return err
	}
	defer commit()
	if k := slices.Index(db.rows, d.Body); k >= 0 { // DELETE FROM outbox WHERE id = $1: it was there
		db.rows = slices.Delete(db.rows, k, k+1)
		db.mailed = append(db.mailed, d.Body.Event)
	}
	return nil
}

func (db *database) Unpublished(_ context.Context, run string, most int) (rows []*OutboxRow, err error) {
	commit, err := db.begin()
	if err != nil {
		return nil, err
	}
	defer commit()
	for _, row := range db.rows {
		if db.published[row.ID] != run && len(rows) < most {
			rows = append(rows, row)
		}
	}
	return rows, nil
}

func (db *database) Published(_ context.Context, run string, rows []*OutboxRow) error {
	commit, err := db.begin()
	if err != nil {
		return err
	}
	defer commit()
	for _, row := range rows {
		db.published[row.ID] = run
	}
	return nil
}

func (db *database) publishedBy(id int64) string {
	db.mu.Lock()
	defer db.mu.Unlock()
	return db.published[id]
}

func (db *database) mails() []string {
	db.mu.Lock()
	defer db.mu.Unlock()
	return slices.Clone(db.mailed)
}

func (db *database) fail(statements int) {
	db.mu.Lock()
	defer db.mu.Unlock()
	db.busy = statements
}

func TestAnOutbox(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		db := &database{published: map[int64]string{}}
		run := func(id string, handle fanout.Handler[*OutboxRow], during func(wake chan<- struct{})) {
			topic, err := fanout.NewTopic[*OutboxRow]("mails")
			require.NoError(t, err)
			_, err = topic.Subscribe(t.Context(), "mailer", handle)
			require.NoError(t, err)
			ctx, cancel := context.WithCancel(t.Context())
			wake := make(chan struct{}, 1)
			relay := &Relay{Outbox: db, Topic: topic, RunID: id, Wake: wake}
			var wg sync.WaitGroup
			wg.Go(func() { _ = relay.Run(ctx) })
			during(wake)
			cancel()
			require.NoError(t, topic.Close())
			wg.Wait()
			<-topic.Done()
		}

		// The first run ends while its handler still works. Its queue is lost, the row is not.
		db.PlaceOrder("o-17")
		hang := func(ctx context.Context, _ fanout.Delivery[*OutboxRow]) error {
			<-ctx.Done()
			return ctx.Err()
		}
		run("1", hang, func(chan<- struct{}) {
			synctest.Wait()
			require.Equal(t, "1", db.publishedBy(1))
		})
		require.Empty(t, db.mails())

		// The second run publishes it again, and what is committed meanwhile, at once.
		run("2", db.Mail, func(wake chan<- struct{}) {
			synctest.Wait()
			require.Equal(t, []string{"o-17"}, db.mails())
			db.PlaceOrder("o-18")
			wake <- struct{}{}
			synctest.Wait()
			require.Equal(t, []string{"o-17", "o-18"}, db.mails())
			db.PlaceOrder("o-19") // by another program, which wakes nobody
			db.fail(2)
			time.Sleep(4 * time.Second)
			require.Equal(t, []string{"o-17", "o-18", "o-19"}, db.mails())
		})
		require.Empty(t, db.rows)
	})
}
