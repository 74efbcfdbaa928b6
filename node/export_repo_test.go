package node

// OpenViews is how many views of the store somebody reads.
func OpenViews(n *Node) int { return n.store.Views() }
