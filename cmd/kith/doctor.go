package main

type doctorCmd struct {
	conformanceFlags `embed:""`
}

// Run looks at what --conformance names.
func (c *doctorCmd) Run(a *app) error {
	if c.Conformance == "" {
		return notBuilt("doctor without --conformance")
	}
	return c.conformanceFlags.run(a)
}
