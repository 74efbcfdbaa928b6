package node

import (
	"errors"

	"github.com/kithnet/kith/space"
)

// Unwritten is how many batches of its own a cut left out that a node has not
// written again.
func Unwritten(n *Node, id space.ID) (left int, err error) {
	a, err := n.byID(id)
	if err != nil {
		return 0, err
	}
	reply := make(chan error, 1)
	err, sendErr := ask(n.ctx, a, errand(func() {
		lost, err := a.beyondCuts()
		left = len(lost)
		reply <- err
	}), reply)
	return left, errors.Join(err, sendErr)
}
