package model

import (
	"reflect"
	"slices"
)

// fits reports whether what is seen of the topic is what the model says.
func (v *view) fits(seen *view) bool {
	return v.Now == seen.Now && v.Topic == seen.Topic && v.Done == seen.Done && v.Why == seen.Why && v.Err == seen.Err && v.N == seen.N &&
		slices.EqualFunc(v.Queues, seen.Queues, queueView.fits) && slices.Equal(v.Deadlines, seen.Deadlines) &&
		slices.Equal(v.Runs, seen.Runs) && slices.Equal(v.Stopped, seen.Stopped) && slices.Equal(v.Left, seen.Left) &&
		slices.EqualFunc(v.Got, seen.Got, messageView.fits) && slices.EqualFunc(v.Finished, seen.Finished, result.fits)
}

func (v queueView) fits(seen queueView) bool {
	return v.Stats == seen.Stats && slices.EqualFunc(v.Peek, seen.Peek, messageView.fits) &&
		(len(v.Left)+len(seen.Left) == 0 || reflect.DeepEqual(v.Left, seen.Left)) && slices.EqualFunc(v.Dead, seen.Dead, queueView.fits)
}

func (v messageView) fits(seen messageView) bool {
	return v.Body == seen.Body && v.Attempt == seen.Attempt && v.At == seen.At && v.Key == seen.Key &&
		slices.EqualFunc(v.History, seen.History, attempt.fits)
}

// fits allows that an attempt's start is known late only, by up to slack.
func (a attempt) fits(seen attempt) bool {
	if late := seen.Start - a.Start; late > 0 && late <= a.slack {
		a.Start, a.Elapsed = a.Start+late, a.Elapsed-late
	}
	a.slack = 0
	return a == seen
}

func (r result) fits(seen result) bool {
	return r.ID == seen.ID && r.N == seen.N && r.Err == seen.Err && slices.EqualFunc(r.Got, seen.Got, func(a, b deliveryView) bool {
		return a.id == b.id && a.messageView.fits(b.messageView)
	})
}
