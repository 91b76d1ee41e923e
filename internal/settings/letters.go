package settings

import (
	"fmt"
	"slices"
	"strconv"
	"strings"

	"github.com/gofanout/fanout/internal/message"
)

// InTime reports whether a letter with this history died before all are too new.
func (s *Letters) InTime(h *message.History) bool {
	if s.Until.IsZero() {
		return true
	}
	at, _ := h.Died()
	return !at.IsZero() && !at.After(s.Until)
}

// Met reports whether a letter's ID is asked for, and notes that there is one.
func (s *Letters) Met(id string) bool {
	_, asked := s.IDs[id]
	if asked {
		s.IDs[id] = true
	}
	return asked
}

// mostUnknown is how many IDs one error names.
const mostUnknown = 100

// Unknown returns an error that names the IDs asked for that no letter has, nil if
// there is none.
func (s *Letters) Unknown() error {
	var ids []string
	for id, met := range s.IDs {
		if !met {
			ids = append(ids, strconv.Quote(id))
		}
	}
	if ids == nil {
		return nil
	}
	slices.Sort(ids)
	list, more := strings.Join(ids[:min(len(ids), mostUnknown)], ", "), ""
	if n := len(ids) - mostUnknown; n > 0 {
		more = fmt.Sprintf(" and %d more", n)
	}
	return fmt.Errorf("%w: RedriveIDs(%s)%s: want IDs of its dead letters that no consumer has in hand", message.ErrUnknownID, list, more)
}
