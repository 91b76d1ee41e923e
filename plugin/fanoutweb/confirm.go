package fanoutweb

// A confirmPage asks before something is done, and says with how many messages.
type confirmPage struct {
	*deed
	Info  *queueInfo
	Back  string
	Clock string // of Until
	All   bool   // of the letters that there are
}

func (v *visit) confirm() error {
	d, err := v.deed()
	if err != nil {
		return err
	}
	p := confirmPage{deed: &d, Info: v.infoOf(d.place), Back: d.Link("queue")}
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
