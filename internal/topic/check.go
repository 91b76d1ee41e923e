package topic

// Check returns an error if an invariant that stands above the admission, or one of it or of
// the queues, does not hold. It is for tests. Nothing else may run on the topic meanwhile but
// consumers.
func (t *Topic[T]) Check() error {
	if err := t.In.Check(); err != nil {
		return err
	}
	t.In.Mu.Lock()
	defer t.In.Mu.Unlock()
	for _, q := range t.queues {
		if err := q.Check(); err != nil {
			return err
		}
		if d := q.DeadNow(); d != nil {
			if err := d.Check(); err != nil {
				return err
			}
		}
	}
	return nil
}
