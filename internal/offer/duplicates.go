package offer

// DropDuplicates takes out of an offer what was published before, or stands earlier in the
// same batch, and counts it. Published says which IDs were published before.
func (o *Offer[T]) DropDuplicates(published func(id string) bool) {
	var batch map[string]bool
	var moved []int // the new index of each item, or -1; nil while none is taken out
	kept := o.Items[:0]
	for k := range o.Items {
		it := &o.Items[k]
		duplicate := false
		if it.Ext != nil && it.Ext.Dedup != "" {
			id := it.Ext.Dedup
			duplicate = batch[id] || published(id)
			if len(o.Items) > 1 && !duplicate {
				if batch == nil {
					batch = make(map[string]bool)
				}
				batch[id] = true
			}
		}
		switch {
		case duplicate && moved == nil:
			moved = make([]int, len(o.Items))
			for j := range k {
				moved[j] = j
			}
			fallthrough
		case duplicate:
			o.Duplicates++
			moved[k] = -1
			continue
		case moved != nil:
			moved[k] = len(kept)
		}
		kept = append(kept, *it)
	}
	if moved == nil {
		return
	}
	clear(o.Items[len(kept):])
	o.Items = kept
	o.Renumber(moved)
}
