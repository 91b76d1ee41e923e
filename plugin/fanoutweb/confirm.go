package fanoutweb

import (
	"fmt"
	"time"
)

// A confirmPage asks before something is done, and says with how many messages.
type confirmPage struct {
	*deed
	Info  *queueInfo
	Back  string
	Clock string // of Until
	Fails string // what speaks against a redrive
	All   bool   // of the letters that there are
}

func (v *visit) confirm() error {
	d, err := v.deed()
	if err != nil {
		return err
	}
	p := confirmPage{deed: &d, Info: v.infoOf(d.place), Back: d.Link("queue")}
	if d.Action == Purge {
		if d.Until = time.Now(); p.Info != nil {
			d.Count = max(p.Info.Held, 0)
		}
		p.Clock = clock(d.Until)
	}
	if p.Info != nil && d.Action == Redrive {
		p.Fails = p.Info.fails()
	}
	if doable[d.Action] {
		if err := d.fix(v.r.Context()); err != nil {
			return err
		}
		p.Back = d.Link("letters", d.Filter.Query()...)
		p.All = d.Selected == nil && d.Filter.Any()
		if !d.Until.IsZero() {
			p.Clock = clock(d.Until)
		}
	}
	data := map[string]any{"action": d.Action, "topic": d.Topic, "queue": d.Queue, "count": d.Count, "until": d.Until}
	return v.show("confirm", frame{Name: d.Verb() + " " + d.Queue, Page: &p}, data)
}

// fails says that what is redriven now may die again, if it looks so.
func (i *queueInfo) fails() (text string) {
	if i.failing() > 0 {
		text = fmt.Sprintf("%.0f%% of attempts fail now. ", i.failing()*100)
	}
	for _, t := range i.Troubles {
		if t.Kind == "dead" && i.Grows {
			text += t.Text
			if t.Error != "" {
				text += " " + t.Error
			}
		}
	}
	return text
}
