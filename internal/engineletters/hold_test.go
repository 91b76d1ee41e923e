package engineletters

import (
	"context"
	"fmt"
	"strconv"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/gofanout/fanout/engine"
	"github.com/gofanout/fanout/internal/message"
)

// decoded has letters say by their attribute when they died: by none, nobody knows.
func decoded(src *Source[string]) {
	src.Decode = func(got []engine.Received) []Letter[string] {
		ls := make([]Letter[string], len(got))
		for k := range got {
			ls[k].Body = got[k].ID
			ls[k].Ext = &message.Extra{ID: got[k].ID}
			if at, err := strconv.ParseInt(got[k].Attributes["died"], 10, 64); err == nil {
				ls[k].Hist = message.Restored([]message.Kept{{Attempt: message.Attempt{Start: time.Unix(0, at)}}})
			}
		}
		return ls
	}
}

// received is a letter as an engine gives it.
func received(id, died string, deliveries int) engine.Received {
	return engine.Received{Message: engine.Message{ID: id, PublishedAt: time.Unix(5, 0), Attributes: map[string]string{"died": died}},
		Receipt: fmt.Sprint(id, " ", died, " ", deliveries), Deliveries: deliveries}
}

func ids(ls []*heldLetter[string]) (all []string) {
	for _, l := range ls {
		all = append(all, l.Receipt.(string))
	}
	return all
}

// A letter that comes again takes the place that it had; another of the same message, which died
// later, is another.
func TestALetterThatComesAgainIsNotNew(t *testing.T) {
	_, src, _ := shelve(t, 0)
	decoded(src)
	h := src.hold()
	soon, later := time.Unix(10, 0), time.Unix(20, 0)
	require.Equal(t, []string{"a 1 1", "a 2 1", "b 1 1"}, ids(h.add([]engine.Received{received("a", "1", 1), received("a", "2", 1), received("b", "1", 1)}, soon)))
	require.Equal(t, []string{"a 1 1"}, ids(h.add([]engine.Received{received("a", "1", 1)}, soon)), "one with as many deliveries is another")
	h = src.hold()
	h.add([]engine.Received{received("a", "1", 1), received("b", "1", 1)}, soon)
	h.letters[0].lost = true
	for n := 2; n <= 3; n++ {
		require.Empty(t, h.add([]engine.Received{received("a", "1", n)}, later))
		require.Equal(t, []string{fmt.Sprint("a 1 ", n), "b 1 1"}, ids(h.letters))
		require.Equal(t, []any{later, false}, []any{h.letters[0].until, h.letters[0].lost})
	}
	h.met[h.letters[0].key] = metLetter[string]{deliveries: 3} // it was moved
	h.letters = h.letters[1:]
	require.Empty(t, h.add([]engine.Received{received("a", "1", 4)}, later), "it is not met a second time")
	require.Equal(t, []string{"b 1 1", "a 1 4"}, ids(h.letters), "and has to be given back")
	h.late[h.letters[0].key] = true
	h.add([]engine.Received{received("b", "1", 2)}, later)
	require.Empty(t, h.late, "it is here")
}

// Leases are extended once two thirds are left, now and then; one that has ended is lost.
func TestWhichLeasesAreExtended(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s, src, _ := shelve(t, 4)
		h := src.hold()
		receive := func() {
			got, err := s.Receive(t.Context(), 10, h.lease)
			require.NoError(t, err)
			h.add(got, time.Now().Add(h.lease))
		}
		receive()
		calls := map[string]int{}
		s.broken = func(op, id string) error {
			calls[op+" "+id]++
			switch id {
			case "001":
				return engine.ErrStale
			case "002":
				return errBusy
			}
			return nil
		}
		h.keepUp(t.Context())
		require.Empty(t, calls, "all is left of them")
		time.Sleep(4 * time.Second)
		h.keepUp(t.Context())
		want := map[string]int{"extend 000": 1, "extend 001": 1, "extend 002": 1, "extend 003": 1}
		require.Equal(t, want, calls)
		require.Equal(t, []bool{false, true, false, false}, []bool{h.letters[0].lost, h.letters[1].lost, h.letters[2].lost, h.letters[3].lost})
		require.Greater(t, time.Until(h.letters[0].until), 10*time.Second, "as long as all has taken so far, and a lease more")
		h.keepUp(t.Context())
		require.Equal(t, want, calls, "not so soon again")
		time.Sleep(time.Second)
		h.keepUp(t.Context())
		want["extend 002"]++
		require.Equal(t, want, calls, "what failed is tried again")

		h.lease = 0 // which can't be kept up
		time.Sleep(time.Minute)
		h.keepUp(t.Context())
		require.Equal(t, want, calls)
	})
}

// A part is as long as a quarter of a lease lets it be.
func TestAPartEndsInGoodTime(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s, src, _ := shelve(t, 100)
		s.slow, s.most = 900*time.Millisecond, 1
		ls, more, err := src.hold().part(t.Context())
		require.NoError(t, err)
		require.True(t, more)
		require.Len(t, ls, 3)
		require.Equal(t, []int{64, 63, 62}, s.asked)
	})
}

// Of letters that were to be ended, those that were are counted, those that were lost come
// again as new ones, and those that failed are to be given back.
func TestWhatBecomesOfLettersThatWereToEnd(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s, src, q := shelve(t, 3)
		h := src.hold()
		got, err := s.Receive(t.Context(), 10, h.lease)
		require.NoError(t, err)
		ls := h.add(got, time.Now().Add(h.lease))
		counted := 0
		done, err := h.endAll(t.Context(), ls, letterEnd[string]{q: q, not: "moved", count: func(*heldLetter[string]) { counted++ },
			each: func(*holding[string], context.Context, []*heldLetter[string]) []error {
				return []error{nil, message.ErrStale, errBusy}
			}})
		require.EqualError(t, err, "1 letters were not moved: busy")
		require.Equal(t, []*heldLetter[string]{ls[0]}, done)
		require.Equal(t, []*heldLetter[string]{ls[2]}, h.letters)
		require.Equal(t, 1, counted)
		require.Equal(t, map[letterKey]bool{ls[1].key: true}, h.late)
		require.Equal(t, []any{true, true, false}, []any{ls[0].done, ls[1].done, ls[2].done})
		require.Nil(t, h.met[ls[0].key].letter)
		require.Equal(t, 1, h.met[ls[0].key].deliveries, "it is known still")
		_, known := h.met[ls[1].key]
		require.False(t, known)
		require.Same(t, ls[2], h.met[ls[2].key].letter)
	})
}

// A letter that dies again while a redrive goes on is not moved a second time, whether its
// history is known or not.
func TestALetterThatDiesAgainIsLeft(t *testing.T) {
	for name, known := range map[string]bool{"known": true, "not known": false} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				s, src, q := shelve(t, 2)
				decoded(src)
				for _, l := range s.letters {
					if known {
						l.Attributes = map[string]string{"died": fmt.Sprint(time.Now().Add(-time.Minute).UnixNano())}
					}
				}
				died := 0
				s.broken = func(op, id string) error {
					if op == "redrive" {
						if died++; died < 50 {
							again := &shelved{Received: engine.Received{Message: engine.Message{ID: id, PublishedAt: time.Now()}}}
							if known {
								again.Attributes = map[string]string{"died": fmt.Sprint(time.Now().UnixNano())}
							}
							s.letters = append(s.letters, again)
						}
					}
					return nil
				}
				n, err := src.Redrive(t.Context(), q, all())
				require.NoError(t, err)
				require.Equal(t, 2, n)
				requireReady(t, s, 2)
			})
		})
	}
}

// Each letter is given back once, so many at a time, and one without a key waits for no other.
func TestLettersDoNotWaitForEachOther(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s, src, q := shelve(t, 150)
		_, err := src.Peek(t.Context(), 150)
		require.NoError(t, err)
		require.Len(t, s.log, 150)
		require.Equal(t, atOnce, s.busiest)

		s.log = nil
		s.broken = func(op, id string) error {
			if op == "redrive" && id == "070" {
				return errBusy
			}
			return nil
		}
		n, err := src.Redrive(t.Context(), q, all())
		require.ErrorIs(t, err, errBusy)
		require.Greater(t, n, 50)
		returned := map[string]int{}
		for _, what := range s.log {
			returned[what]++
		}
		for what, times := range returned {
			require.Equal(t, 1, times, what)
		}
		requireReady(t, s, 150-n)
	})
}
