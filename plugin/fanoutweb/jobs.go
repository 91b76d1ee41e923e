package fanoutweb

import "context"

type jobs struct{ life context.Context }

func newJobs(life context.Context) *jobs { return &jobs{life} }
func (j *jobs) close()                   {}

type job struct{}

func (v *visit) job(place) *job { return nil }
