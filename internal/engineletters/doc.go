// Package engineletters has dead letters that an engine keeps: how they are looked at, moved
// back and deleted.
//
// It promises that each letter is met once, however long it takes, as what was received stays
// leased until the end; that what was not chosen is given back, whatever fails and however
// the user's code ends; and that an engine which is too slow, or does not answer, is an error
// and no endless loop.
//
// A holding, which is what one call has received, belongs to that call. There is no lock but
// the queue's, for its counters; no call of the engine is made under it.
package engineletters
