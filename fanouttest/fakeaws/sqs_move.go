package fakeaws

// A moveTask is a message move task.
type moveTask struct{}
