package main

var contended = workload{
	key: "W2", title: "Contended: 8 publishers, 4 queues, 4 competing workers each",
	note: "ns per delivery: wall time / (messages x 4).",
	cells: func(o options) (cells []cell) {
		for _, sys := range everySystem {
			if sys.competes {
				cells = append(cells, flowCell(o, "8x4x4", sys, shape{queues: 4, workers: 4, publishers: 8, capacity: capacity}))
			}
		}
		return cells
	},
}
